#!/usr/bin/env python3
"""Captures the golden messages beside this file from a real, stock ipyparallel cluster.

    "$(tests/python/venv.sh)" proto/tests/golden/capture.py

Each `*.json` but two is a list of samples:

    {"name", "source": "client" | "engine" | "hub" | "scheduler",
     "packer": "json" | "msgpack", "key", "signature_scheme",
     "frames": [base64, ...]        the whole multipart: identities or topic, delimiter, signature, dicts, buffers
     "idents": how many frames stand before the delimiter
     "readable": {"header", "parent_header", "metadata", "content"}
     "edited": true                 only where a folder name was cut out of a traceback and the message signed anew}

What a client sent or received is as its own socket saw it: the ROUTER at the other end of a request has one more
identity in front. `engine_side.json` is from the other side, as a controller and as an engine see it.
`connection_files.json` holds the text of connection files, `dates.json` dates in the forms headers have them.

Every run makes new ids, dates and signatures; commit a new capture only when the pinned ipyparallel changes, or when
a sample is added. User, host and folders of the machine are kept out of the messages, and the run fails if one
slips through.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests" / "python"))
real_user, real_host = getpass.getuser(), socket.gethostname()
os.environ["USER"] = "ann"  # before jupyter_client reads it

import ipyparallel as ipp  # noqa: E402
import zmq  # noqa: E402
from harness import Cluster, RawPeer, wait_for  # noqa: E402
from jupyter_client import jsonutil  # noqa: E402
from jupyter_client.session import DELIM, Session  # noqa: E402

KEY = "0a1b2c3d-0123456789abcdef01234567"
SCHEME = "hmac-sha256"
HUB_TYPES = {"registration_notification", "unregistration_notification", "shutdown_notification", "hub_error"}

# Where a function says that it was defined: shows up in tracebacks and in pickled functions.
SOURCE = "<golden>"


def define(text):
    """The last function of a module that has no file."""
    space = {"__name__": "__main__"}
    exec(compile(text, SOURCE, "exec"), space)
    return [value for value in space.values() if callable(value)][-1]


add = define("def add(a, b=1):\n    return a + b\n")
fail = define("def fail(key):\n    raise KeyError(key)\n")
nap = define("def nap(seconds):\n    import time\n    time.sleep(seconds)\n    return seconds\n")
greet = define(
    "def greet():\n    import sys\n    print('héllo out')\n    print('hello err', file=sys.stderr)\n    return 'hi'\n"
)
never = define("def never():\n    return False\n")
identity = define("def identity(x):\n    return x\n")


class Tape:
    """Every message that a Session in this process sends or receives, in order."""

    def __init__(self):
        self.lock = threading.Lock()
        self.messages = []
        tape, send, feed = self, Session.send, Session.feed_identities

        class Tee:
            def __init__(self, stream):
                self.stream = stream

            def send_multipart(self, frames, *args, **kwargs):
                tape.add("client", frames)
                return self.stream.send_multipart(frames, *args, **kwargs)

        def teed_send(session, stream, *args, **kwargs):
            return send(session, Tee(stream), *args, **kwargs)

        def teed_feed(session, frames, copy=True):
            tape.add(None, frames)
            return feed(session, frames, copy)

        Session.send, Session.feed_identities = teed_send, teed_feed

    def add(self, source, frames):
        frames = [bytes(f.bytes if isinstance(f, zmq.Frame) else f) for f in frames]
        with self.lock:
            self.messages.append((source, frames))

    def take(self):
        with self.lock:
            taken, self.messages = self.messages, []
        return taken


class Book:
    """The samples, by file, and what turns frames into a sample."""

    def __init__(self, forbidden):
        self.files = {}
        self.forbidden = forbidden

    def sample(self, name, source, frames, session, packer):
        at = frames.index(DELIM)
        header, parent, metadata, content = (session.unpack(frame) for frame in frames[at + 2 : at + 6])
        edited = False
        shortened = self.shorten(content)
        if shortened != content:
            content, edited = shortened, True
            parts = [*frames[at + 2 : at + 5], session.pack(content)]
            frames = [*frames[: at + 1], session.sign(parts), *parts, *frames[at + 6 :]]
        for frame in frames:
            for word in self.forbidden:
                assert word.encode() not in frame, f"{name}: {word!r} is in {frame!r}"
        sample = {
            "name": name,
            "source": source,
            "packer": packer,
            "key": session.key.decode(),
            "signature_scheme": session.signature_scheme,
            "frames": [base64.b64encode(frame).decode() for frame in frames],
            "idents": at,
            "readable": {"header": header, "parent_header": parent, "metadata": metadata, "content": content},
        }
        if edited:
            sample["edited"] = True
        return sample

    def shorten(self, value):
        """`value` without the lines of tracebacks that name a folder of this machine, and the code they quote."""
        if isinstance(value, dict):
            return {key: self.shorten(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.shorten(item) for item in value if not self.telling(item)]
        return value

    def telling(self, value):
        return isinstance(value, str) and any(word in value for word in self.forbidden)

    def add(self, file, sample):
        names = {other["name"] for other in self.files.setdefault(file, [])}
        base, number = sample["name"], 2
        while sample["name"] in names:
            sample["name"] = f"{base}#{number}"
            number += 1
        self.files[file].append(sample)


class Capture:
    """One cluster, one packer: steps, each keeping the messages of the types it is about."""

    def __init__(self, book, tape, cluster, packer):
        self.book, self.tape, self.cluster, self.packer = book, tape, cluster, packer
        self.session = Session(key=KEY.encode(), packer=packer, unpacker=packer, signature_scheme=SCHEME)
        self.suffix = "" if packer == "json" else f"_{packer}"
        self.engines, self.hub = set(), None

    def source(self, said, frames):
        """Who made and signed these frames, `said` being what is known of it."""
        if said:
            return said
        at = frames.index(DELIM)
        header, metadata = self.session.unpack(frames[at + 2]), self.session.unpack(frames[at + 4])
        if "broadcast_targets" in metadata:
            return "scheduler"  # an engine's header, but coalesced and signed anew
        if header["session"] in self.engines or header["msg_type"] == "_request":
            return "engine"
        if header["session"] == self.hub or header["msg_type"] in HUB_TYPES:
            return "hub"
        return "scheduler"

    @contextlib.contextmanager
    def step(self, file, name, keep):
        """Keeps the messages of the types in `keep` that pass during the block."""
        self.tape.take()
        yield
        counts, keep, seen = {}, keep.split(), set()
        for said, frames in self.tape.take():
            # Two clients listen: what is published arrives twice.
            if DELIM not in frames or tuple(frames) in seen:
                continue
            seen.add(tuple(frames))
            header = self.session.unpack(frames[frames.index(DELIM) + 2])
            kind = header["msg_type"]
            if kind in ("connection_reply", "registration_reply") and not said:
                self.hub = header["session"]
            counts[kind] = counts.get(kind, 0) + 1
            if kind not in keep:
                continue
            self.keep(file, f"{name}/{kind}", self.source(said, frames), frames)
        missing = [kind for kind in keep if kind not in counts]
        assert not missing, f"{file} {name}: no {missing} among {counts}"

    def keep(self, file, name, source, frames):
        self.book.add(f"{file}{self.suffix}", self.book.sample(name, source, frames, self.session, self.packer))


def finish(*results):
    """Results and their output complete, whatever they ended with."""
    for result in results:
        with contextlib.suppress(Exception):
            result.get(30)
        result.wait_for_output(10)


def start(cluster, packer):
    options = [f"--Session.key={KEY}", "--location=testhost"]
    if packer != "json":
        options += [f"--Session.packer={packer}", f"--Session.unpacker={packer}"]
    cluster.start_controller(*options)


def start_engine(cluster, *args):
    return cluster.start_engine("--InteractiveShell.colors=nocolor", *args)


def capture_cluster(book, tape, cluster, packer):
    """Everything that a client says and hears."""
    full = packer == "json"
    capture = Capture(book, tape, cluster, packer)
    step = capture.step
    start(cluster, packer)
    with step("connection", "no_engines", "connection_request connection_reply"):
        rc = cluster.client()
    with step("notification", "two_engines", "registration_notification"):
        engines = [start_engine(cluster) for _ in range(2)]
        wait_for(lambda: len(rc.ids) == 2, "two engines")
    # Which process has which id: they were started together.
    capture.engines = set(rc._engines.values())
    pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid)))
    assert sorted(pids.values()) == sorted(engine.pid for engine in engines)
    with step("connection", "two_engines", "connection_request connection_reply"):
        other = cluster.client()
    wait_for(lambda: not rc.outstanding, "quiet")
    direct, balanced = rc[0], rc.load_balanced_view()

    with step("apply", "direct", "apply_request apply_reply"):
        ok = direct.apply_async(add, 2, b=3)
        finish(ok)
        assert ok.get() == 5
    with step("apply", "direct_error", "apply_request apply_reply"):
        finish(direct.apply_async(fail, "x"))
    with step("apply", "balanced", "apply_request apply_reply"):
        finish(balanced.apply_async(add, 1))
    with step("execute", "ok", "execute_request execute_reply"):
        finish(direct.execute("x = 6 * 7", silent=False, block=False))
    with step("execute", "error", "execute_request execute_reply"):
        finish(direct.execute("{}['missing']", silent=False, block=False))
    with step("iopub", "output", "status stream"):
        finish(direct.apply_async(greet))
    with step("iopub", "execute", "status execute_input execute_result"):
        finish(direct.execute("6 * 7", silent=False, block=False))
    with step("iopub", "failing", "error"):
        finish(direct.apply_async(fail, "x"))

    if full:
        capture_tasks(capture, rc, direct, balanced, ok)
    capture_broadcast(capture, rc, full)
    capture_queries(capture, cluster, rc, other, ok, full)
    capture_control(capture, rc, direct, full)
    capture_deaths(capture, cluster, rc, engines, pids, full)
    return capture


def capture_tasks(capture, rc, direct, balanced, ok):
    """What the task scheduler reads and answers; more kinds of apply and iopub."""
    step = capture.step
    with step("apply", "none_and_empty", "apply_request apply_reply"):
        finish(direct.apply_async(identity, None))
    with step("apply", "large_buffers", "apply_request apply_reply"):
        finish(direct.apply_async(identity, [bytes(range(256)) * 5, b"small"]))
    with step("apply", "aborted", "abort_request abort_reply apply_reply"):
        blocking = direct.apply_async(nap, 1.0)
        aborted = direct.apply_async(add, 1)
        rc.abort(aborted, block=True)
        finish(blocking, aborted)
    with step("apply", "direct_unmet", "apply_reply"):
        finish(direct.apply_async(ipp.depend(never)(add), 1))
    with step("apply", "labelled", "apply_request apply_reply"):
        with direct.temp_flags(label="a läbel"):
            finish(direct.apply_async(add, 1))
    with step("apply", "balanced_all_options", "apply_request apply_reply"):
        follow = balanced.apply_async(add, 1)
        finish(follow)
        with balanced.temp_flags(
            after=ipp.Dependency([follow.msg_ids[0]], all=False, failure=True),
            follow=[follow],
            targets=[follow.engine_id],
            retries=2,
            timeout=12.5,
            label="all",
        ):
            finish(balanced.apply_async(add, 1))
    with step("apply", "balanced_error", "apply_reply"):
        failed = balanced.apply_async(fail, "x")
        finish(failed)
    with step("apply", "balanced_impossible", "apply_request apply_reply"):
        with balanced.temp_flags(after=[failed]):
            finish(balanced.apply_async(add, 1))
    with step("apply", "balanced_invalid", "apply_request apply_reply"):
        with balanced.temp_flags(after=["no-such-task"]):
            finish(balanced.apply_async(add, 1))
    with step("apply", "balanced_invalid_follow_of_a_direct_task", "apply_reply"):
        with balanced.temp_flags(follow=[ok]):
            finish(balanced.apply_async(add, 1))
    with step("apply", "balanced_timeout", "apply_reply"):
        blocking = balanced.apply_async(nap, 2.0)
        with balanced.temp_flags(after=[blocking], timeout=0.2):
            finish(balanced.apply_async(add, 1))
        finish(blocking)
    with step("apply", "balanced_unmet_everywhere", "apply_reply"):
        with balanced.temp_flags(targets=[0]):
            finish(balanced.apply_async(ipp.depend(never)(add), 1))
    with step("iopub", "display", "display_data"):
        code = "from IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'))"
        finish(direct.execute(code, silent=False, block=False))
    with step("iopub", "data", "data_message"):
        code = "from ipyparallel.engine.datapub import publish_data\npublish_data({'a': 1})"
        finish(direct.execute(code, silent=False, block=False))


def capture_broadcast(capture, rc, full):
    step = capture.step
    with step("broadcast", "plain", "apply_request apply_reply"):
        finish(rc.broadcast_view().apply_async(add, 1))
    with step("broadcast", "coalescing", "apply_request apply_reply"):
        # Its output never counts as complete: idle comes for the messages that the schedulers made of it.
        rc.broadcast_view(is_coalescing=True).apply_async(add, 1).get(30)
    if not full:
        return
    with step("broadcast", "execute", "execute_request execute_reply status"):
        finish(rc.broadcast_view().execute("y = 1", silent=False, block=False))
    with step("broadcast", "error", "apply_reply"):
        finish(rc.broadcast_view().apply_async(fail, "x"))


def capture_queries(capture, cluster, rc, other, ok, full):
    """The hub's answers, good and bad."""
    step = capture.step

    def failing(call, *args, **kwargs):
        try:
            call(*args, **kwargs)
        except ipp.RemoteError:
            return
        raise AssertionError(f"{call} did not fail")

    with step("query", "queue", "queue_request queue_reply"):
        rc.queue_status()
    with step("query", "queue_verbose", "queue_request queue_reply"):
        rc.queue_status(targets=[0], verbose=True)
    with step("query", "result", "result_request result_reply"):
        finish(other.get_result(ok.msg_ids[0], owner=False))
    with step("query", "db", "db_request db_reply"):
        rc.db_query({"msg_id": ok.msg_ids[0]}, keys=["msg_id", "submitted", "completed", "engine_uuid", "queue"])
    with step("query", "history", "history_request history_reply"):
        rc.hub_history()
    with RawPeer(cluster.connection()) as peer:
        with step("query", "unknown_type", "foo_request hub_error"):
            peer.query("foo_request")
    if not full:
        return
    failing_id = rc.load_balanced_view().apply_async(fail, "x")
    finish(failing_id)
    with step("query", "result_of_an_error", "result_reply"):
        finish(other.get_result(failing_id.msg_ids[0], owner=False))
    with step("query", "result_status", "result_request result_reply"):
        with RawPeer(cluster.connection()) as peer:
            peer.query("result_request", {"msg_ids": [ok.msg_ids[0]], "status_only": True})
    with RawPeer(cluster.connection()) as peer:
        with step("query", "result_unknown", "result_request result_reply"):
            peer.query("result_request", {"msg_ids": ["no-such-task"], "status_only": False})
        with step("query", "queue_without_targets", "queue_request hub_error"):
            peer.query("queue_request", {"verbose": False})
        with step("query", "queue_unknown_engine", "queue_request hub_error"):
            peer.query("queue_request", {"targets": [77], "verbose": False})
        with step("query", "queue_no_targets", "queue_request hub_error"):
            peer.query("queue_request", {"targets": [], "verbose": False})
        with step("query", "load", "load_request load_reply"):
            peer.query("load_request", {"targets": None})
        with step("query", "purge_unknown_engine", "purge_request purge_reply"):
            peer.query("purge_request", {"msg_ids": [ok.msg_ids[0]], "engine_ids": [99]})
        with step("query", "become_dask", "become_dask_request hub_error"):
            peer.query("become_dask_request", {"scheduler_args": {}})
    with step("query", "db_whole_records", "db_request db_reply"):
        rc.db_query({"msg_id": {"$in": [failing_id.msg_ids[0]]}})
    second = rc[1].apply_async(add, 20)
    finish(second)
    with step("query", "db_buffers", "db_request db_reply"):
        rc.db_query({"msg_id": second.msg_ids[0]}, keys=["msg_id", "buffers", "result_buffers"])
    with step("query", "db_bad_operator", "db_request db_reply"):
        failing(rc.db_query, {"msg_id": {"$foo": 1}})
    moment = datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=timezone.utc)
    with step("query", "db_dates", "db_request db_reply"):
        rc.db_query({"msg_id": {"$in": second.msg_ids}, "submitted": {"$ne": moment}}, keys=["msg_id", "submitted"])
    # The output of broadcast tasks has made records without a date, which stock does not compare.
    with step("query", "db_null_compared", "db_request db_reply"):
        failing(rc.db_query, {"submitted": {"$lt": moment}}, keys=["msg_id"])
    with step("query", "resubmit", "resubmit_request resubmit_reply"):
        again = rc.resubmit(second.msg_ids[0], block=False)
        again.get(30)
    with step("query", "resubmit_unknown", "resubmit_request resubmit_reply"):
        with RawPeer(cluster.connection()) as peer:
            peer.query("resubmit_request", {"msg_ids": ["no-such-task"]})
    with step("query", "purge", "purge_request purge_reply"):
        rc.purge_hub_results(jobs=[second.msg_ids[0]])
    with step("query", "purge_all", "purge_request purge_reply"):
        rc.purge_hub_results(jobs="all")


