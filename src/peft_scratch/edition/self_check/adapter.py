"""What is wrong with a student's adapter, found by running it on what is recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peft_scratch.edition.self_check.oracle import Oracle, close, on_meta
from peft_scratch.edition.self_check.shapes import Shapes

_NAMES = tuple(f"sharif_llm_adapter.{layer}.{what}" for layer in (0, 2) for what in ("weight", "bias"))


def bottleneck(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `Bottleneck`, or None."""
    width, middle = oracle.facts["config"]["d_model"], oracle.facts["bottleneck"]
    for k in (middle, middle + 3):
        if mistake := _made(student.Bottleneck(width, k), width, k):
            return mistake
    elsewhere = on_meta(lambda device: student.Bottleneck(width, middle, device))
    if elsewhere is not None and not all(p.is_meta for p in elsewhere.parameters()):
        return "bottleneck_device"
    made = student.Bottleneck(width, middle)
    _fill(made, oracle)
    return _computed(made, made, oracle, "bottleneck")


def _made(made: nn.Module, width: int, middle: int) -> str | None:
    """The mistake in a bottleneck's parameters, or None."""
    named = dict(made.named_parameters())
    if any("norm" in name.lower() for name in named) or any(
        "norm" in type(module).__name__.lower() for module in made.modules()
    ):
        return "bottleneck_layer_norm"
    if _NAMES[0] in named and _NAMES[2] in named and not {_NAMES[1], _NAMES[3]} <= set(named):
        return "bottleneck_no_bias"
    if set(named) != set(_NAMES):
        return "adapter_names"
    if tuple(named[_NAMES[0]].shape) != (middle, width) or tuple(named[_NAMES[2]].shape) != (width, middle):
        return "bottleneck_width"
    if not named[_NAMES[0]].any():
        return "down_zero"
    return "up_not_zero" if named[_NAMES[2]].any() or named[_NAMES[3]].any() else None


def _fill(made: nn.Module, oracle: Oracle) -> None:
    named = dict(made.named_parameters())
    with torch.no_grad():
        for name in _NAMES:
            named[name].copy_(oracle[f"bottleneck/{name.partition('.')[2]}"])


def _computed(made: nn.Module, adapter: nn.Module, oracle: Oracle, part: str) -> str | None:
    """The mistake in what `made` computes, and in the gradient of its `adapter`, or None."""
    x = oracle[f"{part}/x"]
    with Shapes(x=x):
        y = made(x)
    if mistake := oracle.mistake(f"{part}/y", y, f"{part}_forward"):
        return mistake
    if not y.requires_grad:
        return "adapter_no_gradient"
    (y * oracle[f"{part}/direction"]).sum().backward()
    down = dict(adapter.named_parameters())[_NAMES[0]]
    return None if close(down.grad, oracle[f"{part}/gradient"]) else "adapter_no_gradient"


def adapted_layer(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `AdaptedLayerFF`, or None."""
    model, middle = oracle.t5().requires_grad_(False), oracle.facts["bottleneck"]
    made = student.AdaptedLayerFF(model.encoder.block[0].layer[1], middle).eval()
    if not isinstance(getattr(made, "adapter", None), nn.Module):
        return "adapter_names"
    if mistake := _made(made.adapter, model.config.d_model, middle):
        return mistake
    _fill(made.adapter, oracle)
    return _computed(made, made.adapter, oracle, "adapted")


def places(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `adapter_places`, or None."""
    found = list(student.adapter_places(oracle.t5()))
    if found == oracle.facts["adapter_places"]:
        return None
    wrong = oracle.facts["wrong_adapter_places"]
    return next((name for name, names in wrong.items() if sorted(found) == sorted(names)), "adapter_places")
