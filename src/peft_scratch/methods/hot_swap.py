"""Taking a method out again, so that one base in memory serves every method in turn.

base = base_of(tuned)              # the base, over the very tensors that `tuned` had frozen
tuned = apply(LoRA(rank=8), base)   # another method on them; no weight is loaded or copied
load_delta(tuned.model, "lora.pt")
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.methods.method import Tuned
from peft_scratch.methods.parameters import untie


def base_of(tuned: Tuned) -> T5ForConditionalGeneration:
    """The base that `tuned` was made from: a plain T5 over the tensors that were frozen in it.

    No weight is copied, and none of the method's modules, hooks and wrappers comes along: what the base
    computes then depends on the frozen tensors alone, as they are found in the tuned model. That one
    stays as it was, and both may be used; but merged LoRA weights have to be unmerged first.

    Returns:
        The base in evaluation mode, on the tuned model's device.

    Raises:
        UserError: the weights of the base were trained themselves, or are merged with an update.
    """
    model = tuned.model
    if any(getattr(module, "merged", False) for module in model.modules()):
        raise UserError("The model's LoRA update is merged into the base; unmerge it before taking it out.")
    with torch.device("meta"):  # allocates nothing: every parameter is replaced below
        base = T5ForConditionalGeneration(_plain_config(model.config))
    frozen = {tuned.method.base_name(name): p for name, p in model.named_parameters() if not p.requires_grad}
    if "lm_head.weight" in frozen:  # which transformers 5 ties whatever the configuration says
        untie(base)
    # By identity, so that tensors which are tied (T5's embedding and its output layer) stay tied.
    found = {}
    for name, p in base.named_parameters():
        if name not in frozen or frozen[name].shape != p.shape:
            raise UserError(
                f"{tuned.method!r} cannot be taken out: the base's parameter {name} is not frozen in the "
                "model; load a fresh base model instead."
            )
        found[id(p)] = nn.Parameter(frozen[name].detach())
    for name, p in list(base.named_parameters(remove_duplicate=False)):
        parent, _, last = name.rpartition(".")
        setattr(base.get_submodule(parent), last, found[id(p)])
    base.generation_config = copy.deepcopy(model.generation_config)
    return base.eval()


def _plain_config(config: T5Config) -> T5Config:
    """`config` without what a library has written into it."""
    known = {*T5Config().to_dict(), "decoder_start_token_id"}
    plain = T5Config.from_dict({name: value for name, value in config.to_dict().items() if name in known})
    plain._attn_implementation = config._attn_implementation  # else it would add up in another order
    return plain