def capture_control(capture, rc, direct, full):
    step = capture.step
    with step("control", "abort", "abort_request abort_reply"):
        rc.abort(["no-such-task"], targets=[0], block=True)
    with step("control", "clear", "clear_request clear_reply"):
        rc.clear(targets=[0], block=True)
    if not full:
        return
    with step("control", "signal", "signal_request _request"):
        busy = direct.apply_async(nap, 30)
        wait_for(lambda: rc.queue_status(0)["queue"] == 1, "the task to be sent")
        time.sleep(0.5)  # the engine has it; whether it already sleeps only changes the traceback
        rc.send_signal("SIGINT", targets=[0], block=True)
        finish(busy)


def capture_deaths(capture, cluster, rc, engines, pids, full):
    """Engines that leave, and the end of the controller."""
    step = capture.step
    if full:
        with step("notification", "killed_engine", "unregistration_notification"):
            with step_of_a_killed_task(capture, rc, pids):
                pass
        capture.engines.update(rc._engines.values())
    with step("control", "shutdown_engine", "shutdown_request shutdown_reply unregistration_notification"):
        rc.shutdown(targets=[0], hub=False, block=True)
        wait_for(lambda: 0 not in rc.ids, "engine 0 to leave")
    with step("control", "shutdown_hub", "shutdown_request shutdown_reply shutdown_notification"):
        rc.shutdown(targets="all", hub=True, block=True)
        wait_for(lambda: not cluster.controller.running(), "the controller to end")


