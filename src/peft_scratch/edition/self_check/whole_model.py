"""What is wrong with how a student finds places, freezes, saves and counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from peft_scratch.edition.self_check.oracle import Oracle, close
from peft_scratch.methods.derivation import LETTER, step
from peft_scratch.methods.parameters import is_own


def places(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `find_in_blocks`, or None."""
    model = oracle.t5()
    model.encoder.q, model.encoder.block[0].v = nn.Linear(1, 1), nn.Identity()  # neither is to be found
    for targets, wanted in oracle.facts["places"]:
        found = list(student.find_in_blocks(model, tuple(targets), nn.Linear))
        if found != wanted:
            return _misplaced(model, found, wanted)
    try:
        student.find_in_blocks(model, ("q", "no_such_layer"), nn.Linear)
    except NotImplementedError:
        raise
    except Exception:  # any error will do: it is not silent
        return None
    return "missing_silent"


def _misplaced(model: nn.Module, found: list[str], wanted: list[str]) -> str:
    more, less = set(found) - set(wanted), set(wanted) - set(found)
    outside = {name for name in more if ".block." not in f".{name}"}
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if (more & linear) - outside:
        return "targets_substring"
    if outside:
        return "outside_blocks"
    if more:
        return "other_kind"
    if less and less == {name for name in wanted if "EncDecAttention" in name}:
        return "cross_forgotten"
    if less and less == {name for name in wanted if name.startswith("decoder")}:
        return "decoder_forgotten"
    return "places_wrong"


def freezing(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `freeze_all_but`, or None."""
    for before in (True, False):
        model, returned = _with_own_parameters(oracle).requires_grad_(before), []
        with suppress(ValueError):  # raised if nothing trains, which is checked below
            returned = student.freeze_all_but(model, is_own)
        named = dict(model.named_parameters())
        own = [name for name in named if is_own(name)]
        trained = [name for name, p in named.items() if p.requires_grad and name not in own]
        if any(not named[name].requires_grad for name in own):
            return "declared_frozen" if before else "stays_frozen"
        if trained:
            if all("norm" in name for name in trained):
                return "norms_unfrozen"
            if all(name.startswith(("shared", "lm_head")) or "embed" in name for name in trained):
                return "embedding_unfrozen"
            return "base_not_frozen"
        if list(returned or ()) != own:
            return "frozen_names"
    try:
        student.freeze_all_but(oracle.t5(), is_own)
    except ValueError:
        return None
    return "freeze_silent"


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
    """The mistake in `entries_of`, or None.

    One declared parameter does not train and one of the base does; one layer saves as if it were merged.
    """
    model = _with_own_parameters(oracle).requires_grad_(False)
    first, last = (stack.block[0].layer[0].SelfAttention.q for stack in (model.encoder, model.decoder))
    first.sharif_llm_B.data = first.sharif_llm_B.data.to(torch.bfloat16)
    wanted = {name: p for name, p in model.named_parameters() if is_own(name)}
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("final_layer_norm.weight") or is_own(name))
    first.sharif_llm_A.requires_grad_(False)
    last.register_state_dict_post_hook(_as_if_merged)
    found = student.entries_of(model, is_own)
    if not isinstance(found, Mapping):
        return "saved_keys"
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    if set(found) in (trained, trained & set(wanted)):
        return "saved_trained"
    merged = next(name for name, p in wanted.items() if p is last.sharif_llm_B)
    return _misnamed(found, wanted) or _misshaped(found, wanted, merged)


def _as_if_merged(module: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """While the update is in the weight, B is saved as zero, so that nobody adds the update again."""
    state[f"{prefix}sharif_llm_B"] = torch.zeros_like(state[f"{prefix}sharif_llm_B"])


def _misnamed(found: Mapping[str, object], wanted: Mapping[str, Tensor]) -> str | None:
    if set(wanted) < set(found):
        return "whole_state"
    if set(found) < set(wanted):
        return "saved_missing"
    return "saved_keys" if set(found) != set(wanted) else None


def _misshaped(found: Mapping[str, Any], wanted: Mapping[str, Tensor], merged: str) -> str | None:
    """What is wrong with the values: gradient first, then type, numbers and storage."""
    if any(
        not isinstance(t, Tensor) or t.requires_grad or isinstance(t, nn.Parameter) for t in found.values()
    ):
        return "saved_gradient"
    if any(t.dtype != torch.float32 for t in found.values()):
        return "saved_type"
    if wrong := [name for name, p in wanted.items() if not close(found[name], p.detach().float())]:
        return "saved_state" if wrong == [merged] and not found[merged].any() else "saved_values"
    if any(t.untyped_storage().nbytes() > t.numel() * t.element_size() for t in found.values()):
        return "saved_storage"
    return None


def formula(student: Any, oracle: Oracle, name: str) -> str | None:
    """The mistake in the formula that the function `name` returns, or None."""
    sizes = oracle.facts["letters"]
    for case in oracle.facts["counts"][name]:
        symbols = getattr(student, name)(*case["arguments"])
        if mistake := _unreadable(symbols, sizes):
            return mistake
        try:
            value = step("", symbols, sizes).value
        except ValueError:
            return "count_letters"
        if value != case["right"]:
            return next((mistake for mistake, wrong in case["wrong"] if value == wrong), "count_wrong")
    return None


def _unreadable(symbols: object, sizes: Mapping[str, int]) -> str | None:
    """Why the kit cannot read `symbols` as a formula, or None."""
    if not isinstance(symbols, str):
        return "count_number"
    if "other" in symbols:
        return "count_other"
    if not all(sign.isdecimal() or sign in "+·() " for sign in LETTER.sub("", symbols)):
        return "count_letters"
    if not set(LETTER.findall(symbols)) <= sizes.keys():
        return "count_letters"
    bare = LETTER.sub("d", symbols)  # without index and prime
    return "count_sign" if re.search(r"[a-z0-9)]\s*[a-z(]|[a-z)]\s*\d|\d\s+\d", bare) else None
