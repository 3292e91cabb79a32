"""The tensors of a file of torch.save, read without torch and without unpickling anything.

A foreign file is never given to torch or to pickle: torch before 2.6 could be made to run code even with
`weights_only=True` (CVE-2025-32434), and two parsers of one zip may see two files. Here the opcodes of the
pickle are walked with `pickletools`, which only lists them, and the few that torch.save writes of a
dictionary of tensors are followed; anything else is refused. The numbers become NumPy arrays.

Three formats of torch.save are known: the zip (torch 1.6 and later), with pickle protocol 2 to 5; and
the stream of pickles before that.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: What torch.save writes of a dictionary of tensors; a whole model's takes some 40 kB.
_LARGEST_PICKLE, _MOST_OPCODES = 2**20, 400_000
#: All tensors together, in bytes.
_LARGEST = 512 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DEVICE = re.compile(r"(cuda|mps|xpu|hpu|npu)(:\d+)?")
_TYPES = {
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
_TYPE_NAMES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
}
_KNOWN = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"}


class Damaged(Exception):
    """No file of torch.save, or a broken one; the message says why, in plain words."""


class Foreign(Exception):
    """A file that asks for more than tensors; the message says for what."""


class NotTensors(Exception):
    """A file of torch.save that is no dictionary of tensors; the message says what it is."""


@dataclass
class Tensors:
    """What a weight file holds.

    Attributes:
        entries: the tensors by name, as float32 where they are of floating point.
        types: the name of each entry's type as it was stored.
        devices: devices other than the CPU that the tensors were saved on.
        old: whether it is in the format of torch before 1.6.
    """

    entries: dict[str, np.ndarray] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    old: bool = False


def read(data: bytes) -> Tensors:
    """The tensors of a weight file.

    Raises:
        Damaged: it is no file of torch.save, or a broken one.
        Foreign: it asks for something that is no tensor, or is put together as torch never does.
        NotTensors: it is no dictionary of tensors.
    """
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data)
    if data[:1] == b"\x80":
        return _read_legacy(data)
    if data[:40].startswith(b"version https://git-lfs"):
        raise Damaged("it is a pointer of Git LFS, not the file itself")
    if not data:
        raise Damaged("it is empty")
    raise Damaged("it begins as no file of torch.save does")


# The zip


def _read_zip(data: bytes) -> Tensors:
    archive = _one_archive(data)
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        unpacked = sum(member.file_size for member in members)
        raise NotTensors(f"unpacks from {len(data):,} to {unpacked:,} bytes, which torch.save never does")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise Foreign("it has two members of one name, which torch.save does not write,")
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Damaged(f"its zip holds {len(pickles)} files data.pkl where torch.save writes one")
    folder = pickles[0].removesuffix("data.pkl")
    if archive.getinfo(pickles[0]).file_size > _LARGEST_PICKLE:
        raise Damaged(f"a pickle of {archive.getinfo(pickles[0]).file_size:,} bytes")
    if f"{folder}byteorder" in names and _member(archive, f"{folder}byteorder") not in (b"little", b""):
        raise Damaged("its numbers are stored big end first")
    walked = _Pickle(io.BytesIO(_member(archive, pickles[0])))
    found = walked.value()
    return _as_tensors(found, lambda key: _member(archive, f"{folder}data/{key}"), walked.devices)


def _one_archive(data: bytes) -> zipfile.ZipFile:
    """The archive, if every parser would see the same one: one directory, at the end of the file."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except Exception as problem:  # zipfile raises what the damaged bytes lead it to
        raise Damaged("its zip is cut short or damaged") from problem
    end = data.rfind(b"PK\x05\x06")
    directory = int.from_bytes(data[end + 12 : end + 16], "little")
    start = archive.start_dir
    behind = end - start - directory
    if (
        end != len(data) - 22
        or (behind not in (0, 76) and directory != 2**32 - 1)
        or (members and min(m.header_offset for m in members) != 0)
    ):
        raise Foreign(
            "its zip has more than one directory, so that two programs could read two files from it,"
        )
    place = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset < place:
            raise Foreign("the members of its zip lie over each other,")
        place = member.header_offset + member.compress_size
    return archive


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError as problem:
        raise Damaged(f"its zip lacks {name[-60:]}") from problem
    except Exception as problem:  # checksum, length, flags
        raise Damaged("a member of its zip is damaged") from problem