@contextlib.contextmanager
def step_of_a_killed_task(capture, rc, pids):
    """A balanced task whose engine is killed under it: the scheduler answers in the engine's place."""
    tape = capture.tape
    balanced = rc.load_balanced_view()
    with balanced.temp_flags(targets=[1]):
        doomed = balanced.apply_async(nap, 60)
    wait_for(lambda: rc.queue_status(1)["tasks"] == 1, "the task to be on engine 1")
    before = tape.take()
    os.kill(pids[1], signal.SIGKILL)
    yield
    finish(doomed)
    after = tape.take()
    for said, frames in after:
        kind = capture.session.unpack(frames[frames.index(DELIM) + 2])["msg_type"]
        if kind == "apply_reply":
            capture.keep("apply", "balanced_engine_died/apply_reply", "scheduler", frames)
    with tape.lock:
        tape.messages = before + after + tape.messages


def capture_engine_side(book, packer, folder):
    """A controller of our own, made of bare sockets, with a real engine; then an engine of our own on a real one."""
    with Cluster(folder / "bare") as cluster:
        bare_controller(book, packer, cluster)
    with Cluster(folder / "probe") as cluster:
        probe_engine(book, packer, cluster)


def bare_controller(book, packer, cluster):
    capture = Capture(book, None, cluster, packer)
    session = capture.session
    context = zmq.Context()
    context.linger = 0
    ports, sockets = {}, {}
    for channel, kind, ident in [
        ("registration", zmq.ROUTER, None),
        ("control", zmq.ROUTER, b"control_out"),
        ("mux", zmq.ROUTER, b"mux_out"),
        ("task", zmq.ROUTER, b"task_out"),
        ("broadcast", zmq.ROUTER, b"sub_scheduler_00"),
        ("iopub", zmq.SUB, None),
        ("hb_ping", zmq.PUB, None),
        ("hb_pong", zmq.ROUTER, None),
    ]:
        sock = sockets[channel] = context.socket(kind)
        if ident:
            sock.identity = ident
        if kind == zmq.SUB:
            sock.subscribe(b"")
        if kind == zmq.ROUTER:
            sock.router_mandatory = True
        ports[channel] = sock.bind_to_random_port("tcp://127.0.0.1")
    ports["broadcast"] = [ports["broadcast"]]
    info = {
        "ssh": "",
        "interface": "tcp://127.0.0.1",
        **ports,
        "key": KEY,
        "curve_serverkey": None,
        "location": "testhost",
        "pack": packer,
        "unpack": packer,
        "signature_scheme": SCHEME,
    }
    cluster.profile_dir.mkdir(parents=True)
    path = cluster.folder / "engine.json"
    path.write_text(json.dumps(info))

    def receive(channel):
        assert sockets[channel].poll(30_000), f"nothing on {channel}"
        return sockets[channel].recv_multipart()

    def keep(name, frames):
        capture.keep("engine_side", name, "engine", frames)

    def header(frames):
        return session.unpack(frames[frames.index(DELIM) + 2])

    def ask(channel, engine, name, msg_type, content=None, buffers=(), metadata=None):
        """A request as it comes through a controller: one more identity, of a client."""
        client = b"\x00k\x8bEg"

        def routable():
            try:
                session.send(
                    sockets[channel],
                    msg_type,
                    content=content or {},
                    ident=[engine, client],
                    buffers=list(buffers),
                    metadata=metadata,
                )
                return True
            except zmq.ZMQError:
                return False

        wait_for(routable, f"the engine to connect its {channel} socket")
        frames = receive(channel)
        keep(f"{name}/{header(frames)['msg_type']}", frames)

    def iopub(name, *kinds):
        """Keeps what comes until each of `kinds` has."""
        kinds = list(kinds)
        while kinds:
            frames = receive("iopub")
            kind = header(frames)["msg_type"]
            if kind in kinds:
                kinds.remove(kind)
                keep(f"{name}/{kind}", frames)

    # An engine that nobody answers gives up.
    start_engine(cluster, f"--file={path}", "--timeout=1")
    keep("unanswered/registration_request", receive("registration"))
    keep("unanswered/unregistration_request", receive("registration"))

    engine = start_engine(cluster, f"--file={path}", "--IPEngine.id=3")
    frames = receive("registration")
    keep("registers/registration_request", frames)
    uuid = frames[0]
    reply = {"id": 3, "status": "ok", "hb_period": 3000, "connection_info": {}}
    session.send(sockets["registration"], "registration_reply", content=reply, ident=uuid)
    iopub("starts", "iopub_welcome", "status")
    from ipyparallel.serialize import pack_apply_message

    ask("mux", uuid, "direct", "apply_request", buffers=pack_apply_message(add, (2,), {"b": 3}))
    iopub("direct", "status", "status")
    ask("task", uuid, "balanced", "apply_request", buffers=pack_apply_message(fail, ("x",), {}))
    iopub("balanced", "error")
    targets = {"targets": [[uuid.decode(), 3]], "is_broadcast": True, "is_coalescing": True, "original_msg_id": "a_1"}
    ask("broadcast", uuid, "broadcast", "apply_request", buffers=pack_apply_message(add, (1,), {}), metadata=targets)
    ask("mux", uuid, "kernel_info", "kernel_info_request")
    ask("control", uuid, "abort", "abort_request", {"msg_ids": ["no-such-task"]})
    ask("control", uuid, "signal", "signal_request", {"sig": "SIGCONT"})
    ask("control", uuid, "shutdown", "shutdown_request", {"restart": False})
    iopub("shutdown", "shutdown_reply")
    keep("shutdown/unregistration_request", receive("registration"))
    engine.wait()
    context.destroy(linger=0)


