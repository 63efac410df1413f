"""Functions of native engines, called through ipyparallel's own views."""

from __future__ import annotations

import struct
from contextvars import ContextVar
from typing import Any

# What the request that is being sent carries in place of a pickled function: content, buffers.
_CALL: ContextVar[tuple[dict, list] | None] = ContextVar("remuda_call", default=None)

# Unpickling this makes a Python engine say that it lacks a dependency, so that any scheduler sends the task elsewhere.
_NOT_FOR_PYTHON = b"cipyparallel.controller.dependency\n_require\n(X\x14\x00\x00\x00remuda_native_enginetR."
# From how many bytes on something travels as a buffer of its own, and the MessagePack extension that stands for it.
_ASIDE_BYTES = 4096
_BUFFER_EXTENSION = 66


class NativeFunction:
    """A function that native engines have by name, for `apply` and `map` of any view."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"`{self.name}` is a function of native engines: call it by a view, as in `view.apply(function, ...)`"
        )

    def __repr__(self) -> str:
        return f"remuda.function({self.name!r})"

    def __reduce__(self) -> tuple:
        return (NativeFunction, (self.name,))


def function(name: str) -> NativeFunction:
    """A function that native engines have under this name.

        mul = remuda.function("mul")
        view = client.load_balanced_view()
        view.apply_sync(mul, 4, 5)
        view.map_sync(mul, range(100), range(100), chunksize=10)

    It takes what it says in Rust: numbers, text, `bytes`, lists, dicts for structs, `numpy` arrays for arrays; no
    keyword arguments. `bytes` and arrays are not copied on their way. Any view does, direct, load-balanced or broadcast,
    and `client.executor()`.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a function is a text, not {name!r}")
    _teach()
    return NativeFunction(name)


def _teach() -> None:
    """Has ipyparallel's clients send native functions as the tasks that native engines know."""
    try:
        import msgpack  # noqa: F401
        from ipyparallel.client.client import Client
    except ImportError as error:
        raise ImportError(f"native functions need `{error.name}`: pip install 'remuda[ipyparallel]'") from error
    if getattr(Client.send_apply_request, "_remuda", False):
        return
    send_apply_request, send = Client.send_apply_request, Client._send

    def teaching_send_apply_request(self, socket, f, args=None, kwargs=None, **others):
        call = _native_call(f, args or (), kwargs or {})
        if call is None:
            return send_apply_request(self, socket, f, args, kwargs, **others)
        token = _CALL.set(call)
        try:
            return send_apply_request(self, socket, NativeFunction(""), **others)
        finally:
            _CALL.reset(token)

    def teaching_send(self, socket, msg_type, content=None, **others):
        call = _CALL.get()
        if call is not None and msg_type == "apply_request":
            content, others["buffers"] = call
        return send(self, socket, msg_type, content, **others)

    teaching_send_apply_request._remuda = True
    Client.send_apply_request, Client._send = teaching_send_apply_request, teaching_send


def _native_call(f: Any, args: Any, kwargs: dict) -> tuple[dict, list] | None:
    """The request that calls `f`, if that is a native function or a map of one."""
    native = _native(f)
    if native is not None:
        if kwargs:
            raise TypeError(f"`{native.name}` takes no keyword arguments, as {', '.join(map(repr, kwargs))}")
        return {"remuda": {"function": native.name}}, _buffers(_argument([_plain(arg) for arg in args]))
    if args and _is_map(f):
        native = _native(args[0])
        if native is not None:
            sequences = [_plain(arg) for arg in args[1:]]
            items = [_argument(list(item)) for item in zip(*sequences)]
            return {"remuda": {"map": native.name}}, _buffers(items)
    return None


def _native(value: Any) -> NativeFunction | None:
    """A native function, which views have pickled when there are several engines to send it to."""
    from ipyparallel.serialize import PrePickled

    if isinstance(value, PrePickled):
        if b"NativeFunction" not in bytes(value.buffers[0]):
            return None
        value = _plain(value)
    return value if isinstance(value, NativeFunction) else None


def _is_map(f: Any) -> bool:
    from ipyparallel.client import remotefunction
    from ipyparallel.serialize import PrePickled

    # A direct view wraps it once more, around the same buffers.
    mapped = remotefunction._prepickled_map
    return mapped is not None and isinstance(f, PrePickled) and f.buffers == mapped.buffers


def _plain(value: Any) -> Any:
    from ipyparallel.serialize import PrePickled, deserialize_object

    return deserialize_object(value.buffers)[0] if isinstance(value, PrePickled) else value


def _argument(args: list) -> Any:
    """One argument is itself, none is nil, several are a list."""
    if len(args) == 1:
        return args[0]
    return args or None


def _buffers(argument: Any) -> list:
    """The buffers of a request: for Python engines, what stands beside the argument, the argument."""
    import msgpack

    buffers: list = [_NOT_FOR_PYTHON]
    packed = msgpack.packb(_lowered(argument, buffers), use_bin_type=True)
    return [*buffers, packed]


def _lowered(value: Any, buffers: list) -> Any:
    """A value of what MessagePack has; large blocks of bytes become buffers."""
    if value is None or isinstance(value, (bool, int, float, str)):
        # Subclasses of these (NumPy's float64 is one) are written as what they are.
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _block(value, buffers)
    if isinstance(value, (list, tuple, range, set, frozenset)):
        return [_lowered(item, buffers) for item in value]
    if isinstance(value, dict):
        return {_lowered(key, buffers): _lowered(item, buffers) for key, item in value.items()}
    numpy = _numpy()
    if numpy is not None and isinstance(value, numpy.generic):
        return _lowered(value.item(), buffers)
    if numpy is not None and isinstance(value, numpy.ndarray):
        array = numpy.ascontiguousarray(value)
        dtype = array.dtype.newbyteorder("<")
        if dtype.kind not in "iuf" or dtype.str[1:] not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"):
            raise TypeError(f"an array of `{value.dtype}` cannot be sent to a native function: use integers or floats")
        array = array.astype(dtype, copy=False)
        # A view of its bytes; an array of nothing has none to cast.
        data = memoryview(array).cast("B") if array.size else b""
        return {"dtype": dtype.str, "shape": list(value.shape), "data": _block(data, buffers)}
    raise TypeError(
        f"a `{type(value).__name__}` cannot be sent to a native function: use numbers, text, bytes, lists, dicts or arrays"
    )


def _block(data: Any, buffers: list) -> Any:
    import msgpack

    view = memoryview(data)
    if view.nbytes < _ASIDE_BYTES:
        return bytes(view)
    buffers.append(view)
    return msgpack.ExtType(_BUFFER_EXTENSION, struct.pack(">I", len(buffers) - 1))


def _numpy() -> Any:
    # Whoever has an array has imported it.
    import sys

    return sys.modules.get("numpy")
