"""Follow the steps of a torch pickle with placeholders, without executing any.

Only calls that make a tensor, a number or a container are allowed, with sizes that fit the file.
"""

import math
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from retina_codec.errors import RetinaCodecError

__all__ = ["NUMPY_NAMES", "Followed", "Storage", "follow"]

MOST_STEPS = 400_000  # a published checkpoint takes about 3,000
MOST_AXES = 8

ITEM_BYTES = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}

STORAGES = {f"torch {name}": size for name, size in ITEM_BYTES.items()}

NUMPY_NAMES = tuple(
    f"{module}.multiarray.{name}"
    for module in ("numpy.core", "numpy._core")
    for name in ("scalar", "_reconstruct")
)

DTYPE = re.compile(r"[<>|=]?[fiub]([1248])")


class Forbidden(RetinaCodecError):
    """A step that is not allowed in a checkpoint."""


@dataclass(frozen=True, eq=False)
class Name:
    """A name of the allow list, as a placeholder."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The storage of a tensor, as declared in the pickle."""

    key: str
    item_bytes: int
    count: int

    @property
    def bytes(self) -> int:
        """Size of the numbers."""
        return self.item_bytes * self.count


@dataclass(eq=False)
class Made:
    """Placeholder of the result of a call; ``size``: its bytes, or those of one item."""

    kind: str
    size: int = 0
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Followed:
    """Result of a pickle: its value with placeholders, and the storages it refers to."""

    value: Any
    storages: dict[str, Storage]


def follow(stream: BytesIO) -> Followed:
    """Follow one pickle to its end; the stream is left after it.

    `Forbidden` if a step asks for anything else than tensors, numbers and containers, or for more
    than can be there; ValueError, IndexError, KeyError or TypeError if the bytes are no pickle.
    """
    return _Machine().run(stream)


