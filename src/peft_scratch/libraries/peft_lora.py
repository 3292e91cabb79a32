"""LoRA through Hugging Face PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.methods.injection import find_in_blocks
from peft_scratch.methods.lora import LoRA


@dataclass(frozen=True)
class PeftLoRA(LoRA):
    """Our `LoRA` by PEFT, with the same hyperparameters (Hu et al. 2021, section 4.1).

    The model to call is PEFT's wrapper; the base is changed in place.
    """

    library = "peft"

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Replace each target by PEFT's LoRA layer; return PEFT's wrapper and the names in the base.

        Raises:
            UserError: a target matches no linear layer, or PEFT is not installed.
        """
        peft = import_peft()
        # tuners/tuners_utils.py, BaseTuner.inject_adapter raises only if no target at all matches: of
        # two, a misspelt one would be passed over silently. So they are looked up here first.
        places = find_in_blocks(model, self.targets, nn.Linear)
        config = peft.LoraConfig(
            task_type=peft.TaskType.SEQ_2_SEQ_LM,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=0.0,
            target_modules=list(self.targets),
        )
        with torch.device(model.device):
            wrapper = peft.get_peft_model(model, config)
        wrapper.train(model.training)  # a new wrapper is in training mode, whatever it wraps
        layers = [n for n, module in model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
        assert layers == places, f"PEFT replaced {layers}, not {places}"
        return wrapper, places

    def declares(self, name: str) -> bool:
        """`lora_A` and `lora_B` of every target."""
        return ".lora_A." in name or ".lora_B." in name

    def base_name(self, name: str) -> str:
        """Without the names of PEFT's wrapper and of its layer around each target."""
        return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def import_peft() -> ModuleType:
    """The package `peft`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError(
            f"The library PEFT cannot be imported ({error}): run `pip install peft==0.21.2`."
        ) from None
    return peft
