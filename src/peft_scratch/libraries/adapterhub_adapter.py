"""The bottleneck adapter through AdapterHub's `adapters`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.libraries.adapterhub_compat import AS_IT_IS, import_adapters
from peft_scratch.methods.adapter import Adapter
from peft_scratch.methods.t5 import stacks

#: The adapter's name in the model, and so in the names of its parameters.
NAME = "imdb"


# BEGIN SOLUTION
def reduction_factor(width: int, bottleneck: int) -> float:
    """The `reduction_factor` with which AdapterHub's `SeqBnConfig` makes a bottleneck of exactly b from d.

    methods/bottleneck.py, BottleneckLayer.add_adapter computes `int(d // reduction_factor)`, and in floating
    point 512 // (512 / 5) is 4. With d / (b + 0.5) it is always rounded down to b.
    """
    exact = width / bottleneck
    return exact if width // exact == bottleneck else width / (bottleneck + 0.5)


# END SOLUTION


@dataclass(frozen=True)
class AdapterHubAdapter(Adapter):
    """Our `Adapter`, made by AdapterHub: its `SeqBnConfig`, the Pfeiffer placement.

    One difference remains: both projections start from a normal distribution with standard deviation 0.02
    (methods/modeling.py, Adapter.init_bert_weights), so at the start the adapter is not quite the identity.
    """

    library = "adapterhub"

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Turn `model` into AdapterHub's class, with an active adapter in each feed-forward layer.

        Raises:
            UserError: the library is not installed, or has no adapters for such a model.
        """
        taken = ("t5", "mt5") if AS_IT_IS else ("t5",)  # its classes for mT5 work on transformers 4.57 only
        if model.config.model_type not in taken or "decoder" not in stacks(model):
            raise UserError(
                f"AdapterHub has no bottleneck adapters for a {type(model).__name__}: use Adapter() from "
                "scratch, which works on it."
            )
        adapters = import_adapters()
        add_active(model, bottleneck_config(adapters, model.config.d_model, self.bottleneck))
        end = f".adapters.{NAME}"
        places = [name.removesuffix(end) for name, _ in model.named_modules() if name.endswith(end)]
        for name in places:
            bottleneck = model.get_submodule(f"{name}{end}").float()  # made in torch's default type
            if model.dtype != torch.float32:
                bottleneck.forward = partial(_in_its_own_type, bottleneck)
        # wrappers/model.py, replace_with_adapter_class makes the class for this one model.
        for name, method in _METHODS.items():
            setattr(type(model), name, method)
        return model, places

    def declares(self, name: str) -> bool:
        """Weights and biases of every bottleneck."""
        return f".adapters.{NAME}." in name


def add_active(model: T5ForConditionalGeneration, config: object) -> None:
    """Add an adapter of the library's `config` (`SeqBnConfig`, `LoRAConfig`) to `model` and activate it."""
    adapters = import_adapters()
    training = model.training
    initialise(model)
    with torch.device(model.device):
        # model_mixin.py, forward_context: without this, `train_adapter` would activate the adapter, but only
        # after a warning that none is active.
        model.adapters_config.active_setup = adapters.Stack(NAME)
        adapter_by_adapterhub(model, NAME, config)
    model.train(training)  # model_mixin.py, train_adapter turns dropout on
    # Without an active adapter the model would run without a message and train nothing.
    assert model.active_adapters is not None and model.active_adapters.first() == NAME


def bottleneck_config(adapters: ModuleType, width: int, bottleneck: int) -> object:
    """The configuration of AdapterHub's bottleneck with a middle of `bottleneck` numbers (Pfeiffer).

    Args:
        adapters: the package.
        width: d, of the model.
    """
    # BEGIN SOLUTION
    return adapters.SeqBnConfig(reduction_factor=reduction_factor(width, bottleneck))
    # END SOLUTION


def adapter_by_adapterhub(model: T5ForConditionalGeneration, name: str, config: object) -> None:
    """Add an adapter called `name` to `model`, freeze all else, and have each forward pass use it.

    Args:
        model: after `adapters.init`.
        config: as `bottleneck_config` makes it.
    """
    # BEGIN SOLUTION
    model.add_adapter(name, config=config)
    model.train_adapter(name)
    # END SOLUTION


def initialise(model: T5ForConditionalGeneration) -> None:
    """Turn `model` into the library's T5.

    On transformers 4.57 two hooks avoid warnings: models/t5/modeling_t5.py, T5StackWithAdapters.forward
    starts a cache as a tuple if it gets none, and passes it to each block as `past_key_value`. The results
    are the same.
    """
    with torch.device(model.device):
        import_adapters().init(model)
    if not AS_IT_IS:
        return

    def start_cache(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if kwargs.get("use_cache") and kwargs.get("past_key_values") is None:
            kwargs = {**kwargs, "past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}
        return args, kwargs

    def rename_cache(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if "past_key_value" in kwargs:
            kwargs = dict(kwargs)
            kwargs["past_key_values"] = kwargs.pop("past_key_value")
        return args, kwargs

    model.decoder.register_forward_pre_hook(start_cache, with_kwargs=True)
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            block.register_forward_pre_hook(rename_cache, with_kwargs=True)


def _in_its_own_type(bottleneck: nn.Module, *tensors: Tensor, **others: Any) -> tuple[Tensor, ...]:
    """The library's `Adapter.forward` for a base in half precision: the adapter itself is float32."""

    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return type(bottleneck).forward(bottleneck, *tensors, **others)

    outside, own = tensors[0].dtype, next(bottleneck.parameters()).dtype
    if "residual_input" in others:
        others["residual_input"] = others["residual_input"].to(own)
    if torch.is_autocast_enabled(tensors[0].device.type):
        return forward(*tensors)
    return tuple(output.to(outside) for output in forward(*(tensor.to(own) for tensor in tensors)))


def _deep_copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """The copy that `copy.deepcopy` would make if the model could be pickled."""
    twin = memo[id(model)] = type(model).__new__(type(model))
    twin.__dict__.update(copy.deepcopy(model.__dict__, memo))
    return twin


def _refuse_pickle(model: nn.Module, protocol: int) -> tuple:
    raise UserError(
        "A model of AdapterHub cannot be pickled or saved whole, since its class exists in this process "
        "alone: save its adapter with save_delta(model, path, method.declares)."
    )


def _enable_checkpointing(
    model: nn.Module, gradient_checkpointing_kwargs: dict | None = None, **others: Any
) -> None:
    """`others` are `every_n_layers` and `offload`, which transformers 5 passes and the library lacks."""
    if (gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise UserError(
            "AdapterHub's model takes gradient checkpointing with use_reentrant=False only: "
            'call gradient_checkpointing_enable({"use_reentrant": False}).'
        )
    if others.get("every_n_layers", 1) != 1 or others.get("offload"):
        raise UserError(
            "AdapterHub's model takes gradient checkpointing of every layer only, and without offloading: "
            "leave out every_n_layers and offload."
        )
    super(type(model), model).gradient_checkpointing_enable(gradient_checkpointing_kwargs)


# The methods that are put into the class of a model.
_METHODS = {
    "__deepcopy__": _deep_copy,
    "__reduce_ex__": _refuse_pickle,
    "gradient_checkpointing_enable": _enable_checkpointing,
}