class _Machine:
    """The stack machine of pickle protocol 2, with placeholders on its stack."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, stream: BytesIO) -> Followed:
        for number, (step, argument) in enumerate(_steps_of(stream)):
            if number > MOST_STEPS:
                raise Forbidden(f"more than {MOST_STEPS} steps")
            if step in _LITERALS:
                self.stack.append(argument)
            elif step in _MAKERS:
                self.stack.append(_MAKERS[step]())
            elif step in _STEPS:
                _STEPS[step](self, argument)
        if len(self.stack) != 1 or self.outer:
            raise Forbidden("an end amid its steps")
        return Followed(self.stack[0], self.storages)

    def protocol(self, argument: int) -> None:
        if argument != 2:
            raise Forbidden(f"pickle protocol {argument}, not 2")

    def mark(self, _: None) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def tuple_of_marked(self, _: None) -> None:
        items = tuple(self.since_mark())
        self.stack.append(items)

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise Forbidden("a tuple of what is not there")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise Forbidden("appending to what is no list")
        target.extend(items)

    def put_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, Made) or target.kind != "dict" or len(items) % 2:
            raise Forbidden("setting an item of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float):
                raise Forbidden("a key that is neither text nor number")
            target.items[key] = value

    def store(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def name(self, argument: str) -> None:
        if argument not in _CALLS and argument not in STORAGES and argument != "numpy ndarray":
            raise Forbidden(f"the name {argument.replace(' ', '.')[:80]!r}")
        self.stack.append(Name(argument))

    def call(self, _: None) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or called.name not in _CALLS:
            raise Forbidden("a call of what cannot be called")
        if not isinstance(arguments, tuple):
            raise Forbidden("a call without a tuple of arguments")
        self.stack.append(_CALLS[called.name](arguments))

    def build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Made):
            raise Forbidden("a state for what has none")
        _check_state(target, state)

    def storage(self, _: None) -> None:
        marks = self.stack.pop()
        if not isinstance(marks, tuple) or len(marks) not in (5, 6) or marks[0] != "storage":
            raise Forbidden("a reference that is no storage")
        kind, key, location, count = marks[1:5]
        _expect(isinstance(kind, Name) and kind.name in STORAGES, "a storage of unknown kind")
        _expect(isinstance(key, str) and isinstance(location, str), "a storage without a name")
        _expect(_is_count(count), "a storage without a size")
        _expect(marks[5:] in ((), (None,)), "a view of a storage")
        found = Storage(key, STORAGES[kind.name], count)
        if self.storages.setdefault(key, found) != found:
            raise Forbidden(f"two sizes of the storage {key[:20]!r}")
        self.stack.append(found)


_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}

_MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": lambda: Made("dict"),
}

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.protocol,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple_of_marked,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.put_items([machine.stack.pop() for _ in "kv"][::-1]),
    "SETITEMS": lambda machine, _: machine.put_items(machine.since_mark()),
    "BINPUT": _Machine.store,
    "LONG_BINPUT": _Machine.store,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}

_CODES = {step.code: step for step in pickletools.opcodes}
_KNOWN = {*_LITERALS, *_MAKERS, *_STEPS, "STOP"}


def _steps_of(stream: BytesIO) -> Iterator[tuple[str, Any]]:
    """Yield the steps of one pickle and their arguments, up to the end; no other kinds."""
    name = ""
    while name != "STOP":
        code = stream.read(1).decode("latin1")
        if code not in _CODES:
            raise Forbidden("a step that is none, or no end")
        step: Any = _CODES[code]
        name = step.name
        if name == "GLOBAL":  # as torch reads it: no escapes
            lines = [stream.readline() for _ in range(2)]
            yield name, b" ".join(line.removesuffix(b"\n") for line in lines).decode("ascii")
        elif name in _KNOWN:
            yield name, None if step.arg is None else step.arg.reader(stream)
        else:
            raise Forbidden(f"the step {name}")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Forbidden(otherwise)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _is_made(value: Any, kind: str) -> bool:
    return isinstance(value, Made) and value.kind == kind


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MOST_AXES and all(map(_is_count, value))


def _tensor(arguments: tuple[Any, ...]) -> Made:
    """Check that the tensor lies inside its storage."""
    _expect(len(arguments) == 6, "a tensor of other arguments")
    storage, offset, size, stride, grad, hooks = arguments
    _expect(isinstance(storage, Storage), "a tensor without a storage")
    _expect(_is_count(offset) and _is_shape(size) and _is_shape(stride), "a tensor without a shape")
    _expect(len(size) == len(stride), "a tensor whose strides are not of its shape")
    _expect(isinstance(grad, bool) and _is_made(hooks, "dict") and not hooks.items, "hooks")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    inside = math.prod(size) == 0 or (last < storage.count and math.prod(size) <= storage.count)
    _expect(inside, "a tensor larger than its storage")
    return Made("tensor")


def _parameter(arguments: tuple[Any, ...]) -> Made:
    _expect(len(arguments) == 3 and _is_made(arguments[0], "tensor"), "a parameter of no tensor")
    _expect(isinstance(arguments[1], bool), "a parameter of other arguments")
    _expect(_is_made(arguments[2], "dict") and not arguments[2].items, "hooks")
    return Made("tensor")


def _ordered(arguments: tuple[Any, ...]) -> Made:
    _expect(arguments == (), "an ordered dict with arguments")
    return Made("dict")


def _set(arguments: tuple[Any, ...]) -> Made:
    _expect(len(arguments) == 1 and isinstance(arguments[0], list), "a set of no list")
    _expect(all(isinstance(item, str | int | float) for item in arguments[0]), "a set of others")
    return Made("set")


def _bytes(arguments: tuple[Any, ...]) -> Made:
    _expect(len(arguments) == 2 and arguments[1] == "latin1", "an encoding other than latin1")
    _expect(isinstance(arguments[0], str), "bytes of no text")
    return Made("bytes", len(arguments[0].encode("latin1")))


def _dtype(arguments: tuple[Any, ...]) -> Made:
    _expect(len(arguments) == 3 and isinstance(arguments[0], str), "a dtype of other arguments")
    _expect(all(isinstance(flag, bool | int) for flag in arguments[1:]), "a dtype without flags")
    match = DTYPE.fullmatch(arguments[0])
    if match is None:
        raise Forbidden("a dtype that is no number")
    return Made("dtype", int(match[1]))


def _scalar(arguments: tuple[Any, ...]) -> Made:
    _expect(len(arguments) == 2 and _is_made(arguments[0], "dtype"), "a number without a dtype")
    right = _is_made(arguments[1], "bytes") and arguments[1].size == arguments[0].size
    _expect(right, "a number of other bytes than its dtype has")
    return Made("scalar")


def _empty_array(arguments: tuple[Any, ...]) -> Made:
    _expect(len(arguments) == 3 and isinstance(arguments[0], Name), "an array of no class")
    _expect(arguments[0].name == "numpy ndarray" and arguments[1] == (0,), "an array not empty")
    _expect(_is_made(arguments[2], "bytes") and arguments[2].size == 1, "an array of other items")
    return Made("array")


def _check_state(target: Made, state: Any) -> None:
    """Check what a BUILD step puts into a dtype, an array or an ordered dict."""
    if target.kind == "dtype":
        _expect(isinstance(state, tuple) and len(state) == 8, "a dtype of other state")
        plain = all(item is None or isinstance(item, int) for item in (state[0], *state[2:]))
        _expect(plain and state[1] in ("<", ">", "|", "="), "a dtype that is no number")
        _expect(state[2:5] == (None, None, None), "a dtype that is no number")
    elif target.kind == "array":
        _expect(isinstance(state, tuple) and len(state) == 5, "an array of other state")
        _, shape, dtype, order, content = state
        _expect(_is_shape(shape) and isinstance(order, bool), "an array without a shape")
        _expect(_is_made(dtype, "dtype") and _is_made(content, "bytes"), "an array of no numbers")
        _expect(math.prod(shape) * dtype.size == content.size, "an array of another size")
    else:
        known = target.kind == "dict" and _is_made(state, "dict")
        _expect(known and set(state.items) <= {"_metadata"}, "a state that is no metadata")


_CALLS: dict[str, Callable[[tuple[Any, ...]], Made]] = {
    "collections OrderedDict": _ordered,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "__builtin__ set": _set,
    "builtins set": _set,
    "_codecs encode": _bytes,
    "numpy dtype": _dtype,
    **{f"numpy.{core}.multiarray scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray _reconstruct": _empty_array for core in ("core", "_core")},
}
