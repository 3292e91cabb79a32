"""What is wrong with how a student calls the libraries. A library that is not installed is passed over."""

from __future__ import annotations

import math
import warnings
from typing import Any

from peft_scratch.edition.self_check.oracle import Oracle, close

_NAME = "self_check"


def peft_call(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `lora_by_peft`, or None."""
    from peft_scratch.libraries.peft_lora import import_peft

    peft = import_peft()
    rank, alpha, model = oracle.facts["rank"], oracle.facts["alpha"], oracle.t5()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapper = student.lora_by_peft(peft, model, rank, alpha, ("q", "v"))
    if not isinstance(wrapper, peft.PeftModel):
        return "peft_returns"
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in wrapper.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    if list(layers) != oracle.facts["places"][0][1]:
        return "peft_targets"
    for layer in layers.values():
        if layer.r["default"] != rank:
            return "peft_rank"
        if not math.isclose(layer.scaling["default"], oracle.facts["scaling"]):
            return "peft_alpha"
        if getattr(layer.lora_dropout["default"], "p", 0.0):
            return "peft_dropout"
    return None


def hub_config(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `bottleneck_config`, or None."""
    from peft_scratch.libraries.adapterhub_compat import import_adapters

    adapters = import_adapters()
    for d in (oracle.facts["config"]["d_model"], 512):
        for b in (8, 5, 1):
            config = student.bottleneck_config(adapters, d, b)
            get = getattr(
                config, "get", lambda name, default=None, config=config: getattr(config, name, default)
            )
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
    from peft_scratch.libraries.adapterhub_compat import import_adapters

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
    from peft_scratch.libraries.opendelta_compat import import_opendelta

    opendelta, model, n = import_opendelta(), oracle.t5(), oracle.facts["rows"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.resize_token_embeddings(
            128, mean_resizing=False
        )  # the library's default number of rows has to fit
    table = model.get_input_embeddings().weight.detach().clone()
    student.prompt_by_opendelta(opendelta, model, n)
    found = [p for name, p in model.named_parameters() if "soft_embeds" in name]
    if not found:
        return "delta_not_added"
    rows = found[0].detach()
    if len(rows) != n:
        return "delta_rows"
    return None if close(rows, table[:n]) else "delta_start"


def available(check: Any) -> bool:
    """Whether the library that `check` asks for is installed."""
    from peft_scratch.errors import UserError

    try:
        {
            "peft_call": lambda: __import__("peft"),
            "hub_config": _adapters,
            "hub_call": _adapters,
            "delta_call": _opendelta,
        }[check.__name__]()
    except (ImportError, UserError):
        return False
    return True


def _adapters() -> None:
    from peft_scratch.libraries.adapterhub_compat import import_adapters

    import_adapters()


def _opendelta() -> None:
    from peft_scratch.libraries.opendelta_compat import import_opendelta

    import_opendelta()
