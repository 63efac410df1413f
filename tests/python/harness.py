"""Starts a controller and engines as separate processes, and leaves none of them behind.

Everything here waits for a condition with a deadline, never for a time. Used by the tests (`conftest.py`), and by
`proto/tests/golden/capture.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import zmq
from jupyter_client.session import Session

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

# How long anything may take on a busy machine before it counts as hung.
DEADLINE = float(os.environ.get("REMUDA_TEST_DEADLINE", "60"))

# Every process of a cluster inherits this variable, so that leftovers are found even outside the process group
# (a stock engine's nanny has a session of its own).
MARK = "REMUDA_TEST_CLUSTER"


class Hung(AssertionError):
    """Something waited for did not happen in time."""


def wait_for(condition, what, deadline=None):
    """The first truthy result of `condition()`; `Hung` after `deadline` seconds, naming `what`."""
    deadline = DEADLINE if deadline is None else deadline
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Hung(f"waited {deadline:g} s for {what}")
        time.sleep(0.02)


def assigned(rc, results):
    """Where the hub sees these balanced tasks: the set of engine ids once each is on one, else None.

    By msg_id rather than by count: the stock hub still lists a task on every engine that it was retried from.
    """
    status = rc.queue_status(verbose=True)
    found = {}
    for result in results:
        for engine in rc.ids:
            if result.msg_ids[0] in status[engine]["tasks"]:
                found[result.msg_ids[0]] = engine
    return set(found.values()) if len(found) == len(results) else None


def processes_marked(mark):
    """Every live process whose environment has this value in `MARK`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