# The stream of pickles of torch before 1.6


def _read_legacy(data: bytes) -> Tensors:
    stream = io.BytesIO(data)
    magic = _Pickle(stream).value()
    if magic != _LEGACY_MAGIC:
        raise Damaged("it is a bare pickle, not a file of torch.save")
    for _ in range(2):  # the protocol, the sizes of the system's types
        _Pickle(stream).value()
    walked = _Pickle(stream)
    found = walked.value()
    keys = _Pickle(stream).value()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("its list of storages is damaged")
    sizes = {storage.key: storage for storage in walked.storages}
    contents: dict[str, bytes] = {}
    for key in keys:
        if key not in sizes:
            raise Damaged("it stores numbers that no tensor uses")
        length = int.from_bytes(stream.read(8), "little", signed=True)
        if length != sizes[key].length:
            raise Damaged("the lengths of its storages are damaged")
        contents[key] = stream.read(length * _TYPES[sizes[key].type].itemsize)
    tensors = _as_tensors(found, lambda key: contents.get(key, b""), walked.devices)
    tensors.old = True
    return tensors


# Tensors from storages


@dataclass(frozen=True)
class _Storage:
    type: str
    key: str
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _as_tensors(found: Any, content: Callable[[str], bytes], devices: set[str]) -> Tensors:
    if not isinstance(found, dict):
        kind = "tensor" if isinstance(found, _Tensor) else type(found).__name__.strip("_").lower()
        raise NotTensors(f"holds a {kind}, not a dictionary of tensors")
    made = Tensors(devices=sorted(devices))
    left = _LARGEST
    storages: dict[str, bytes] = {}
    for key, value in found.items():
        if not isinstance(key, str):
            raise NotTensors(f"holds a dictionary whose keys are no names, {str(key)[:40]!r} for one")
        if not isinstance(value, _Tensor):
            inside = (
                "a dictionary" if isinstance(value, dict) else f"a {type(value).__name__.strip('_').lower()}"
            )
            raise NotTensors(f"holds {inside} under {key[:80]!r}, not a tensor")
        if value.storage.key not in storages:
            storages[value.storage.key] = content(value.storage.key)
        left -= 4 * max(int(np.prod(value.shape, dtype=object)), 1)
        if left < 0:
            raise NotTensors(f"holds a tensor {key[:80]!r} far larger than any that is asked for")
        made.entries[key] = _array(key, value, storages[value.storage.key])
        made.types[key] = _TYPE_NAMES.get(
            value.storage.type, value.storage.type.removesuffix("Storage").lower()
        )
    return made


