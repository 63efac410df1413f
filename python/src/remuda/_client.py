"""`ipyparallel.Client` with sockets, signatures, the matching of replies and waiting in Rust."""

from __future__ import annotations

import atexit
import heapq
import itertools
import json
import os
import select
import threading
import time
import weakref
from collections import defaultdict
from concurrent.futures import Future
from inspect import unwrap
from typing import Any, Callable, Iterator

import zmq
from ipyparallel.client import client as stock
from ipyparallel.client.client import Metadata
from ipyparallel.client.futures import MessageFuture as StockMessageFuture
from ipyparallel.serialize import PrePickled, Reference

from remuda import _function, _options, _pack
from remuda._function import NativeFunction
from remuda._result import AsyncMapResult, AsyncResult, MessageFuture, _date, _read
from remuda._view import BroadcastView, DirectView, LoadBalancedView
from remuda._wait import wait_for

try:
    from remuda import _core
except ImportError as failure:
    _core, _NO_CORE = None, f"the package has no Rust core here: {failure}"

# Set to anything but nothing, it has every client take ipyparallel's own way.
STOCK_VARIABLE = "REMUDA_CLIENT_STOCK"
_CHANNELS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")
_UNANSWERED = frozenset({"comm_msg", "comm_close", "comm_open"})
_PACKERS = ("json", "msgpack", "jupyter_client.session.msgpack_packer")

_take_published = unwrap(stock.Client._dispatch_iopub)
_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


class _Stream:
    """Stands for the socket of a channel where ipyparallel's views hand one back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._closed = False

    def closed(self) -> bool:
        return self._closed

    def close(self, linger: Any = None) -> None:
        self._closed = True


class _Tracker(zmq.MessageTracker):
    """Knows whether the buffers of a message may be changed again."""


class _Gone:
    """Stands for the connection in a process that was forked from the client's."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("this client belongs to the process that this one was forked from: make a Client here")


class _Futures(dict):
    """The futures of requests that have not ended, by id: made when they are asked for."""

    def __init__(self, client: Client) -> None:
        self._client = weakref.proxy(client)
        # One that was said to be here, and may end before it is fetched.
        self._said: Any = None

    def get(self, msg_id: str, default: Any = None) -> Any:
        client, said = self._client, self._said
        if said is not None and said.msg_id == msg_id:
            self._said = None
            return said
        future = client._whole.get(msg_id)
        if future is not None:
            return default if future.done() and future.output.done() else future
        slot = client._core.find(msg_id)
        if slot is None:
            return default
        return client._live.get(msg_id) or MessageFuture(client, slot, "apply_request")

    def __contains__(self, msg_id: str) -> bool:
        self._said = future = self.get(msg_id)
        return future is not None

    def __getitem__(self, msg_id: str) -> Any:
        future = self.get(msg_id)
        if future is None:
            raise KeyError(msg_id)
        return future

    def __len__(self) -> int:
        return len(self._client._core.outstanding())

    def __iter__(self) -> Iterator[str]:
        return iter(self._client._core.outstanding())

    def values(self) -> list:
        return [future for future in map(self.get, self) if future is not None]

    def pop(self, msg_id: str, default: Any = None) -> Any:
        return default

    def clear(self) -> None:
        pass


class _Outstanding(defaultdict):
    """The tasks without an answer, by the uuid of the engine that they were sent to by name."""

    def __init__(self, client: Client) -> None:
        self._client = weakref.proxy(client)

    def __getitem__(self, uuid: str) -> set:
        return set(self._client._core.outstanding(uuid))


class _MetadataMap(defaultdict):
    """What is known of tasks: of those without a result, and of those that were asked of the hub."""

    def __init__(self, client: Client) -> None:
        super().__init__(Metadata)
        self._client = weakref.proxy(client)
        # Whose message is being read.
        self.current: Any = None

    def __missing__(self, msg_id: str) -> Metadata:
        current = self.current
        if current is not None and current.msg_id == msg_id:
            return current.output.metadata
        future = self._client._live.get(msg_id) or self._client._whole.get(msg_id)
        # One that has ended may be asked of the hub, whose answer belongs here.
        return super().__missing__(msg_id) if future is None or future.done() else future.output.metadata


