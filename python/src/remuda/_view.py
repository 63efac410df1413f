"""Views that send by the Rust side."""

from __future__ import annotations

import threading
from collections import deque
from inspect import unwrap
from typing import Any, Iterator

from ipyparallel.client import map as maps
from ipyparallel.client import remotefunction
from ipyparallel.client import view as stock
from ipyparallel.client.remotefunction import getname
from ipyparallel.serialize import PrePickled

from remuda import _options, _pack
from remuda._function import NativeFunction
from remuda._result import AsyncMapResult, AsyncResult
from remuda._wait import Arrivals

# How many items of a map are packed before they are sent: enough that sending costs little, few enough that engines begin soon.
_SLICE = 128
# Metadata that was packed before, by what it says.
_METADATA_LIMIT = 1024


class _View:
    """What all views have."""

    @property
    def outstanding(self) -> set:
        """The tasks of this view that have no answer."""
        outstanding = self.client.outstanding
        if not outstanding:
            return set()
        ours = set(self.history)
        return {msg_id for msg_id in outstanding if msg_id in ours or msg_id.rpartition("_")[0] in ours}

    @outstanding.setter
    def outstanding(self, _: Any) -> None:
        """Nothing to keep: the Rust side knows."""

    def _sync_results(self) -> None:
        pass


class DirectView(_View, stock.DirectView):
    """ipyparallel's, with tasks sent by the Rust side."""

    def _really_apply(
        self, f, args=None, kwargs=None, targets=None, block=None, track=None, label=None
    ):
        client = self.client
        block = self.block if block is None else block
        track = self.track if track is None else track
        targets = self.targets if targets is None else targets
        label = self.label if label is None else label
        idents, ids = client._build_targets(targets)
        if len(idents) > 1:
            # Pickled once for all.
            f = PrePickled(f) if not isinstance(f, (PrePickled, NativeFunction)) else f
            args = [PrePickled(arg) for arg in args or ()] if not isinstance(f, NativeFunction) else args
            kwargs = {key: PrePickled(value) for key, value in (kwargs or {}).items()}
        children = []
        for ident in idents:
            future = client.send_apply_request(
                self._socket, f, args, kwargs, track=track, ident=ident, metadata={"label": label}
            )
            children.append(future)
            self.history.append(future.msg_id)
        children = children[0] if isinstance(targets, int) else children
        ar = AsyncResult(client, children, fname=getname(f), targets=ids, owner=True)
        if block:
            try:
                return ar.get()
            except KeyboardInterrupt:
                pass
        return ar


class BroadcastView(_View, stock.BroadcastView):
    """ipyparallel's, with tasks sent by the Rust side."""

    def _make_async_result(self, message_future, s_idents, **kwargs):
        children = message_future if self.is_coalescing else message_future._parts
        self.history.append(message_future.msg_id)
        kind = stock.AsyncResult if self.is_coalescing else AsyncResult
        return kind(self.client, children, owner=True, **kwargs)

    _really_apply = unwrap(stock.BroadcastView._really_apply)


