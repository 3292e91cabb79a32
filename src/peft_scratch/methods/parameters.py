"""Freezing, counting and naming for any method. Everything here uses only the names of parameters."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError

#: Part of the name of every parameter that a method from scratch adds. The course's own loader keeps the
#: entries of a file whose key contains it.
OWN = "sharif_llm"
#: Set on a model once a method is in it, and on a library's wrapper around it: the method.
MARK = "_peft_scratch_method"


def is_own(name: str) -> bool:
    """Whether the parameter called `name` was added by one of the methods from scratch."""
    return OWN in name


# What torch's wrappers add to names: DataParallel and DistributedDataParallel, `compile`, FSDP, and torch's
# wrapper for checkpointing. The first is only a prefix, where no T5 has a part of that name.
_IN_FRONT = ("module", "_orig_mod")
_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def plain_name(name: str) -> str:
    """`name` of a parameter without what wrappers have added to it, such as `module.` or `_orig_mod.`"""
    parts = name.split(".")
    while parts[0] in _IN_FRONT:
        parts = parts[1:]
    return ".".join(part for part in parts if part not in _ANYWHERE)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch's wrappers: DataParallel, DistributedDataParallel, FSDP, `torch.compile`."""
    while True:
        inner = model.__dict__.get("_modules", {})
        found = [inner[part] for part in ("module", *_ANYWHERE) if part in inner]
        if len(inner) != 1 or not found:
            return model
        model = found[0]


def tuned_part(model: nn.Module) -> nn.Module:
    """The model that `apply` returned, wherever in `model` it is; if it is not, what torch's wrappers hold.

    Raises:
        UserError: this is no model, or there are several with a method in it.
    """
    require_module(model)
    found: list[str] = []
    for name, module in model.named_modules():
        if MARK in vars(module) and not (found and f"{name}.".startswith(f"{found[0]}.".lstrip("."))):
            found.append(name)
    if len(found) > 1:
        raise UserError(
            f"Two models with a method are in it, {' and '.join(found[:2])}: hand over one of them."
        )
    return model.get_submodule(found[0]) if found else unwrapped(model)


def require_module(model: object) -> None:
    """Raise a UserError unless `model` is one."""
    if isinstance(model, nn.Module):
        return
    hint = ": hand over its .model" if isinstance(getattr(model, "model", None), nn.Module) else ""
    raise UserError(f"A model is expected here, not a {type(model).__name__}{hint}.")


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """The number of parameters; a tensor that several modules share (T5's embedding) counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def trainable_names(model: nn.Module) -> list[str]:
    """Names of the parameters that require a gradient, in model order."""
    return [name for name, p in model.named_parameters() if p.requires_grad]


def is_tied(config: T5Config) -> bool:
    """Whether a T5 of this configuration uses its embedding as output layer too; T5 1.1 and Flan-T5 do not.

    transformers 5 (configuration_t5.py, T5Config.__post_init__) always sets `tie_word_embeddings`, and keeps
    the given value as the scale of the output.
    """
    return getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)


def untie(model: T5ForConditionalGeneration) -> None:
    """Give `model` its own output layer with the current values, if it has none."""
    if model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = nn.Parameter(model.shared.weight.detach().clone())


def freeze_all_but(model: nn.Module, declared: Callable[[str], bool]) -> list[str]:
    """Let only the parameters whose name satisfies `declared` train; return their names.

    Raises:
        ValueError: no name satisfies `declared`, so nothing would train.
    """
    chosen = []
    # BEGIN SOLUTION
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(declared(name))
        if declared(name):
            chosen.append(name)
    # END SOLUTION
    if not chosen:
        raise ValueError("no parameter of the model is declared by the method, so nothing would train")
    return chosen