def probe_engine(book, packer, cluster):
    """What a controller's engine-side sockets send, as an engine sees it."""
    capture = Capture(book, None, cluster, packer)
    start(cluster, packer)
    uuid = b"11111111-222222222222333333333333"

    def keep(name, source, frames):
        capture.keep("controller_side", name, source, frames)

    with RawPeer(cluster.connection("engine")) as engine, RawPeer(cluster.connection("client")) as client:
        engine.session.session = uuid.decode()
        engine.socket("registration", identity=uuid)
        for name in ("accepted", "refused"):
            engine.send("registration", "registration_request", {"uuid": uuid.decode()})
            keep(f"{name}/registration_reply", "hub", engine.receive_frames("registration"))
        # Three sockets stand for the one that a real engine has: the controller cannot tell.
        for channel in ("mux", "task", "broadcast", "control"):
            engine.socket(channel, zmq.ROUTER, uuid)
        pings, pongs = engine.socket("hb_ping", zmq.SUB), engine.socket("hb_pong", zmq.DEALER, uuid)
        client.socket("notification", zmq.SUB)

        def registered():
            while pings.poll(0):
                pongs.send(pings.recv())
            return client.query("connection_request")["content"]["engines"]

        wait_for(registered, "the probe to be registered")
        number = int(next(iter(registered())))
        client.send("mux", "apply_request", ident=uuid, buffers=[b"\x80\x04N."], metadata={"label": None})
        keep("direct/apply_request", "client", engine.receive_frames("mux"))
        client.send("task", "apply_request", buffers=[b"\x80\x04N."], metadata={"retries": 1})
        keep("balanced/apply_request", "client", engine.receive_frames("task"))
        client.send("control", "abort_request", {"msg_ids": []}, ident=uuid)
        keep("control/abort_request", "client", engine.receive_frames("control"))
        # The leaf that this engine has connected to is the first: its id is 0.
        assert number == 0
        metadata = {"targets": [[uuid.decode(), 0]], "is_broadcast": True, "is_coalescing": False}
        client.send("broadcast", "apply_request", buffers=[b"\x80\x04N."], metadata=metadata)
        keep("broadcast/apply_request", "scheduler", engine.receive_frames("broadcast"))


