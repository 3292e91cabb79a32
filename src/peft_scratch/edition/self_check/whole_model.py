"""What is wrong with how a student finds places, freezes, saves and counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peft_scratch.edition.self_check.oracle import Oracle, close
from peft_scratch.methods.derivation import step

_OWN = "sharif_llm"


def places(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `find_in_blocks`, or None."""
    model = oracle.t5()
    for targets, wanted in oracle.facts["places"]:
        found = list(student.find_in_blocks(model, tuple(targets), nn.Linear))
        if found != wanted:
            return _misplaced(found, wanted)
    try:
        student.find_in_blocks(model, ("q", "no_such_layer"), nn.Linear)
    except NotImplementedError:
        raise
    except Exception:  # whatever it is: it is not silent
        return None
    return "missing_silent"


def _misplaced(found: list[str], wanted: list[str]) -> str:
    more, less = set(found) - set(wanted), set(wanted) - set(found)
    if any(".block." not in f".{name}" for name in more):
        return "outside_blocks"
    if more:
        return "targets_substring"
    if less and less == {name for name in wanted if "EncDecAttention" in name}:
        return "cross_forgotten"
    if less and less == {name for name in wanted if name.startswith("decoder")}:
        return "decoder_forgotten"
    return "places_wrong"


def freezing(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `freeze_all_but`, or None."""
    for before in (True, False):
        model = _with_own_parameters(oracle).requires_grad_(before)
        returned = student.freeze_all_but(model, lambda name: _OWN in name)
        named = dict(model.named_parameters())
        own = [name for name in named if _OWN in name]
        trained = [name for name, p in named.items() if p.requires_grad and _OWN not in name]
        if any(not named[name].requires_grad for name in own):
            return "declared_frozen"
        if trained:
            if all("norm" in name for name in trained):
                return "norms_unfrozen"
            if all(name.startswith(("shared", "lm_head")) or "embed" in name for name in trained):
                return "embedding_unfrozen"
            return "base_not_frozen"
        if list(returned or ()) != own:
            return "frozen_names"
    return None


def _with_own_parameters(oracle: Oracle) -> nn.Module:
    """The recorded T5 with parameters under the names of a method, one of them a view of a larger storage."""
    model = oracle.t5()
    generator = torch.Generator().manual_seed(oracle.facts["seed"])
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            q = block.layer[0].SelfAttention.q
            large = torch.randn(q.in_features, 64, generator=generator)
            q.sharif_llm_A = nn.Parameter(large[:, :3])
            q.sharif_llm_B = nn.Parameter(torch.randn(3, q.out_features, generator=generator))
    return model


def saving(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `entries_of`, or None."""
    model = _with_own_parameters(oracle)
    model.encoder.block[0].layer[0].SelfAttention.q.sharif_llm_B.data = (
        model.encoder.block[0].layer[0].SelfAttention.q.sharif_llm_B.data.to(torch.bfloat16)
    )
    found = student.entries_of(model, lambda name: _OWN in name)
    wanted = {name: p for name, p in model.named_parameters() if _OWN in name}
    if not isinstance(found, Mapping):
        return "saved_keys"
    return _misnamed(found, wanted) or _misshaped(found, wanted)


def _misnamed(found: Mapping[str, object], wanted: Mapping[str, Tensor]) -> str | None:
    if set(wanted) < set(found):
        return "whole_state"
    if set(found) < set(wanted):
        return "saved_missing"
    return "saved_keys" if set(found) != set(wanted) else None


def _misshaped(found: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the values: gradient first, then type, storage and numbers."""
    if any(
        not isinstance(t, Tensor) or t.requires_grad or isinstance(t, nn.Parameter) for t in found.values()
    ):
        return "saved_gradient"
    if any(t.dtype != torch.float32 for t in found.values()):
        return "saved_type"
    if any(not close(found[name], p.detach().float()) for name, p in wanted.items()):
        return "saved_values"
    if any(t.untyped_storage().nbytes() > t.numel() * t.element_size() for t in found.values()):
        return "saved_storage"
    return None


#: The functions of `layers.py` that return a formula, and what they are called with.
FORMULAS = {
    "attention_blocks": (),
    "feed_forward_layers": (),
    "parameters_of_an_update": ("i",),
    "parameters_of_a_bottleneck": (),
    "parameters_of_a_prompt": (),
}


def formula(student: Any, oracle: Oracle, name: str) -> str | None:
    """The mistake in the formula that the function `name` returns, or None."""
    symbols = getattr(student, name)(*FORMULAS[name])
    sizes = oracle.facts["letters"]
    if not isinstance(symbols, str) or not re.fullmatch(r"[A-Za-z0-9+·() ]+", symbols):
        return "count_letters"
    if any(letter not in sizes for letter in re.findall(r"[A-Za-z]", symbols)):
        return "count_letters"
    try:
        value = step("", symbols, sizes).value
    except ValueError:
        return "count_letters"
    counts = oracle.facts["counts"][name]
    if value == counts["right"]:
        return None
    return next((mistake for mistake, wrong in counts["wrong"] if value == wrong), "count_wrong")
