"""The catalogue: how each library is called for each method, and what it calls the parameters.

The comparison, the ledger and the conversion take all of this from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.libraries.adapterhub_adapter import NAME, add_active, reduction_factor
from peft_scratch.libraries.adapterhub_compat import import_adapters
from peft_scratch.libraries.opendelta_compat import import_opendelta
from peft_scratch.libraries.peft_lora import import_peft
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt

PEFT, ADAPTERHUB, OPENDELTA = "PEFT", "AdapterHub", "OpenDelta"
DEFAULTS, AS_OURS = "defaults", "as ours"

# 1. Names


@dataclass(frozen=True)
class NameMap:
    """The library's names of the parameters that a method from scratch adds.

    Attributes:
        parts: for each part of our names, the part of the library's names that replaces it.
        prefix: what the library puts before each name.
        transposed: whether it stores a matrix as the transpose of ours.
    """

    parts: Mapping[str, str]
    prefix: str = ""
    transposed: bool = False

    def theirs(self, name: str) -> str:
        """The library's name of our parameter `name`."""
        for ours, theirs in self.parts.items():
            name = name.replace(ours, theirs)
        return self.prefix + name

    def ours(self, name: str) -> str | None:
        """Our name of the library's parameter `name`; None if it is not such a parameter."""
        found = bare = name.removeprefix(self.prefix)
        for ours, theirs in self.parts.items():
            found = found.replace(theirs, ours)
        return found if found != bare and self.theirs(found) == name else None

    def turned(self, tensor: Tensor) -> Tensor:
        """A tensor of ours as the library stores it, or one of the library's as we store it."""
        return tensor.T if self.transposed else tensor


_A, _B = "sharif_llm_A", "sharif_llm_B"
_DOWN, _UP = "adapter.sharif_llm_adapter.0", "adapter.sharif_llm_adapter.2"
#: The one parameter of a soft prompt.
PROMPT = "encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb"
_PEFT_PREFIX = "base_model.model."


def adapterhub_names(adapter: str) -> NameMap:
    """The names of the bottleneck adapter called `adapter`, which are the same in a model and in a folder."""
    return NameMap({_DOWN: f"adapters.{adapter}.adapter_down.0", _UP: f"adapters.{adapter}.adapter_up"})


#: The names in a model, by method and library.
NAMES: dict[tuple[str, str], NameMap] = {
    ("lora", PEFT): NameMap(
        {_A: "lora_A.default.weight", _B: "lora_B.default.weight"}, _PEFT_PREFIX, transposed=True
    ),
    ("lora", ADAPTERHUB): NameMap({_A: f"loras.{NAME}.lora_A", _B: f"loras.{NAME}.lora_B"}, transposed=True),
    ("lora", OPENDELTA): NameMap({_A: "lora.lora_A", _B: "lora.lora_B"}, transposed=True),
    ("adapter", ADAPTERHUB): adapterhub_names(NAME),
    ("adapter", OPENDELTA): NameMap(
        {_DOWN: "adapter.modulelist.down_proj", _UP: "adapter.modulelist.up_proj"}
    ),
    ("soft_prompt", PEFT): NameMap({PROMPT: "prompt_encoder.default.embedding.weight"}),
    ("soft_prompt", OPENDELTA): NameMap({PROMPT: "encoder.soft_prompt_layer.soft_embeds"}),
}

#: The names in a folder that PEFT saves, by method. utils/save_and_load.py, get_peft_model_state_dict leaves
#: the adapter's name out of them.
PEFT_FOLDER_NAMES: dict[str, NameMap] = {
    "lora": NameMap({_A: "lora_A.weight", _B: "lora_B.weight"}, _PEFT_PREFIX, transposed=True),
    "soft_prompt": NameMap({PROMPT: "prompt_embeddings"}),
}

# 2. Calls


@dataclass(frozen=True)
class Call:
    """One way to get a method from a library.

    Attributes:
        library: PEFT, AdapterHub or OpenDelta.
        setting: `defaults`, `as ours`, or the name of another one; empty if the library lacks the method.
        name: the library's class.
        settings: its arguments.
        remark: how it differs from our method.
        symbols: how many parameters it adds, as a formula in the letters of the derivations.
        sizes: the values of the letters that differ from ours.
    """

    library: str
    setting: str
    name: str
    settings: Mapping[str, Any]
    remark: str
    symbols: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """The call in Python: `LoraConfig(r=8, lora_alpha=4)`."""
        arguments = [f"{name}={_python(value)}" for name, value in self.settings.items()]
        if self.library == OPENDELTA:
            arguments = ["model", *arguments]
        return f"{self.name}({', '.join(arguments)})" if self.name else ""

    def put_into(self, model: T5ForConditionalGeneration) -> nn.Module:
        """Apply the library's method to `model`, in place; return the model to call.

        Raises:
            UserError: the library is not installed.
        """
        if self.library == ADAPTERHUB:
            add_active(model, getattr(import_adapters(), self.name)(**self.settings))
            return model
        if self.library == OPENDELTA:
            delta = getattr(import_opendelta(), self.name)
            with torch.device(model.device):
                delta(model, **self.settings)
            return model
        peft = import_peft()
        config = getattr(peft, self.name)(task_type=peft.TaskType.SEQ_2_SEQ_LM, **self.settings)
        with torch.device(model.device):
            return peft.get_peft_model(model, config)


def _python(value: object) -> str:
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return f"r'{value}'" if isinstance(value, str) and "\\" in value else repr(value)


def calls(method: Method, config: T5Config) -> list[Call]:
    """The calls of each library that correspond to `method`, on a model of `config`."""
    return _CALLS[method.kind](method, config) if method.kind in _CALLS else []