def connection_files(folder):
    """The text of both files, for several ways to start a controller."""
    samples = []
    for name, args in [
        ("default", [f"--Session.key={KEY}"]),
        ("msgpack", [f"--Session.key={KEY}", "--Session.packer=msgpack", "--Session.unpacker=msgpack"]),
        ("unsigned", ["--no-secure"]),
        ("depth_2_pure_ssh", [f"--Session.key={KEY}", "--IPController.broadcast_scheduler_depth=2", "--scheme=pure",
                              "--ssh=ann@gate", "--enginessh=ann@inner", "--ip=127.0.0.1"]),
        ("everywhere", [f"--Session.key={KEY}", "--ip=*", "--Session.signature_scheme=hmac-sha512"]),
    ]:  # fmt: skip
        with Cluster(folder / name) as cluster:
            cluster.start_controller("--location=testhost", *args)
            files = {role: cluster.file(role).read_text() for role in ("client", "engine")}
            samples.append({"name": name, **files})
    return samples


def dates():
    """Dates as Python writes them, and as it reads them, with microseconds since 1970 in UTC."""
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)

    def micros(moment):
        return (moment - epoch) // timedelta(microseconds=1)

    moments = [
        epoch,
        epoch + timedelta(microseconds=1),
        epoch - timedelta(microseconds=1),
        datetime(1, 1, 1, tzinfo=timezone.utc),
        datetime(1900, 2, 28, 23, 59, 59, 999999, tzinfo=timezone.utc),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=timezone.utc),
        datetime(2000, 2, 29, 12, tzinfo=timezone.utc),
        datetime(2026, 11, 22, 1, 37, 19, 115383, tzinfo=timezone.utc),
        datetime(2026, 11, 22, 1, 37, 19, tzinfo=timezone.utc),
        datetime(2026, 11, 22, 1, 37, 19, 10, tzinfo=timezone.utc),
        datetime(2100, 3, 1, tzinfo=timezone.utc),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc),
    ]
    texts = [
        "2026-11-22T01:37:19.115383Z",
        "2026-11-22T01:37:19.115383+00:00",
        "2026-11-22T01:37:19+00:00",
        "2026-11-22T01:37:19.5Z",
        "2026-11-22T01:37:19.12Z",
        "2026-11-22T01:37:19.001Z",
        "2026-11-22T07:07:19.115383+05:30",
        "2026-11-22T07:07:19.115383+0530",
        "2026-11-21T20:37:19-05:00",
        "2000-02-29T00:00:00Z",
    ]
    not_dates = [
        "",
        "2026",
        "2026-11-22",
        "2026-11-22 01:37:19",
        "2026-11-22T01:37Z",
        "2026-11-22T01:37:19.1153834Z",
        "2026-11-22T01:37:19.115383123Z",
        "2026-11-22T01:37:19.Z",
        "x2026-11-22T01:37:19Z",
        "2026-11-22T01:37:19Zulu",
        "2026-11-22T01:37:19 Z",
    ]
    for text in not_dates:
        assert jsonutil.parse_date(text) == text, text
    return {
        "written": [{"text": jsonutil.json_default(moment), "micros": micros(moment)} for moment in moments],
        "read": [{"text": text, "micros": micros(jsonutil.parse_date(text))} for text in texts],
        "left_as_text": not_dates,
    }


