"""The bottleneck adapter through AdapterHub's `adapters`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, T5ForConditionalGeneration

from peft_scratch.libraries.adapterhub_compat import AS_IT_IS, import_adapters
from peft_scratch.methods.adapter import Adapter

#: What the adapter is called in the model, and so in the names of its parameters.
NAME = "imdb"


def reduction_factor(width: int, bottleneck: int) -> float:
    """What to call AdapterHub's `SeqBnConfig` with so that D wide becomes exactly K wide.

    methods/bottleneck.py, BottleneckLayer.add_adapter takes `int(D // reduction_factor)`, and in floating
    point 512 // (512 / 5) is 4. With K and a half it always rounds down to K.
    """
    exact = width / bottleneck
    return exact if width // exact == bottleneck else width / (bottleneck + 0.5)


@dataclass(frozen=True)
class AdapterHubAdapter(Adapter):
    """Our `Adapter` by AdapterHub: its `SeqBnConfig`, the Pfeiffer placement.

    One difference is left as it is: both projections start normal with deviation 0.02
    (methods/modeling.py, Adapter.init_bert_weights), so it is not quite the identity at the start.
    """

    library = "adapterhub"

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Turn `model` into AdapterHub's class, with an adapter in each feed-forward layer, active.

        Raises:
            UserError: the library is not installed.
        """
        adapters = import_adapters()
        reduction = reduction_factor(model.config.d_model, self.bottleneck)
        add_active(model, adapters.SeqBnConfig(reduction_factor=reduction))
        end = f".adapters.{NAME}"
        return model, [name.removesuffix(end) for name, _ in model.named_modules() if name.endswith(end)]

    def declares(self, name: str) -> bool:
        """Weights and biases of every bottleneck."""
        return f".adapters.{NAME}." in name


def add_active(model: T5ForConditionalGeneration, config: object) -> None:
    """Add an adapter of the library's `config` (`SeqBnConfig`, `LoRAConfig`) to `model`, active."""
    adapters = import_adapters()
    training = model.training
    initialise(model)
    with torch.device(model.device):
        model.add_adapter(NAME, config=config)
        # model_mixin.py, forward_context: activated by `train_adapter` alone, it would first warn that
        # no adapter is active.
        model.adapters_config.active_setup = adapters.Stack(NAME)
        model.train_adapter(NAME)
    model.train(training)  # model_mixin.py, train_adapter turns dropout on
    # A forgotten activation is silent: the model then runs, and trains nothing.
    assert model.active_adapters is not None and model.active_adapters.first() == NAME


def initialise(model: T5ForConditionalGeneration) -> None:
    """Turn `model` into the library's T5.

    On transformers 4.57 so that nothing warns: models/t5/modeling_t5.py, T5StackWithAdapters.forward starts a
    cache in the form of a tuple where it was given none, and names it `past_key_value` towards each block.
    The results are the same.
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