class LoadBalancedView(_View, stock.LoadBalancedView):
    """ipyparallel's, with tasks sent by the Rust side."""

    def _really_apply(
        self,
        f,
        args=None,
        kwargs=None,
        block=None,
        track=None,
        after=None,
        follow=None,
        timeout=None,
        targets=None,
        retries=None,
        label=None,
    ):
        client = self.client
        block = self.block if block is None else block
        metadata, packed = self._metadata(after, follow, timeout, targets, retries, label)
        track = self.track if track is None else track
        future = client._send_apply(self._socket, f, args, kwargs, metadata, packed, track)
        self.history.append(future.msg_id)
        ar = AsyncResult(client, future, fname=getname(f), owner=True)
        if block:
            try:
                return ar.get()
            except KeyboardInterrupt:
                pass
        return ar

    def _metadata(self, after=None, follow=None, timeout=None, targets=None, retries=None, label=None) -> tuple:
        """What a task is sent with, and the same packed."""
        client = self.client
        after = self.after if after is None else after
        retries = self.retries if retries is None else retries
        follow = self.follow if follow is None else follow
        timeout = self.timeout if timeout is None else timeout
        targets = self.targets if targets is None else targets
        label = self.label if label is None else label
        if not isinstance(retries, int):
            raise TypeError(f"retries must be int, not {type(retries)!r}")
        idents = [] if targets is None else [ident.decode() for ident in client._build_targets(targets)[0]]
        metadata = {
            "after": self._render_dependency(after) if after else [],
            "follow": self._render_dependency(follow) if follow else [],
            "timeout": timeout,
            "targets": idents,
            "retries": retries,
            "label": label,
        }
        asked = _options.asked(client)
        if asked:
            metadata["remuda"] = asked
        elif not (after or follow or idents or (label is not None and type(label) is not str)):
            # Types too: `1` and `True` and `1.0` are one to a dict.
            key = (timeout, type(timeout), retries, type(retries), label)
            packed = client._packed_metadata.get(key)
            if packed is None:
                packed = client.session.pack(metadata)
                if len(client._packed_metadata) < _METADATA_LIMIT:
                    client._packed_metadata[key] = packed
            return metadata, packed
        return metadata, client.session.pack(metadata)

    def map(self, f, *sequences, block=None, chunksize=1, ordered=True, return_exceptions=False, label=None):
        if isinstance(f, NativeFunction):
            return super().map(
                f,
                *sequences,
                block=block,
                chunksize=chunksize,
                ordered=ordered,
                return_exceptions=return_exceptions,
                label=label,
            )
        assert len(sequences) > 0, "must have some sequences to map onto!"
        block = self.block if block is None else block
        result = self._map(f, list(sequences), chunksize, ordered, return_exceptions, label)
        if block and isinstance(result, AsyncMapResult):
            try:
                return result.get()
            except KeyboardInterrupt:
                pass
        return result

    map.__doc__ = stock.LoadBalancedView.map.__doc__

    def _map(self, f, sequences, chunksize, ordered, return_exceptions, label):
        client, session = self.client, self.client.session
        for number, sequence in enumerate(sequences):
            if not hasattr(sequence, "__len__"):
                sequences[number] = list(sequence)
        longest = max(map(len, sequences))
        if longest == 0:
            return []
        chunksize = chunksize or 1
        if remotefunction._prepickled_map is None:
            remotefunction._prepickled_map = PrePickled(remotefunction._map)
        map_buffers, f_buffers = remotefunction._prepickled_map.buffers, _pack.pack_function(f)
        _, metadata = self._metadata(label=label)
        splitter = maps.Map()
        count = -(-longest // chunksize)
        slots: list = []
        sizes: dict = {}
        batch: list = []
        shape = 0

        def flush() -> None:
            nonlocal batch
            if batch:
                head = [*map_buffers, _pack.pack_info(1 + len(sequences), len(f_buffers) + shape), *f_buffers]
                slots.extend(client._submit_many(self._socket, metadata, head, batch))
                batch = []

        one_by_one = chunksize == 1 and all(type(sequence) in (list, tuple, range) for sequence in sequences)
        chunks = []
        for number in range(count):
            if one_by_one:
                parts = [[sequence[number]] if number < len(sequence) else [] for sequence in sequences]
            else:
                parts = [splitter.getPartition(sequence, number, count, longest) for sequence in sequences]
            buffers: list = []
            for part in parts:
                if type(part) is list and len(part) == 1 and type(part[0]) in _pack.PLAIN:
                    buffers.append(_pack.stock.pickle.dumps(part, _pack.stock.PICKLE_PROTOCOL))
                else:
                    buffers += _pack.stock.serialize_object(part)
            # Only messages of as many buffers can have the same head.
            if len(buffers) != shape or len(batch) >= _SLICE:
                flush()
                shape = len(buffers)
            batch.append(buffers[0] if shape == 1 else buffers)
            chunks.append(min(map(len, parts)))
        flush()
        if chunksize != 1 or len(sequences) > 1:
            sizes = {slot.msg_id: size for slot, size in zip(slots, chunks)}
        result = AsyncMapResult(
            client,
            slots,
            splitter,
            fname=getname(f),
            ordered=ordered,
            return_exceptions=return_exceptions,
            chunk_sizes=sizes,
        )
        client.history.extend(result.msg_ids)
        self.history.extend(result.msg_ids)
        return result

    def imap(self, f, *sequences, ordered=True, max_outstanding="auto", return_exceptions=False):
        assert len(sequences) > 0, "must have some sequences to map onto!"
        if max_outstanding == "auto":
            max_outstanding = len(self)
        if not isinstance(f, NativeFunction):
            f = PrePickled(f)
        return _LazyMap(self, f, zip(*sequences), ordered, max_outstanding, return_exceptions).iterator()

    imap.__doc__ = stock.LoadBalancedView.imap.__doc__


class _LazyMap:
    """A map whose items are taken as tasks end, by a thread of its own, which sleeps in between."""

    def __init__(self, view: Any, f: Any, items: Iterator, ordered: bool, most: int, return_exceptions: bool) -> None:
        self._view, self._f, self._items = view, f, items
        self._ordered, self._most, self._return_exceptions = ordered, most, return_exceptions
        self._arrivals = Arrivals()
        self._changed = threading.Condition()
        # What can be yielded or waited for, in the order in which it is to be yielded.
        self._ready: deque = deque()
        # Those without a result, by number; only the thread's, as is `_next`.
        self._open: dict[int, Any] = {}
        # Number 0 is that of a wake-up.
        self._next = 1
        self._exhausted = False
        self._finished = False
        view._outstanding_maps.add(self)
        self._started = threading.Event()
        threading.Thread(target=self._run, name="remuda-imap", daemon=True).start()
        self._started.wait()

    def iterator(self) -> stock.LazyMapIterator:
        return stock.LazyMapIterator(self._results(), self.cancel)

    def cancel(self) -> None:
        """Takes no more items."""
        self._exhausted = True
        self._view._outstanding_maps.discard(self)
        self._arrivals.wake()

    def _run(self) -> None:
        try:
            self._take()
            self._started.set()
            while self._open:
                for number in self._arrivals.next():
                    result = self._open.pop(number, None)
                    if result is not None and not self._ordered:
                        self._put(result)
                self._take()
        finally:
            self._view._outstanding_maps.discard(self)
            with self._changed:
                self._finished = True
                self._changed.notify_all()
            self._started.set()

    def _take(self) -> None:
        """Takes items until so many are outstanding."""
        while not self._exhausted and (not self._most or len(self._open) < self._most):
            try:
                result = self._view.apply_async(self._f, *next(self._items))
            except StopIteration:
                self._exhausted = True
                self._view._outstanding_maps.discard(self)
                return
            except Exception as failure:
                self._exhausted = True
                self._put(failure)
                return
            number, self._next = self._next, self._next + 1
            self._open[number] = result
            if self._ordered:
                self._put(result)
            self._arrivals.add(result._slots[0], number)
            self._started.set()

    def _put(self, result: Any) -> None:
        with self._changed:
            self._ready.append(result)
            self._changed.notify_all()

    def _results(self) -> Iterator:
        while True:
            with self._changed:
                while not self._ready and not self._finished:
                    self._changed.wait()
                if not self._ready:
                    return
                result = self._ready.popleft()
            if isinstance(result, Exception):
                raise result
            yield result.get(return_exceptions=self._return_exceptions)


