"""The Python side of an engine: runs what the engine hands over, in a namespace, and hands back what comes of it.

The engine is the parent process. Both talk over a socket, which is this process's stdin at first. A message is a head, the
lengths of its parts, and the parts; large parts are in a memory file that travels with it. See `wire.rs`.

Nothing of IPython is imported until something asks for it: see `kernel.py`.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import types

# What comes.
APPLY, REQUEST, CLEAR, IDENTITY = 1, 2, 3, 4
# What goes.
READY, DONE, PUBLISH, LOG, BROKEN = 1, 2, 3, 4, 5
# Of DONE.
ERROR, UNMET, ABORT_QUEUED, NO_REPLY, LEAVING = 1, 2, 4, 8, 16

HEAD = struct.Struct("<IIII")
IN_FILE = 1 << 63
# From so many bytes on, parts go by a memory file: above that, mapping costs less than two copies through the kernel.
FILE_BYTES = 256 * 1024
ALIGNMENT = 64
# The socket's messages come whole into this, but for the largest.
USUAL_BYTES = 64 * 1024

PLAIN = frozenset({type(None), bool, int, float, complex, str})
CONTAINERS = frozenset({list, tuple, set, dict})


class Link:
    """The socket, and the messages on it."""

    def __init__(self, sock):
        self.sock = sock
        self.waiting = b""
        self.lock = threading.Lock()
        # How deep the main thread is in what must not be interrupted.
        self.shield = 0
        self.seq = 0

    def receive(self):
        """The next message: its kind, its number and its parts. None: the engine is gone."""
        data, fds = self.waiting, []
        while len(data) < 16:
            more = self._read(fds)
            if not more:
                return None
            data += more
        count, kind, seq, _ = HEAD.unpack_from(data)
        begin = 16 + 8 * count
        while len(data) < begin:
            data += self._more(fds)
        lengths = struct.unpack_from(f"<{count}Q", data, 16)
        inline = sum(length for length in lengths if length < IN_FILE)
        end = begin + inline
        if len(data) < end:
            whole = bytearray(end)
            whole[: len(data)] = data
            view, have = memoryview(whole), len(data)
            while have < end:
                more = self.sock.recv_into(view[have:])
                if not more:
                    return None
                have += more
            data = bytes(whole)
        self.waiting = data[end:]
        parts, at, file_at, file = [], begin, 0, None
        for length in lengths:
            if length < IN_FILE:
                parts.append(data[at : at + length])
                at += length
            else:
                length -= IN_FILE
                if file is None:
                    file = self._map(fds)
                parts.append(file[file_at : file_at + length])
                file_at += -(-length // ALIGNMENT) * ALIGNMENT
        return kind, seq, parts

    def _read(self, fds):
        data, ancillary, _, _ = self.sock.recvmsg(USUAL_BYTES, 64)
        for level, kind, packed in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.extend(struct.unpack(f"{len(packed) // 4}i", packed[: len(packed) // 4 * 4]))
        return data

    def _more(self, fds):
        more = self._read(fds)
        if not more:
            raise EOFError("the engine is gone")
        return more

    def _map(self, fds):
        import mmap

        fd = fds.pop(0)
        try:
            return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
        finally:
            os.close(fd)

    def send(self, kind, flags, parts):
        """Sends a message whole, whatever signals come meanwhile. Parts are bytes, or buffers of one block."""
        sizes = [part.nbytes if type(part) is memoryview else len(part) for part in parts]
        lengths, inline, in_file = [], [b""], []
        for part, size in zip(parts, sizes):
            if size >= FILE_BYTES:
                in_file.append((part, size))
                lengths.append(size | IN_FILE)
            else:
                # What is no block of bytes cannot be joined.
                inline.append(part if type(part) is bytes else bytes(part))
                lengths.append(size)
        inline[0] = HEAD.pack(len(parts), kind | flags << 8, self.seq, len(in_file)) + struct.pack(
            f"<{len(parts)}Q", *lengths
        )
        is_main = threading.get_ident() == MAIN_THREAD
        if is_main:
            self.shield += 1
        try:
            with self.lock:
                if in_file:
                    self._send_file(in_file, b"".join(inline))
                else:
                    self.sock.sendall(b"".join(inline))
        finally:
            if is_main:
                self.shield -= 1
        if is_main and WORKER.pending and not self.shield:
            WORKER.interrupted()

    def _send_file(self, in_file, inline):
        fd = os.memfd_create("remuda", os.MFD_CLOEXEC)
        try:
            at = 0
            for part, size in in_file:
                os.lseek(fd, at, os.SEEK_SET)
                view = memoryview(part).cast("B")
                while view:
                    view = view[os.write(fd, view) :]
                at += -(-size // ALIGNMENT) * ALIGNMENT
            sent = self.sock.sendmsg([inline], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))])
            self.sock.sendall(inline[sent:])
        finally:
            os.close(fd)


class LightPackage(types.ModuleType):
    """ipyparallel without the parts that clients need, until somebody asks for one."""

    def __getattr__(self, name):
        if name.startswith("__") and name not in ("__version__", "__all__"):
            raise AttributeError(name)
        if name in ("error", "serialize", "util", "datapub", "_version"):
            # `from ipyparallel import error` asks here first.
            return importlib.import_module(f"ipyparallel.{name}")
        WORKER.complete(self)
        return getattr(self, name)


class Ready(importlib.machinery.SourceFileLoader):
    """Gives a module that is there already."""

    def __init__(self, module):
        self.module = module

    def create_module(self, spec):
        return self.module

    def exec_module(self, module):
        pass

    def get_code(self, name):
        return None


class KernelFirst:
    """Whoever imports IPython expects a shell to be there: it is made first.

    So it is for what imports IPython and is imported by the kernel, which would otherwise meet it half made.
    """

    NAMES = frozenset({"IPython", "ipykernel", "matplotlib_inline"})
    PARTS = frozenset({"client", "cluster", "engine", "apps", "controller", "util"})
    # These import their own package for what only all of it has, so all of it comes first, as it would without us.
    WHOLE = frozenset({"client", "cluster", "apps", "controller"})

    def find_spec(self, name, path=None, target=None):
        package, _, part = name.partition(".")
        is_part = package == "ipyparallel" and part in self.PARTS
        if WORKER.making or not (is_part or name in self.NAMES):
            return None
        before = name in sys.modules
        if WORKER.kernel is None:
            WORKER.make_kernel()
        if is_part and part in self.WHOLE:
            WORKER.complete(sys.modules["ipyparallel"])
        module = sys.modules.get(name)
        return importlib.machinery.ModuleSpec(name, Ready(module)) if module is not None and not before else None


class Worker:
    """The namespace, and what is run in it."""

    def __init__(self, link, kernel_source):
        self.link = link
        self.kernel_source = kernel_source
        self.pid = os.getpid()
        self.kernel = None
        self.making = False
        self.lock = threading.RLock()
        # A task runs, and may be interrupted; it was, where it must not be.
        self.running = False
        self.pending = False
        self.identity = {"id": -1, "uuid": ""}
        # The request that runs: its header, metadata and content as they came.
        self.parent = None
        self.exiting = False
        self.main = types.ModuleType("__main__")
        self.namespace = self.main.__dict__
        self.fill()

    def fill(self):
        """What a namespace has from the beginning."""
        import builtins

        self.namespace.update(
            __name__="__main__",
            __doc__="Automatically created module for IPython interactive environment",
            __builtin__=builtins,
            __builtins__=builtins,
            get_ipython=get_ipython,
        )
        sys.modules["__main__"] = self.main
        builtins.__IPYTHON__ = True
        builtins.display = display

    # What the engine's environment has.

    def load(self):
        """Imports what is needed of ipyparallel, and no more."""
        spec = importlib.util.find_spec("ipyparallel")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("there is no package `ipyparallel` in it: install it there (`pip install ipyparallel`)")
        package = LightPackage("ipyparallel")
        package.__spec__, package.__path__ = spec, spec.submodule_search_locations
        package.__file__, package.__loader__, package.__package__ = spec.origin, spec.loader, "ipyparallel"
        sys.modules["ipyparallel"] = package
        # Two numbers of it are wanted, of a module that imports half of Jupyter.
        stubs = {}
        if "jupyter_client" not in sys.modules:
            session = types.ModuleType("jupyter_client.session")
            session.MAX_BYTES, session.MAX_ITEMS = 1024, 64
            stubs = {"jupyter_client": types.ModuleType("jupyter_client"), "jupyter_client.session": session}
            sys.modules.update(stubs)
        try:
            from ipyparallel.serialize import canning, serialize
        finally:
            for name in stubs:
                del sys.modules[name]
        self.canning, self.serialize = canning, serialize
        import_mapping = canning._import_mapping

        def import_known(mapping, original=None):
            # Nothing can be of a class whose module nobody has imported.
            for key in [key for key in mapping if isinstance(key, str)]:
                if key == "ipyparallel.dependent":
                    module = sys.modules.get("ipyparallel.controller.dependency")
                    if module is not None:
                        mapping[module.dependent] = mapping.pop(key)
                elif key.partition(".")[0] in sys.modules:
                    chosen = {key: mapping.pop(key)}
                    import_mapping(chosen, original)
                    mapping.update(chosen)

        def can(obj):
            mapping = canning.can_map
            canner = mapping.get(type(obj))
            if canner is None:
                if type(obj) in PLAIN:
                    return obj
                import_known(mapping, canning._original_can_map)
                for cls, canner in list(mapping.items()):
                    if not isinstance(cls, str) and canning.istype(obj, cls):
                        break
                else:
                    return obj
            return canner(obj)

        canning.can = serialize.can = can
        canning._import_mapping = import_known

    def complete(self, package):
        """Makes all of a package of its light form."""
        with self.lock:
            if type(package) is not LightPackage:
                return
            package.__class__ = types.ModuleType
            try:
                package.__spec__.loader.exec_module(package)
            except BaseException:
                package.__class__ = LightPackage
                raise

    def make_kernel(self):
        """IPython's kernel, in this namespace."""
        with self.lock:
            if self.kernel is None and not self.making:
                self.making = True
                self.link.shield += 1
                try:
                    scope = {"__name__": "remuda_kernel", "worker": self}
                    exec(compile(self.kernel_source, "<remuda kernel>", "exec"), scope)
                    self.kernel = scope["make"]()
                finally:
                    self.link.shield -= 1
                    self.making = False
            return self.kernel

    # What is run.

    def serve(self):
        request = None
        while self.kernel is None:
            message = self.link.receive()
            if message is None or self.exiting:
                return
            request = self.handle(message)
            if request is not None:
                # What is not a function is the kernel's.
                try:
                    self.make_kernel()
                except Exception as error:
                    self.answer_error(error)
        self.kernel.remuda_serve(request)

    def handle(self, message):
        """Handles a message that needs no event loop; gives what does."""
        kind, seq, parts = message
        self.link.seq = seq
        if kind == APPLY:
            self.parent = parts[:3]
            self.apply(parts[3:])
        elif kind == REQUEST:
            self.parent = parts[:3]
            return parts[3:]
        elif kind == CLEAR:
            self.clear()
        elif kind == IDENTITY:
            import json

            self.identity = json.loads(parts[0])
            if self.kernel is not None:
                self.kernel.remuda_identify()
        return None

    def apply(self, buffers):
        """Calls a function; its result is the answer, or what it raised."""
        if self.kernel is not None:
            self.kernel.remuda_set_parent()
        serialize = self.serialize
        try:
            try:
                self.begin()
                function, args, kwargs = serialize.unpack_apply_message(buffers, self.namespace)
                result = function(*args, **kwargs)
                if os.getpid() != self.pid:
                    leave_fork(0)
                if type(result) in PLAIN:
                    answer = [serialize.pickle.dumps(result, serialize.PICKLE_PROTOCOL)]
                else:
                    answer = serialize.serialize_object(result)
            finally:
                self.running = False
        except BaseException as error:
            if os.getpid() != self.pid:
                import traceback

                traceback.print_exc()
                leave_fork(1)
            self.answer_error(error)
        else:
            self.link.send(DONE, 0, [b"", *answer])

    def begin(self):
        """From here on a task may be interrupted."""
        if signal.getsignal(signal.SIGINT) is not on_interrupt:
            signal.signal(signal.SIGINT, on_interrupt)
        self.pending = False
        self.running = True

    def answer_error(self, error):
        import json

        try:
            text = str(error)
        except Exception as broken:
            text = f"Failed to cast exception to string: {broken}"
        name = type(error).__name__
        flags = ERROR
        if name == "UnmetDependency":
            # It has not failed: it runs elsewhere, so nobody will look at this.
            flags, lines = ERROR | UNMET, [f"{name}: {text}"]
        else:
            lines = self.show(error)
        content = {"status": "error", "ename": name, "evalue": text, "traceback": lines}
        self.link.send(DONE, flags, [json.dumps(content).encode("utf-8", "surrogatepass")])

    def show(self, error):
        """Publishes an error, as IPython shows it."""
        # Our own frame is not the user's business.
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            error.__traceback__ = error.__traceback__.tb_next
        try:
            return self.make_kernel().remuda_show(error)
        except Exception:
            import traceback

            try:
                return traceback.format_exception(type(error), error, error.__traceback__)
            except Exception:
                return [type(error).__name__]

    def clear(self):
        if self.kernel is not None:
            self.kernel.shell.reset(False)
        else:
            self.namespace.clear()
            self.fill()

    def interrupted(self):
        self.pending = False
        if self.running:
            raise KeyboardInterrupt


