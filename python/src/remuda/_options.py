"""What Remuda's task scheduler can be asked beyond ipyparallel's."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Iterator

# The options in force, by the client that they are for.
_ASKED: ContextVar[dict[int, dict[str, Any]]] = ContextVar("remuda_options", default={})

_KNOWN = ("run_timeout", "priority", "needs", "fail_unplaceable", "retry_anywhere")


@contextmanager
def options(view: Any, **given: Any) -> Iterator[Any]:
    """Tasks that a view, or all views of a client, submits inside have these options.

        with remuda.options(view, run_timeout=60, priority=5, needs={"label": "big"}):
            result = view.apply(f, 1)

    - `run_timeout`: seconds that a task may run; then its engine's nanny interrupts it, and it fails with `RunTimeout`
    - `priority`: of tasks that wait, those of higher priority come first; 0 unless told otherwise
    - `needs`: what a task takes of its engine, and words that the engine must have: `{"cpus": 2, "gpu": 1, "label": "big"}`
    - `fail_unplaceable`: fail at once if no engine could ever run it
    - `retry_anywhere`: `retries` may be on an engine where it failed

    A controller that is not Remuda's ignores them.
    """
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        raise TypeError(f"unknown options {', '.join(map(repr, unknown))}: use {', '.join(_KNOWN)}")
    client = getattr(view, "client", view)
    _teach(client)
    before = _ASKED.get()
    token = _ASKED.set({**before, id(client): {**before.get(id(client), {}), **given}})
    try:
        yield view
    finally:
        _ASKED.reset(token)


def asked(client: Any) -> dict[str, Any] | None:
    """The options that are in force for tasks of this client."""
    return _ASKED.get().get(id(client))


def _teach(client: Any) -> None:
    """Has the client send the options that are in force with each task."""
    if getattr(client, "accelerated", False):
        # It asks by itself.
        return
    original = client.send_apply_request
    if getattr(original, "_remuda", False):
        return

    def send_apply_request(socket, f, args=None, kwargs=None, metadata=None, **others):
        options = asked(client)
        if options:
            metadata = {**(metadata or {}), "remuda": options}
        return original(socket, f, args, kwargs, metadata=metadata, **others)

    send_apply_request._remuda = True
    client.send_apply_request = send_apply_request
