"""The tensors of a file of torch.save, read without torch and without unpickling anything.

A student's file is never given to torch or to pickle. Torch before 2.6 could be made to run code even with
`weights_only=True` (CVE-2025-32434), and two programs may read two different files from one zip. Here the
opcodes of the pickle are only listed (`pickles.py`), and the numbers become NumPy arrays.

Two formats of torch.save are read: the zip of torch 1.6 and later, and the stream of pickles before that.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peft_scratch.submission.pickles import TYPES, Damaged, Foreign, Pickle, Tensor

#: Largest pickle in bytes; the pickle of a whole model has some 40 kB.
_LARGEST_PICKLE = 2**20
#: All tensors together, in bytes.
_LARGEST = 512 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class NotTensors(Exception):
    """The file is a file of torch.save, but not a dictionary of tensors; the message says what it holds."""


@dataclass
class Tensors:
    """What a weight file holds.

    Attributes:
        entries: the tensors by name; those of floating point as float32.
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
        Damaged: it is broken, or not a file of torch.save.
        Foreign: it asks for something that is not a tensor, or has a form that torch never writes.
        NotTensors: it is not a dictionary of tensors.
    """
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data)
    if data[:1] == b"\x80":
        return _read_legacy(data)
    if data[:40].startswith(b"version https://git-lfs"):
        raise Damaged("it is a pointer of Git LFS, not the file itself")
    if not data:
        raise Damaged("it is empty")
    raise Damaged("it does not begin like a file of torch.save")


# The zip


def _read_zip(data: bytes) -> Tensors:
    archive = _one_archive(data)
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        unpacked = sum(member.file_size for member in members)
        raise NotTensors(f"unpacks from {len(data):,} to {unpacked:,} bytes, which torch.save never does")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise Foreign("it has two members of one name, which torch.save does not write")
    pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Damaged(f"its zip holds {len(pickles)} files data.pkl, but torch.save writes one")
    if pickles[0].file_size > _LARGEST_PICKLE:
        raise Damaged(f"its pickle has {pickles[0].file_size:,} bytes, far too many")
    folder = pickles[0].filename.removesuffix("data.pkl")
    if f"{folder}byteorder" in names and _member(archive, f"{folder}byteorder") not in (b"little", b""):
        raise Damaged("its numbers are stored as big-endian")
    walked = Pickle(io.BytesIO(_member(archive, pickles[0].filename)))
    found = walked.value()
    return _as_tensors(found, lambda key: _member(archive, f"{folder}data/{key}"), walked.devices)


def _one_archive(data: bytes) -> zipfile.ZipFile:
    """The archive, if every program would read the same files: it has one directory, at the end."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [*archive.infolist()]
    except Exception as problem:  # damaged bytes can make zipfile raise anything
        raise Damaged("its zip is cut short or damaged") from problem
    end = data.rfind(b"PK\x05\x06")
    directory = int.from_bytes(data[end + 12 : end + 16], "little")
    behind = end - archive.start_dir - directory
    members.sort(key=lambda member: member.header_offset)
    starts_late = members and members[0].header_offset != 0
    if end != len(data) - 22 or (behind not in (0, 76) and directory != 2**32 - 1) or starts_late:
        raise Foreign("its zip has more than one directory, so two programs could read different files")
    for member, after in itertools.pairwise(members):
        if after.header_offset < member.header_offset + member.compress_size:
            raise Foreign("the members of its zip overlap")
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
    if Pickle(stream).value() != _LEGACY_MAGIC:
        raise Damaged("it is a bare pickle, not a file of torch.save")
    for _ in range(2):  # the protocol, the sizes of the system's types
        Pickle(stream).value()
    walked = Pickle(stream)
    found = walked.value()
    keys = Pickle(stream).value()
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
        contents[key] = stream.read(length * TYPES[sizes[key].type].itemsize)
    tensors = _as_tensors(found, lambda key: contents.get(key, b""), walked.devices)
    tensors.old = True
    return tensors


# Tensors from storages


def _as_tensors(found: Any, content: Callable[[str], bytes], devices: set[str]) -> Tensors:
    if not isinstance(found, dict):
        raise NotTensors(f"holds a {_kind(found)}, not a dictionary of tensors")
    made = Tensors(devices=sorted(devices))
    left = _LARGEST
    storages: dict[str, bytes] = {}
    for key, value in found.items():
        if not isinstance(key, str):
            raise NotTensors(f"holds a dictionary with keys that are not names, such as {str(key)[:40]!r}")
        if not isinstance(value, Tensor):
            raise NotTensors(f"holds a {_kind(value)} under {key[:80]!r}, not a tensor")
        if value.storage.key not in storages:
            storages[value.storage.key] = content(value.storage.key)
        left -= 4 * max(int(np.prod(value.shape, dtype=object)), 1)
        if left < 0:
            raise NotTensors(f"holds a tensor {key[:80]!r} far larger than any that is asked for")
        made.entries[key] = _array(key, value, storages[value.storage.key])
        is_bfloat16 = value.storage.type == "BFloat16Storage"
        made.types[key] = "bfloat16" if is_bfloat16 else TYPES[value.storage.type].name
    return made


def _kind(value: object) -> str:
    return "dictionary" if isinstance(value, dict) else type(value).__name__.strip("_").lower()


def _array(key: str, tensor: Tensor, raw: bytes) -> np.ndarray:
    kind = TYPES[tensor.storage.type]
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
