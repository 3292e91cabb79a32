"""What is wrong with a student's LoRA layer, found by running it on what is recorded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from peft_scratch.edition.self_check.oracle import Oracle, close, linear, on_meta
from peft_scratch.edition.self_check.shapes import Shapes

A, B = "sharif_llm_A", "sharif_llm_B"


def update(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `low_rank_update`, or None."""
    x, a, b = (oracle[f"lora/{name}"] for name in ("x", "A", "B"))
    with Shapes(x=x, a=a, b=b):
        found = student.low_rank_update(x, a, b, oracle.facts["scaling"])
    return oracle.mistake("lora/update", found, "lora_forward")


def start_of_a(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `kaiming_uniform_down`, or None."""
    features, rank = 96 + oracle.facts["seed"] % 64, 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(oracle.facts["seed"])
        a = student.kaiming_uniform_down(features, rank)
        if tuple(a.shape) != (features, rank):
            return "a_turned" if tuple(a.shape) == (rank, features) else "a_shape"
        if mistake := _start(a):
            return mistake
        elsewhere = on_meta(lambda device: student.kaiming_uniform_down(features, rank, device))
    return None if elsewhere is None or elsewhere.is_meta else "a_device"


def layer(student: Any, oracle: Oracle) -> str | None:
    """The mistake in how a `LoRALinear` starts and what it computes, or None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(oracle.facts["seed"])
        return _made(student, oracle) or _computed(student, oracle)


def merging(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `merge` and `unmerge`, or None. The layer's output must be right already."""
    merged = _filled(student, oracle)
    shared = merged.weight.detach()  # the tensor that other models may share
    before = shared.clone()
    return (
        _stays_merged(student, oracle)
        or _merged_once(merged, before, oracle)
        or (None if torch.equal(shared, before) else "merge_in_place")
        or _merged_again(merged, before, oracle)
        or _unguarded(_filled(student, oracle), before)
    )


def _stays_merged(student: Any, oracle: Oracle) -> str | None:
    """Whether A and B get no gradient in training after an evaluation."""
    made, x = _filled(student, oracle), oracle["lora/x"]
    made.eval()
    made(x)
    made.train()
    made.zero_grad()
    y = made(x)
    if y.requires_grad:
        (y * oracle["lora/direction"]).sum().backward()
    return None if y.requires_grad and getattr(made, A).grad is not None else "merged_in_training"


def _merged_once(merged: nn.Module, before: Tensor, oracle: Oracle) -> str | None:
    merged.merge()
    if close(merged.weight, before):
        return "merge_nothing"
    if mistake := oracle.mistake("lora/merged", merged.weight, "merge_wrong"):
        return mistake
    y = merged(oracle["lora/x"])
    if close(y, oracle["lora/y"]):
        return None
    return "merge_beside" if close(y, oracle["lora/counted_twice"]) else "merge_wrong"


def _merged_again(merged: nn.Module, before: Tensor, oracle: Oracle) -> str | None:
    """The mistake in a second `merge`, and in `unmerge`, or None."""
    merged.merge()
    if not close(merged.weight, oracle["lora/merged"]):
        return "merge_twice"
    merged.unmerge()
    if not torch.equal(merged.weight, before):
        return "unmerge_rounding" if close(merged.weight, before) else "unmerge_wrong"
    if not close(merged(oracle["lora/x"]), oracle["lora/y"]):
        return "unmerge_wrong"
    return _unguarded(merged, before)


def _unguarded(made: nn.Module, before: Tensor) -> str | None:
    """Whether `unmerge` changes a layer that is not merged, or fails on it."""
    try:
        made.unmerge()
    except NotImplementedError:
        raise
    except Exception:  # a student's code may raise anything if there is no weight to restore
        return "unmerge_unguarded"
    return None if torch.equal(made.weight, before) else "unmerge_unguarded"


def _made(student: Any, oracle: Oracle) -> str | None:
    """The mistake in the layer's parameters, or None."""
    rank, alpha = oracle.facts["rank"], oracle.facts["alpha"]
    made = {where: student.LoRALinear(linear(oracle, where), rank, alpha) for where in ("lora", "lora_wide")}
    elsewhere = on_meta(lambda device: student.LoRALinear(linear(oracle, "lora", device), rank, alpha))
    for one in (*made.values(), *([] if elsewhere is None else [elsewhere])):
        if not {A, B} <= dict(one.named_parameters()).keys():
            there = [name for name in (A, B) if isinstance(getattr(one, name, None), Tensor)]
            return "not_registered" if len(there) == 2 else "lora_names"
    for where, one in made.items():
        named = dict(one.named_parameters())
        if any("bias" in name for name in named if name != "bias"):
            return "update_bias"
        wanted = [tuple(oracle.tensors[f"{where}/{letter}"].shape) for letter in "AB"]
        shapes = [tuple(named[name].shape) for name in (A, B)]
        if shapes != wanted:
            return "lora_turned" if shapes == [shape[::-1] for shape in wanted] else "lora_shapes"
    large = student.LoRALinear(nn.Linear(96, 96), 3, 6.0)
    a, b = getattr(large, A).detach(), getattr(large, B).detach()
    if not a.any():
        return "a_zero" if b.any() else "both_zero"
    return "b_random" if b.any() else _start(a)


def _start(a: Tensor) -> str | None:
    """What is wrong with A's first value `(d, r)`, by its largest entry and its variance."""
    if not a.any():
        return "a_zero"
    d, r = a.shape
    largest, deviation = a.abs().max().item(), a.std().item() * math.sqrt(3)
    bounds = {None: 1 / d, "a_gain": 6 / d, "a_fan_in": 1 / r, "a_fan_in ": 6 / r}
    for name, square in bounds.items():
        bound = math.sqrt(square)
        if 0.85 * bound < largest <= bound * 1.0001 and 0.85 < deviation / bound < 1.15:
            return name and name.strip()
    return "a_start"


def _filled(student: Any, oracle: Oracle, where: str = "lora") -> nn.Module:
    """The student's layer with the recorded A and B in it."""
    made = student.LoRALinear(linear(oracle, where), oracle.facts["rank"], oracle.facts["alpha"])
    with torch.no_grad():
        getattr(made, A).copy_(oracle[f"{where}/A"])
        getattr(made, B).copy_(oracle[f"{where}/B"])
    return made


def _computed(student: Any, oracle: Oracle) -> str | None:
    """The mistake in the layer's output and gradients, or None."""
    x, made = oracle["lora/x"], _filled(student, oracle)
    with Shapes(x=x, A=getattr(made, A), B=getattr(made, B), weight=made.weight):
        y = made(x)
    what = oracle.like("lora/y", y)
    if what is None:
        fresh = student.LoRALinear(linear(oracle, "lora"), oracle.facts["rank"], oracle.facts["alpha"])
        with torch.no_grad():
            at_start = oracle.like("lora/base", fresh(x))
        return "weight_not_taken" if at_start is None else "lora_forward"
    if what != "right":
        return what
    if not y.requires_grad:
        return "lora_no_gradient"
    (y * oracle["lora/direction"]).sum().backward()
    for letter, name in (("A", A), ("B", B)):
        if not close(getattr(made, name).grad, oracle[f"lora/gradient_{letter}"]):
            return "lora_no_gradient"
    # a layer that is not square
    wide, x = _filled(student, oracle, "lora_wide"), oracle["lora_wide/x"]
    with Shapes(x=x, A=getattr(wide, A), B=getattr(wide, B), weight=wide.weight):
        y = wide(x)
    return None if oracle.like("lora_wide/y", y) == "right" else "lora_forward"
