"""The three weight files: their form, entries, sizes and types, and whether training moved them.

A file is loaded only if its pickle asks for nothing but tensors, and then with `weights_only=True`.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import cached_file

from peft_scratch.assignment import FILES, PROFILES, WEIGHT_FILES, Run
from peft_scratch.data import hub
from peft_scratch.errors import UserError
from peft_scratch.experiments.base_model import WEIGHTS
from peft_scratch.methods.checkpoint import first_difference, read_tensors
from peft_scratch.methods.parameters import is_own
from peft_scratch.submission.archive import File
from peft_scratch.submission.contract import base_name_of, fitted
from peft_scratch.submission.findings import FAULT, Finding, fault, note, ok
from peft_scratch.wording import counted

# What torch.save writes of a dictionary of tensors; a whole model's takes some 40 kB.
_LARGEST_PICKLE = 2**20
_OPCODES = re.compile(
    "PROTO|STOP|MARK|GLOBAL|REDUCE|BUILD|BINPERSID|EMPTY_(DICT|TUPLE|LIST)|SETITEMS?|APPENDS?|TUPLE[123]?|BINUNICODE|"
    "BININT[12]?|LONG1|NONE|NEW(TRUE|FALSE)|(LONG_)?BIN(PUT|GET)"
)
_TENSORS = re.compile(
    r"torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage|collections OrderedDict"
)
_DEVICE = re.compile(r"(cuda|mps|xpu|hpu|npu)(:\d+)?")
# Whose entries they are, by a part of their keys.
_KINDS = {"lora.pt": "sharif_llm_A", "adapter.pt": "sharif_llm_adapter", "prompts.pt": "soft_prompt"}
_SAVE = "save `{name: p.detach().float().cpu()}` of the trained parameters with torch.save"


def examine(files: list[File], profile: str) -> tuple[dict[str, dict[str, Tensor]], list[Finding]]:
    """The weights among `files` by the run that trained them, those that fit, and what is to be said.

    Args:
        files: the `.pt` files of the submission.
        profile: of the runs, which decides the base that they have to fit.
    """
    fitting: dict[str, dict[str, Tensor]] = {}
    findings: list[Finding] = []
    left = list(files)
    for name, run in WEIGHT_FILES.items():
        file = next((file for file in left if file.name == name), None) or next(
            (file for file in left if file.name not in WEIGHT_FILES and _is_meant(file, name)), None
        )
        if file is None:
            text = f"{name} is missing"
            findings.append(
                fault(run.notebook, "weights-missing", text, f"notebook {run.notebook} writes it")
            )
            continue
        left.remove(file)
        if file.name != name:
            text = f"{file.where} has to be called {name}"
            findings.append(fault(run.notebook, "weights-name", text, "rename it"))
        said, entries = _examine(file, run, profile)
        findings += said
        if entries is not None:
            fitting[run.id] = entries
    for file in left:
        text = f"{file.where} is one weight file more than the three that are asked for"
        findings.append(note(FILES, "weights-more", text, "leave it out"))
    return fitting, findings


def _is_meant(file: File, name: str) -> bool:
    return name.removesuffix(".pt").rstrip("s") in file.name.casefold()


def _examine(file: File, run: Run, profile: str) -> tuple[list[Finding], dict[str, Tensor] | None]:
    item, where = run.notebook, file.where

    def wrong(code: str, text: str, mend: str) -> tuple[list[Finding], None]:
        return [fault(item, code, f"{where} {text}", mend)], None

    try:
        devices = _look(file.data)
    except _Foreign as problem:
        return wrong("pickled-code", f"{problem} and was not loaded", _SAVE)
    except _Damaged as problem:
        return wrong("weights-damaged", f"is no file of torch.save ({problem})", _SAVE)
    try:
        tensors = read_tensors(io.BytesIO(file.data), where)
    except UserError as problem:
        return [fault(item, "weights-unreadable", str(problem).rstrip("."), _SAVE)], None
    entries = {name: tensor for name, tensor in tensors.items() if is_own(name)}
    expected = fitted(run.id, base_name_of(profile))
    kinds = [name for name, part in _KINDS.items() if any(part in entry for entry in entries)]
    if len(kinds) == 1 and kinds[0] != run.weight_file:
        return wrong(
            "weights-swapped", f"holds the entries of {kinds[0]}", "see whether two files were mixed up"
        )
    if difference := first_difference(entries, expected.entries, tensors):
        takes = counted(len(expected.entries), "entry", "entries")
        mend = f"it takes the {takes} of {run.title} on {base_name_of(profile)}"
        return wrong("weights-differ", f"does not fit: {difference}", mend)
    if bad := [name for name, tensor in entries.items() if not tensor.isfinite().all()]:
        mend = "the training went wrong: train again, in float32"
        return wrong("weights-not-finite", f"holds NaN or infinity in {bad[0]}", mend)
    if idle := untrained(entries, run, profile):
        mend = "save the model that was trained, after its training"
        return wrong("weights-untrained", idle, mend)
    found = []
    if types := {tensor.dtype for tensor in entries.values()} - {torch.float32}:
        text = f"{where} holds {', '.join(sorted(map(str, types)))}, not float32"
        found.append(fault(item, "weights-type", text, _SAVE))
    if more := [name for name in tensors if name not in entries]:
        entries_more = counted(len(more), "entry", "entries")
        text = f"{where} holds {entries_more} besides the trained ones, {more[0]} the first"
        found.append(fault(item, "weights-surplus", text, _SAVE))
    if devices:
        text = f"{where} was saved on {devices[0]}, so that loading it wants that device"
        found.append(note(item, "weights-device", text, _SAVE))
    if run.id.startswith("prompt") and _vocabulary(profile, 1) is None:
        text = f"{where} could not be compared with the rows it started from"
        found.append(note(item, "start-unknown", text, f"{base_name_of(profile)} is not on this machine"))
    if not any(one.mark == FAULT for one in found):
        held = f"{counted(len(entries), 'tensor')}, {expected.added:,} parameters"
        text = f"{where}: {held}, trained, finite, float32"
        found.append(ok(item, "weights", text))
    return found, {name: tensor.detach().float().contiguous() for name, tensor in entries.items()}


# Before loading


class _Damaged(Exception):
    """No file of torch.save."""


class _Foreign(Exception):
    """A file that asks for more than tensors."""


def _look(data: bytes) -> list[str]:
    """The devices that the tensors of a file were saved on, other than the CPU; nothing is unpickled.

    Raises:
        _Damaged: it is no zip archive with a pickle in it.
        _Foreign: the pickle asks for something that is no tensor, or is put together as torch never does.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        (member,) = [one for one in archive.infolist() if one.filename.rpartition("/")[2] == "data.pkl"]
        if member.file_size > _LARGEST_PICKLE:
            raise ValueError(f"a pickle of {member.file_size:,} bytes")
        operations = list(pickletools.genops(archive.read(member)))
    except Exception as problem:  # zipfile and pickletools raise what the damaged bytes lead them to
        raise _Damaged(str(problem) or type(problem).__name__) from problem
    devices: set[str] = set()
    tuples: set[object] = set()  # places in the pickle's memory
    before = ""
    for operation, argument, _ in operations:
        if operation.name == "GLOBAL" and not _TENSORS.fullmatch(argument):
            raise _Foreign(f"asks for `{argument.replace(' ', '.')}`, which is no tensor and could run code,")
        if not _OPCODES.fullmatch(operation.name):
            raise _Foreign(f"uses pickle's {operation.name}, which torch.save does not write for tensors,")
        # Tuples of one tuple, doubled forty times, would take years to hash.
        if operation.name.endswith("GET") and argument in tuples:
            raise _Foreign("uses one tuple twice, which torch.save does not,")
        if operation.name.endswith("PUT") and before.startswith("TUPLE"):
            tuples.add(argument)
        if operation.name == "BINUNICODE" and _DEVICE.fullmatch(argument):
            devices.add(argument)
        before = operation.name
    return sorted(devices)


