"""LoRA: a trained low-rank update beside a frozen linear layer.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv:2106.09685),
section 4.1, equation 3. Reference code: microsoft/LoRA, `loralib/layers.py`, class `Linear`.

Letters: T tokens, d width in (`d_model`), d' width out (heads x `d_kv`), r rank. In shapes, the first B is
the batch; `sharif_llm_B` and the B of `x A B` are the up-projection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.methods.derivation import (
    Derivation,
    attention_blocks,
    feed_forward_layers,
    letters,
    step,
    total,
)
from peft_scratch.methods.injection import find_in_blocks, last_part, refuse_second_injection, replace
from peft_scratch.methods.method import Method, method_in, require_positive_int
from peft_scratch.methods.parameters import is_own, require_module

# 1. The maths


def low_rank_update(x: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """The update that LoRA adds to a layer's output: `scaling * x A B` (section 4.1, equation 3).

    The paper writes column vectors, `h = W x + (alpha / r) B A x`; here, as in torch, a token is a
    row, so A and B are the transposes of the paper's, in reverse order.

    The scaling is applied to the r columns in the middle, not to the d' columns at the end. That is a
    fraction of the work, with the same value, and the same bits if `scaling` is a power of two.

    Args:
        x: `(B, T, d)`, a batch of B texts.
        a: `(d, r)`, projects down.
        b: `(r, d')`, projects up.
        scaling: `alpha / r`.

    Returns:
        `(B, T, d')`.
    """
    # BEGIN SOLUTION
    down = x @ a * scaling  # (B, T, d) @ (d, r) -> (B, T, r)
    return down @ b  # (B, T, r) @ (r, d') -> (B, T, d')
    # END SOLUTION


def kaiming_uniform_down(features: int, rank: int, device: torch.device | None = None) -> Tensor:
    """A's initial value: uniform within `1 / sqrt(d)`, as loralib and PEFT draw it. Returns `(d, r)`.

    The trap here: both libraries store A as `(r, d)`, where torch reads the fan-in off the last
    dimension and finds d. Called on our `(d, r)`, the same function would find r. A plain
    `kaiming_uniform_(A)` also lacks the libraries' `a=sqrt(5)`: at d = 512 and r = 8 it draws within
    sqrt(6 / 8) = 0.87 in place of 1 / sqrt(512) = 0.044, some twenty times too large. So A is drawn as
    `(r, d)`, then transposed.
    """
    # BEGIN SOLUTION
    lying = torch.empty(rank, features, device=device, dtype=torch.float32)  # (r, d)
    nn.init.kaiming_uniform_(lying, a=math.sqrt(5))  # bound: sqrt(6 / ((1 + 5) d)) = 1 / sqrt(d)
    return lying.T  # (d, r)
    # END SOLUTION


# 2. The composition


class LoRALinear(nn.Linear):
    """A linear layer with a low-rank update beside it: `y = x W^T + bias + (alpha / r) x A B`.

    It keeps the weight of the layer that it replaces, under the same name, so a checkpoint of the base
    still fits. A and B are float32, whatever the base's type; the product uses the type of x.

    Identity at the start: B is zero, so `x A B` is zero and the output is the base's to the last
    bit. A must not be zero as well, or neither would ever get a gradient. While B is zero, A's gradient is
    zero, so A starts to move in the second step.

    Shapes, with a batch of B texts: x `(B, T, d)`, weight `(d', d)`, `sharif_llm_A` `(d, r)`,
    `sharif_llm_B` `(r, d')`, output `(B, T, d')`.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        # "meta" allocates nothing: the layer uses the base's own weight, not a second one.
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight = base.weight  # (d', d)
        self.bias = base.bias  # (d') or None
        self.rank = rank
        self.scaling = alpha / rank
        # BEGIN SOLUTION
        # In memory, A and B are laid out as in loralib and PEFT, as (r, d) and (d', r): .T changes the
        # view, not the memory. So both use the same matrix product and agree to the last bit.
        device = base.weight.device
        self.sharif_llm_A = nn.Parameter(kaiming_uniform_down(self.in_features, rank, device))  # (d, r)
        up = torch.zeros(self.out_features, rank, device=device, dtype=torch.float32)  # (d', r)
        self.sharif_llm_B = nn.Parameter(up.T)  # (r, d')
        # END SOLUTION
        # Holds W while the update is merged. A buffer moves with the model; a non-persistent one is not in
        # the state dict.
        self.register_buffer("weight_before_merge", None, persistent=False)

    @property
    def merged(self) -> bool:
        """Whether `weight` currently holds `W + (alpha / r) (A B)^T`."""
        return self.weight_before_merge is not None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, d)` -> `(B, T, d')`."""
        # BEGIN SOLUTION
        y = F.linear(x, self.weight, self.bias)  # (B, T, d')
        if self.merged:
            meant_to_train = self.training and self.sharif_llm_A.requires_grad
            return _RefuseTraining.apply(y, self.sharif_llm_A) if meant_to_train else y
        a, b = self.sharif_llm_A.to(x.dtype), self.sharif_llm_B.to(x.dtype)  # (d, r), (r, d')
        return y + low_rank_update(x, a, b, self.scaling)
        # END SOLUTION

    @torch.inference_mode(False)  # else the weight would be a tensor that cannot be trained on
    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the weight, `W + (alpha / r) (A B)^T`; if it is merged already, do nothing.

        This saves time at inference: one matrix product instead of three (section 4.1, "no additional
        inference latency"). A and B would get no gradient while merged, so training is refused. W itself is
        not written to: models that share it (`base_of`) stay as they are.
        """
        # BEGIN SOLUTION
        if self.merged:
            return
        self.weight_before_merge = self.weight.detach()
        update = (self.sharif_llm_A @ self.sharif_llm_B * self.scaling).T  # (d, r) @ (r, d') -> (d', d)
        self._put((self.weight + update).to(self.weight.dtype))
        # END SOLUTION

    @torch.inference_mode(False)
    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore W to the last bit; if the update is not merged, do nothing.

        Subtracting the update would leave rounding errors, so `merge` keeps W instead.
        """
        # BEGIN SOLUTION
        if self.merged:
            self._put(self.weight_before_merge)
            self.weight_before_merge = None
        # END SOLUTION

    def _put(self, weight: Tensor) -> None:
        """Put `weight` into the parameter. The old tensor stays as it is: other models may share it."""
        torch.autograd.graph.increment_version(self.weight)  # a graph that needs the old values says so
        self.weight.data = weight

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Save as every layer does; while merged, B as zero, so that the update is not added twice."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.merged:
            destination[f"{prefix}sharif_llm_B"] = torch.zeros_like(self.sharif_llm_B)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        """Load as every layer does: into W, A and B, even while the update is merged."""
        merged = self.merged
        self.unmerge()
        super()._load_from_state_dict(*args, **kwargs)
        if merged:
            self.merge()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, scaling={self.scaling}"


class _RefuseTraining(torch.autograd.Function):
    """Passes `y` on; a backward pass through it stops with a sentence, since it would leave A and B out."""

    @staticmethod
    def forward(ctx: object, y: Tensor, a: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> None:
        raise UserError("LoRA's update is merged and would not train: call unmerge(model) first.")


# 3. The injection


@dataclass(frozen=True)
class LoRA(Method):
    """A low-rank update on every `q` and `v` projection (Hu et al. 2021, sections 4.2 and 7.1).

    Attributes:
        rank: r, the inner width of the update.
        alpha: the update is scaled by `alpha / rank`. The course keeps alpha at 4 for every rank, so
            its r = 1 and r = 8 differ in scaling too: 4.0 and 0.5.
        targets: last name parts of the layers to replace.
    """

    rank: int = 8
    alpha: float = 4.0
    targets: tuple[str, ...] = ("q", "v")

    kind = "lora"
    library = "scratch"

    def __post_init__(self) -> None:
        rank = require_positive_int("LoRA's rank", self.rank)
        if not isinstance(self.alpha, Real) or not 0 < self.alpha < math.inf:
            raise UserError(f"LoRA's alpha has to be a positive number, not {self.alpha!r}.")
        alpha = self.alpha if isinstance(self.alpha, (int, float)) else float(self.alpha)  # NumPy's
        if isinstance(self.targets, str) or not self.targets:
            raise UserError(f"LoRA's targets are a tuple of names such as ('q', 'v'), not {self.targets!r}.")
        object.__setattr__(self, "rank", rank)  # frozen from here on
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "targets", tuple(self.targets))

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Replace each target by a `LoRALinear` on the same weight; return the model and the names.

        Raises:
            UserError: a target matches no linear layer, or the model already has a method.
        """
        refuse_second_injection(model)
        places = find_in_blocks(model, self.targets, nn.Linear)
        for name in places:
            replace(model, name, LoRALinear(model.get_submodule(name), self.rank, self.alpha))
        return model, places

    def declares(self, name: str) -> bool:
        """`sharif_llm_A` and `sharif_llm_B` of every target."""
        return is_own(name)

    def derivation(self, config: T5Config) -> Derivation:
        """A and B for every target.

        For targets in the feed-forward layers, f, their inner width, takes the place of d'.

        Raises:
            UserError: a target is no linear layer of a T5 block.
        """
        sizes = letters(config) | {"r": self.rank}
        targets = list(dict.fromkeys(map(last_part, self.targets)))
        if unknown := [target for target in targets if target not in (*_IN_ATTENTION, *_IN_FEED_FORWARD)]:
            raise UserError(
                f"A T5 block has no linear layer called {' or '.join(map(repr, unknown))}; "
                f"its layers are {', '.join((*_IN_ATTENTION, *_IN_FEED_FORWARD))}."
            )
        steps, wholes = [], []
        for block, layers, count, other in (
            ("attention layers", _IN_ATTENTION, attention_blocks, "d'"),
            ("feed-forward layers", _IN_FEED_FORWARD, feed_forward_layers, "f"),
        ):
            if hit := [target for target in targets if target in layers]:
                blocks, update = count(), parameters_of_an_update(other)
                times = f"{len(hit)}·" if len(hit) > 1 else ""
                whole = step(f"{_listed(hit)} of all blocks", f"({blocks})·{times}({update})", sizes)
                shapes = f"an update: A (d, r) and B (r, {other})"
                steps += [step(block, blocks, sizes), step(shapes, update, sizes), whole]
                wholes.append(whole)
        return Derivation((*steps, total(wholes)) if len(wholes) > 1 else tuple(steps))


def parameters_of_an_update(other: str) -> str:
    """How many parameters A and B have together, in letters, such as `d·r + r·d'`.

    Args:
        other: the letter of the width besides d: d' inside attention, f inside the feed-forward layer.
    """
    # BEGIN SOLUTION
    return f"d·r + r·{other}"
    # END SOLUTION


# The linear layers of a T5 block; those of a gated feed-forward layer are numbered.
_IN_ATTENTION = ("q", "k", "v", "o")
_IN_FEED_FORWARD = ("wi", "wi_0", "wi_1", "wo")


def _listed(names: list[str]) -> str:
    """`q`, `q and v`, `q, k and v`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def merge(model: nn.Module) -> None:
    """Merge every LoRA update of `model` into its weight. Merging twice is merging once.

    While merged, `model.state_dict()` has the merged weights and a B of zero. So it is the same model
    wherever it is loaded, also without this package (where A and B are ignored), and `save_pretrained`
    writes an ordinary T5. `save_delta` still saves A and B.

    Raises:
        UserError: the model has no LoRA layer from scratch; the message says what it has.
    """
    for layer in _lora_layers(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Take every LoRA update of `model` out of its weight, which then equals W to the last bit.

    Raises:
        UserError: the model has no LoRA layer from scratch; the message says what it has.
    """
    for layer in _lora_layers(model):
        layer.unmerge()


def _lora_layers(model: nn.Module) -> list[LoRALinear]:
    require_module(model)
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    if not layers:
        there = method_in(model)
        if there is None:
            raise UserError("This model has no LoRA layer to merge; apply LoRA() to it first.")
        instead = "call its own merge_and_unload()" if there.kind == "lora" else "only LoRA can be merged"
        raise UserError(f"This model has no LoRA layer from scratch to merge, but {there!r}: {instead}.")
    return layers
