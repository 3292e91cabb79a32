"""LoRA merged into its base: an ordinary T5 folder that needs neither this kit nor PEFT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peft_scratch.assignment import PROFILES
from peft_scratch.data.base_model import load_base
from peft_scratch.errors import UserError
from peft_scratch.exactness.card import TRANSFORMERS, Subject, find_result, model_card
from peft_scratch.exactness.convert import placed, recognise
from peft_scratch.exactness.t5_configs import loadable_name
from peft_scratch.methods import LoRA, apply, merge
from peft_scratch.methods.checkpoint import copy_delta
from peft_scratch.methods.parameters import is_own


def export_merged(
    source: str | Path,
    target: str | Path,
    *,
    base: str | Path = "t5-small",
    alpha: float = 4.0,
    result: Path | None = None,
    licence: str | None = None,
) -> Path:
    """Write the base with the LoRA update of `source` merged into it to `target`: model, tokenizer, card.

    The weights are float32, `W + (alpha / r) (A B)^T` (Hu et al. 2021, section 4.1). The folder is written
    completely or not at all.

    Args:
        source: `lora.pt`, or a folder that PEFT saved.
        target: a new folder.
        base: the model that it was trained on, as `t5_config` takes it.
        alpha, result, licence: as `convert` takes them.

    Returns:
        `target`.

    Raises:
        UserError: `source` is no LoRA for `base`, the base cannot be loaded, or `target` cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise UserError(f"{target} is there already; give another name, or remove it first.")
    method, entries = recognise(source, base, alpha)
    if not isinstance(method, LoRA):
        raise UserError(
            f"{source} is of {method.kind}, and only LoRA can be merged: use `peft-scratch convert`."
        )
    name = loadable_name(base)
    model, tokenizer = load_base(replace(PROFILES["course"], base=name))
    tuned = apply(method, model).model
    copy_delta(tuned, entries, source)
    merge(tuned)
    plain = {key: tensor for key, tensor in tuned.state_dict().items() if not is_own(key)}
    count = sum(tensor.numel() for tensor in entries.values())
    found = find_result(source, method, count, result)
    card = model_card(Subject(method, TRANSFORMERS, target, count, name, found, licence))
    with placed(target, card) as unfinished:
        tuned.save_pretrained(unfinished, state_dict=plain)
        tokenizer.save_pretrained(unfinished)
    return target