def _array(key: str, tensor: _Tensor, raw: bytes) -> np.ndarray:
    kind = _TYPES[tensor.storage.type]
    if len(raw) % kind.itemsize or len(raw) // kind.itemsize < tensor.storage.length:
        raise Damaged(f"the numbers of {key[:80]!r} are cut short")
    numbers = np.frombuffer(raw, kind)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    empty = 0 in tensor.shape
    if min(tensor.strides, default=0) < 0 or tensor.offset < 0 or (not empty and last >= len(numbers)):
        raise Damaged(f"{key[:80]!r} reaches beyond its numbers")
    if empty:
        return np.zeros(tensor.shape, np.float32)
    steps = tuple(step * kind.itemsize for step in tensor.strides)
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
    if tensor.storage.type == "BFloat16Storage":
        return (view.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        # A view where it can be: a whole model that is handed in by mistake is not copied.
        return view.astype(np.float32, copy=False) if kind.kind == "f" else view


# The pickle


_MARK = object()


@dataclass(frozen=True)
class _Global:
    name: str


class _Pickle:
    """Follows the opcodes that torch.save writes, over a stack of plain values."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}
        self.devices: set[str] = set()
        self.storages: list[_Storage] = []

    def value(self) -> Any:
        """What the pickle describes.

        Raises:
            Damaged, Foreign: see `read`.
        """
        for opcode, argument in self._opcodes():
            try:
                if opcode == "STOP":
                    return self._stack.pop()
                self._follow(opcode, argument)
            except (IndexError, KeyError, TypeError, ValueError) as problem:
                raise Damaged("its pickle is damaged") from problem
        raise Damaged("its pickle has no end")

    def _opcodes(self) -> Iterator[tuple[str, Any]]:
        """The opcodes up to the end of this pickle; the stream stays behind it."""
        operations = pickletools.genops(self._stream)
        for _ in range(_MOST_OPCODES):
            try:
                opcode, argument, _ = next(operations)
            except StopIteration:
                return
            except Exception as problem:  # pickletools raises what the damaged bytes lead it to
                raise Damaged("its pickle is cut short or damaged") from problem
            yield opcode.name, argument
        raise Foreign("its pickle is longer than that of any weights")

    def _follow(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in ("PROTO", "FRAME"):
            return
        if opcode in _PUSHES:
            stack.append(_PUSHES[opcode]())
        elif opcode in _CONSTANTS:
            if isinstance(argument, str) and _DEVICE.fullmatch(argument):
                self.devices.add(argument)
            stack.append(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memory[len(self._memory) if opcode == "MEMOIZE" else argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            value = self._memory[argument]
            # Tuples of one tuple, doubled forty times, would take years to hash.
            if isinstance(value, tuple) and value:
                raise Foreign("it uses one tuple twice, which torch.save does not,")
            stack.append(value)
        elif opcode == "GLOBAL":
            stack.append(self._global(argument))
        elif opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(self._global(f"{module} {name}"))
        elif opcode in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            count = len(self._since_mark()) if opcode == "TUPLE" else int(opcode[5:])
            values = tuple(stack[len(stack) - count :])
            del stack[len(stack) - count :]
            if opcode == "TUPLE":
                stack.pop()  # the mark
            stack.append(values)
        elif opcode in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            self._fill(opcode)
        elif opcode == "REDUCE":
            arguments, made = stack.pop(), stack.pop()
            stack.append(self._made(made, arguments))
        elif opcode == "BUILD":
            stack.pop()  # the metadata of a state dict
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        else:
            raise Foreign(f"it uses pickle's {opcode}, which torch.save does not write for tensors,")

    def _since_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                return self._stack[at + 1 :]
        raise IndexError("no mark")

    def _fill(self, opcode: str) -> None:
        stack = self._stack
        if opcode.endswith("S"):
            values = self._since_mark()
            del stack[len(stack) - len(values) - 1 :]
        else:
            count = 2 if opcode == "SETITEM" else 1
            values = stack[-count:]
            del stack[-count:]
        target = stack[-1]
        if opcode.startswith("APPEND"):
            target.extend(values) if isinstance(target, list) else target.append(*values)
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise Foreign("it has a key that is no name,")
            target[key] = value

    def _global(self, name: str) -> _Global:
        if name in _KNOWN or re.fullmatch(r"torch \w+Storage", name):
            return _Global(name)
        raise Foreign(f"it asks for `{name[:120].replace(' ', '.')}`, which is no tensor and could run code,")

    def _made(self, made: Any, arguments: Any) -> Any:
        if made == _Global("collections OrderedDict"):
            return {}
        if made == _Global("torch._utils _rebuild_parameter"):
            return arguments[0]
        if made == _Global("torch._utils _rebuild_tensor_v2"):
            storage, offset, shape, strides = arguments[:4]
            whole = all(isinstance(n, int) for n in (offset, *shape, *strides))
            if (
                not isinstance(storage, _Storage)
                or not whole
                or len(shape) != len(strides)
                or min(shape, default=0) < 0
            ):
                raise Damaged("a tensor in its pickle is damaged")
            return _Tensor(storage, offset, tuple(shape), tuple(strides))
        raise Foreign("it calls something that is no tensor,")

    def _storage(self, said: Any) -> _Storage:
        kind, storage_type, key, _, length = said[:5]
        name = storage_type.name.removeprefix("torch ") if isinstance(storage_type, _Global) else ""
        if kind != "storage" or name not in _TYPES or not isinstance(key, str) or not isinstance(length, int):
            raise Damaged(f"it stores numbers of an unknown type {name[:40]}".rstrip())
        if len(said) > 5 and said[5] is not None:
            raise Foreign("it has views of storages, as torch before 0.4 wrote them,")
        storage = _Storage(name, key, length)
        self.storages.append(storage)
        return storage


_PUSHES: dict[str, Callable[[], Any]] = {
    "MARK": lambda: _MARK,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_CONSTANTS = {
    *(
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "BINFLOAT",
    ),
    *("BINSTRING", "SHORT_BINSTRING"),
}
