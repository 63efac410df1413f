"""Futures and results that cost little until somebody wants to know more of them than the result.

Each is what ipyparallel has, and becomes it in full, with conditions, events and callbacks, the moment that one of these is asked for.
Until then it is the slot of a request, which the Rust side fills.
"""

from __future__ import annotations

import concurrent.futures
import time
from concurrent.futures import ALL_COMPLETED
from datetime import datetime, timezone
from itertools import repeat
from typing import Any, Iterator

from ipyparallel import error
from ipyparallel.client import asyncresult as stock
from ipyparallel.client.client import ExecuteReply, Metadata
from ipyparallel.client.futures import MessageFuture as StockMessageFuture

from remuda import _pack
from remuda._wait import Arrivals, wait_for

OK, ABORTED, FAILED, NONE = 1, 2, 3, 4

_TASKS = frozenset({"apply_request", "execute_request"})
# What `concurrent.futures.Future` and ipyparallel's own keep in an instance.
_FUTURE = frozenset(
    {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks", "header", "_evt", "_tracker", "track"}
    | {"tracker", "iopub_callbacks", "output"}
)


class MessageFuture(StockMessageFuture):
    """The answer to one request."""

    def __init__(self, client: Any, slot: Any, msg_type: str, label: Any = None, tracker: Any = None) -> None:
        self._client = client
        self._slot = slot
        self.msg_id = slot.msg_id
        self._msg_type = msg_type
        self._label = label
        self._sent_tracker = tracker
        self._submitted = time.time()
        client._live[self.msg_id] = self

    def __getattr__(self, name: str) -> Any:
        if name in _FUTURE:
            self._materialise()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _materialise(self) -> None:
        """Becomes a future in full, which hears of all that comes."""
        client = self._client
        with client._lock:
            if "_whole" in self.__dict__:
                return
            self.__dict__["_whole"] = True
            header = {
                "msg_id": self.msg_id,
                "msg_type": self._msg_type,
                "username": client.session.username,
                "session": client.session.session,
                "date": _date(self._submitted),
            }
            super().__init__(self.msg_id, header=header, track=self._sent_tracker is not None)
            if self._sent_tracker is not None:
                self.tracker.set_result(self._sent_tracker)
            if self._msg_type in _TASKS:
                self.output = StockMessageFuture(self.msg_id, header=header)
                self.output.metadata = self._new_metadata()
            client._watched[self.msg_id] = self
            published, done, over = self._slot.watch()
            for message in published:
                self._published(message)
            if done:
                self._answered()
            if over:
                self._over()
            if done and (over or self._msg_type not in _TASKS):
                client._watched.pop(self.msg_id, None)

    def _new_metadata(self) -> Metadata:
        metadata = Metadata()
        metadata["msg_id"] = self.msg_id
        metadata["submitted"] = _date(self._submitted)
        metadata["label"] = self._label
        return metadata

    def _published(self, message: tuple) -> None:
        """A message of the task, which was not known before."""
        self._client._take_published(self, _read(self._client, message))

    def _answered(self) -> None:
        if not super().done():
            value = self._value()
            if "output" in self.__dict__:
                self._add_reply(self.output.metadata)
            self.set_result(value)

    def _over(self) -> None:
        output = self.__dict__.get("output")
        if output is not None and not output.done():
            output.set_result(None)

    def _add_reply(self, metadata: Metadata) -> None:
        message = self._slot.message()
        if message is None:
            _, _, engine_id, engine_uuid = self._slot.trouble()
            metadata.update(status="error", engine_uuid=engine_uuid, engine_id=engine_id, received=_date(time.time()))
            return
        client = self._client
        message = _read(client, message)
        message["buffers"] = []
        metadata.update(client._extract_metadata(message))
        metadata["received"] = _date(self._slot.received() / 1e6)

    def _value(self) -> Any:
        """The result, which may be an exception; the answer is there."""
        known = self.__dict__
        if "_known" not in known:
            known.setdefault("_known", self._read_value())
        return known["_known"]

    def _read_value(self) -> Any:
        client, slot = self._client, self._slot
        status = slot.status()
        if self._msg_type not in _TASKS:
            return self._read_answer(status)
        if status == OK and self._msg_type == "apply_request":
            return _pack.unpack(slot.buffers())[0]
        if status == OK:
            return ExecuteReply(self.msg_id, client.session.unpack(slot.message()[3]), self.output.metadata)
        if status == ABORTED:
            return error.TaskAborted(self.msg_id)
        if status == FAILED:
            return client._unwrap_exception(client.session.unpack(slot.message()[3]))
        word, text, engine_id, _ = slot.trouble()
        if word == "engine":
            text = f"Engine {engine_id!r} died while running task {self.msg_id!r}"
        return _remote(error.EngineError(text))

    def _read_answer(self, status: int) -> dict:
        if status != NONE:
            return _read(self._client, self._slot.message())
        word, text, _, _ = self._slot.trouble()
        if word == "shutdown" or (word == "engine" and self._msg_type in ("shutdown_request", "abort_request")):
            # The announcement was quicker than the answer that all will be shut down, or that an engine will.
            content: dict = {"status": "ok"}
        else:
            content = _content(error.EngineError(text))
        return {"header": {}, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}

    def done(self) -> bool:
        return super().done() if "_whole" in self.__dict__ else self._slot.done()

    def wait(self, timeout: float | None = None) -> bool:
        if "_whole" in self.__dict__:
            return super().wait(timeout)
        return self._slot.done() or wait_for([self._slot], timeout)

    def result(self, timeout: float | None = None) -> Any:
        if "_whole" in self.__dict__:
            return super().result(timeout)
        if not self.wait(timeout):
            raise concurrent.futures.TimeoutError()
        return self._value()


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _read(client: Any, message: tuple) -> dict:
    """A message as ipyparallel's handlers know it."""
    unpack = client.session.unpack
    header, parent, metadata, content, buffers = message
    header = unpack(header)
    return {
        "header": header,
        "msg_id": header.get("msg_id"),
        "msg_type": header.get("msg_type"),
        "parent_header": unpack(parent),
        "metadata": unpack(metadata),
        "content": unpack(content),
        "buffers": [memoryview(buffer) for buffer in buffers],
    }


def _content(exception: Exception) -> dict:
    try:
        raise exception
    except Exception:
        return error.wrap_exception()


def _remote(exception: Exception) -> Exception:
    return error.unwrap_exception(_content(exception))


# What ipyparallel's results keep in an instance, once they are whole.
_RESULT = _FUTURE | {
    "_ready",
    "_ready_event",
    "_output_ready",
    "_output_event",
    "_sent_event",
    "_success",
    "_metadata",
    "_result_future",
    "_sent_future",
    "_output_future",
    "_raw_results",
}


class _Lazy:
    """What both kinds of results have: the way from a list of slots to one of ipyparallel's."""

    def _materialise(self) -> None:
        with self._client._lock:
            if "_whole" not in self.__dict__:
                self.__dict__["_whole"] = True
                self._become()

    def __getattr__(self, name: str) -> Any:
        if name == "_children" and "_slots" in self.__dict__:
            return self.__dict__.setdefault("_children", self._make_children())
        if name in _RESULT and "_slots" in self.__dict__:
            self._materialise()
            if name in self.__dict__:
                return self.__dict__[name]
            raise AttributeError(name)
        return super().__getattr__(name)

    def _settle(self) -> tuple:
        """Whether it succeeded, what it came to, and the results one by one; all answers are there."""
        known = self.__dict__
        if "_settled" in known:
            return known["_settled"]
        results = self._results()
        try:
            if self._single_result and not isinstance(self, stock.AsyncMapResult):
                if isinstance(results[0], Exception):
                    raise results[0]
            else:
                results = self._collect_exceptions(results)
        except Exception as failure:
            settled = (False, failure, results)
        else:
            settled = (True, self._reconstruct_result(results), results)
        return known.setdefault("_settled", settled)

    def _is_whole(self) -> bool:
        return "_whole" in self.__dict__

    def _wait_lazily(self, timeout: float | None) -> bool:
        slots = self._slots
        if len(slots) == 1 and slots[0].done():
            return True
        if timeout == 0:
            return all(slot.done() for slot in slots)
        return wait_for(slots, None if timeout is None or timeout < 0 else timeout)

    def get(self, timeout=None, return_exceptions=None, return_when=None):
        if "_whole" in self.__dict__ or return_when not in (None, ALL_COMPLETED):
            return super().get(timeout, return_exceptions, return_when)
        if not self._wait_lazily(timeout):
            raise TimeoutError("Result not ready.")
        success, value, results = self._settle()
        if success:
            return value
        if self._return_exceptions if return_exceptions is None else return_exceptions:
            return self._reconstruct_result(results)
        raise value

    def ready(self):
        return super().ready() if self._is_whole() else self._wait_lazily(0)

    def wait(self, timeout=-1, return_when=None):
        if self._is_whole() or return_when is not None:
            return super().wait(timeout, return_when)
        return self._wait_lazily(timeout)

    def done(self):
        return super().done() if self._is_whole() else self._wait_lazily(0)

    def result(self, timeout=None):
        if self._is_whole():
            return super().result(timeout)
        if not self._wait_lazily(timeout):
            raise concurrent.futures.TimeoutError()
        success, value, _ = self._settle()
        if success:
            return value
        raise value

    def exception(self, timeout=None):
        if self._is_whole():
            return super().exception(timeout)
        if not self._wait_lazily(timeout):
            raise concurrent.futures.TimeoutError()
        success, value, _ = self._settle()
        return None if success else value

    def successful(self):
        if self._is_whole():
            return super().successful()
        if not self._wait_lazily(0):
            raise RuntimeError("Cannot check successful() if not done.")
        return self._settle()[0]

    # ipyparallel's caches keep the results alive.
    def __len__(self):
        return sum(self._chunk_sizes.get(msg_id, 1) for msg_id in self.msg_ids)

    def split(self):
        """One result for each request, as `concurrent.futures.wait` takes them."""
        known = self.__dict__
        if len(self._slots) == 1:
            return (self,)
        if "_parts" not in known:
            flatten = not isinstance(self, stock.AsyncMapResult)
            parts = (
                AsyncResult(
                    self._client,
                    child if flatten else [child],
                    fname=self._fname,
                    targets=[engine],
                    return_exceptions=self._return_exceptions,
                )
                for engine, child in zip(self._targets or repeat(None), self._children)
            )
            known.setdefault("_parts", tuple(parts))
        return known["_parts"]


class AsyncResult(_Lazy, stock.AsyncResult):
    """The results of one or more requests."""

    def __init__(self, client, children, fname="unknown", targets=None, owner=False, return_exceptions=False, chunk_sizes=None):
        self._single_result = type(children) is not list
        self._children = [children] if self._single_result else children
        self.msg_ids = [child.msg_id for child in self._children]
        self._slots = [child._slot for child in self._children]
        self._client = client
        self._fname = fname
        self._targets = targets
        self.owner = owner
        self._return_exceptions = return_exceptions
        self._chunk_sizes = chunk_sizes or {}

    def _become(self) -> None:
        children = self._children[0] if self._single_result else self._children
        stock.AsyncResult.__init__(
            self,
            self._client,
            children,
            fname=self._fname,
            targets=self._targets,
            owner=self.owner,
            return_exceptions=self._return_exceptions,
            chunk_sizes=self._chunk_sizes,
        )

    def _results(self) -> list:
        return [child._value() for child in self._children]

    def __iter__(self) -> Iterator:
        if self._single_result or self._is_whole():
            yield from stock.AsyncResult.__iter__(self)
            return
        if self._wait_lazily(0):
            yield from self.get(0)
            return
        for child in self._children:
            result = child.result()
            self._collect_exceptions([result])
            yield result


class AsyncMapResult(_Lazy, stock.AsyncMapResult):
    """The results of a map, which need no objects of their own until they are asked for."""

    def __init__(self, client, slots, map_object, fname="", ordered=True, return_exceptions=False, chunk_sizes=None):
        self._slots = slots
        self.msg_ids = [slot.msg_id for slot in slots]
        self._mapObject = map_object
        self.ordered = ordered
        self._single_result = False
        self._client = client
        self._fname = fname
        self._targets = None
        self.owner = False
        self._failed: dict[str, MessageFuture] = {}
        self._return_exceptions = return_exceptions
        self._chunk_sizes = chunk_sizes or {}

    def _make_children(self) -> list:
        live = self._client._live
        return [live.get(slot.msg_id) or MessageFuture(self._client, slot, "apply_request") for slot in self._slots]

    def _become(self) -> None:
        stock.AsyncMapResult.__init__(
            self,
            self._client,
            self._children,
            self._mapObject,
            fname=self._fname,
            ordered=self.ordered,
            return_exceptions=self._return_exceptions,
            chunk_sizes=self._chunk_sizes,
        )

    def _results(self) -> list:
        return [self._value(slot) for slot in self._slots]

    def _value(self, slot: Any) -> Any:
        """The result of a request that has its answer; an exception if it failed, the same each time."""
        if slot.status() == OK:
            return _pack.unpack(slot.buffers())[0]
        failed = self._failed.get(slot.msg_id)
        if failed is None:
            failed = self._client._live.get(slot.msg_id) or MessageFuture(self._client, slot, "apply_request")
            failed = self._failed.setdefault(slot.msg_id, failed)
        return failed._value()

    def __iter__(self) -> Iterator:
        if self._is_whole():
            yield from stock.AsyncMapResult.__iter__(self)
        elif self._wait_lazily(0):
            yield from self.get(0)
        elif self.ordered:
            for slot in self._slots:
                if not slot.done():
                    wait_for([slot], None)
                yield from self._items(slot)
        else:
            arrivals, missing = Arrivals(self._slots), len(self._slots)
            while missing:
                came = arrivals.next()
                missing -= len(came)
                for number in came:
                    yield from self._items(self._slots[number])

    def _items(self, slot: Any) -> list:
        value = self._value(slot)
        items = value if isinstance(value, list) else [value]
        self._collect_exceptions(items)
        return items


