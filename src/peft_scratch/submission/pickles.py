"""Reads a pickle of torch.save opcode by opcode, without calling anything that the pickle names.

`pickletools` only lists the opcodes. The few that torch.save writes for a dictionary of tensors are followed,
and any other is refused.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_OPCODES = 400_000
_DEVICE = re.compile(r"(cuda|mps|xpu|hpu|npu)(:\d+)?")
_KNOWN = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"}
#: The types of numbers, by the names that torch's storages have.
TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),  # the upper half of a float32
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class Damaged(Exception):
    """The file is broken, or not a file of torch.save; the message says why."""


class Foreign(Exception):
    """The file asks for something other than tensors; the message says for what."""


@dataclass(frozen=True)
class Storage:
    type: str
    key: str
    length: int


@dataclass(frozen=True)
class Tensor:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    name: str


class Pickle:
    """Follows the opcodes that torch.save writes, over a stack of plain values."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below each open mark
        self._memory: dict[int, Any] = {}
        self.devices: set[str] = set()
        self.storages: list[Storage] = []

    def value(self) -> Any:
        """What the pickle describes.

        Raises:
            Damaged, Foreign: as their docstrings say.
        """
        for opcode, argument in self._opcodes():
            try:
                if opcode == "STOP":
                    return self._stack.pop()
                self._follow(opcode, argument)
            except (IndexError, KeyError, TypeError, ValueError, AttributeError) as problem:
                raise Damaged("its pickle is damaged") from problem
        raise Damaged("its pickle has no end")

    def _opcodes(self) -> Iterator[tuple[str, Any]]:
        """The opcodes of this pickle. The stream is then at what follows the pickle."""
        operations = pickletools.genops(self._stream)
        for _ in range(_MOST_OPCODES):
            try:
                opcode, argument, _ = next(operations)
            except StopIteration:
                return
            except Exception as problem:  # damaged bytes can make pickletools raise anything
                raise Damaged("its pickle is cut short or damaged") from problem
            yield opcode.name, argument
        raise Foreign("its pickle is longer than that of any weights")

    def _follow(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in ("PROTO", "FRAME"):
            return
        if opcode == "MARK":
            self._below.append(stack)
            self._stack = []
        elif opcode in _PUSHES:
            stack.append(_PUSHES[opcode]())
        elif opcode in _CONSTANTS:
            if isinstance(argument, str) and _DEVICE.fullmatch(argument):
                self.devices.add(argument)
            stack.append(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memory[len(self._memory) if opcode == "MEMOIZE" else argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            value = self._memory[argument]
            # A tuple that holds one other twice, forty levels deep, would take years to hash.
            if isinstance(value, tuple) and value:
                raise Foreign("it uses one tuple twice, which torch.save does not")
            stack.append(value)
        elif opcode == "GLOBAL":
            stack.append(self._global(argument))
        elif opcode == "STACK_GLOBAL":
            module, name = self._popped(2)
            stack.append(self._global(f"{module} {name}"))
        elif opcode in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            values = self._since_mark() if opcode == "TUPLE" else self._popped(int(opcode[5:]))
            self._stack.append(tuple(values))
        elif opcode in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            self._fill(opcode)
        elif opcode == "REDUCE":
            made, arguments = self._popped(2)
            stack.append(self._made(made, arguments))
        elif opcode == "BUILD":
            stack.pop()  # the metadata of a state dict
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        else:
            raise Foreign(f"it uses pickle's {opcode}, which torch.save does not write for tensors")

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._below.pop()
        return values

    def _popped(self, count: int) -> list[Any]:
        start = len(self._stack) - count
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _fill(self, opcode: str) -> None:
        one = 2 if opcode == "SETITEM" else 1
        values = self._since_mark() if opcode.endswith("S") else self._popped(one)
        target = self._stack[-1]
        if opcode.startswith("APPEND"):
            if not isinstance(target, list):
                raise Damaged("its pickle appends to something that is not a list")
            target.extend(values)
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise Foreign("it has a key that is not a name")
            target[key] = value

    def _global(self, name: str) -> _Global:
        if name in _KNOWN or re.fullmatch(r"torch \w+Storage", name):
            return _Global(name)
        asked = name[:120].replace(" ", ".")
        raise Foreign(f"it asks for `{asked}`, which is not a tensor and could run code")

    def _made(self, made: Any, arguments: Any) -> Any:
        if made == _Global("collections OrderedDict"):
            return {}
        if made == _Global("torch._utils _rebuild_parameter"):
            return arguments[0]
        if made == _Global("torch._utils _rebuild_tensor_v2"):
            storage, offset, shape, strides = arguments[:4]
            whole = all(isinstance(n, int) for n in (offset, *shape, *strides))
            right = whole and len(shape) == len(strides) and min(shape, default=0) >= 0
            if not isinstance(storage, Storage) or not right:
                raise Damaged("a tensor in its pickle is damaged")
            return Tensor(storage, offset, tuple(shape), tuple(strides))
        raise Foreign("it calls something that is not a tensor")

    def _storage(self, said: Any) -> Storage:
        kind, storage_type, key, _, length = said[:5]
        name = storage_type.name.removeprefix("torch ") if isinstance(storage_type, _Global) else ""
        if kind != "storage" or name not in TYPES or not isinstance(key, str) or not isinstance(length, int):
            raise Damaged(f"it stores numbers of an unknown type {name[:40]}".rstrip())
        if len(said) > 5 and said[5] is not None:
            raise Foreign("it has views of storages, as torch before 0.4 wrote them")
        storage = Storage(name, key, length)
        self.storages.append(storage)
        return storage


_PUSHES: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_CONSTANTS = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
}
