"""What every way of tuning a model has in common: inject, declare, freeze.

A method declares the names of its parameters. What is the same for all methods (freezing, counting,
saving, loading) uses only those names and is written once, here and in `parameters` and `checkpoint`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from numbers import Integral

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.methods.derivation import Derivation
from peft_scratch.methods.parameters import (
    MARK,
    count_parameters,
    freeze_all_but,
    trainable_names,
    unwrapped,
)
from peft_scratch.methods.recomputing import let_gradients_pass
from peft_scratch.methods.t5 import config_as_built, require_t5

#: Set on a model beside its method: the model's class, because a library may replace it.
BASE_CLASS = "_peft_scratch_base_class"


@dataclass(frozen=True)
class Tuned:
    """A model with a method applied; only what the method declares is trainable.

    Attributes:
        model: the module to train and to generate with (PEFT returns its own wrapper).
        method: the method that was applied.
        module_names: dotted names of the modules that were replaced or extended, in model order.
    """

    model: nn.Module
    method: Method
    module_names: list[str]

    @property
    def trainable(self) -> list[str]:
        """Names of the trainable parameters, as `model.named_parameters()` gives them."""
        return trainable_names(self.model)


class Method(ABC):
    """One way to tune a T5. Subclasses are frozen dataclasses whose fields are the hyperparameters."""

    #: Short name as the results spell it: `full`, `soft_prompt`, `adapter`, `lora`.
    kind: str
    #: Who implements it: `none`, `scratch`, `opendelta`, `adapterhub`, `peft`.
    library: str

    @abstractmethod
    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Put the method into `model`, in place; return the module to call and the places changed.

        Raises:
            UserError: nothing in the model matches the method's targets.
        """

    @abstractmethod
    def declares(self, name: str) -> bool:
        """Whether the parameter called `name` in the injected model is the method's own."""

    def base_name(self, name: str) -> str:
        """The base's name of the frozen parameter that the injected model calls `name`: usually the same."""
        return name

    @abstractmethod
    def derivation(self, config: T5Config) -> Derivation:
        """How many parameters are added to a model of `config`, derived by hand."""

    def added_parameters(self, config: T5Config) -> int:
        """The number of parameters added to a model of `config`: the last line of its derivation."""
        return self.derivation(config).value

    def hyperparameters(self) -> dict:
        """The method's fields, as the results record them."""
        return asdict(self)  # type: ignore[call-overload]


def method_in(model: nn.Module) -> Method | None:
    """The method that was applied to `model`, which may be in a wrapper; None if there is none."""
    return getattr(unwrapped(model), MARK, None)


def require_positive_int(what: str, value: object) -> int:
    """`value`, a hyperparameter called `what`, as a Python int; NumPy integers are accepted too.

    Raises:
        UserError: it is no whole number, or is below one.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"{what} has to be a whole number of at least 1, not {value!r}.")
    return int(value)


def apply(method: Method, model: T5ForConditionalGeneration) -> Tuned:
    """Inject `method` into `model`, freeze the rest, and check what trains against the hand count.

    Raises:
        UserError: `model` is not a T5, is in a wrapper, or already has a method, or nothing matches the
            method's targets. The model is then unchanged.
        AssertionError: the number of trainable parameters is not what the formula says. This is a
            defect, never a user's mistake.
    """
    if not isinstance(method, Method):
        raise UserError(f"apply takes a method, such as LoRA(rank=8), then a model, not {method!r} first.")
    if torch.is_inference_mode_enabled():
        raise UserError(
            f"Within torch.inference_mode nothing can be trained: apply {method!r} outside of it."
        )
    if isinstance(model, nn.Module) and (before := method_in(model)) is not None:
        raise UserError(
            f"This model already has {before!r} in it; load a fresh base model before applying {method!r}."
        )
    if method.kind != "full":
        require_t5(model, method)
    base_class, whole_before = type(model), count_parameters(model)
    tuned, places = method.inject(model)
    # Against a second injection, which would stack two deltas unnoticed, and for whoever saves the model.
    model.__dict__.update({MARK: method, BASE_CLASS: base_class})
    tuned.__dict__[MARK] = method
    if method.kind != "full":
        freeze_all_but(tuned, method.declares)
        let_gradients_pass(model)
        expected = method.added_parameters(config_as_built(model))
        trains = count_parameters(tuned, trainable_only=True)
        added = count_parameters(tuned) - whole_before
        assert trains == added == expected, (
            f"{method!r}: {trains:,} parameters train and {added:,} were added; the formula says {expected:,}"
        )
    return Tuned(tuned, method, places)
