"""LoRA through Hugging Face PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.libraries.stand_ins import modules_replaced
from peft_scratch.methods.injection import find_in_blocks
from peft_scratch.methods.lora import LoRA
from peft_scratch.methods.recomputing import drop_embedding_hook


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
        # tuners/tuners_utils.py, BaseTuner.inject_adapter raises only if no target at all matches: one
        # misspelt target of two would be ignored without a message. So they are looked up here first.
        places = find_in_blocks(model, self.targets, nn.Linear)
        drop_embedding_hook(model)  # PEFT registers its own, and then transformers 5 knows no other
        with torch.device(model.device), warnings.catch_warnings():
            # peft_model.py asks for the attribute by its name before transformers 5.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            wrapper = lora_by_peft(peft, model, self.rank, self.alpha, self.targets)
        wrapper.train(model.training)  # a new wrapper is in training mode, even if the model is not
        layers = [n for n, module in model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
        assert layers == places, f"PEFT replaced {layers}, not {places}"
        for name in layers:
            layer = model.get_submodule(name)
            layer.register_state_dict_pre_hook(_refuse_while_merged)
            layer._register_load_state_dict_pre_hook(_refuse_while_merged, with_module=True)
        return wrapper, places

    def declares(self, name: str) -> bool:
        """`lora_A` and `lora_B` of every target."""
        return ".lora_A." in name or ".lora_B." in name

    def base_name(self, name: str) -> str:
        """`name` without the parts that PEFT's wrapper and its layer around each target add."""
        return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def lora_by_peft(
    peft: ModuleType, model: T5ForConditionalGeneration, rank: int, alpha: float, targets: Sequence[str]
) -> nn.Module:
    """Put PEFT's LoRA into `model`; return PEFT's wrapper.

    Args:
        peft: the package.
        targets: last name parts of the layers to replace.
    """
    # BEGIN SOLUTION
    config = peft.LoraConfig(
        task_type="SEQ_2_SEQ_LM" if model.can_generate() else "FEATURE_EXTRACTION",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=list(targets),
    )
    return peft.get_peft_model(model, config)
    # END SOLUTION


def casts_left_to_autocast(model: nn.Module) -> AbstractContextManager[None]:
    """Within it, PEFT's layers in `model`, if any, do not convert their input to the type of `lora_A`.

    bfloat16's autocast converts it back at once: the result is the same to the bit, without two passes over
    each input and two over its gradient. (In float16, the update is computed in float32: see `SafeProducts`.)
    """
    if not any(hasattr(module, "cast_input_dtype_enabled") for module in model.modules()):
        return nullcontext()  # without importing PEFT
    return import_peft().helpers.disable_input_dtype_casting(model)


def _refuse_while_merged(layer: nn.Module, *_: object) -> None:
    """Refuse to save or load the state of PEFT's layer while W and the update are merged."""
    if layer.merged:
        raise UserError(
            "PEFT's update is merged into the weights, and loading their state would add it a second time: "
            "call unmerge_adapter() first, or merge_and_unload() for a plain T5."
        )


def import_peft() -> ModuleType:
    """The package `peft`, which then works with any version of torchao.

    From PEFT 0.19 on, tuners/lora/torchao.py, dispatch_torchao asks for every layer, quantised or not,
    whether torchao is there; and import_utils.py, is_torchao_available raises if torchao is older than 0.16.
    Colab has 0.10. No layer here is quantised, so an old torchao is as good as none: it is hidden while PEFT
    asks for the first time, and PEFT remembers the answer.

    Raises:
        UserError: PEFT is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError(
            f"The library PEFT cannot be imported ({error}): run `pip install peft==0.21.2`."
        ) from None
    try:
        peft.import_utils.is_torchao_available()
    except ImportError:
        with modules_replaced({"torchao": None}):
            peft.import_utils.is_torchao_available()
    return peft
