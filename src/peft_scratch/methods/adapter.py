"""The Pfeiffer adapter: a trained bottleneck after each feed-forward layer of a frozen model.

Sources: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019 (arXiv:1902.00751),
section 2.1 and figure 2, for the bottleneck with its residual connection; Pfeiffer et al.,
"AdapterFusion", 2021 (arXiv:2005.00247), section 2.2.3, for one adapter per block instead of two: after
the feed-forward layer. Reference code: adapter-hub/adapters, `methods/modeling.py`, class `Adapter`.

Letters: B batch, T tokens, d width of the model (`d_model`), b bottleneck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.methods.derivation import Derivation, feed_forward_layers, letters, step
from peft_scratch.methods.injection import find_in_blocks, refuse_second_injection, replace
from peft_scratch.methods.method import Method, require_positive_int
from peft_scratch.methods.parameters import is_own

# 1. The maths


class Bottleneck(nn.Module):
    """Down to b, ReLU, up to d again: `relu(x W_down^T + b_down) W_up^T + b_up`.

    The residual connection around it belongs to the layer that contains it. There is no LayerNorm, and
    no activation after the up-projection: a ReLU there would remove negative results.

    The up-projection starts at zero, so the bottleneck returns zero at first; the down-projection
    is drawn uniformly within `1 / sqrt(d)`, with a zero bias (as AdapterHub's setting `mam_adapter`
    starts, after He et al. 2022, arXiv:2110.04366; its setting in notebook 4 starts differently).
    Houlsby et al. start near zero, with small random weights in both; here the start is exactly zero.

    Its weights are float32, whatever the base's type; the products use the type of x.

    Shapes: x `(B, T, d)` -> `(B, T, d)`; weights `(b, d)`, `(b)`, `(d, b)`, `(d)`.
    """

    def __init__(self, width: int, bottleneck: int, device: torch.device | None = None) -> None:
        super().__init__()
        # BEGIN SOLUTION
        down = nn.Linear(width, bottleneck, device=device, dtype=torch.float32)
        up = nn.Linear(bottleneck, width, device=device, dtype=torch.float32)
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        self.sharif_llm_adapter = nn.Sequential(down, nn.ReLU(), up)
        # END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, d)` -> `(B, T, d)`."""
        # BEGIN SOLUTION
        down, relu, up = self.sharif_llm_adapter
        middle = relu(_linear(x, down))  # (B, T, d) -> (B, T, b)
        return _linear(middle, up)  # (B, T, b) -> (B, T, d)
        # END SOLUTION


# BEGIN SOLUTION
def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


# END SOLUTION


# 2. The composition


class AdaptedLayerFF(nn.Module):
    """T5's feed-forward layer with a bottleneck after it: `y = h + bottleneck(h)`, `h = x + f(x)`.

    f is T5's own computation: layer norm, two projections (three if gated), dropout. The layer keeps T5's
    modules and their names, so a checkpoint of the base still fits.

    Identity at the start: `bottleneck(h)` is zero, so `y = h` to the last bit.

    Floating-point sums depend on their order. AdapterHub's order is `(bottleneck(h) + f(x)) + x`; using
    the same order makes both equal to the last bit.

    Shapes: x `(B, T, d)` -> `(B, T, d)`.
    """

    def __init__(self, base: nn.Module, bottleneck: int) -> None:
        super().__init__()
        self.layer_norm = base.layer_norm
        self.DenseReluDense = base.DenseReluDense
        self.dropout = base.dropout
        scale = base.layer_norm.weight  # (d)
        self.adapter = Bottleneck(scale.numel(), bottleneck, scale.device)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(B, T, d)` -> `(B, T, d)`."""
        x = hidden_states
        # BEGIN SOLUTION
        fx = self.dropout(self.DenseReluDense(self.layer_norm(x)))  # (B, T, d)
        return (self.adapter(fx + x) + fx) + x
        # END SOLUTION


# 3. The injection


@dataclass(frozen=True)
class Adapter(Method):
    """A bottleneck after every feed-forward layer, encoder and decoder (the Pfeiffer placement).

    Attributes:
        bottleneck: b, the width in the middle.
    """

    bottleneck: int = 8

    kind = "adapter"
    library = "scratch"

    def __post_init__(self) -> None:
        width = require_positive_int("The adapter's bottleneck", self.bottleneck)
        object.__setattr__(self, "bottleneck", width)  # frozen from here on

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Replace each feed-forward layer by an `AdaptedLayerFF`; return the model and the names.

        Raises:
            UserError: the model has no T5 feed-forward layer, or already has a method.
        """
        refuse_second_injection(model)
        places = adapter_places(model)
        for name in places:
            replace(model, name, AdaptedLayerFF(model.get_submodule(name), self.bottleneck))
        return model, places

    def declares(self, name: str) -> bool:
        """Weights and biases of every bottleneck."""
        return is_own(name)

    def derivation(self, config: T5Config) -> Derivation:
        """One bottleneck for every feed-forward layer."""
        sizes = letters(config) | {"b": self.bottleneck}
        layers, bottleneck = feed_forward_layers(), parameters_of_a_bottleneck()
        return Derivation(
            (
                step("feed-forward layers", layers, sizes),
                step("a bottleneck", bottleneck, sizes),
                step("all of them", f"({layers})·({bottleneck})", sizes),
            )
        )


def adapter_places(model: nn.Module) -> list[str]:
    """Dotted names of the layers that get an adapter: every feed-forward layer, in model order.

    Raises:
        UserError: the model has no T5 feed-forward layer.
    """
    # BEGIN SOLUTION
    inner = find_in_blocks(model, ("DenseReluDense",), nn.Module)
    return [name.rpartition(".")[0] for name in inner]
    # END SOLUTION


def parameters_of_a_bottleneck() -> str:
    """How many parameters a bottleneck has, in letters: down, its bias, up, its bias."""
    # BEGIN SOLUTION
    return "d·b + b + b·d + d"
    # END SOLUTION
