"""Gradient checkpointing on a frozen base: the one thing that it lacks there.

A checkpointed block is run again in the backward pass, if any of its inputs requires a gradient; with all
that stands before the block frozen, none does, and a method's parameters inside would get no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peft_scratch.methods.t5 import stacks


def let_gradients_pass(model: nn.Module) -> None:
    """Make what enters the first block of each stack require a gradient while the stack is checkpointed.

    It may be enabled before or after. The dropout of a stack is where token ids and embeddings that the
    caller made come together.
    """
    drop_embedding_hook(model)
    for stack in stacks(model).values():
        stack.dropout.before_checkpoints = False
        stack.register_forward_pre_hook(_tell_dropout)
        stack.dropout.register_forward_hook(_require_gradient)


def drop_embedding_hook(model: nn.Module) -> None:
    """Remove the hook that transformers puts on the embedding for the same purpose, if it is there.

    It misses embeddings that the caller made, and it is a local function, which no pickle takes.
    """
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()


def _tell_dropout(stack: nn.Module, args: tuple) -> None:
    stack.dropout.before_checkpoints = stack.gradient_checkpointing and stack.training


def _require_gradient(dropout: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
    if output.requires_grad or not (dropout.before_checkpoints and torch.is_grad_enabled()):
        return None
    return output.detach().requires_grad_()  # a new tensor: with dropout at 0 the output is the caller's own