def call(method: Method, library: str, config: T5Config) -> Call:
    """The call of `library` that does the same as `method`."""
    return next(c for c in calls(method, config) if (c.library, c.setting) == (library, AS_OURS))


def _compared(letter: str, theirs: int, ours: int) -> str:
    return f"{letter} = {theirs}" if theirs == ours else f"{letter} = {theirs} where ours is {ours}"


#: T5's attention layers: one in every block, and a second one in the decoder's.
_ATTENTIONS = ("SelfAttention", "EncDecAttention")


def _lora(method: LoRA, config: T5Config) -> list[Call]:
    r, alpha = method.rank, method.alpha
    everywhere, self_attention = method.derivation(config).symbols, "(L_enc + L_dec)·2·(d·r + r·d')"
    default = _compared("r", 8, r)
    transposed = "nothing; A and B are stored as the transposes of ours"
    named = [f"{attention}.{target}" for attention in _ATTENTIONS for target in method.targets]
    peft, adapterhub = {"r": r, "lora_alpha": alpha}, {"r": r, "alpha": alpha}
    opendelta = {"lora_r": r, "lora_alpha": alpha, "modified_modules": named}
    remarks = {
        PEFT: f"the same layers; {default}; alpha = 8 where ours is {alpha:g}, so the update is scaled by 1",
        ADAPTERHUB: "the same layers, cross-attention too, although the setting is called selfattn_lora; "
        f"{default}; alpha = 8 where ours is {alpha:g}",
        OPENDELTA: "its names attn.q and attn.v mean self-attention only, so the L_dec layers of "
        f"cross-attention get no update; {default}; alpha = 16 where ours is {alpha:g}",
        "named": f"{transposed}; cross-attention has to be named",
    }
    return [
        Call(PEFT, DEFAULTS, "LoraConfig", {}, remarks[PEFT], everywhere, {"r": 8}),
        Call(PEFT, AS_OURS, "LoraConfig", peft, transposed, everywhere, {"r": r}),
        Call(ADAPTERHUB, DEFAULTS, "LoRAConfig", {}, remarks[ADAPTERHUB], everywhere, {"r": 8}),
        Call(ADAPTERHUB, AS_OURS, "LoRAConfig", adapterhub, transposed, everywhere, {"r": r}),
        Call(OPENDELTA, DEFAULTS, "LoraModel", {}, remarks[OPENDELTA], self_attention, {"r": 8}),
        Call(OPENDELTA, AS_OURS, "LoraModel", opendelta, remarks["named"], everywhere, {"r": r}),
    ]


#: Regular expressions for T5's feed-forward layers, for OpenDelta's `modified_modules`. The end of the name
#: is not enough: the encoder's `layer.1` would also match the decoder's cross-attention.
_FEED_FORWARD = [r"[r]encoder\.block\.\d+\.layer\.1", r"[r]decoder\.block\.\d+\.layer\.2"]


def _adapter(method: Adapter, config: T5Config) -> list[Call]:
    b, d = method.bottleneck, config.d_model
    once = method.derivation(config).symbols
    twice, sixteenth = f"2·{once}", {"b": d // 16}
    default = f"its reduction_factor is 16, so {_compared('b', d // 16, b)}"
    doubled = "also after each self-attention (not after cross-attention), so twice the places"
    before = (
        f"{doubled}, and before the residual connection; {_compared('b', 24, b)}; gelu_new where ours is ReLU"
    )
    in_full = "nothing; the feed-forward layers have to be named in full"
    adapterhub = {"reduction_factor": reduction_factor(d, b)}
    opendelta = {"bottleneck_dim": b, "non_linearity": "relu", "modified_modules": _FEED_FORWARD}
    return [
        Call(ADAPTERHUB, DEFAULTS, "SeqBnConfig", {}, f"the same layers; {default}", once, sixteenth),
        Call(ADAPTERHUB, AS_OURS, "SeqBnConfig", adapterhub, "nothing", once, {"b": b}),
        Call(ADAPTERHUB, "double_seq_bn", "DoubleSeqBnConfig", {}, f"{doubled}; {default}", twice, sixteenth),
        Call(OPENDELTA, DEFAULTS, "AdapterModel", {}, before, twice, {"b": 24}),
        Call(OPENDELTA, AS_OURS, "AdapterModel", opendelta, in_full, once, {"b": b}),
        Call(PEFT, "", "", {}, "it has no bottleneck adapter"),
    ]


def _soft_prompt(method: SoftPrompt, config: T5Config) -> list[Call]:
    n = method.virtual_tokens
    rows = method.derivation(config).symbols
    twice = "it holds N rows for the encoder and N for the decoder, so 2·N; it uses only the first N"
    peft = {"num_virtual_tokens": n}
    once = {**peft, "num_transformer_submodules": 1}
    return [
        Call(PEFT, DEFAULTS, "PromptTuningConfig", peft, twice, f"2·{rows}", {"N": n}),
        Call(PEFT, AS_OURS, "PromptTuningConfig", once, "nothing", rows, {"N": n}),
        Call(OPENDELTA, DEFAULTS, "SoftPromptModel", {}, _compared("N", 100, n), rows, {"N": 100}),
        Call(OPENDELTA, AS_OURS, "SoftPromptModel", {"soft_token_num": n}, "nothing", rows, {"N": n}),
        Call(ADAPTERHUB, "", "PromptTuningConfig", {}, "its T5 does not take prompt tuning"),
    ]


_CALLS: dict[str, Callable[[Any, T5Config], list[Call]]] = {
    "lora": _lora,
    "adapter": _adapter,
    "soft_prompt": _soft_prompt,
}