# After loading


def untrained(entries: dict[str, Tensor], run: Run, profile: str) -> str | None:
    """In which way the entries are still those that training starts from; `None` if they are not.

    LoRA's B and the adapter's up-projection start at zero, the prompt as the first rows of the
    vocabulary, which can be told only where the base is at hand.
    """
    if run.weight_file == "prompts.pt":
        (rows,) = entries.values()  # (N, D)
        start = _vocabulary(profile, len(rows))
        if start is not None and torch.equal(rows.float(), start):
            return "holds the rows that the prompt starts from"
        return None
    zeros = {"lora.pt": "_B", "adapter.pt": ".2.weight"}[str(run.weight_file)]
    starting = [name for name in entries if name.endswith(zeros)]
    idle = [name for name in starting if not entries[name].count_nonzero()]
    if not idle:
        return None
    return f"was not trained in {len(idle)} of {len(starting)} places: {idle[0]} is zero, as at the start"


def _vocabulary(profile: str, rows: int) -> Tensor | None:
    """The first `rows` of the base's vocabulary embedding, (rows, D), if the base is on this machine."""
    try:
        path = cached_file(hub.place(PROFILES[profile].base), WEIGHTS, local_files_only=True)
        with safe_open(Path(path), "pt") as file:
            return file.get_slice("shared.weight")[:rows].float()
    except Exception:  # not there, or damaged: then it cannot be compared
        return None
