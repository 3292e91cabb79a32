"""The weight files that are handed in: only the trained tensors, as a plain `dict[str, Tensor]`."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import BinaryIO

import torch
from torch import Tensor, nn

from peft_scratch.assignment import ENTRY_DIMENSIONS
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.methods.parameters import MARK, is_own, plain_name, tuned_part


def save_delta(model: nn.Module, path: str | Path, declared: Callable[[str], bool] = is_own) -> None:
    """Write the declared parameters of `model` to `path`: float32, on the CPU, nothing else.

    The file is written under another name and then renamed, so there is never half a file.

    Args:
        model: a model with a method in it. Wrappers (compile, DataParallel, DistributedDataParallel, a module
            of your own) do not change the names.
        path: the file; its folder is created if needed.
        declared: which parameters to save, by name. A library's model needs `method.declares`.

    Raises:
        UserError: no parameter is declared, or the file cannot be written.
    """
    path = _path(path)
    tensors = entries_of(model, declared)
    if not tensors:
        raise UserError(_nothing_declared(model, f"save in {path}"))
    write_atomically(path, serialised(tensors))


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(
            f"A path is expected for the file, not a {type(path).__name__}: the model comes first."
        )
    return Path(path)


def entries_of(model: nn.Module, declared: Callable[[str], bool]) -> dict[str, Tensor]:
    """The entries of a weight file of `model`: declared parameters by name, float32, on the CPU."""
    # BEGIN SOLUTION
    return {
        # A clone, because torch.save would write the whole storage behind a view.
        name: p.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
        for name, p in declared_parameters(model, declared).items()
    }
    # END SOLUTION


def declared_parameters(model: nn.Module, declared: Callable[[str], bool]) -> dict[str, nn.Parameter]:
    """The declared parameters of `model`, under their names without any wrapper."""
    named = ((plain_name(name), p) for name, p in tuned_part(model).named_parameters())
    return {name: p for name, p in named if declared(name)}


def _nothing_declared(model: nn.Module, to_do: str) -> str:
    if (method := getattr(tuned_part(model), MARK, None)) is None:
        return f"The model has no parameters of a method to {to_do}; apply a method to it first."
    return (
        f"The model has {method!r} in it, whose parameters have names of their own: to {to_do}, pass "
        "`method.declares` as the third argument."
    )


def serialised(content: object) -> bytes:
    """The bytes that `torch.save` writes for `content`.

    Made in memory, they do not depend on the file's name, and a full disk is an `OSError`.
    """
    data = io.BytesIO()
    torch.save(content, data)
    # Not `getbuffer()`: a view in a cycle, as a failed write leaves one, crashes Python 3.12.0 and 3.12.1
    # (python/cpython#111049), and is an error that later ones report. This copies nothing either.
    return data.getvalue()


def read_delta(path: str | Path) -> dict[str, Tensor]:
    """Read a file of tensors such as `save_delta` writes, from anyone, as float32 on the CPU.

    Nothing in the file is executed: it is read with `weights_only=True`.

    Raises:
        UserError: it is not a plain dictionary of finite floating-point tensors; the message says where.
    """
    path = _path(path)
    if not path.is_file():
        raise UserError(f"{path} is {'a folder, not a file' if path.is_dir() else 'not there'}.")
    with path.open("rb") as file:
        entries = read_tensors(file, path)
    for key, value in entries.items():
        if not value.isfinite().all():
            raise UserError(
                f"{path}, entry {key!r}: it holds NaN or infinity, so the training that wrote it went wrong."
            )
    return {key: value.detach().to(torch.float32).contiguous() for key, value in entries.items()}


def read_tensors(file: BinaryIO, path: str | Path) -> dict[str, Tensor]:
    """The tensors of an open file in the type in which they are stored; messages call it `path`.

    Nothing in the file is executed: it is read with `weights_only=True`.

    Raises:
        UserError: it is not a plain dictionary of floating-point tensors; the message says where.
    """
    _refuse_compressed(file, path)
    try:
        entries = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # depending on the damage, torch raises half a dozen kinds
        if isinstance(error, UnpicklingError) and "Unsupported global" in str(error):
            raise UserError(
                f"{path} holds Python objects besides tensors and is not loaded, since that could run code; "
                "save a plain dictionary of tensors."
            ) from error
        file.seek(0)
        raise UserError(f"{path} {_instead_of_tensors(file.read(64))}.") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path} holds a {type(entries).__name__}, not a dictionary of tensors.")
    return {key: _checked(path, key, value) for key, value in entries.items()}


def _instead_of_tensors(start: bytes) -> str:
    """What a file that torch cannot read is, by its first bytes, and what to do."""
    if not start:
        return "is empty: it is not a tensor file, or is cut short; write it again with torch.save"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the file itself; fetch that with `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, as a failed download leaves one; download the file itself"
    if start[8:9] == b"{":
        return "is a safetensors file; read it with safetensors, and write it with torch.save"
    return "is not a tensor file, or is cut short; write it again with torch.save"


def _refuse_compressed(file: BinaryIO, path: str | Path) -> None:
    """Refuse a file that unpacks to more than its size: torch never compresses, but a zip bomb must."""
    try:
        unpacked = sum(member.file_size for member in zipfile.ZipFile(file).infolist())
    except (zipfile.BadZipFile, ValueError):  # torch's old format, or no tensor file: torch.load finds out
        unpacked = 0
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if unpacked > size:
        raise UserError(
            f"{path} unpacks from {size:,} to {unpacked:,} bytes, which torch.save never does, and is not "
            "loaded; write it again with torch.save."
        )


def _checked(path: str | Path, key: object, value: object) -> Tensor:
    """`value` if it is a plain floating-point tensor with a string as key; otherwise a UserError."""
    where = f"{path}, entry {key!r}:"
    if not isinstance(key, str):
        raise UserError(f"{where} the key is a {type(key).__name__}, not a string.")
    if isinstance(value, dict) and value:
        inside = str(next(iter(value)))
        raise UserError(
            f"{where} it is a {type(value).__name__}, not a tensor, and has an entry {inside}; save it alone."
        )
    if not isinstance(value, Tensor):
        raise UserError(f"{where} it is a {type(value).__name__}, not a tensor.")
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        raise UserError(
            f"{where} it is not an ordinary floating-point tensor ({value.dtype}, {value.layout})."
        )
    # With strides of zero, a few bytes can pretend to be a huge tensor.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(f"{where} its shape {tuple(value.shape)} is larger than the numbers stored for it.")
    return value


def load_delta(model: nn.Module, path: str | Path, declared: Callable[[str], bool] = is_own) -> None:
    """Load the entries of the file at `path` into `model`, which has the same method.

    Any file in the assignment's format works. Entries that the method does not declare (such as those of a
    whole model) are ignored, as the course's own loader does. The model changes only if everything fits.

    Args:
        model: a model with the method that wrote the file, of the same size.
        path: the file.
        declared: which parameters to load, by name. A library's model needs `method.declares`.

    Raises:
        UserError: the file is not one of tensors, or does not fit; the message names the first difference.
    """
    copy_delta(model, read_delta(path), path, declared)


def copy_delta(
    model: nn.Module,
    entries: Mapping[str, Tensor],
    path: str | Path,
    declared: Callable[[str], bool] = is_own,
) -> None:
    """As `load_delta`, with entries that were already read; messages call their file `path`."""
    found = {plain_name(key): value for key, value in entries.items()}
    entries = {key: value for key, value in found.items() if declared(key)}
    own = declared_parameters(model, declared)
    if not own:
        raise UserError(_nothing_declared(model, f"load {path} into"))
    if any(getattr(module, "merged", False) for module in model.modules()):
        raise UserError(f"The model's LoRA update is merged; call unmerge(model) before loading {path}.")
    if difference := first_difference(entries, own, found):
        raise UserError(f"{path} does not fit the model: {difference}.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(entries[name])


def first_difference(
    entries: Mapping[str, Tensor], own: Mapping[str, Tensor], found: Mapping[str, Tensor] | None = None
) -> str | None:
    """The first thing in which a file and a model differ, in words; None if they fit.

    Args:
        entries: the file's entries that the method declares.
        own: the model's parameters.
        found: all entries of the file, to name another one if one is missing.
    """
    unexpected = next((key for key in entries if key not in own), None)
    for name, parameter in own.items():
        if name not in entries:
            instead = unexpected or next((key for key in found or () if key not in own), None)
            return f"the file lacks the entry {name}" + (f" (it has {instead} instead)" if instead else "")
        got, expected = tuple(entries[name].shape), tuple(parameter.shape)
        if got != expected:
            return f"{_difference_in_shape(name, got, expected)}, at {name}"
    if unexpected:
        return f"the file has an entry {unexpected} that the model has not"
    return None


def _difference_in_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    called = next((names for end, names in ENTRY_DIMENSIONS.items() if name.endswith(end)), ())
    if len(got) == len(expected) == len(called):
        for what, in_file, in_model in zip(called, got, expected, strict=True):
            if in_file != in_model:
                return f"{what} {in_file} in the file, {in_model} in the model"
    return f"shape {got} in the file, {expected} in the model"
