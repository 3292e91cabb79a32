"""The adapter folders that PEFT and AdapterHub load, written from the entries of a `.pt` file and read back.

Tensors are renamed, and LoRA's A and B are transposed: the libraries store our `(d, r)` and `(r, d')` as
`(r, d)` and `(d', r)`. Neither library has to be installed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from peft_scratch.errors import UserError
from peft_scratch.exactness.push import CONFIG_FILE
from peft_scratch.files import read_json
from peft_scratch.libraries.adapterhub_adapter import NAME, reduction_factor
from peft_scratch.libraries.catalogue import (
    ADAPTERHUB,
    PEFT,
    PEFT_FOLDER_NAMES,
    PROMPT,
    NameMap,
    adapterhub_names,
)
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt, read_delta

Entries = dict[str, Tensor]
Config = dict[str, Any]

PEFT_WEIGHTS = "adapter_model.safetensors"
# adapters 1.3.0, loading.py, AdapterLoader: `load_adapter(folder)` reads this file, with `weights_only=True`,
# and `load_adapter(folder, use_safetensors=True)` reads it if there is no other. Only the second call finds
# the library's safetensors file, `adapter.safetensors`.
ADAPTERHUB_WEIGHTS = "pytorch_adapter.bin"

# 1. Writing


@dataclass(frozen=True)
class Folder:
    """An adapter folder: its configuration and its tensors, under the library's names.

    Attributes:
        library: `PEFT` or `AdapterHub`.
        config: what `adapter_config.json` holds.
        tensors: what the weight file holds.
    """

    library: str
    config: Config
    tensors: Entries

    def write(self, path: Path) -> None:
        """Write the folder to `path`, which must not exist yet."""
        path.mkdir()
        text = json.dumps(self.config, indent=2, sort_keys=True)
        (path / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        if self.library == PEFT:
            save_file(self.tensors, path / PEFT_WEIGHTS, metadata={"format": "pt"})
        else:
            torch.save(self.tensors, path / ADAPTERHUB_WEIGHTS)


def folder_of(method: Method, entries: Entries, base: str | None) -> Folder:
    """The folder for the entries of a `.pt` file.

    Args:
        method: `LoRA`, `SoftPrompt` or `Adapter`, with the size that the entries have.
        entries: under our names.
        base: name or path of the base that the configuration names, if any.
    """
    if isinstance(method, Adapter):
        width = next(iter(entries.values())).shape[1]  # the first entry is a down-projection, (b, d)
        config = _adapter_config(method, width, base)
        return Folder(ADAPTERHUB, config, _named(adapterhub_names(NAME), entries))
    config = _lora_config(method) if isinstance(method, LoRA) else _prompt_config(method, entries)
    config |= {"task_type": "SEQ_2_SEQ_LM", "base_model_name_or_path": base, "inference_mode": True}
    return Folder(PEFT, config, _named(PEFT_FOLDER_NAMES[method.kind], entries))


def _named(names: NameMap, entries: Entries) -> Entries:
    return {names.theirs(key): names.turned(tensor).contiguous() for key, tensor in entries.items()}


def _lora_config(method: LoRA) -> Config:
    return {
        "peft_type": "LORA",
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(method.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _prompt_config(method: SoftPrompt, entries: Entries) -> Config:
    return {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": method.virtual_tokens,
        "token_dim": entries[PROMPT].shape[1],
        # peft_model.py, _setup_prompt_encoder: without this entry it is 2 for an encoder-decoder, which
        # makes 2 N rows, and forward takes the first N.
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
    }


# AdapterHub's `SeqBnConfig` (configuration/adapter_config.py), without the entries for its other layers.
_SEQ_BN = {
    "mh_adapter": False,
    "output_adapter": True,
    "cross_adapter": False,
    "non_linearity": "relu",
    "original_ln_before": True,
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "is_parallel": False,
    "scaling": 1.0,
    "use_gating": False,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "leave_out": [],
    "phm_layer": False,
}


def _adapter_config(method: Adapter, width: int, base: str | None) -> Config:
    size = {"reduction_factor": reduction_factor(width, method.bottleneck)}
    return {
        "config": {**_SEQ_BN, **size, "init_weights": "bert", "dropout": 0.0},
        "hidden_size": width,
        "model_class": "T5ForConditionalGeneration",
        "model_name": base or "",
        "model_type": "t5",
        "name": NAME,
        # If there were no version, or one before 1.1, the library would correct old errors that are not here.
        "version": "adapters.1.3.0",
    }


# 2. Reading


def read_folder(source: Path, alpha: float) -> Entries:
    """The tensors of an adapter folder under our names, in float32.

    Args:
        source: a folder of PEFT (LoRA, prompt tuning) or of AdapterHub (a bottleneck adapter).
        alpha: the alpha with which LoRA's file will be used.

    Raises:
        UserError: it is no such folder, is damaged, or holds something that a `.pt` file cannot hold.
    """
    path = source / CONFIG_FILE
    if (config := read_json(path)) is None:
        raise UserError(f"{source} has no {CONFIG_FILE}, so it is not an adapter folder.")
    if config.get("peft_type") == "LORA":
        _require_plain_lora(path, config, alpha)
        return _ours(source, PEFT_FOLDER_NAMES["lora"], _peft_tensors(source))
    if config.get("peft_type") == "PROMPT_TUNING":
        return {PROMPT: _used_rows(source, config, _peft_tensors(source))}
    if "peft_type" in config:
        raise UserError(
            f"{path} is of PEFT's type {config['peft_type']}; only LORA and PROMPT_TUNING have a .pt file."
        )
    if "config" in config and "name" in config:
        _require_seq_bn(path, config["config"])
        # The order in which the library looks for them, if it is told to use safetensors.
        tensors = _read_tensors(source, "adapter.safetensors", ADAPTERHUB_WEIGHTS)
        # The library's own T5 class, T5AdapterModel, puts `transformer.` first.
        tensors = {key.removeprefix("transformer."): tensor for key, tensor in tensors.items()}
        return _ours(source, adapterhub_names(str(config["name"])), tensors)
    raise UserError(
        f"{path} is neither PEFT's nor AdapterHub's: it has no peft_type, and no config and name."
    )


def alpha_of(source: Path) -> float | None:
    """LoRA's alpha as the adapter folder `source` states it; None if `source` states none."""
    try:
        alpha = (read_json(source / CONFIG_FILE) or {}).get("lora_alpha")
    except UserError:
        return None
    return float(alpha) if isinstance(alpha, int | float) else None


