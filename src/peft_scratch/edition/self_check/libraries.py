"""What is wrong with how a student calls the libraries."""

from __future__ import annotations

import math
import warnings
from typing import Any

from peft_scratch.edition.self_check.oracle import Oracle, close
from peft_scratch.libraries.adapterhub_compat import import_adapters
from peft_scratch.libraries.opendelta_compat import import_opendelta
from peft_scratch.libraries.peft_lora import import_peft

_NAME = "self_check"


def peft_call(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `lora_by_peft`, or None."""
    peft, rank, alpha = import_peft(), oracle.facts["rank"], oracle.facts["alpha"]
    (usual, in_attention), (other, outputs) = oracle.facts["places"][:2]
    for targets, wanted in ((usual, in_attention), (other, outputs)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapper = student.lora_by_peft(peft, oracle.t5(), rank, alpha, tuple(targets))
        if not isinstance(wrapper, peft.PeftModel):
            return "peft_returns"
        layers = {
            name.removeprefix("base_model.model."): module
            for name, module in wrapper.named_modules()
            if isinstance(module, peft.tuners.lora.LoraLayer)
        }
        if list(layers) != wanted:
            return "peft_default_targets" if list(layers) == in_attention else "peft_targets"
        if mistake := _peft_options(wrapper, list(layers.values()), rank, alpha):
            return mistake
    return None


def _peft_options(wrapper: Any, layers: list[Any], rank: int, alpha: float) -> str | None:
    name = wrapper.active_adapter
    for layer in layers:
        if layer.r[name] != rank:
            return "peft_rank"
        if not math.isclose(layer.scaling[name], alpha / rank):
            is_rslora = math.isclose(layer.scaling[name], alpha / math.sqrt(rank))
            return "peft_rslora" if is_rslora else "peft_alpha"
        if getattr(layer.lora_dropout[name], "p", 0.0):
            return "peft_dropout"
    if wrapper.active_peft_config.task_type != "SEQ_2_SEQ_LM":
        return "peft_task"
    trained = (name for name, p in wrapper.named_parameters() if p.requires_grad)
    return None if all(".lora_A." in name or ".lora_B." in name for name in trained) else "peft_more"


def hub_config(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `bottleneck_config`, or None."""
    adapters = import_adapters()
    for d in (oracle.facts["config"]["d_model"], 512):
        for b in (8, 5, 1):
            config = student.bottleneck_config(adapters, d, b)
            get = getattr(config, "get", lambda name, config=config: getattr(config, name, None))
            if get("mh_adapter"):
                return "hub_double"
            if not get("output_adapter") or get("reduction_factor") is None:
                return "hub_config"
            width = int(d // float(get("reduction_factor")))
            if width != b:
                return "hub_rounding" if b == 5 and width == 4 else "hub_width"
    return None


def hub_call(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `adapter_by_adapterhub`, or None."""
    from peft_scratch.libraries.adapterhub_adapter import initialise

    adapters, model = import_adapters(), oracle.t5()
    initialise(model)
    model.adapters_config.active_setup = adapters.Stack(_NAME)
    student.adapter_by_adapterhub(model, _NAME, adapters.SeqBnConfig(reduction_factor=2))
    own = {name for name, _ in model.named_parameters() if f".{_NAME}." in name}
    if not own:
        return "hub_not_added"
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return None if trained == own else "hub_not_trained"


def delta_call(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `prompt_by_opendelta`, or None."""
    opendelta, model, n = import_opendelta(), oracle.t5(), oracle.facts["rows"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.resize_token_embeddings(128, mean_resizing=False)  # OpenDelta's own number of rows has to fit
    table = model.get_input_embeddings().weight.detach().clone()
    student.prompt_by_opendelta(opendelta, model, n)
    found = [p for name, p in model.named_parameters() if "soft_embeds" in name]
    if not found:
        return "delta_not_added"
    rows = found[0].detach()
    if len(rows) != n:
        return "delta_rows"
    return None if close(rows, table[:n]) else "delta_start"