def on_interrupt(_number, _frame):
    if not WORKER.running:
        return
    if WORKER.link.shield:
        WORKER.pending = True
    else:
        raise KeyboardInterrupt


def leave_fork(code):
    """The end of a child that user code forked and that came back from it: the answer is its parent's business."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def get_ipython():
    """IPython's shell; made when it is first asked for."""
    return WORKER.make_kernel().shell


def display(*objects, **options):
    """IPython's `display`."""
    from IPython.display import display as real

    return real(*objects, **options)


def start(kernel_source):
    """Makes the worker ready, and serves until the engine is gone."""
    global WORKER, MAIN_THREAD
    MAIN_THREAD = threading.get_ident()
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=False, write_through=True)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    link = Link(sock)
    WORKER = Worker(link, kernel_source)
    signal.signal(signal.SIGINT, on_interrupt)
    os.register_at_fork(after_in_child=sock.close)
    try:
        WORKER.load()
    except BaseException as error:
        link.send(BROKEN, 0, [f"{type(error).__name__}: {error}".encode()])
        return
    sys.meta_path.insert(0, KernelFirst())
    # The working directory, as for a stock engine.
    if not sys.path or sys.path[0] != "":
        sys.path.insert(0, "")
    link.send(READY, 0, [sys.version.split()[0].encode(), sys.executable.encode()])
    WORKER.serve()
