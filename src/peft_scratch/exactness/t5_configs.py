"""The configuration of any T5: of known ones by name, without a network, and of others from a file."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.files import read_json
from peft_scratch.methods.method import require_positive_int
from peft_scratch.methods.parameters import is_tied, untie
from peft_scratch.paths import OFFLINE_BASE

#: The name of the model in weights/base.
OFFLINE = "offline"

# Layers (as many in the decoder as in the encoder), d_model, d_ff, heads, d_kv.
# T5: Raffel et al. 2020 (arXiv:1910.10683), section 3.7, "Model variants".
_T5 = {
    "t5-small": (6, 512, 2048, 8, 64),
    "t5-base": (12, 768, 3072, 12, 64),
    "t5-large": (24, 1024, 4096, 16, 64),
    "t5-3b": (24, 1024, 16384, 32, 128),
    "t5-11b": (24, 1024, 65536, 128, 128),
}
# Flan-T5 has the sizes of T5 1.1: Chung et al. 2022 (arXiv:2210.11416), section 2, on the checkpoints of
# Lester et al. 2021; the numbers are those of the released `google/flan-t5-*` configurations.
_FLAN_T5 = {
    "flan-t5-small": (8, 512, 1024, 6, 64),
    "flan-t5-base": (12, 768, 2048, 12, 64),
    "flan-t5-large": (24, 1024, 2816, 16, 64),
    "flan-t5-xl": (24, 2048, 5120, 32, 64),
    "flan-t5-xxl": (24, 4096, 10240, 64, 64),
}
# 32,000 pieces and 100 sentinels, rounded up to a multiple of 128.
_VOCABULARY = 32128

#: The models known by name.
KNOWN = (*_T5, *_FLAN_T5)


def t5_config(model: str | Path) -> T5Config:
    """The configuration of `model`.

    Args:
        model: one of `KNOWN`, with or without its owner (`google-t5/t5-small`); `offline` for the model in
            weights/base; or a configuration file or the folder that holds it.

    Raises:
        UserError: there is no such model, or its file is not the configuration of a T5.
    """
    name = str(model)
    if name == OFFLINE:
        return _read(OFFLINE_BASE)
    if Path(name).exists():
        return _read(Path(name))
    short = name.rpartition("/")[2]
    if short not in KNOWN:
        raise UserError(
            f"There is no T5 called {name!r} here: give one of {', '.join((*KNOWN, OFFLINE))}, "
            "or the path of a config.json."
        )
    layers, d_model, d_ff, heads, d_kv = (_T5 | _FLAN_T5)[short]
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return T5Config(
        vocab_size=_VOCABULARY,
        num_layers=layers,
        d_model=d_model,
        d_ff=d_ff,
        num_heads=heads,
        d_kv=d_kv,
        **(gated if short in _FLAN_T5 else {}),
    )


def loadable_name(model: str | Path) -> str:
    """What a library loads `model` from; only this kit knows `offline` and names without their owner."""
    if model == OFFLINE:
        return str(OFFLINE_BASE)
    owner = {**dict.fromkeys(_T5, "google-t5"), **dict.fromkeys(_FLAN_T5, "google")}.get(str(model))
    return f"{owner}/{model}" if owner else str(model)


def empty_t5(config: T5Config) -> T5ForConditionalGeneration:
    """A T5 of `config` in evaluation mode that takes no memory: on the device `meta`, a tensor is a shape."""
    # OpenDelta runs a forward pass, and only the plain attention never looks at a value of the mask.
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config).eval()
        if not is_tied(config):
            untie(model)
    return model


def _read(path: Path) -> T5Config:
    path = path / "config.json" if path.is_dir() else path
    if (entries := read_json(path)) is None:
        raise UserError(f"There is no configuration {path}.")
    if entries.get("model_type") != "t5":
        raise UserError(f"{path} is not the configuration of a T5: its model_type is not t5.")
    for field in ("vocab_size", "num_layers", "d_model", "d_ff", "num_heads", "d_kv"):
        require_positive_int(f"In {path}, {field}", entries.get(field))
    try:
        config = T5Config.from_dict(entries)
    except (TypeError, ValueError, StrictDataclassError) as problem:
        raise UserError(f"{path} is not the configuration of a T5 ({problem}).") from None
    for field in ("num_decoder_layers", "relative_attention_num_buckets"):
        require_positive_int(f"In {path}, {field}", getattr(config, field))
    return config
