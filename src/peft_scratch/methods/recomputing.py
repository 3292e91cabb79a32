"""Gradient checkpointing on a frozen base, which needs one addition.

A checkpointed block runs again in the backward pass only if one of its inputs requires a gradient. If
everything before the block is frozen, none does, and the method's parameters in it would get no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peft_scratch.methods.t5 import stacks


def let_gradients_pass(model: nn.Module) -> None:
    """Make the input of each stack's first block require a gradient while the stack is checkpointed.

    Checkpointing may be enabled before or after. The hook is on the stack's dropout, which both token ids
    and embeddings of the caller pass through.
    """
    drop_embedding_hook(model)
    for stack in stacks(model).values():
        stack.dropout.before_checkpoints = False
        stack.register_forward_pre_hook(_tell_dropout)
        stack.dropout.register_forward_hook(_require_gradient)


def drop_embedding_hook(model: nn.Module) -> None:
    """Remove the hook that transformers puts on the embedding for the same purpose, if there is one.

    It misses embeddings of the caller, and it is a local function, which cannot be pickled.
    """
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()


def _tell_dropout(stack: nn.Module, args: tuple) -> None:
    stack.dropout.before_checkpoints = stack.gradient_checkpointing and stack.training


def _require_gradient(dropout: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
    if output.requires_grad or not (dropout.before_checkpoints and torch.is_grad_enabled()):
        return None
    return (
        output.detach().requires_grad_()
    )  # a new tensor, because with dropout at 0 the output is the caller's own
