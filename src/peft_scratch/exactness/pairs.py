"""The pairs: a method from scratch, a library's implementation, and the map between their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.libraries.adapterhub_adapter import NAME, add_active, initialise
from peft_scratch.libraries.adapterhub_compat import import_adapters
from peft_scratch.libraries.opendelta_compat import import_opendelta
from peft_scratch.methods.adapter import AdaptedLayerFF, Adapter
from peft_scratch.methods.lora import LoRA
from peft_scratch.methods.method import Method
from peft_scratch.methods.soft_prompt import SoftPrompt

_SUBLAYERS = ("SelfAttention", "EncDecAttention")
#: T5's feed-forward layers, as OpenDelta's `modified_modules` takes a regular expression: named by its
#: end alone, the encoder's `layer.1` would be the decoder's cross attention too.
_FEED_FORWARD = [r"[r]encoder\.block\.\d+\.layer\.1", r"[r]decoder\.block\.\d+\.layer\.2"]


def as_it_is(model: nn.Module) -> None:
    """Leave the model as it is."""


@dataclass(frozen=True)
class Pair:
    """One row of the comparison.

    Attributes:
        ours: the method from scratch, with its hyperparameters.
        library: PEFT, AdapterHub or OpenDelta.
        what: the library's class, and its settings where they are not the plain ones.
        build: puts the library's method into a base, in place, and returns the model to call.
        partner: name of our parameter -> name of the library's.
        transposed: whether the library stores a matrix as the transpose of ours.
        shares: which of our parameters the library has too; the others are zero and frozen.
        prepare: what the library does to the base before any method is in it, done to ours as well.
        reorder: has our layers sum their terms in the library's order, where it is another: a sum in
            floating point depends on it in its last bits.
        learning_rate: the course's for the method, for the fifty steps.
    """

    ours: Method
    library: str
    what: str
    build: Callable[[T5ForConditionalGeneration], nn.Module]
    partner: Callable[[str], str]
    learning_rate: float
    transposed: bool = False
    shares: Callable[[str], bool] = lambda name: True
    prepare: Callable[[T5ForConditionalGeneration], None] = as_it_is
    reorder: Callable[[nn.Module], None] = as_it_is

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
        """Both sides in a line."""
        return f"{self.name} against {self.library} {self.what}"


def _by_method(method: Method) -> Callable[[T5ForConditionalGeneration], nn.Module]:
    return lambda model: method.inject(model)[0]


def _renamed(*changes: tuple[str, str], prefix: str = "") -> Callable[[str], str]:
    def rename(name: str) -> str:
        for ours, theirs in changes:
            name = name.replace(ours, theirs)
        return prefix + name

    return rename


def _lora(rank: int) -> list[Pair]:
    ours = LoRA(rank)

    def adapterhub(model: T5ForConditionalGeneration) -> nn.Module:
        config = import_adapters().LoRAConfig(r=rank, alpha=ours.alpha, attn_matrices=list(ours.targets))
        add_active(model, config)
        return model

    def opendelta(
        modified_modules: list[str] | None,
    ) -> Callable[[T5ForConditionalGeneration], nn.Module]:
        def build(model: T5ForConditionalGeneration) -> nn.Module:
            import_opendelta().LoraModel(
                model, lora_r=rank, lora_alpha=ours.alpha, modified_modules=modified_modules
            )
            return model

        return build

    a, b = "sharif_llm_A", "sharif_llm_B"
    everywhere = [f"{sublayer}.{target}" for sublayer in _SUBLAYERS for target in ours.targets]
    in_opendelta = _renamed((a, "lora.lora_A"), (b, "lora.lora_B"))
    return [
        Pair(
            ours,
            "PEFT",
            "LoraConfig",
            build=_by_method(PeftLoRA(rank)),
            partner=_renamed(
                (a, "lora_A.default.weight"), (b, "lora_B.default.weight"), prefix="base_model.model."
            ),
            transposed=True,
            learning_rate=1e-4,
        ),
        Pair(
            ours,
            "AdapterHub",
            "LoRAConfig",
            build=adapterhub,
            partner=_renamed((a, f"loras.{NAME}.lora_A"), (b, f"loras.{NAME}.lora_B")),
            transposed=True,
            prepare=initialise,
            learning_rate=1e-4,
        ),
        Pair(
            ours,
            "OpenDelta",
            "LoraModel on every attention",
            build=opendelta(everywhere),
            partner=in_opendelta,
            transposed=True,
            learning_rate=1e-4,
        ),
        Pair(
            ours,
            "OpenDelta",
            "LoraModel at its default, self-attention only",
            build=opendelta(None),
            partner=in_opendelta,
            transposed=True,
            shares=lambda name: "EncDecAttention" not in name,
            learning_rate=1e-4,
        ),
    ]


def _adapter(bottleneck: int) -> list[Pair]:
    def opendelta(model: T5ForConditionalGeneration) -> nn.Module:
        import_opendelta().AdapterModel(
            model, bottleneck_dim=bottleneck, non_linearity="relu", modified_modules=_FEED_FORWARD
        )
        return model

    ours = "adapter.sharif_llm_adapter"
    return [
        Pair(
            Adapter(bottleneck),
            "AdapterHub",
            "SeqBnConfig",
            build=_by_method(AdapterHubAdapter(bottleneck)),
            partner=_renamed(
                (f"{ours}.0", f"adapters.{NAME}.adapter_down.0"), (f"{ours}.2", f"adapters.{NAME}.adapter_up")
            ),
            prepare=initialise,
            learning_rate=1e-3,
        ),
        Pair(
            Adapter(bottleneck),
            "OpenDelta",
            "AdapterModel after each feed-forward layer, ReLU",
            build=opendelta,
            partner=_renamed(
                (f"{ours}.0", "adapter.modulelist.down_proj"), (f"{ours}.2", "adapter.modulelist.up_proj")
            ),
            reorder=_sum_as_opendelta,
            learning_rate=1e-3,
        ),
    ]


def _sum_as_opendelta(model: nn.Module) -> None:
    """Have each adapted layer sum `bottleneck(h) + (x + f(x))` in place of `(bottleneck(h) + f(x)) + x`."""

    def forward(layer: AdaptedLayerFF, x: Tensor) -> Tensor:
        h = x + layer.dropout(layer.DenseReluDense(layer.layer_norm(x)))  # (B, T, D)
        return layer.adapter(h) + h

    for layer in model.modules():
        if isinstance(layer, AdaptedLayerFF):
            layer.forward = partial(forward, layer)


def _soft_prompt(rows: int) -> list[Pair]:
    def peft(model: T5ForConditionalGeneration) -> nn.Module:
        from peft import PromptTuningConfig, TaskType, get_peft_model

        config = PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=rows, num_transformer_submodules=1
        )
        return get_peft_model(model, config)

    ours = "encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb"
    return [
        Pair(
            SoftPrompt(rows),
            "PEFT",
            "PromptTuningConfig(num_transformer_submodules=1)",
            build=peft,
            partner=_renamed((ours, "prompt_encoder.default.embedding.weight")),
            learning_rate=0.1,
        ),
        Pair(
            SoftPrompt(rows),
            "OpenDelta",
            "SoftPromptModel",
            build=_by_method(OpenDeltaPrompt(rows)),
            partner=_renamed((ours, "encoder.soft_prompt_layer.soft_embeds")),
            learning_rate=0.1,
        ),
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
