"""The two recipes: `reference` trains and evaluates as the course's notebooks do, `fast` in less time.

Both use the same hyperparameters and give equivalent results. Only how the work is done differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn

from peft_scratch.data.batches import (
    Batches,
    length_grouped_batches,
    plain_batches,
    shuffled_batches,
    sorted_batches,
)
from peft_scratch.errors import UserError
from peft_scratch.libraries.peft_lora import casts_left_to_autocast
from peft_scratch.training import device
from peft_scratch.training.cpu_kernels import cpu_kernels
from peft_scratch.training.float16 import SafeProducts, hold_in_float16


@dataclass(frozen=True)
class Recipe:
    """How training and evaluation work; the attributes say what differs from the course's notebooks.

    Attributes:
        name: as the user gives it and results record it.
        summary: shown at the top of a run.
        training_batches: the batches of an epoch, given lengths, batch size and seed.
        evaluation_batches: the batches of an evaluation, given lengths and batch size.
        scoring: an evaluation uses the scores of the label words, and generates text only where it must.
        low_precision: if the hardware has bfloat16, or at least float16, the work is done in it, and the
            frozen base is stored in it. Trainable parameters are always float32.
        cpu_kernels: on a CPU, dropout, attention and layer norm are computed by `cpu_kernels`.
    """

    name: str
    summary: str
    training_batches: Callable[[list[int], int, int], Batches]
    evaluation_batches: Callable[[list[int], int], Batches]
    scoring: bool
    low_precision: bool
    cpu_kernels: bool

    @property
    def precision(self) -> tuple[torch.dtype, str]:
        """The type to work in on this machine, and a phrase that says why."""
        return device.precision_of() if self.low_precision else (torch.float32, "float32, as in the course")

    @property
    def precision_name(self) -> str:
        """`float32`, `bfloat16` or `float16`."""
        return str(self.precision[0]).removeprefix("torch.")

    def in_float32(self) -> Recipe:
        """This recipe, working in float32 whatever the machine has."""
        return replace(self, low_precision=False)

    @contextmanager
    def forward_context(self, model: nn.Module, where: torch.device) -> Iterator[None]:
        """Within it, a forward pass of `model` follows the recipe.

        The backward pass belongs outside. Afterwards the model is as before.
        """
        dtype, _ = self.precision
        with (
            cpu_kernels(model) if self.cpu_kernels else nullcontext(),
            torch.autocast(where.type, dtype, enabled=dtype != torch.float32),
            casts_left_to_autocast(model) if dtype == torch.bfloat16 else nullcontext(),
            SafeProducts(model) if dtype == torch.float16 else nullcontext(),
        ):
            yield

    def cast_frozen(self, model: nn.Module) -> nn.Module:
        """`model` with its frozen parameters cast to `precision`; those that train stay as they are."""
        dtype, _ = self.precision
        if dtype == torch.float16:
            hold_in_float16(model)
            return model
        for parameter in model.parameters():
            if not parameter.requires_grad:
                # Within the same parameter, so that tied tensors stay tied.
                parameter.data = parameter.data.to(dtype)
        return model


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="reference",
            summary="as in the course: float32, batches at random, generation for every evaluation",
            training_batches=shuffled_batches,
            evaluation_batches=plain_batches,
            scoring=False,
            low_precision=False,
            cpu_kernels=False,
        ),
        Recipe(
            name="fast",
            summary="the hyperparameters of `reference`; half precision, batches sorted by length, "
            "scoring instead of generation",
            training_batches=length_grouped_batches,
            evaluation_batches=sorted_batches,
            scoring=True,
            low_precision=True,
            cpu_kernels=True,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