def _ours(source: Path, names: NameMap, tensors: Entries) -> Entries:
    entries = {}
    for key, tensor in tensors.items():
        name = names.ours(key)
        if name is None or tensor.dim() > 2:
            raise UserError(f"{source} holds the tensor {key!r}, for which the .pt file has no place.")
        entries[name] = names.turned(tensor)
    return entries


# What the configuration of a plain LoRA may say; everything else must be empty or false. So a setting that is
# missing here leads to a refusal, not to a wrong file.
_FREE = {
    *("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
    *("r", "lora_alpha", "target_modules"),
    *("lora_dropout",),  # acts only in training
    *("megatron_core", "qalora_group_size"),  # only read when another setting is on
}
_PLAIN = {
    "bias": ("none",),
    "task_type": ("SEQ_2_SEQ_LM",),
    "init_lora_weights": (True, "gaussian"),  # pissa, olora and their like change the base
}


def _require_plain_lora(path: Path, config: Config, alpha: float) -> None:
    for key, value in config.items():
        if value and key not in _FREE and value not in _PLAIN.get(key, ()):
            raise UserError(
                f"{path} says {key} = {value!r}, which lora.pt cannot hold: train a plain LoRA, without it."
            )
    targets = config.get("target_modules")
    # The names of the tensors decide; a list of targets is checked only for a clearer message.
    if isinstance(targets, list) and (
        others := sorted({str(t).rpartition(".")[2] for t in targets} - {"q", "v"})
    ):
        raise UserError(
            f"{path} says target_modules = {targets}, and lora.pt has no {' or '.join(others)}: "
            "train with ['q', 'v']."
        )
    if (trained := config.get("lora_alpha")) != alpha:
        raise UserError(
            f"{path} says lora_alpha = {trained!r}, and lora.pt, which holds no alpha, would be used with "
            f"{alpha:g}: pass --alpha {trained}, and use the file with that alpha."
        )


def _require_seq_bn(path: Path, config: object) -> None:
    if not isinstance(config, dict):
        raise UserError(f"{path} only names its config, {config!r}: save the adapter with adapters 1.x.")
    if config.get("architecture"):
        raise UserError(
            f"{path} is of AdapterHub's architecture {config['architecture']}; "
            "only a bottleneck has an adapter.pt."
        )
    for key, expected in _SEQ_BN.items():
        if key in config and config[key] != expected:
            raise UserError(
                f"{path} says {key} = {config[key]!r}, where adapter.pt has {expected!r}: "
                "train with SeqBnConfig as it is."
            )


def _used_rows(source: Path, config: Config, tensors: Entries) -> Tensor:
    """The N rows `(N, d)` that PEFT puts before the encoder's input.

    By default PEFT holds 2 N rows on an encoder-decoder, but never reads the second half: peft_model.py,
    PeftModelForSeq2SeqLM.forward cuts it off, `prompts[:, : peft_config.num_virtual_tokens]`.
    """
    key = PEFT_FOLDER_NAMES["soft_prompt"].theirs(PROMPT)
    if set(tensors) != {key} or config.get("task_type") != "SEQ_2_SEQ_LM":
        raise UserError(
            f"{source} is not a soft prompt for an encoder-decoder: it holds {', '.join(tensors)} for the "
            f"task_type {config.get('task_type')}, where {key} for SEQ_2_SEQ_LM are expected."
        )
    rows, used = require_matrix(source, key, tensors[key]), config.get("num_virtual_tokens")
    if not isinstance(used, int) or len(rows) not in (used, 2 * used):
        raise UserError(f"{source} holds {len(rows)} prompt rows, but its configuration says {used}.")
    return rows[:used]


def require_matrix(source: Path, key: str, tensor: Tensor) -> Tensor:
    """Return `tensor`, the entry `key` of `source`, if it is a non-empty matrix.

    Raises:
        UserError: it is not.
    """
    if tensor.dim() != 2 or not tensor.numel():
        raise UserError(f"{source}, entry {key!r} has the shape {tuple(tensor.shape)}, but must be a matrix.")
    return tensor


def _peft_tensors(folder: Path) -> Entries:
    return _read_tensors(folder, PEFT_WEIGHTS, "adapter_model.bin")


def _read_tensors(folder: Path, *names: str) -> Entries:
    """The tensors of the first existing file of `names`, in float32. Nothing in it is executed."""
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no weights: neither {' nor '.join(names)} is in it.")
    if path.suffix != ".safetensors":
        return read_delta(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as problem:
        raise UserError(f"{path} is not a safetensors file, or is cut short ({problem}).") from None
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise UserError(f"{path}, entry {key!r} does not hold finite floating-point numbers.")
    return {key: tensor.to(torch.float32) for key, tensor in tensors.items()}
