"""The three weight files: their format, entries, shapes and types, and whether training changed them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open

from peft_scratch.assignment import ENTRY_DIMENSIONS, FILES, PROFILES, WEIGHT_FILES, Run
from peft_scratch.paths import BY_HAND, ROOT
from peft_scratch.submission import tensors
from peft_scratch.submission.archive import File
from peft_scratch.submission.findings import ERROR, Finding, error, look, ok
from peft_scratch.submission.sizes import base_name_of, sizes_of
from peft_scratch.wording import counted

#: What the keys of the entries of each file contain.
_KINDS = {"lora.pt": "sharif_llm_A", "adapter.pt": "sharif_llm_adapter", "prompts.pt": "soft_prompt"}
#: The course's own loader takes the entries whose keys contain this marker.
_MARKER = "sharif_llm"
_SAVE = "save `{name: p.detach().float().cpu()}` of the trained parameters with torch.save"
#: What starts at zero and is still below this was not trained: an optimiser changes it by 0.001 or more.
_IDLE = 1e-6
_BASE_WEIGHTS = "model.safetensors"

Entries = dict[str, np.ndarray]


def examine(files: list[File], profile: str) -> tuple[dict[str, Entries], list[Finding]]:
    """The weights that fit the model, by run, and the findings on all files.

    Args:
        files: the `.pt` files of the submission.
        profile: the profile of the runs, which decides the base that the weights have to fit.
    """
    fitting: dict[str, Entries] = {}
    findings: list[Finding] = []
    left = list(files)
    for name, run in WEIGHT_FILES.items():
        stem = name.removesuffix(".pt")
        others = [file for file in left if file.name not in WEIGHT_FILES]
        candidates = [file for file in left if file.name == name]
        candidates += [file for file in others if stem.rstrip("s") in file.name.casefold()]
        if not candidates:
            fix = f"save the trained entries of notebook {run.notebook} and add the file"
            findings.append(error(run.notebook, "weights-missing", f"{name} is missing", fix))
            continue
        file = candidates[0]
        left.remove(file)
        if file.name != name:
            text = f"{file.where} has to be called {name}"
            # Colab and Windows add a number to the name of a second download, which is no error.
            say = look if file.name.casefold().startswith(stem) else error
            findings.append(say(run.notebook, "weights-name", text, "rename it"))
        said, entries = _examine(file, run, profile)
        findings += said
        if entries is not None:
            fitting[run.id] = entries
    for file in left:
        text = f"{file.where} is not one of the three weight files that are asked for"
        findings.append(look(FILES, "weights-more", text, "leave it out"))
    return fitting, findings


def _examine(file: File, run: Run, profile: str) -> tuple[list[Finding], Entries | None]:
    item, where = run.notebook, file.where

    def wrong(code: str, text: str, fix: str) -> tuple[list[Finding], None]:
        return [error(item, code, f"{where} {text}", fix)], None

    try:
        read = tensors.read(file.data)
    except tensors.Foreign as problem:
        return wrong("pickled-code", f"was not read: {problem}", _SAVE)
    except tensors.Damaged as problem:
        return wrong("weights-damaged", f"is not a file of torch.save: {problem}", _SAVE)
    except tensors.NotTensors as problem:
        return wrong("weights-unreadable", str(problem), _SAVE)
    expected = sizes_of(run.id, profile)
    entries = {name: entry for name, entry in read.entries.items() if _MARKER in name}
    kinds = [name for name, part in _KINDS.items() if any(part in entry for entry in entries)]
    if len(kinds) == 1 and kinds[0] != run.weight_file:
        fix = "check whether two files were mixed up"
        return wrong("weights-swapped", f"holds the entries of {kinds[0]}", fix)
    if difference := first_difference(read.entries, entries, expected.entries):
        takes = counted(len(expected.entries), "entry", "entries")
        fix = f"it has to have the {takes} of {run.title} on {base_name_of(profile)}"
        return wrong("weights-differ", f"does not fit: {difference}", fix)
    if bad := [name for name, entry in entries.items() if not np.isfinite(entry).all()]:
        fix = "the training went wrong: train again, in float32"
        return wrong("weights-not-finite", f"holds NaN or infinity in {bad[0]}", fix)
    if hashlib.sha256(file.data).hexdigest() in _kit_hashes():
        return wrong("weights-of-the-kit", "is a file that comes with the kit", "hand in what you trained")
    if idle := untrained(entries, run, profile):
        return wrong("weights-untrained", idle, "save the model that was trained, after its training")
    found = list(_remarks(file, run, profile, read, entries))
    if not any(one.mark == ERROR for one in found):
        held = f"{counted(len(entries), 'tensor')}, {expected.added:,} parameters"
        found.append(ok(item, "weights", f"{where}: {held}, trained, finite, float32"))
    return found, {name: np.ascontiguousarray(entry, np.float32) for name, entry in entries.items()}


def _remarks(
    file: File, run: Run, profile: str, read: tensors.Tensors, entries: Entries
) -> Iterator[Finding]:
    """What is wrong with a file although its entries can be used."""
    item, where = run.notebook, file.where
    if types := {read.types[name] for name in entries} - {"float32"}:
        yield error(item, "weights-type", f"{where} holds {', '.join(sorted(types))}, not float32", _SAVE)
    if more := [name for name in read.entries if name not in entries]:
        surplus = counted(len(more), "entry", "entries")
        text = f"{where} holds {surplus} besides the trained ones; the first is {more[0]}"
        yield error(item, "weights-surplus", text, _SAVE)
    if read.devices:
        text = f"{where} was saved on {read.devices[0]}, so loading it needs that device"
        yield look(item, "weights-device", text, _SAVE)
    if run.kind == "soft_prompt" and _vocabulary(profile, 1) is None:
        text = f"{where} could not be compared with the rows that training starts from"
        yield look(item, "start-unknown", text, f"{base_name_of(profile)} is not on this machine")


def first_difference(
    all_entries: Mapping[str, np.ndarray],
    entries: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
) -> str | None:
    """The first difference between the entries of a file and what is expected; None if it fits.

    Args:
        all_entries: every entry of the file, to name another one if one is missing.
        entries: the trained ones.
        expected: shapes by name.
    """
    unexpected = next((key for key in entries if key not in expected), None)
    for name, shape in expected.items():
        if name not in entries:
            instead = ""
            if other := unexpected or next((key for key in all_entries if key not in expected), None):
                instead = f" (it has {other} instead)"
            elif not all_entries:
                instead = " (it has no entry at all)"
            return f"the file lacks the entry {name}{instead}"
        if (got := tuple(entries[name].shape)) != shape:
            return f"{_difference_in_shape(name, got, shape)}, at {name}"
    return f"the file has an entry {unexpected} that the model has not" if unexpected else None


def _difference_in_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    called = next((names for end, names in ENTRY_DIMENSIONS.items() if name.endswith(end)), ())
    if len(got) == len(expected) == len(called):
        if got == expected[::-1] and len(got) == 2:
            return f"stored transposed, {got} in the file, {expected} in the model"
        for what, in_file, in_model in zip(called, got, expected, strict=True):
            if in_file != in_model:
                return f"{what} {in_file} in the file, {in_model} in the model"
    return f"shape {got} in the file, {expected} in the model"


def untrained(entries: Mapping[str, np.ndarray], run: Run, profile: str) -> str | None:
    """What shows that the entries were not trained, in words; `None` if nothing does.

    LoRA's B and the adapter's up-projection start at zero. The prompt starts as the first rows of the
    vocabulary, which can be compared only if the base is on this machine.
    """

    def zero(ends: str | tuple[str, ...]) -> tuple[list[str], int]:
        names = [name for name in entries if name.endswith(ends)]
        return [name for name in names if not np.abs(entries[name]).max(initial=0) > _IDLE], len(names)

    if run.kind == "soft_prompt":
        (rows,) = entries.values()  # (N, d)
        if zero("")[0]:
            return "holds a prompt of zeros"
        start = _vocabulary(profile, len(rows))
        if start is not None and np.allclose(rows, start, rtol=1e-5, atol=1e-6):
            return "holds the rows that the prompt starts from"
        return "holds the same number everywhere" if np.ptp(rows) < _IDLE else None
    idle, places = zero("_B" if run.kind == "lora" else ".2.weight")
    if idle:
        return f"was not trained in {len(idle)} of {places} places: {idle[0]} is zero, as at the start"
    dead, _ = zero(("_A", ".0.weight"))
    return f"holds only zeros in {dead[0]}, which training does not give" if dead else None


@functools.cache
def _kit_hashes() -> frozenset[str]:
    """The hashes of the weight files that come with the kit."""
    files = [path for folder in ("weights", "out") for path in (ROOT / folder).glob("*.pt")]
    return frozenset(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)


def _vocabulary(profile: str, rows: int) -> np.ndarray | None:
    """The first `rows` of the base's vocabulary embedding, (rows, d), if the base is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    base = PROFILES[profile].base
    by_hand = BY_HAND / base / _BASE_WEIGHTS  # if `base` is a whole path, that path
    try:
        path = by_hand if by_hand.is_file() else try_to_load_from_cache(base, _BASE_WEIGHTS)
        if not isinstance(path, (str, Path)):
            return None
        with safe_open(path, "np") as file:
            return file.get_slice("shared.weight")[:rows].astype(np.float32)
    except Exception:  # the base is damaged or not as expected, so it cannot be compared with
        return None