class Member:
    """One process of a cluster, leader of its own process group, with its output in a file."""

    def __init__(self, name, command, log, env, cwd):
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
                cwd=cwd,
            )

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def output(self, most=2**20):
        """The end of its log."""
        with open(self.log, "rb") as log:
            log.seek(max(0, self.log.stat().st_size - most))
            return log.read().decode(errors="replace")

    def signal(self, number):
        """To the process itself, not to its group."""
        if self.running():
            self.process.send_signal(number)

    def wait(self, deadline=None):
        """The exit status."""
        wait_for(lambda: not self.running(), f"{self.name} (pid {self.pid}) to exit", deadline)
        return self.process.returncode

    def kill_group(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()


def remuda_binary():
    """The `remuda` program: `REMUDA_BIN`, or what cargo built in this checkout. None if there is none."""
    named = os.environ.get("REMUDA_BIN")
    if named:
        return Path(named).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    built = [target / kind / "remuda" for kind in ("release", "debug")]
    built = [path for path in built if path.exists()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def example_engine():
    """The engine of the examples, with functions in Rust: `REMUDA_EXAMPLE_ENGINE`, or what cargo built in this checkout."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    engine = Path(os.environ.get("REMUDA_EXAMPLE_ENGINE") or target / "debug" / "engine")
    assert engine.is_file(), f"no example engine `{engine}`: cargo build -p remuda-examples --bin engine"
    return engine.resolve()


STOCK_CONTROLLER = [sys.executable, "-m", "ipyparallel.controller"]
STOCK_ENGINE = [sys.executable, "-m", "ipyparallel.engine"]


class Cluster:
    """A controller and engines in a folder of their own: IPYTHONDIR, profile, logs and working directory."""

    def __init__(self, folder, kind="stock", ping_ms=250, controller_args=(), env=()):
        assert kind in ("stock", "remuda")
        self.kind = kind
        self.folder = Path(folder)
        self.profile_dir = self.folder / "ipython" / "profile_default"
        self.logs = self.folder / "logs"
        self.work = self.folder / "work"
        for path in (self.folder / "ipython", self.logs, self.work):
            path.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("IPP_", "IPYTHON", "JUPYTER"))},
            "IPYTHONDIR": str(self.folder / "ipython"),
            # Engines import the functions that tests send them: `tasks.py`.
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            MARK: self.mark,
            **dict(env),
        }
        self.ping_ms = ping_ms
        self.controller_args = list(controller_args)
        self.controller = None
        self.members = []
        self.clients = []

    # -- starting

    def start_controller(self, *args, answering=True):
        """Starts the controller; returns when both connection files are complete, and the hub answers."""
        if self.kind == "stock":
            command = STOCK_CONTROLLER
        else:
            binary = remuda_binary()
            assert binary is not None, "no remuda binary: `cargo build --release`, or set REMUDA_BIN"
            command = [binary, "controller"]
        options = [f"--profile-dir={self.profile_dir}", f"--ping={self.ping_ms}", "--log-level=INFO"]
        self.controller = self.start("controller", [*command, *options, *self.controller_args, *args])
        self.wait_for_files()
        if answering:
            # Stock writes its files early: until it answers, SIGTERM still kills it outright, children not included.
            self.engine_ids()
        return self.controller

    def start(self, name, command):
        """Any process that belongs to this cluster."""
        number = sum(member.name.startswith(name) for member in self.members)
        name = f"{name}-{number}"
        member = Member(name, command, self.logs / f"{name}.log", self.env, self.work)
        self.members.append(member)
        return member

    def start_engine(self, *args):
        """A stock engine; not waited for, see `wait_for_engines`."""
        options = [f"--profile-dir={self.profile_dir}", "--log-level=INFO"]
        return self.start("engine", [*STOCK_ENGINE, *options, *args])

    def start_engines(self, count):
        """`count` stock engines, registered when this returns."""
        already = len(self.engine_ids())
        engines = [self.start_engine() for _ in range(count)]
        self.wait_for_engines(already + count)
        return engines

    def start_native_engine(self, *args):
        """A `remuda engine`; not waited for."""
        return self.start("native", [remuda_binary(), "engine", "--slots=1", "--profile-dir", self.profile_dir, *args])

    def start_example_engine(self):
        """An engine with the functions of the examples; not waited for."""
        return self.start("example", ["env", f"IPP_PROFILE_DIR={self.profile_dir}", example_engine()])

    # -- connection files

    def file(self, role):
        return self.profile_dir / "security" / f"ipcontroller-{role}.json"

    def connection(self, role="client"):
        return json.loads(self.file(role).read_text())

    def wait_for_files(self):
        def complete():
            if not self.controller.running():
                raise AssertionError(
                    f"the controller exited with {self.controller.process.returncode}:\n{self.controller.output()}"
                )
            try:
                return self.connection("client") and self.connection("engine")
            except (FileNotFoundError, json.JSONDecodeError):
                return None  # stock writes in place: a reader may see half a file

        wait_for(complete, "both connection files")

    # -- looking at it

    def client(self, **options):
        """A stock client."""
        import ipyparallel

        options.setdefault("timeout", DEADLINE)
        client = ipyparallel.Client(str(self.file("client")), **options)
        self.clients.append(client)
        return client

    def engine_ids(self):
        """The ids that the hub lists, asked on a socket of our own: no client needs to exist."""
        with RawPeer(self.connection()) as peer:
            engines = peer.query("connection_request")["content"]["engines"]
        return {int(number): engine for number, engine in engines.items()}

    def wait_for_engines(self, count):
        def there():
            for member in self.members:
                if member.name.startswith("engine") and member.process.poll() not in (None, 0, -signal.SIGKILL):
                    raise AssertionError(f"{member.name} exited:\n{member.output()}")
            engines = self.engine_ids()
            return engines if len(engines) >= count else None

        return wait_for(there, f"{count} engines to be registered")

    def left_over(self):
        """Every live process that was started for this cluster, by whomever."""
        return processes_marked(self.mark)

    def report(self):
        """The end of every log, for a failed test."""
        parts = []
        for member in self.members:
            state = "running" if member.running() else f"exit status {member.process.returncode}"
            parts.append(f"--- {member.name} ({state}): {' '.join(member.command)}\n{member.output(6000)}")
        return "\n".join(parts)

    # -- ending

    def stop(self):
        """Ends everything: politely the controller, by force what is left."""
        for client in self.clients:
            try:
                client.close()
            except Exception:  # noqa: BLE001 - a client of a dead controller may fail in any way
                pass
        self.clients.clear()
        engines = [member for member in self.members if member is not self.controller]
        for member in engines:
            member.kill_group()
        if self.controller is not None and self.controller.running():
            self.controller.signal(signal.SIGTERM)
            try:
                self.controller.wait(10)
            except Hung:
                pass
        for member in self.members:
            member.kill_group()
        end = time.monotonic() + 10
        while (left := self.left_over()) and time.monotonic() < end:
            # Nannies end by themselves when they see their engine gone; give them a moment before the axe.
            if time.monotonic() > end - 7:
                for process in left:
                    try:
                        process.kill()
                    except psutil.Error:
                        pass
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


class RawPeer:
    """Sockets and a Session, with nothing of ipyparallel in between: what a client or an engine says, spelled out."""

    def __init__(self, connection, key=None):
        self.connection = connection
        self.context = zmq.Context()
        self.context.linger = 0
        self.session = Session(
            key=(connection["key"] if key is None else key).encode(),
            packer=connection["pack"],
            unpacker=connection["unpack"],
            signature_scheme=connection["signature_scheme"],
        )
        self.sockets = {}

    def url(self, channel):
        port = self.connection[channel]
        port = port[0] if isinstance(port, list) else port
        return f"{self.connection['interface']}:{port}"

    def socket(self, channel, kind=zmq.DEALER, identity=None):
        """Connected to a channel of the connection file; made once."""
        if channel not in self.sockets:
            socket = self.context.socket(kind)
            if identity is not None:
                socket.identity = identity
            if kind == zmq.SUB:
                socket.subscribe(b"")
            socket.connect(self.url(channel))
            self.sockets[channel] = socket
        return self.sockets[channel]

    def send(self, channel, msg_type, content=None, ident=None, buffers=None, metadata=None):
        """Sends a signed message, returns its header."""
        message = self.session.send(
            self.socket(channel), msg_type, content=content or {}, ident=ident, buffers=buffers, metadata=metadata
        )
        return message["header"]

    def receive(self, channel, deadline=None):
        """The next message as (idents, message)."""
        frames = self.receive_frames(channel, deadline)
        idents, rest = self.session.feed_identities(frames)
        return idents, self.session.deserialize(rest, content=True)

    def receive_frames(self, channel, deadline=None):
        deadline = DEADLINE if deadline is None else deadline
        if not self.socket(channel).poll(int(deadline * 1000)):
            raise Hung(f"no message on {channel} within {deadline:g} s")
        return self.socket(channel).recv_multipart()

    def query(self, msg_type, content=None):
        """A request to the hub and its reply."""
        header = self.send("registration", msg_type, content)
        while True:
            _, message = self.receive("registration")
            if message["parent_header"].get("msg_id") == header["msg_id"]:
                return message

    def close(self):
        self.context.destroy(linger=0)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
