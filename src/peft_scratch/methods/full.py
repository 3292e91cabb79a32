"""Full fine-tuning, for comparison: every weight of the model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.methods.derivation import Derivation, letters, step
from peft_scratch.methods.injection import refuse_second_injection
from peft_scratch.methods.method import Method


@dataclass(frozen=True)
class FullFineTuning(Method):
    """Train every weight; nothing is added, nothing is frozen."""

    kind = "full"
    library = "none"

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Let every parameter of `model` train; no module is changed."""
        refuse_second_injection(model)
        model.requires_grad_(True)
        return model, []

    def declares(self, name: str) -> bool:
        """Every parameter is trained."""
        return True

    def derivation(self, config: T5Config) -> Derivation:
        """None is added."""
        return Derivation((step("nothing is added", "0", letters(config)),))
