"""What is wrong with a student's LoRA layer, found by running it on what is recorded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from peft_scratch.edition.self_check.oracle import Oracle, close, linear

A, B = "sharif_llm_A", "sharif_llm_B"


def update(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `low_rank_update`, or None."""
    x, a, b = (oracle[f"lora/{name}"] for name in ("x", "A", "B"))
    found = student.low_rank_update(x, a, b, oracle.facts["scaling"])
    what = oracle.like("lora/update", found)
    return None if what == "right" else what or "lora_forward"


def start_of_a(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `kaiming_uniform_down`, or None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(oracle.facts["seed"])
        features, rank = 96 + oracle.facts["seed"] % 64, 3
        return _start(student.kaiming_uniform_down(features, rank), features, rank)


def layer(student: Any, oracle: Oracle) -> str | None:
    """The mistake in how a `LoRALinear` starts and what it computes, or None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(oracle.facts["seed"])
        return _made(student, oracle) or _computed(student, oracle)


def merging(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `merge` and `unmerge`, or None. It asks for a layer that computes the right thing."""
    x, wanted, merged = oracle["lora/x"], oracle["lora/y"], _filled(student, oracle)
    merged.eval()
    merged(x)
    merged.train()
    _forget_gradients(merged)
    y = merged(x)
    trains = y.requires_grad
    if trains:
        (y * oracle["lora/direction"]).sum().backward()
    if not trains or getattr(merged, A).grad is None:
        return "merged_in_training"
    merged = _filled(student, oracle)
    before = merged.weight.detach().clone()
    merged.merge()
    what = oracle.like("lora/merged", merged.weight.detach())
    with torch.no_grad():
        y = merged(x)
    if close(merged.weight, before):
        return "merge_nothing"
    if what == "right" and not close(y, wanted):
        return "merge_beside" if close(y, oracle["lora/counted_twice"]) else "merge_wrong"
    if what != "right":
        return what or "merge_wrong"
    merged.merge()
    if not close(merged.weight, oracle["lora/merged"]):
        return "merge_twice"
    merged.unmerge()
    if not torch.equal(merged.weight, before):
        return "unmerge_rounding" if close(merged.weight, before) else "unmerge_wrong"
    with torch.no_grad():
        return None if close(merged(x), wanted) else "unmerge_wrong"


def _made(student: Any, oracle: Oracle) -> str | None:
    rank, alpha = oracle.facts["rank"], oracle.facts["alpha"]
    made = student.LoRALinear(linear(oracle, "lora"), rank, alpha)
    for one in (made, _on_meta(student, oracle)):
        named = dict(one.named_parameters()) if one is not None else {A: None, B: None}
        if A not in named or B not in named:
            there = [name for name in (A, B) if isinstance(getattr(one, name, None), Tensor)]
            return "not_registered" if len(there) == 2 else "lora_names"
    named = dict(made.named_parameters())
    if any("bias" in name for name in named if name != "bias"):
        return "update_bias"
    (d, r), (r2, e) = oracle.tensors["lora/A"].shape, oracle.tensors["lora/B"].shape
    shapes = tuple(named[A].shape), tuple(named[B].shape)
    if shapes != ((d, r), (r2, e)):
        return "lora_turned" if shapes == ((r, d), (e, r2)) else "lora_shapes"
    wide = student.LoRALinear(nn.Linear(96, 96), 3, 6.0)
    a, b = getattr(wide, A).detach(), getattr(wide, B).detach()
    if not a.any():
        return "a_zero" if b.any() else "both_zero"
    return "b_random" if b.any() else _start(a, 96, 3)


def _start(a: Tensor, d: int, r: int) -> str | None:
    """What is wrong with A's first value, by its largest entry and its variance."""
    if tuple(a.shape) != (d, r):
        return "lora_turned" if tuple(a.shape) == (r, d) else "lora_shapes"
    if not a.any():
        return "a_zero"
    largest, deviation = a.abs().max().item(), a.std().item() * math.sqrt(3)
    bounds = {None: 1 / d, "a_gain": 6 / d, "a_fan_in": 1 / r, "a_fan_in ": 6 / r}
    for name, square in bounds.items():
        bound = math.sqrt(square)
        if 0.85 * bound < largest <= bound * 1.0001 and 0.85 < deviation / bound < 1.15:
            return name and name.strip()
    return "a_start"


def _on_meta(student: Any, oracle: Oracle) -> nn.Module | None:
    """The layer around a base on another device, if it can be made there; the device `meta` is one."""
    try:
        return student.LoRALinear(linear(oracle, "lora", "meta"), oracle.facts["rank"], oracle.facts["alpha"])
    except Exception:  # it reads a value, which no tensor has there: nothing to be learnt from it
        return None


def _filled(student: Any, oracle: Oracle, where: str = "lora") -> nn.Module:
    """The student's layer with the recorded A and B in it."""
    made = student.LoRALinear(linear(oracle, where), oracle.facts["rank"], oracle.facts["alpha"])
    with torch.no_grad():
        getattr(made, A).copy_(oracle[f"{where}/A"])
        getattr(made, B).copy_(oracle[f"{where}/B"])
    return made


def _forget_gradients(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.grad = None


def _computed(student: Any, oracle: Oracle) -> str | None:
    x, fresh = (
        oracle["lora/x"],
        student.LoRALinear(linear(oracle, "lora"), oracle.facts["rank"], oracle.facts["alpha"]),
    )
    made = _filled(student, oracle)
    y = made(x)
    what = oracle.like("lora/y", y)
    if what != "right":
        with torch.no_grad():
            at_start = oracle.like("lora/base", fresh(x))
        if what is None and at_start is None:
            return "weight_not_taken"
        return what or "lora_forward"
    if not y.requires_grad:
        return "lora_no_gradient"
    (y * oracle["lora/direction"]).sum().backward()
    for letter, name in (("A", A), ("B", B)):
        if not close(getattr(made, name).grad, oracle[f"lora/gradient_{letter}"]):
            return "lora_no_gradient"
    # a layer that is not square
    other = _filled(student, oracle, "lora_wide")
    if oracle.like("lora_wide/y", other(oracle["lora_wide/x"])) != "right":
        return "lora_forward"
    return None
