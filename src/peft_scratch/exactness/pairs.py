"""The compared pairs: a method from scratch and a library's method, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from peft_scratch.assignment import RUNS
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.libraries.adapterhub_adapter import initialise
from peft_scratch.libraries.catalogue import ADAPTERHUB, NAMES, OPENDELTA, PEFT, NameMap, call
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt
from peft_scratch.methods.adapter import AdaptedLayerFF


def as_it_is(model: nn.Module) -> None:
    """Leave the model as it is."""


@dataclass(frozen=True)
class Pair:
    """One row of the comparison.

    Attributes:
        ours: the method from scratch, with its hyperparameters.
        library: PEFT, AdapterHub or OpenDelta.
        what: the library's class, and what is special about its settings.
        build: applies the library's method to a base, in place, and returns the model to call.
        shares: which of our parameters the library has too; the others are zero and frozen.
        prepare: what the library does to the base before any method is applied; our base gets the same.
        reorder: if the library sums terms in another order, makes our layers use that order, because the
            last bits of a floating-point sum depend on it.
    """

    ours: Method
    library: str
    what: str
    build: Callable[[T5ForConditionalGeneration], nn.Module]
    shares: Callable[[str], bool] = lambda name: True
    prepare: Callable[[T5ForConditionalGeneration], None] = as_it_is
    reorder: Callable[[nn.Module], None] = as_it_is

    @property
    def names(self) -> NameMap:
        """The library's names of our parameters."""
        return NAMES[self.ours.kind, self.library]

    @property
    def learning_rate(self) -> float:
        """The assignment's learning rate for our method; the steps of the comparison use it."""
        return next(
            r.learning_rate for r in RUNS.values() if (r.kind, r.library) == (self.ours.kind, "scratch")
        )

    @property
    def name(self) -> str:
        """Our side, as a table names it: `LoRA r = 8`."""
        return {
            "lora": "LoRA r = {rank}",
            "adapter": "adapter b = {bottleneck}",
            "soft_prompt": "soft prompt N = {virtual_tokens}",
        }[self.ours.kind].format(**vars(self.ours))

    @property
    def id(self) -> str:
        """Both sides in one line."""
        return f"{self.name} against {self.library} {self.what}"


def _method(method: Method) -> Callable[[T5ForConditionalGeneration], nn.Module]:
    """Builds the library's side with one of the kit's own library methods, those of the ten runs."""
    return lambda model: method.inject(model)[0]


def _call(
    ours: Method, library: str, without: str | None = None
) -> Callable[[T5ForConditionalGeneration], nn.Module]:
    """Builds the library's side as the catalogue calls it for `ours`, but without the setting `without`."""

    def build(model: T5ForConditionalGeneration) -> nn.Module:
        as_ours = call(ours, library, model.config)
        settings = {name: value for name, value in as_ours.settings.items() if name != without}
        return replace(as_ours, settings=settings).put_into(model)

    return build


def _lora(rank: int) -> list[Pair]:
    ours = LoRA(rank)
    self_attention_only = Pair(
        ours,
        OPENDELTA,
        "LoraModel at its default, against ours on self-attention only",
        _call(ours, OPENDELTA, without="modified_modules"),
        shares=lambda name: "EncDecAttention" not in name,
    )
    return [
        Pair(ours, PEFT, "LoraConfig", _method(PeftLoRA(rank))),
        Pair(ours, ADAPTERHUB, "LoRAConfig", _call(ours, ADAPTERHUB), prepare=initialise),
        Pair(ours, OPENDELTA, "LoraModel on every attention", _call(ours, OPENDELTA)),
        self_attention_only,
    ]


def _adapter(bottleneck: int) -> list[Pair]:
    ours = Adapter(bottleneck)
    return [
        Pair(ours, ADAPTERHUB, "SeqBnConfig", _method(AdapterHubAdapter(bottleneck)), prepare=initialise),
        Pair(
            ours,
            OPENDELTA,
            "AdapterModel after each feed-forward layer, ReLU",
            _call(ours, OPENDELTA),
            reorder=_sum_as_opendelta,
        ),
    ]


def _sum_as_opendelta(model: nn.Module) -> None:
    """Make each adapted layer sum `bottleneck(h) + (x + f(x))` instead of `(bottleneck(h) + f(x)) + x`."""

    def forward(layer: AdaptedLayerFF, x: Tensor) -> Tensor:
        h = x + layer.dropout(layer.DenseReluDense(layer.layer_norm(x)))  # (B, T, d)
        return layer.adapter(h) + h

    for layer in model.modules():
        if isinstance(layer, AdaptedLayerFF):
            layer.forward = partial(forward, layer)


def _soft_prompt(rows: int) -> list[Pair]:
    ours = SoftPrompt(rows)
    return [
        Pair(ours, PEFT, "PromptTuningConfig(num_transformer_submodules=1)", _call(ours, PEFT)),
        Pair(ours, OPENDELTA, "SoftPromptModel", _method(OpenDeltaPrompt(rows))),
    ]


#: Every pair, at the two sizes of the assignment.
PAIRS: tuple[Pair, ...] = (
    *_lora(1),
    *_lora(8),
    *_adapter(1),
    *_adapter(8),
    *_soft_prompt(1),
    *_soft_prompt(10),
)
