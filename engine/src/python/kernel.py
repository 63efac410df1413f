"""ipyparallel's kernel, as its own engine has it, with the engine's link in place of its sockets.

Compiled and run by the worker when something first needs IPython: a code string, `get_ipython`, a display, a traceback.
`worker` is the worker.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from types import SimpleNamespace

PUBLISH, DONE, LOG = 3, 2, 4
ERROR, ABORT_QUEUED, NO_REPLY, LEAVING = 1, 4, 8, 16
SHELL, IOPUB = "shell", "iopub"


class ToEngine(logging.Handler):
    """What the kernel logs goes to the engine's log."""

    def emit(self, record):
        try:
            worker.link.send(LOG, 0, [self.format(record).encode("utf-8", "replace")])
        except Exception:
            self.handleError(record)


def make():
    # Nobody debugs an engine this way, and its import takes longer than the rest.
    debugpy = sys.modules.setdefault("debugpy", None)
    try:
        from ipyparallel.engine.kernel import IPythonParallelKernel
        from jupyter_client.session import Session, extract_header
        from traitlets.config import Application, Config
        import ipykernel.debugger  # noqa: F401
    finally:
        if debugpy is None:
            sys.modules.pop("debugpy", None)

    class Bridge(Session):
        """Sends what the kernel says over the link: the engine signs it, and knows where it goes."""

        def send(self, stream, msg_or_type, content=None, parent=None, ident=None, buffers=None, track=False,
                 header=None, metadata=None, **_):
            if isinstance(msg_or_type, dict):
                msg = msg_or_type
                buffers = buffers or msg.get("buffers")
            else:
                msg = self.msg(msg_or_type, content=content, parent=parent, header=header, metadata=metadata)
            buffers = [memoryview(buffer).cast("B") for buffer in buffers or []]
            if stream is SHELL:
                kernel.remuda_reply = (msg["content"], buffers)
            else:
                topic = ident[0] if isinstance(ident, list) else ident
                envelope = {
                    "msg_type": msg["header"]["msg_type"],
                    "topic": topic.decode("utf-8", "replace") if topic else None,
                }
                parts = [json.dumps(envelope).encode(), self.pack(msg["parent_header"] or {}),
                         self.pack(msg["metadata"] or {}), self.pack(msg["content"] or {}), *buffers]
                worker.link.send(PUBLISH, 0, parts)
            return msg

    class Kernel(IPythonParallelKernel):
        """The kernel, driven by the worker."""

        remuda_reply = None
        remuda_abort = False
        _supports_kernel_subshells = False

        def remuda_identify(self):
            self.engine_id, self.ident = worker.identity["id"], worker.identity["uuid"]
            # As the engine's application sets them (`engine/app.py: complete_registration`).
            self.shell.displayhook.topic = self._topic("execute_result")
            self.shell.display_pub.topic = self._topic("displaypub")
            self.data_pub.topic = self._topic("datapub")

        @property
        def data_pub(self):
            return self.shell.data_pub

        @data_pub.setter
        def data_pub(self, value):
            self.shell.data_pub = value

        def remuda_parent(self):
            header, metadata, content = (json.loads(part) for part in worker.parent)
            return {"header": header, "msg_id": header.get("msg_id"), "msg_type": header.get("msg_type"),
                    "parent_header": {}, "metadata": metadata, "content": content, "buffers": []}

        def remuda_set_parent(self):
            self.set_parent([], self.remuda_parent(), channel="shell")

        def remuda_show(self, error):
            if worker.parent is not None:
                self.remuda_set_parent()
            self.shell.showtraceback((type(error), error, error.__traceback__), tb_offset=0)
            lines, self.shell._last_traceback = self.shell._last_traceback or [], None
            return list(lines)

        def _abort_queues(self, *_args, **_options):
            self.remuda_abort = True

        def _publish_status(self, *_args, **_options):
            # The engine says that.
            pass

        async def remuda_run(self, buffers):
            """Handles a request by the kernel's own handler, and answers it."""
            parent = self.remuda_parent()
            parent["buffers"] = buffers
            self.set_parent([], parent, channel="shell")
            self.remuda_reply, self.remuda_abort = None, False
            handler = self.shell_handlers.get(parent["msg_type"])
            if handler is None:
                error = NotImplementedError(f"the kernel knows no requests of type `{parent['msg_type']}`")
                return worker.answer_error(error)
            try:
                try:
                    worker.begin()
                    result = handler(SHELL, [], parent)
                    if asyncio.iscoroutine(result) or asyncio.isfuture(result):
                        await result
                finally:
                    worker.running = False
                    sys.stdout.flush()
                    sys.stderr.flush()
            except BaseException as error:
                return worker.answer_error(error)
            finally:
                if worker.pid != os.getpid():
                    os._exit(0)
            if self.remuda_reply is None:
                return worker.link.send(DONE, NO_REPLY, [b""])
            content, buffers = self.remuda_reply
            flags = 0
            if content.get("status") == "error":
                flags |= ERROR | (UNMET if content.get("ename") == "UnmetDependency" else 0)
            if self.remuda_abort:
                flags |= ABORT_QUEUED
            if self.shell.exit_now:
                worker.exiting = True
                flags |= LEAVING
            worker.link.send(DONE, flags, [self.session.pack(content), *buffers])

        def remuda_serve(self, request):
            """Serves requests in an event loop, as a stock engine does, so that what code leaves in it goes on; this one first,
            if it is one."""
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            serving = loop.create_task(self.remuda_listen(loop, request))
            try:
                while not serving.done():
                    try:
                        loop.run_until_complete(serving)
                    except KeyboardInterrupt:
                        # Of code that the loop ran between two requests.
                        pass
            finally:
                loop.close()

        async def remuda_listen(self, loop, request):
            from tornado.ioloop import IOLoop

            self.io_loop = IOLoop.current()
            self._control_lock = asyncio.Lock()
            readable = asyncio.Event()
            loop.add_reader(worker.link.sock, readable.set)
            if request is not None:
                await self.remuda_run(request)
            while not worker.exiting:
                if not worker.link.waiting:
                    readable.clear()
                    await readable.wait()
                message = worker.link.receive()
                if message is None:
                    break
                request = worker.handle(message)
                if request is not None:
                    await self.remuda_run(request)
            loop.remove_reader(worker.link.sock)

    class KernelApplication(Application):
        """Has the kernel, and nothing to run."""

        kernel = None

    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    log = logging.getLogger("remuda.kernel")
    log.propagate = False
    log.setLevel(logging.WARNING)
    log.addHandler(ToEngine())
    before = signal.getsignal(signal.SIGINT)
    kernel = Kernel.instance(
        config=config,
        engine_id=worker.identity["id"],
        ident=worker.identity["uuid"],
        session=Bridge(key=b""),
        iopub_socket=IOPUB,
        user_ns=worker.namespace,
        log=log,
    )
    # Where `%matplotlib` and `%gui` look for the kernel.
    application = KernelApplication.instance()
    application.kernel = kernel
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, before)
    sys.modules["__main__"] = worker.main
    # An async cell is cancelled by SIGINT if it runs in this thread.
    kernel.shell_channel_thread = SimpleNamespace(parent_thread=threading.main_thread())
    kernel.remuda_identify()
    if worker.parent is not None:
        kernel.remuda_set_parent()
    return kernel


UNMET = 2