class _Loop:
    """The thread that hears of what comes without being asked for, and of what is due. It sleeps in between."""

    def __init__(self, client: Client, core: Any) -> None:
        self._client = weakref.ref(client)
        self._core = core
        self._lock = threading.Lock()
        self._calls: list[Callable] = []
        self._timers: list[tuple[float, int, Callable]] = []
        self._dropped: set[int] = set()
        self._numbers = itertools.count()
        self._stopped = False
        self.thread = threading.Thread(target=self._run, name="remuda-client", daemon=True)

    # What of tornado's loops ipyparallel uses.

    def time(self) -> float:
        return time.monotonic()

    def add_callback(self, call: Callable, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            self._calls.append(lambda: call(*args, **kwargs))
        self._core.ring()

    def add_timeout(self, deadline: float, call: Callable) -> int:
        number = next(self._numbers)
        with self._lock:
            heapq.heappush(self._timers, (deadline, number, call))
        self._core.ring()
        return number

    def remove_timeout(self, number: int) -> None:
        with self._lock:
            self._timers = [timer for timer in self._timers if timer[1] != number]
            heapq.heapify(self._timers)

    def stop(self) -> None:
        self._stopped = True
        self._core.ring()

    def _due(self) -> tuple[list[Callable], float | None]:
        """What is to be done now, and how many milliseconds later more will be."""
        with self._lock:
            due, self._calls = self._calls, []
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            return due, max(0.0, (self._timers[0][0] - now) * 1000 + 1) if self._timers else None

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._core.fileno(), select.POLLIN)
        while not self._stopped:
            due, pause = self._due()
            poll.poll(0 if due else pause)
            told = self._core.told()
            client = self._client()
            for call in due:
                self._guarded(client, call)
            for word, *rest in told:
                if client is not None:
                    self._guarded(client, getattr(client, f"_told_{word}"), *rest)
                if word == "closed":
                    return
            del client

    @staticmethod
    def _guarded(client: Any, call: Callable, *args: Any) -> None:
        try:
            call(*args)
        except Exception:
            from traitlets.log import get_logger

            get_logger().error("in a callback of the client", exc_info=True)


