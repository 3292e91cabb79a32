"""Four ways to tune a T5, from scratch, behind one small interface.

tuned = apply(LoRA(rank=8), model)      # injects, freezes the rest, checks the count
...                                     # train tuned.model
save_delta(tuned.model, "lora.pt")
"""

from peft_scratch.errors import UserError
from peft_scratch.methods.adapter import AdaptedLayerFF, Adapter, Bottleneck
from peft_scratch.methods.checkpoint import load_delta, read_delta, save_delta
from peft_scratch.methods.derivation import Derivation, Step
from peft_scratch.methods.full import FullFineTuning
from peft_scratch.methods.hot_swap import base_of
from peft_scratch.methods.lora import LoRA, LoRALinear, low_rank_update, merge, unmerge
from peft_scratch.methods.method import Method, Tuned, apply
from peft_scratch.methods.parameters import count_parameters, freeze_all_but, trainable_names
from peft_scratch.methods.soft_prompt import (
    PromptedEmbedding,
    PromptRows,
    SoftPrompt,
    first_rows,
    label_words,
    random_uniform,
    sampled_vocabulary,
)

__all__ = [
    "AdaptedLayerFF",
    "Adapter",
    "Bottleneck",
    "Derivation",
    "FullFineTuning",
    "LoRA",
    "LoRALinear",
    "Method",
    "PromptRows",
    "PromptedEmbedding",
    "SoftPrompt",
    "Step",
    "Tuned",
    "UserError",
    "apply",
    "base_of",
    "count_parameters",
    "first_rows",
    "freeze_all_but",
    "label_words",
    "load_delta",
    "low_rank_update",
    "merge",
    "random_uniform",
    "read_delta",
    "sampled_vocabulary",
    "save_delta",
    "trainable_names",
    "unmerge",
]
