"""Take a method out of a model again, so that one base in memory serves all methods in turn.

base = base_of(tuned)              # the base, over the very tensors that `tuned` had frozen
tuned = apply(LoRA(rank=8), base)   # another method on them; no weight is loaded or copied
load_delta(tuned.model, "lora.pt")
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PretrainedConfig, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.methods.method import BASE_CLASS, Tuned
from peft_scratch.methods.parameters import untie, unwrapped
from peft_scratch.methods.t5 import config_as_built


def base_of(tuned: Tuned) -> T5ForConditionalGeneration:
    """The base that `tuned` was made from: a plain T5 that uses the same frozen tensors.

    No weight is copied, and no module, hook or wrapper of the method is kept, so the base depends only on
    the frozen tensors. The tuned model stays as it was, and both may be used. Merged LoRA weights must be
    unmerged first.

    Returns:
        The base in evaluation mode, on the tuned model's device.

    Raises:
        UserError: this is not what `apply` returned, or the weights of the base were trained themselves, or
            are merged with an update, or the method is no longer in the model.
    """
    if not isinstance(tuned, Tuned):
        raise UserError(f"base_of takes what apply returned, a Tuned, and not a {type(tuned).__name__}.")
    model, method = unwrapped(tuned.model), tuned.method
    if any(getattr(module, "merged", False) for module in model.modules()):
        raise UserError("The model's LoRA update is merged into the base; unmerge it before taking it out.")
    if not any(map(method.declares, dict(model.named_parameters()))):
        raise UserError(
            f"{method!r} is not in the model any more, and what it left in the base is unknown; load a fresh "
            "base model instead."
        )
    with torch.device("meta"):  # allocates nothing: every parameter is replaced below
        base = _class_of(model)(_plain_config(model))
    frozen = {method.base_name(name): p for name, p in model.named_parameters() if not p.requires_grad}
    if "lm_head.weight" in frozen:  # transformers 5 ties it whatever the configuration says
        untie(base)
    # By identity, so that tensors which are tied (T5's embedding and its output layer) stay tied.
    found = {}
    for name, p in base.named_parameters():
        if name not in frozen or frozen[name].shape != p.shape:
            raise UserError(
                f"{method!r} cannot be taken out: the base's parameter {name} is not frozen in the "
                "model; load a fresh base model instead."
            )
        found[id(p)] = nn.Parameter(frozen[name].detach())
    for name, p in list(base.named_parameters(remove_duplicate=False)):
        parent, _, last = name.rpartition(".")
        setattr(base.get_submodule(parent), last, found[id(p)])
    if model.can_generate():
        base.generation_config = copy.deepcopy(model.generation_config)
    return base.eval()


def _class_of(model: nn.Module) -> type:
    """The model's class before a method was applied."""
    return getattr(model, BASE_CLASS, type(model))


def _plain_config(model: nn.Module) -> PretrainedConfig:
    """The model's configuration without what a library has added."""
    config_class = _class_of(model).config_class
    known = {*config_class().to_dict(), "decoder_start_token_id"}
    there = config_as_built(model).to_dict()
    plain = config_class.from_dict({name: value for name, value in there.items() if name in known})
    plain._attn_implementation = model.config._attn_implementation  # else it would add up in another order
    return plain