def signatures(book):
    """Schemes and keys that a cluster rarely runs with; straight from a Session."""
    for scheme in ("hmac-sha256", "hmac-sha512", "hmac-sha1", "hmac-md5"):
        for key in (KEY, "ключ with spaces", ""):
            session = Session(key=key.encode(), signature_scheme=scheme, packer="json", unpacker="json")
            message = session.msg("apply_request", {"größe": [1, 2.5, None, True, "\u2028"]}, metadata={"label": "é"})
            frames = session.serialize(message, ident=[b"engine", b"\x00\x01\xfe"]) + [b"", b"\x00" * 3]
            sample = book.sample(f"{scheme}/{'key' if key == KEY else key or 'no_key'}", "client", frames, session, "json")
            book.add("signature", sample)


def main():
    forbidden = {str(Path.home()), sys.prefix, sys.base_prefix, str(HERE.parents[2]), real_host, tempfile.gettempdir()}
    forbidden |= {"site-packages", "lib/python"}
    if len(real_user) > 4:
        forbidden.add(real_user)
    book = Book(sorted(forbidden))
    tape = Tape()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for packer in ("json", "msgpack"):
            with Cluster(folder / packer) as cluster:
                try:
                    capture_cluster(book, tape, cluster, packer)
                except BaseException:
                    print(cluster.report(), file=sys.stderr)
                    raise
            capture_engine_side(book, packer, folder / f"{packer}-engine")
            print(f"captured {packer}", file=sys.stderr)
        files = connection_files(folder / "files")
    signatures(book)
    written = {**book.files, "connection_files": files, "dates": dates()}
    for name, value in written.items():
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        (HERE / f"{name}.json").write_text(text)
        print(f"{name}.json: {len(value)} samples, {len(text)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
