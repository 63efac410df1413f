"""Waiting for answers without a lock held and without looking again and again."""

from __future__ import annotations

import select
import threading
import time
from typing import Any, Iterable

from remuda._core import Waiter


class _Local(threading.local):
    def __init__(self) -> None:
        self.waiter = Waiter()
        self.poll = select.poll()
        self.poll.register(self.waiter.fileno(), select.POLLIN)
        self.busy = False


_LOCAL = _Local()


def wait_for(slots: list, timeout: float | None, count: int = 0) -> bool:
    """Waits until so many of these slots have their answers, all unless told otherwise; says whether they have.

    `timeout` is in seconds; `None`: as long as it takes.
    """
    local = _LOCAL
    if local.busy:
        # A signal handler waits in the middle of a wait.
        local = _Local()
    waiter = local.waiter
    local.busy = True
    try:
        if not waiter.arm(slots, count):
            return True
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            rest = None if until is None else max(0.0, until - time.monotonic()) * 1000
            local.poll.poll(rest)
            if not waiter.left():
                return True
            if rest == 0:
                return False
    finally:
        waiter.disarm()
        local.busy = False


class Arrivals:
    """Tells which of some slots have their answers, in the order in which these come."""

    def __init__(self, slots: Iterable[Any] = ()) -> None:
        self._waiter = Waiter()
        self._poll = select.poll()
        self._poll.register(self._waiter.fileno(), select.POLLIN)
        for number, slot in enumerate(slots):
            self._waiter.add(slot, number)

    def add(self, slot: Any, number: int) -> None:
        """Also of this one, by this number."""
        self._waiter.add(slot, number)

    def wake(self) -> None:
        """Has `next` tell of number 0, whatever that is."""
        self._waiter.wake(0)

    def next(self) -> list[int]:
        """The numbers of those that came; waits for one at least."""
        while True:
            came = self._waiter.came()
            if came:
                return came
            self._poll.poll()
