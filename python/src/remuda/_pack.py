"""Tasks and results as ipyparallel has them on the wire, with short ways for what is sent most."""

from __future__ import annotations

from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from ipyparallel.serialize import PrePickled, canning
from ipyparallel.serialize import serialize as stock

# What pickles as it is, unless somebody has taught ipyparallel otherwise.
PLAIN = frozenset({int, float, complex, str, bool, type(None)})

# The pickle of a function, by the function; with what it was made of, which tells whether it still holds.
_FUNCTIONS: WeakKeyDictionary[Any, tuple] = WeakKeyDictionary()
# The pickle of how many arguments in how many buffers.
_INFO: dict[tuple[int, int], bytes] = {}
_INFO_LIMIT = 1024


def pack(f: Any, args: Any, kwargs: dict, session: Any) -> list:
    """The buffers of a call: as `ipyparallel.serialize.pack_apply_message` makes them."""
    if kwargs:
        return stock.pack_apply_message(
            f, args, kwargs, buffer_threshold=session.buffer_threshold, item_threshold=session.item_threshold
        )
    buffers = pack_function(f)
    packed: list = []
    for arg in args:
        packed += pack_value(arg, session)
    buffers.append(pack_info(len(args), len(packed)))
    return buffers + packed


def pack_value(value: Any, session: Any) -> list:
    """The buffers of one argument."""
    if type(value) in PLAIN:
        return [stock.pickle.dumps(value, stock.PICKLE_PROTOCOL)]
    return stock.serialize_object(value, session.buffer_threshold, session.item_threshold)


def pack_info(count: int, buffers: int) -> bytes:
    """The buffer that says how many arguments come in how many buffers."""
    info = _INFO.get((count, buffers))
    if info is None:
        info = stock.pickle.dumps({"nargs": count, "narg_bufs": buffers, "kw_keys": []}, stock.PICKLE_PROTOCOL)
        if len(_INFO) < _INFO_LIMIT:
            _INFO[count, buffers] = info
    return info


def pack_function(f: Any) -> list:
    """The buffers of what is called, which may be changed. Pickled anew only if it may be another than last time."""
    if type(f) is PrePickled:
        return f.buffers[:]
    if (
        type(f) is not FunctionType
        or f.__closure__ is not None
        or f.__defaults__
        or f.__kwdefaults__
        or f.__annotations__
    ):
        return stock.serialize_object(f)
    made_of = (f.__code__, f.__module__, f.__name__, stock.pickle, canning.can_map.get(FunctionType))
    known = _FUNCTIONS.get(f)
    if known is not None and all(map(_is, known[0], made_of)):
        return [known[1]]
    buffers = stock.serialize_object(f)
    # With another pickler it may hold more of the function than that.
    if len(buffers) == 1 and made_of[4] is canning.CannedFunction:
        _FUNCTIONS[f] = (made_of, buffers[0])
    return buffers


def _is(one: Any, other: Any) -> bool:
    return one is other


def unpack(buffers: list) -> tuple[Any, list]:
    """A result, and the buffers that are left: as `ipyparallel.serialize.deserialize_object` does it."""
    value = stock.pickle.loads(buffers[0])
    kind = type(value)
    if kind in PLAIN:
        return value, buffers[1:]
    if kind is list and len(value) == 1 and type(value[0]) in PLAIN:
        # One item of a map.
        return value, buffers[1:]
    rest = list(buffers[1:])
    if kind in canning.sequence_types and len(value) < stock.MAX_ITEMS:
        for item in value:
            stock._restore_buffers(item, rest)
        return canning.uncan_sequence(value, None), rest
    if kind is dict and len(value) < stock.MAX_ITEMS:
        restored = {}
        for key in sorted(value):
            stock._restore_buffers(value[key], rest)
            restored[key] = canning.uncan(value[key], None)
        return restored, rest
    stock._restore_buffers(value, rest)
    return canning.uncan(value, None), rest