class Client(stock.Client):
    """`ipyparallel.Client`, many times as fast.

    Takes what that takes, and an invitation (`remuda:...`) in the place of a connection file. Views, results and futures are ipyparallel's
    to whoever uses them. What this cannot do takes ipyparallel's own way without a word, as all does with `accelerated=False` or with
    `REMUDA_CLIENT_STOCK` set: SSH tunnels, controllers with `--scheduler=plainrandom` (pure), other transports than TCP, and
    encryption where this build of libzmq has none. With `accelerated=True` that is an error. Whether it is accelerated is in
    `client.accelerated`.
    """

    accelerated = False
    _core: Any = None
    # Stand-ins for the sockets, which are traits of ipyparallel's.
    _mux_socket = None
    _task_socket = None
    _broadcast_socket = None
    _control_socket = None
    _query_socket = None

    def __init__(self, connection_info: Any = None, *, accelerated: bool | None = None, **kwargs: Any) -> None:
        self._wanted = accelerated
        self._live: weakref.WeakValueDictionary[str, MessageFuture] = weakref.WeakValueDictionary()
        # Futures that hear of all that comes, by id; and of these those that still wait for something.
        self._whole: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._watched: dict[str, Any] = {}
        self._trackers: dict[int, threading.Event] = {}
        self._tracks = itertools.count(1)
        self._packed_metadata: dict[tuple, bytes] = {}
        self._lock = threading.RLock()
        if isinstance(connection_info, str) and connection_info.startswith("remuda:"):
            if _core is None:
                raise ValueError(f"an invitation cannot be read: {_NO_CORE}")
            connection_info = json.loads(_core.invitation(connection_info))
        super().__init__(connection_info, **kwargs)

    # -- connecting ------------------------------------------------------------------------------------------------------

    def _connect(self, sshserver, ssh_kwargs, timeout):
        reason = self._why_stock()
        if reason is None:
            try:
                core = _core.Core(self._connection(), self.session.session)
            except (OSError, ValueError) as failure:
                reason = str(failure)
        if reason is not None:
            if self._wanted:
                raise ValueError(f"this client cannot be accelerated: {reason}")
            return super()._connect(sshserver, ssh_kwargs, timeout)
        # It asked nothing yet.
        self._query_socket.close(linger=0)
        self._core, self.accelerated, self._connected = core, True, True
        self._futures, self._outstanding_dict = _Futures(self), _Outstanding(self)
        self.metadata = _MetadataMap(self)
        for name in ("query", "mux", "task", "broadcast", "control"):
            stream = _Stream(name)
            setattr(self, f"_{name}_socket", stream)
            setattr(self, f"_{name}_stream", stream)
        pack = self.session.pack
        slot = core.submit("query", "connection_request", pack({}), pack({"remuda": {}}), [])
        if not wait_for([slot], None if timeout is None or timeout < 0 else timeout):
            raise TimeoutError(
                f"Hub connection request timed out: nothing answered at {self._config['registration']} within {timeout} s. "
                "Is that controller running, and is the key of the connection file the one that it runs with?"
            )
        answer = MessageFuture(self, slot, "connection_request")._value()["content"]
        if answer["status"] != "ok":
            raise Exception("Failed to connect! " + "\n".join(answer.get("traceback", [])))
        self._update_engines(dict(answer["engines"]))
        self._start_io_thread()
        _CLIENTS.add(self)

    def _why_stock(self) -> str | None:
        """Why this takes ipyparallel's own way; `None` if it does not."""
        if self._wanted is False:
            return "it was told not to"
        if self._wanted is None and os.environ.get(STOCK_VARIABLE):
            return f"{STOCK_VARIABLE} is set"
        if _core is None:
            return _NO_CORE
        if self._ssh:
            return "it connects through SSH"
        if self._task_scheme == "pure":
            return "the task scheduler is a pure one"
        if not self._config["interface"].startswith("tcp://"):
            return f"it connects by {self._config['interface'].partition(':')[0]}"
        if self._config["pack"] not in _PACKERS:
            return f"messages are packed by {self._config['pack']}"
        return None

    def _connection(self) -> str:
        connection = dict(self._config)
        for name in _CHANNELS:
            connection[name] = int(str(connection[name]).rpartition(":")[2])
        connection["location"], connection["ssh"] = connection.get("location") or "", connection.get("ssh") or ""
        return json.dumps(connection)

    def _start_io_thread(self):
        if not self.accelerated:
            return super()._start_io_thread()
        self._io_loop = _Loop(self, self._core)
        self._io_thread = self._io_loop.thread
        self._io_thread.start()

    def close(self, linger=None):
        if not self.accelerated:
            return super().close(linger)
        if self._closed:
            return
        self._closed = True
        for name in ("query", "mux", "task", "broadcast", "control"):
            stream = getattr(self, f"_{name}_stream", None)
            if stream is not None:
                stream.close()
        if isinstance(self._core, _Gone):
            return
        self._core.close()
        # It ends when it has told of all that gets no answer.
        if self._io_thread is not None and self._io_thread is not threading.current_thread():
            self._io_thread.join()

    # -- what is told ----------------------------------------------------------------------------------------------------

    def _told_published(self, msg_id: str, message: tuple) -> None:
        future = self._watched.get(msg_id)
        if future is not None:
            with self._lock:
                future._published(message)

    def _told_answered(self, msg_id: str) -> None:
        future = self._watched.get(msg_id)
        if future is not None:
            with self._lock:
                pass
            future._answered()
            self._unwatch(future)

    def _told_over(self, msg_id: str) -> None:
        future = self._watched.get(msg_id)
        if future is not None:
            with self._lock:
                pass
            future._over()
            self._unwatch(future)

    def _unwatch(self, future: Any) -> None:
        output = future.__dict__.get("output")
        if output is None or (future.done() and output.done()):
            self._watched.pop(future.msg_id, None)

    def _told_joined(self, engine: tuple) -> None:
        number, uuid = engine
        if self._engines.get(number) == uuid:
            # It was there when the client came.
            return
        self._notify("registration_notification", {"id": number, "uuid": uuid})

    def _told_left(self, engine: tuple) -> None:
        number, uuid = engine
        if number is not None:
            self._notify("unregistration_notification", {"id": number, "uuid": uuid})

    def _notify(self, msg_type: str, content: dict) -> None:
        self._notification_handlers[msg_type]({"header": {"msg_type": msg_type}, "content": content})

    def _told_sent(self, track: int) -> None:
        event = self._trackers.pop(track, None)
        if event is not None:
            event.set()

    def _told_shutdown(self) -> None:
        self._notify("shutdown_notification", {})

    def _told_closed(self) -> None:
        for event in self._trackers.values():
            event.set()

    def _take_published(self, future: Any, message: dict) -> None:
        self.metadata.current = future
        try:
            _take_published(self, message)
        finally:
            self.metadata.current = None

    def _handle_stranded_msgs(self, eid, uuid):
        if not self.accelerated:
            super()._handle_stranded_msgs(eid, uuid)

    # -- sending ---------------------------------------------------------------------------------------------------------

    def _check_open(self, kind: type) -> None:
        if self._closed:
            closed = "Connections have been closed." if kind is OSError else None
            raise kind(closed or "Client cannot be used after its sockets have been closed")

    def _track(self, track: bool) -> tuple[int | None, Any]:
        if not track:
            return None, None
        number, event = next(self._tracks), threading.Event()
        self._trackers[number] = event
        return number, _Tracker(event)

    def _settle_track(self, number: int | None) -> None:
        """What was copied may be changed already."""
        if number is not None and self._core.sent(number):
            self._told_sent(number)

    def _send(
        self,
        socket,
        msg_type,
        content=None,
        parent=None,
        ident=None,
        buffers=None,
        track=False,
        header=None,
        metadata=None,
        track_outstanding=False,
        message_future_hook=None,
    ):
        if not self.accelerated:
            return super()._send(
                socket,
                msg_type,
                content=content,
                parent=parent,
                ident=ident,
                buffers=buffers,
                track=track,
                header=header,
                metadata=metadata,
                track_outstanding=track_outstanding,
                message_future_hook=message_future_hook,
            )
        self._check_open(OSError)
        pack = self.session.pack
        packed, content = pack(metadata or {}), pack(content or {})
        ident = ident[-1] if isinstance(ident, list) and ident else ident or None
        ident = ident.decode() if isinstance(ident, bytes) else ident
        buffers = list(buffers or ())
        if msg_type in _UNANSWERED:
            self._core.post(socket.name, msg_type, packed, content, buffers, ident)
            return None
        if socket.name == "broadcast":
            future = self._broadcast(msg_type, metadata or {}, packed, content, buffers, track)
        else:
            number, tracker = self._track(track)
            slot = self._core.submit(socket.name, msg_type, packed, content, buffers, ident, number)
            self._settle_track(number)
            future = MessageFuture(self, slot, msg_type, (metadata or {}).get("label"), tracker)
        if track_outstanding:
            self.history.append(future.msg_id)
        if message_future_hook is not None:
            message_future_hook(future)
        return future

    def _broadcast(self, msg_type, metadata, packed, content, buffers, track) -> Any:
        engines, coalesce = [uuid for uuid, _ in metadata["targets"]], bool(metadata.get("is_coalescing"))
        number, tracker = self._track(track)
        msg_id, slots = self._core.broadcast(engines, coalesce, msg_type, packed, content, buffers, number)
        self._settle_track(number)
        label = metadata.get("label")
        parts = [MessageFuture(self, slot, msg_type, label, tracker) for slot in slots]
        return _Whole(self, msg_id, msg_type, parts, tracker) if coalesce else _Parts(msg_id, parts)

    def _submit_many(self, socket: _Stream, metadata: bytes, head: list, tails: list) -> list:
        self._check_open(RuntimeError)
        return self._core.submit_many(socket.name, metadata, self.session.pack({}), head, tails)

    def _send_apply(self, socket, f, args, kwargs, metadata, packed, track, ident=None) -> MessageFuture:
        """Sends a call whose metadata are packed."""
        self._check_open(RuntimeError)
        args, kwargs = args if args is not None else (), kwargs if kwargs is not None else {}
        if not callable(f) and not isinstance(f, (Reference, PrePickled)):
            raise TypeError(f"f must be callable, not {type(f)}")
        if not isinstance(args, (tuple, list)):
            raise TypeError(f"args must be tuple or list, not {type(args)}")
        if not isinstance(kwargs, dict):
            raise TypeError(f"kwargs must be dict, not {type(kwargs)}")
        content = self._empty
        call = _function._native_call(f, args, kwargs) if isinstance(f, (NativeFunction, PrePickled)) else None
        if call is None:
            buffers = _pack.pack(f, args, kwargs, self.session)
        else:
            content, buffers = self.session.pack(call[0]), call[1]
        number, tracker = self._track(track)
        slot = self._core.submit(socket.name, "apply_request", packed, content, buffers, ident, number)
        self._settle_track(number)
        self.history.append(slot.msg_id)
        return MessageFuture(self, slot, "apply_request", metadata.get("label"), tracker)

    @property
    def _empty(self) -> bytes:
        known = self.__dict__
        if "_packed_empty" not in known:
            known["_packed_empty"] = self.session.pack({})
        return known["_packed_empty"]

    def send_apply_request(
        self, socket, f, args=None, kwargs=None, metadata=None, track=False, ident=None, message_future_hook=None
    ):
        if not self.accelerated:
            return super().send_apply_request(
                socket,
                f,
                args,
                kwargs,
                metadata=metadata,
                track=track,
                ident=ident,
                message_future_hook=message_future_hook,
            )
        metadata = metadata if metadata is not None else {}
        if not isinstance(metadata, dict):
            raise TypeError(f"metadata must be dict, not {type(metadata)}")
        asked = _options.asked(self)
        if asked:
            metadata = {**metadata, "remuda": asked}
        if socket.name == "broadcast":
            return self._broadcast_apply(socket, f, args, kwargs, metadata, track, message_future_hook)
        ident = ident.decode() if isinstance(ident, bytes) else ident
        future = self._send_apply(socket, f, args, kwargs, metadata, self.session.pack(metadata), track, ident)
        if message_future_hook is not None:
            message_future_hook(future)
        return future

    def _broadcast_apply(self, socket, f, args, kwargs, metadata, track, hook) -> Any:
        self._check_open(RuntimeError)
        call = _function._native_call(f, args or (), kwargs or {})
        content, buffers = call if call is not None else ({}, _pack.pack(f, args or (), kwargs or {}, self.session))
        return self._send(
            socket,
            "apply_request",
            content=content,
            buffers=buffers,
            metadata=metadata,
            track=track,
            track_outstanding=True,
            message_future_hook=hook,
        )

    # -- waiting ---------------------------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> set:
        """The ids of the tasks without an answer."""
        if not self.accelerated:
            return self.__dict__.setdefault("_stock_outstanding", set())
        return set(self._core.outstanding())

    @outstanding.setter
    def outstanding(self, value: set) -> None:
        self.__dict__["_stock_outstanding"] = value

    def _await_futures(self, futures, timeout):
        slots: list = []
        if self.accelerated:
            for future in futures:
                if isinstance(future, (AsyncResult, AsyncMapResult)):
                    slots += future._slots
                elif isinstance(future, MessageFuture):
                    slots.append(future._slot)
                else:
                    break
            else:
                return not slots or wait_for(slots, None if timeout is None or timeout < 0 else timeout)
        return super()._await_futures(futures, timeout)

    # -- views -----------------------------------------------------------------------------------------------------------

    def load_balanced_view(self, targets=None, **kwargs):
        if not self.accelerated:
            return super().load_balanced_view(targets, **kwargs)
        targets = None if targets is None or targets == "all" else self._build_targets(targets)[1]
        return LoadBalancedView(client=self, socket=self._task_stream, targets=targets, **kwargs)

    load_balanced_view.__doc__ = stock.Client.load_balanced_view.__doc__

    def direct_view(self, targets="all", **kwargs):
        if not self.accelerated:
            return super().direct_view(targets, **kwargs)
        single = isinstance(targets, int)
        if targets != "all":
            targets = self._build_targets(targets)[1]
        return DirectView(
            client=self, socket=self._mux_stream, targets=targets[0] if single else targets, **kwargs
        )

    direct_view.__doc__ = stock.Client.direct_view.__doc__

    def broadcast_view(self, targets="all", is_coalescing=False, **kwargs):
        if not self.accelerated:
            return super().broadcast_view(targets, is_coalescing, **kwargs)
        targets = self._build_targets(targets)[1]
        view = BroadcastView(client=self, socket=self._broadcast_stream, targets=targets, **kwargs)
        view.is_coalescing = is_coalescing
        return view

    broadcast_view.__doc__ = stock.Client.broadcast_view.__doc__


