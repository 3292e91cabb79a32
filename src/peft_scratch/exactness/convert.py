"""Convert weight files to the adapter folders that PEFT and AdapterHub load, and back.

| file         | folder     | loaded by                                            |
|--------------|------------|------------------------------------------------------|
| `lora.pt`    | PEFT       | `PeftModel.from_pretrained(model, folder)`           |
| `prompts.pt` | PEFT       | `PeftModel.from_pretrained(model, folder)`           |
| `adapter.pt` | AdapterHub | `adapters.init(model)`, `model.load_adapter(folder)` |

The numbers do not change; `folders` says what changes around them. A `.pt` file does not hold LoRA's
alpha, so alpha must be given here, and again when the file is used.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from transformers import T5Config

from peft_scratch.errors import UserError
from peft_scratch.exactness.card import Subject, find_result, model_card
from peft_scratch.exactness.folders import Entries, folder_of, read_folder, require_matrix
from peft_scratch.exactness.push import CARD_FILE
from peft_scratch.exactness.t5_configs import empty_t5, loadable_name, t5_config
from peft_scratch.files import write_atomically
from peft_scratch.libraries.catalogue import ADAPTERHUB, PEFT, PROMPT
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt, apply, read_delta
from peft_scratch.methods.checkpoint import serialised
from peft_scratch.methods.parameters import is_own


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        method: the method from scratch that the file belongs to, with its size.
        target: what was written.
        form: `PEFT folder`, `AdapterHub folder` or `.pt file`.
        tensors, parameters: how many it holds.
        next_step: a sentence that says how to load the target.
    """

    method: Method
    target: Path
    form: str
    tensors: int
    parameters: int
    next_step: str


