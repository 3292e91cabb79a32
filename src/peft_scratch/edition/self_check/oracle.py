"""The oracle: what our layers did, as data. Inputs, weights, outputs, gradients, and what mistakes give.

It contains none of our code. A student's layer is run on the recorded inputs, and its output is compared
with the recorded outputs, right and wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

#: Recorded with three sizes, so that no mistake passes by chance.
FILES = tuple(sorted((Path(__file__).parent / "recorded").glob("*.safetensors")))

#: Largest error that is rounding, relative to the largest value.
TOLERANCE = 1e-4

_T = TypeVar("_T")


@dataclass(frozen=True)
class Oracle:
    """One recording.

    Attributes:
        tensors: by name, such as `lora/y` for an output and `lora/y/scaling_missing` for a mistake's.
        facts: sizes, names and counts.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        """A copy: a student's layer may change what it gets."""
        return self.tensors[name].clone()

    def like(self, name: str, found: Tensor) -> str | None:
        """What `found` is: `right` if it is the tensor `name`, else the mistake that gives it, else None."""
        if close(found, self.tensors[name]):
            return "right"
        prefix = f"{name}/"
        wrong = [key for key in self.tensors if key.startswith(prefix) and close(found, self.tensors[key])]
        return wrong[0].removeprefix(prefix) if wrong else None

    def mistake(self, name: str, found: Tensor, unknown: str) -> str | None:
        """None if `found` is the tensor `name`, else the mistake that gives it, or `unknown`."""
        what = self.like(name, found)
        return None if what == "right" else what or unknown

    def t5(self) -> T5ForConditionalGeneration:
        """The small recorded T5, in evaluation mode."""
        model = T5ForConditionalGeneration(
            T5Config(**self.facts["config"], attn_implementation="eager")
        ).eval()
        state = {name: tensor for name, tensor in self.tensors.items() if name.startswith("t5/")}
        model.load_state_dict(
            {name.removeprefix("t5/"): t.clone() for name, t in state.items()}, strict=False
        )
        model.tie_weights()
        return model


def close(found: object, wanted: Tensor) -> bool:
    """Whether `found` is `wanted` up to rounding."""
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    largest = wanted.abs().max().item() or 1.0
    return bool((found.detach().float() - wanted).abs().max() <= TOLERANCE * largest)


def load(path: Path) -> Oracle:
    """The recording at `path`."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        return Oracle({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118


def recorded() -> list[Oracle]:
    """All recordings that come with the kit."""
    return [load(path) for path in FILES]


def linear(oracle: Oracle, where: str, device: str | None = None) -> torch.nn.Linear:
    """The recorded linear layer `where`, frozen as a base is."""
    weight, bias = oracle.tensors[f"{where}/weight"], oracle.tensors.get(f"{where}/bias")
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device=device)
    if device is None:
        with torch.no_grad():
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
    return layer.requires_grad_(False)


def on_meta(make: Callable[[torch.device], _T]) -> _T | None:
    """What `make` makes on the device `meta`, which every machine has; None if that raises an error."""
    try:
        return make(torch.device("meta"))
    except Exception:  # it reads values, which tensors on `meta` do not have
        return None