class _Parts:
    """A broadcast of which each engine's part has an answer of its own."""

    def __init__(self, msg_id: str, parts: list) -> None:
        self.msg_id, self._parts = msg_id, parts


class _Whole(StockMessageFuture):
    """A broadcast whose answers come as one."""

    def __init__(self, client: Client, msg_id: str, msg_type: str, parts: list, tracker: Any) -> None:
        super().__init__(msg_id, header={"msg_id": msg_id, "msg_type": msg_type}, track=tracker is not None)
        if tracker is not None:
            self.tracker.set_result(tracker)
        self._client, self._open, self._parts = client, len(parts), parts
        self._open_outputs = len(parts)
        self.output: Any = StockMessageFuture(msg_id)
        self.output.metadata = Metadata()
        self.output.metadata.update(msg_id=msg_id, submitted=_date(time.time()))
        client._whole[msg_id] = self
        self._counting = threading.Lock()
        for part in parts:
            part.add_done_callback(self._count)
            part.output.add_done_callback(self._count_output)

    def _count(self, _: Future) -> None:
        with self._counting:
            self._open -= 1
            if self._open:
                return
        client, first = self._client, self._parts[0]
        message = first._slot.message()
        metadata = self.output.metadata
        if message is not None and first._slot.status() == 1:
            message = _read(client, message)
            if message["metadata"].get("is_coalescing") and message["metadata"].get("broadcast_targets"):
                buffers, results = first._slot.buffers(), []
                metadata.update(client._extract_metadata(message))
                while buffers:
                    result, buffers = _pack.unpack(buffers)
                    results.append(result)
                self.set_result(results)
                return
        values = [part.result() for part in self._parts]
        failures = [value for value in values if isinstance(value, Exception)]
        metadata.update({key: value for key, value in first.output.metadata.items() if key != "msg_id"})
        self.set_result(failures[0] if failures else values)

    def _count_output(self, _: Future) -> None:
        with self._counting:
            self._open_outputs -= 1
            if self._open_outputs:
                return
        self.output.metadata["stdout"] = "".join(part.output.metadata["stdout"] for part in self._parts)
        self.output.metadata["stderr"] = "".join(part.output.metadata["stderr"] for part in self._parts)
        self.output.set_result(None)


def _forked() -> None:
    for client in list(_CLIENTS):
        client._core, client._lock = _Gone(), threading.RLock()


@atexit.register
def _close_all() -> None:
    # The thread must not be in Rust code when the interpreter goes.
    for client in list(_CLIENTS):
        if not isinstance(client._core, _Gone):
            client.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

__all__ = ["Client"]