def convert(
    source: str | Path,
    target: str | Path,
    *,
    base: str | Path | None = None,
    alpha: float = 4.0,
    result: Path | None = None,
    licence: str | None = None,
) -> Conversion:
    """Convert a `.pt` file into an adapter folder with a model card, or an adapter folder into a `.pt` file.

    The target is written completely or not at all. A `.pt` file that goes to a folder and back keeps its
    bytes; a folder in half precision comes back in float32, which loses nothing.

    Args:
        source: `lora.pt`, `prompts.pt` or `adapter.pt`, or a folder of PEFT or AdapterHub.
        target: a new folder, or a new `.pt` file.
        base: the model that it was trained on: a name or a path that `t5_config` knows. The source must fit
            it, and the folder names it. Without a base, the source only has to be complete.
        alpha: LoRA's alpha, in training and in use; the update is scaled by `alpha / r`.
        result: the result of the run that trained a `.pt` file, for its card; see `card.find_result`.
        licence: the licence of the weights, for the card, such as `apache-2.0`.

    Raises:
        UserError: the source is not one of the above, is incomplete, or holds something that a `.pt` file
            cannot hold; or the target exists already or cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise UserError(f"{target} is there already; give another name, or remove it first.")
    becomes_file = source.is_dir()
    if becomes_file and target.suffix != ".pt":
        raise UserError(f"{source} is a folder and becomes a file, so {target} has to end in .pt.")
    if not becomes_file and target.suffix == ".pt":
        raise UserError(f"{source} is a file and becomes a folder, so {target} must not end in .pt.")
    method, entries = recognise(source, base, alpha)
    parameters = sum(tensor.numel() for tensor in entries.values())
    if becomes_file:
        write_atomically(target, serialised(entries))
        form, how = ".pt file", f"load_delta(apply({method!r}, base).model, '{target}')"
    else:
        name = base and loadable_name(base)
        folder = folder_of(method, entries, name)
        found = find_result(source, method, parameters, result)
        card = model_card(Subject(method, folder.library, target, parameters, name, found, licence))
        with placed(target, card) as unfinished:
            folder.write(unfinished)
        form, how = f"{folder.library} folder", _LOADED[folder.library].format(target)
    return Conversion(method, target, form, len(entries), parameters, f"Load it with {how}.")


_LOADED = {
    PEFT: "PeftModel.from_pretrained(base, '{}')",
    ADAPTERHUB: "adapters.init(base) and base.load_adapter('{}', set_active=True)",
}


def recognise(
    source: str | Path, base: str | Path | None = None, alpha: float = 4.0
) -> tuple[Method, Entries]:
    """The method of trained tensors, and the tensors under our names, in the order of `save_delta`.

    The tensors are compared with the method itself in an empty model of `base`; without a base, in the
    smallest model that has every block they name.

    Args:
        source: a `.pt` file of the assignment's form, or a folder that PEFT or AdapterHub saved.
        base: as `t5_config` takes it; the tensors must fit its sizes.
        alpha: LoRA's, which a `.pt` file does not hold.

    Raises:
        UserError: the source is none of these, or is incomplete.
    """
    source = Path(source)
    entries = read_folder(source, alpha) if source.is_dir() else read_delta(source)
    kind = _kind(source, entries)
    method, smallest = kind(source, entries, alpha)
    config = smallest if base is None else t5_config(base)
    model = apply(method, empty_t5(config)).model
    own = {name: p for name, p in model.named_parameters() if is_own(name)}
    difference = None
    if missing := [name for name in own if name not in entries]:
        difference = f"it lacks {missing[0]}"
    elif surplus := [name for name in entries if name not in own]:
        difference = f"it has {surplus[0]}, which the model does not have"
    elif wrong := [name for name in own if entries[name].shape != own[name].shape]:
        name = wrong[0]
        got, expected = tuple(entries[name].shape), tuple(own[name].shape)
        difference = f"{name} has the shape {got} and not {expected}"
    if difference and base is None:
        raise UserError(f"{source} is not complete: {difference}.")
    if difference:
        raise UserError(f"{source} was not trained on the base {base}: {difference}.")
    # Clones: torch.save would write the whole storage behind a view.
    return method, {name: entries[name].clone(memory_format=torch.contiguous_format) for name in own}


def _kind(source: Path, entries: Entries) -> Callable[[Path, Entries, float], tuple[Method, T5Config]]:
    kinds = {_LORA: _as_lora, _BOTTLENECK: _as_adapter, re.compile(re.escape(PROMPT)): _as_soft_prompt}
    if not entries:
        raise UserError(f"{source} holds no tensor at all.")
    first = next(iter(entries))
    pattern = next((pattern for pattern in kinds if pattern.fullmatch(first)), None)
    odd = first if pattern is None else next((key for key in entries if not pattern.fullmatch(key)), None)
    if odd is not None:
        raise UserError(
            f"{source} has the entry {odd!r}, which belongs to none of lora.pt, adapter.pt and prompts.pt"
            + (", or not to the same file as the other entries." if pattern else ".")
        )
    return kinds[pattern]


_SITE = r"(?P<stack>encoder|decoder)\.block\.(?P<block>\d{1,4})\.layer\.\d"
_LORA = re.compile(_SITE + r"\.(SelfAttention|EncDecAttention)\.[qv]\.sharif_llm_(?P<matrix>[AB])")
_BOTTLENECK = re.compile(_SITE + r"\.adapter\.sharif_llm_adapter\.(?P<layer>[02])\.(?P<part>weight|bias)")


def _as_lora(source: Path, entries: Entries, alpha: float) -> tuple[LoRA, T5Config]:
    a = _first_of(source, entries, _LORA, matrix="A")  # (d, r)
    b = _first_of(source, entries, _LORA, matrix="B")  # (r, d')
    return LoRA(a.shape[1], alpha), _smallest(entries, _LORA, d_model=a.shape[0], d_kv=b.shape[1])


def _as_adapter(source: Path, entries: Entries, _: float) -> tuple[Adapter, T5Config]:
    down = _first_of(source, entries, _BOTTLENECK, layer="0", part="weight")  # (b, d)
    return Adapter(down.shape[0]), _smallest(entries, _BOTTLENECK, d_model=down.shape[1])


def _as_soft_prompt(source: Path, entries: Entries, _: float) -> tuple[SoftPrompt, T5Config]:
    rows = require_matrix(source, PROMPT, entries[PROMPT])  # (N, d)
    # The rows start as rows of the vocabulary, so the vocabulary needs as many.
    return SoftPrompt(len(rows)), T5Config(
        vocab_size=len(rows), d_model=rows.shape[1], d_ff=1, d_kv=1, num_heads=1, num_layers=1
    )


def _first_of(source: Path, entries: Entries, pattern: re.Pattern, **groups: str) -> torch.Tensor:
    for key, tensor in entries.items():
        if groups.items() <= pattern.fullmatch(key).groupdict().items():
            return require_matrix(source, key, tensor)
    raise UserError(f"{source} is not complete: it has no {' '.join(groups.values())} of any layer.")


def _smallest(entries: Entries, pattern: re.Pattern, **sizes: int) -> T5Config:
    """The smallest T5 that has every block that the entries name."""
    layers = {"encoder": 1, "decoder": 1}
    for key in entries:
        match = pattern.fullmatch(key)
        # At most as many blocks as entries, because a key in a file may name any number.
        layers[match["stack"]] = max(layers[match["stack"]], min(int(match["block"]) + 1, len(entries)))
    return T5Config(
        **{"vocab_size": 1, "d_ff": 1, "d_kv": 1, "num_heads": 1, **sizes},
        num_layers=layers["encoder"],
        num_decoder_layers=layers["decoder"],
    )


@contextmanager
def placed(target: Path, card: ModelCard) -> Iterator[Path]:
    """A path for a new folder. At the end it gets `card` and becomes `target`; a failure removes it."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            card.save(unfinished / CARD_FILE)
            unfinished.replace(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as problem:
        raise UserError(f"Could not write {target}: {problem.strerror or problem}.") from problem
