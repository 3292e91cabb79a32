"""The files that are handed in, to and from the adapter folders that PEFT and AdapterHub load.

| file         | folder     | loaded by                                            |
|--------------|------------|------------------------------------------------------|
| `lora.pt`    | PEFT       | `PeftModel.from_pretrained(model, folder)`           |
| `prompts.pt` | PEFT       | `PeftModel.from_pretrained(model, folder)`           |
| `adapter.pt` | AdapterHub | `adapters.init(model)`, `model.load_adapter(folder)` |

No number is computed on the way: tensors are renamed, and LoRA's A and B are turned, since PEFT stores
what we call `(D, R)` and `(R, E)` as `(R, D)` and `(E, R)`. Neither library has to be installed.

What a `.pt` file does not hold is LoRA's alpha, so it has to be said, here and when the file is used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.exactness.t5_configs import OFFLINE, t5_config
from peft_scratch.libraries.adapterhub_adapter import NAME, reduction_factor
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt, apply, read_delta
from peft_scratch.methods.parameters import is_own
from peft_scratch.paths import OFFLINE_BASE

Entries = dict[str, Tensor]
Config = dict[str, Any]

CONFIG_FILE = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
# adapters 1.3.0, loading.py, AdapterLoader: `load_adapter(folder)` reads this one, with `weights_only=True`,
# and `load_adapter(folder, use_safetensors=True)` falls back on it. The library's safetensors file,
# `adapter.safetensors`, is found by the second call alone.
ADAPTERHUB_WEIGHTS = "pytorch_adapter.bin"

_PROMPT = "encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb"


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        method: the method from scratch that the file belongs to, with its size.
        source, target: where from and where to.
        form: `PEFT folder`, `AdapterHub folder` or `.pt file`: what the target is.
        tensors, parameters: how many there are in it.
        next_step: a sentence that says how to load the target.
    """

    method: Method
    source: Path
    target: Path
    form: str
    tensors: int
    parameters: int
    next_step: str


def convert(
    source: str | Path, target: str | Path, *, base: str | Path | None = None, alpha: float = 4.0
) -> Conversion:
    """Convert a `.pt` file into an adapter folder, or an adapter folder into a `.pt` file.

    The target appears whole or not at all. A `.pt` file that went to a folder and back has the same
    bytes; a folder in half precision comes back as float32, which loses nothing.

    Args:
        source: `lora.pt`, `prompts.pt` or `adapter.pt`, or a folder of PEFT or AdapterHub.
        target: a new folder, or a new `.pt` file.
        base: the model that it was trained on, checked to fit and written into the folder: a name or a
            path that `t5_config` knows. Without it the source is only checked to be complete in itself.
        alpha: what LoRA is trained and used with; the update is scaled by `alpha / r`.

    Raises:
        UserError: the source is not one of the above, holds what a `.pt` file cannot, or is incomplete; or
            the target is there already or cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise UserError(f"{target} is there already; give another name, or remove it first.")
    if source.is_dir():
        if target.suffix != ".pt":
            raise UserError(f"{source} is a folder and becomes a file, so {target} has to end in .pt.")
        entries = _read_folder(source, alpha)
        method, entries = _complete(source, entries, base, alpha)
        with _placed(target) as unfinished, unfinished.open("wb") as file:
            torch.save(entries, file)
        form, next_step = ".pt file", f"Load it with load_delta(apply({method!r}, base).model, '{target}')."
    else:
        if target.suffix == ".pt":
            raise UserError(f"{source} is a file and becomes a folder, so {target} must not end in .pt.")
        method, entries = _complete(source, read_delta(source), base, alpha)
        # What a library can load the base by; the short name of the kit's own is for this kit alone.
        name = str(OFFLINE_BASE) if base == OFFLINE else base and str(base)
        config, tensors, weights = _FOLDERS[type(method)](method, entries, name)
        with _placed(target) as unfinished:
            unfinished.mkdir()
            text = json.dumps(config, indent=2, sort_keys=True)
            (unfinished / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
            if weights == PEFT_WEIGHTS:
                save_file(tensors, unfinished / weights, metadata={"format": "pt"})
            else:
                torch.save(tensors, unfinished / weights)
        if weights == PEFT_WEIGHTS:
            form = "PEFT folder"
            next_step = f"Load it with PeftModel.from_pretrained(base, '{target}')."
        else:
            form = "AdapterHub folder"
            next_step = (
                f"Load it with adapters.init(base) and base.load_adapter('{target}', set_active=True)."
            )
    parameters = sum(tensor.numel() for tensor in entries.values())
    return Conversion(method, source, target, form, len(entries), parameters, next_step)


def recognise(
    source: str | Path, base: str | Path | None = None, alpha: float = 4.0
) -> tuple[Method, Entries]:
    """The method that a trained part belongs to, and its entries under this kit's names.

    Args:
        source: a `.pt` file of the course's form, or a folder that PEFT or AdapterHub saved.
        base: as `t5_config` takes it; the entries are then checked against its sizes.
        alpha: LoRA's, which a `.pt` file does not hold.

    Raises:
        UserError: it is none of these, or is incomplete.
    """
    source = Path(source)
    entries = _read_folder(source, alpha) if source.is_dir() else read_delta(source)
    return _complete(source, entries, base, alpha)


# 1. From a .pt file: which method it is, and whether it is all there


def _complete(
    source: Path, entries: Entries, base: str | Path | None, alpha: float
) -> tuple[Method, Entries]:
    """The method that `entries` are of, and `entries` in the order in which `save_delta` writes them.

    Checked against the method itself, put into an empty model: of `base`, or of the smallest
    configuration that the entries can belong to.
    """
    kind = _kind(source, entries)
    method, smallest = kind(source, entries, alpha)
    config = smallest if base is None else t5_config(base)
    with torch.device("meta"):  # no memory, whatever the size
        empty = T5ForConditionalGeneration(config)
    own = {name: p for name, p in apply(method, empty).model.named_parameters() if is_own(name)}
    difference = None
    if missing := [name for name in own if name not in entries]:
        difference = f"it lacks {missing[0]}"
    elif surplus := [name for name in entries if name not in own]:
        difference = f"it has {surplus[0]}, which the model has not"
    elif wrong := [name for name in own if entries[name].shape != own[name].shape]:
        name = wrong[0]
        got, expected = tuple(entries[name].shape), tuple(own[name].shape)
        difference = f"{name} has the shape {got} and not {expected}"
    if difference and base is None:
        raise UserError(f"{source} is not complete: {difference}.")
    if difference:
        raise UserError(f"{source} was not trained on the base {base}: {difference}.")
    # Clones: torch.save would write the whole storage that a view looks into.
    return method, {name: entries[name].clone(memory_format=torch.contiguous_format) for name in own}


def _kind(source: Path, entries: Entries) -> Callable[[Path, Entries, float], tuple[Method, T5Config]]:
    kinds = {_LORA: _as_lora, _BOTTLENECK: _as_adapter, re.compile(re.escape(_PROMPT)): _as_soft_prompt}
    if not entries:
        raise UserError(f"{source} holds no tensor at all.")
    first = next(iter(entries))
    pattern = next((pattern for pattern in kinds if pattern.fullmatch(first)), None)
    odd = first if pattern is None else next((key for key in entries if not pattern.fullmatch(key)), None)
    if odd is not None:
        raise UserError(
            f"{source} has the entry {odd!r}, which belongs to none of lora.pt, adapter.pt and prompts.pt"
            + (", or not to the same one as the others." if pattern else ".")
        )
    return kinds[pattern]


_SITE = r"(?P<stack>encoder|decoder)\.block\.(?P<block>\d{1,4})\.layer\.\d"
_LORA = re.compile(_SITE + r"\.(SelfAttention|EncDecAttention)\.[qv]\.sharif_llm_(?P<matrix>[AB])")
_BOTTLENECK = re.compile(_SITE + r"\.adapter\.sharif_llm_adapter\.(?P<layer>[02])\.(?P<part>weight|bias)")


def _as_lora(source: Path, entries: Entries, alpha: float) -> tuple[LoRA, T5Config]:
    a = _first_of(source, entries, _LORA, matrix="A")  # (D, R)
    b = _first_of(source, entries, _LORA, matrix="B")  # (R, E)
    return LoRA(a.shape[1], alpha), _smallest(entries, _LORA, d_model=a.shape[0], d_kv=b.shape[1])


def _as_adapter(source: Path, entries: Entries, _: float) -> tuple[Adapter, T5Config]:
    down = _first_of(source, entries, _BOTTLENECK, layer="0", part="weight")  # (K, D)
    return Adapter(down.shape[0]), _smallest(entries, _BOTTLENECK, d_model=down.shape[1])


def _as_soft_prompt(source: Path, entries: Entries, _: float) -> tuple[SoftPrompt, T5Config]:
    rows = _matrix(source, _PROMPT, entries[_PROMPT])  # (N, D)
    # The rows start as rows of the vocabulary, so it needs as many.
    return SoftPrompt(len(rows)), T5Config(
        vocab_size=len(rows), d_model=rows.shape[1], d_ff=1, d_kv=1, num_heads=1, num_layers=1
    )


def _first_of(source: Path, entries: Entries, pattern: re.Pattern, **groups: str) -> Tensor:
    for key, tensor in entries.items():
        if groups.items() <= pattern.fullmatch(key).groupdict().items():
            return _matrix(source, key, tensor)
    raise UserError(f"{source} is not complete: it has no {' '.join(groups.values())} of any layer.")


def _matrix(source: Path, key: str, tensor: Tensor) -> Tensor:
    if tensor.dim() != 2 or not tensor.numel():
        raise UserError(f"{source}, entry {key!r}: the shape {tuple(tensor.shape)} is not a matrix's.")
    return tensor


def _smallest(entries: Entries, pattern: re.Pattern, **sizes: int) -> T5Config:
    """The smallest T5 that has every block that the entries name."""
    layers = {"encoder": 1, "decoder": 1}
    for key in entries:
        match = pattern.fullmatch(key)
        # No more blocks than there are entries: the number in a key is anyone's.
        layers[match["stack"]] = max(layers[match["stack"]], min(int(match["block"]) + 1, len(entries)))
    return T5Config(
        **{"vocab_size": 1, "d_ff": 1, "d_kv": 1, "num_heads": 1, **sizes},
        num_layers=layers["encoder"],
        num_decoder_layers=layers["decoder"],
    )


# 2. To a folder: (configuration, tensors, name of the weight file)


def _lora_folder(method: LoRA, entries: Entries, base: str | None) -> tuple[Config, Entries, str]:
    config = _peft_config("LORA", base) | {
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
    tensors = {}
    for key, tensor in entries.items():
        site, _, matrix = key.rpartition(".sharif_llm_")
        tensors[f"base_model.model.{site}.lora_{matrix}.weight"] = tensor.T.contiguous()  # (R, D) or (E, R)
    return config, tensors, PEFT_WEIGHTS


def _prompt_folder(method: SoftPrompt, entries: Entries, base: str | None) -> tuple[Config, Entries, str]:
    config = _peft_config("PROMPT_TUNING", base) | {
        "num_virtual_tokens": method.virtual_tokens,
        "token_dim": entries[_PROMPT].shape[1],
        # peft_model.py, _setup_prompt_encoder: 2 for an encoder-decoder if left out, and so 2 N rows, of
        # which forward takes the first N.
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
    }
    return config, {"prompt_embeddings": entries[_PROMPT]}, PEFT_WEIGHTS


def _peft_config(peft_type: str, base: str | None) -> Config:
    return {
        "peft_type": peft_type,
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
    }


# AdapterHub's `SeqBnConfig` (configuration/adapter_config.py), less what only its other layers read.
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


def _adapter_folder(method: Adapter, entries: Entries, base: str | None) -> tuple[Config, Entries, str]:
    width = next(iter(entries.values())).shape[1]  # the first entry is a down-projection, (K, D)
    config = {
        "config": _SEQ_BN
        | {
            "reduction_factor": reduction_factor(width, method.bottleneck),
            "init_weights": "bert",
            "dropout": 0.0,
        },
        "hidden_size": width,
        "model_class": "T5ForConditionalGeneration",
        "model_name": base or "",
        "model_type": "t5",
        "name": NAME,
        # Without a version, or one before 1.1, the library mends what those had wrong.
        "version": "adapters.1.3.0",
    }
    tensors = {}
    for key, tensor in entries.items():
        for ours, theirs in _PROJECTIONS.items():
            key = key.replace(f".adapter.sharif_llm_adapter.{ours}.", f".adapters.{NAME}.{theirs}.")
        tensors[key] = tensor
    return config, tensors, ADAPTERHUB_WEIGHTS


_PROJECTIONS = {"0": "adapter_down.0", "2": "adapter_up"}
_FOLDERS = {LoRA: _lora_folder, SoftPrompt: _prompt_folder, Adapter: _adapter_folder}


# 3. From a folder


def _read_folder(source: Path, alpha: float) -> Entries:
    """The tensors of an adapter folder under our names, once its configuration is known to be ours too."""
    path = source / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{source} has no {CONFIG_FILE}, so it is not an adapter folder.") from None
    except (OSError, ValueError) as problem:
        raise UserError(f"{path} cannot be read as JSON ({problem}).") from None
    config = config if isinstance(config, dict) else {}
    if config.get("peft_type") == "LORA":
        _require_plain_lora(path, config, alpha)
        tensors = _read_tensors(source, PEFT_WEIGHTS, "adapter_model.bin")
        return _renamed(source, tensors, _PEFT_LORA, _our_lora)
    if config.get("peft_type") == "PROMPT_TUNING":
        tensors = _read_tensors(source, PEFT_WEIGHTS, "adapter_model.bin")
        return {_PROMPT: _used_rows(source, config, tensors)}
    if "peft_type" in config:
        raise UserError(
            f"{path} is of PEFT's type {config['peft_type']}; only LORA and PROMPT_TUNING have a .pt file."
        )
    if "config" in config and "name" in config:
        _require_seq_bn(path, config["config"])
        # The library's own order of preference, if asked for safetensors.
        tensors = _read_tensors(source, "adapter.safetensors", ADAPTERHUB_WEIGHTS)
        pattern = re.compile(_ADAPTERHUB_KEY.format(name=re.escape(str(config["name"]))))
        return _renamed(source, tensors, pattern, _our_adapter)
    raise UserError(
        f"{path} is neither PEFT's nor AdapterHub's: it has no peft_type, and no config and name."
    )


# What a plain LoRA's configuration may say; everything else in it has to be empty or false. A setting that
# is missing here is a refusal, not a wrong file.
_FREE = {
    *("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
    *("r", "lora_alpha", "target_modules"),
    *("lora_dropout",),  # acts in training alone
    *("megatron_core", "qalora_group_size"),  # read if another setting is on
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
    # The tensors say on which layers it is; a list is looked at for the sake of a clear message.
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
        raise UserError(f"{path} gives its config as {config!r} and not in full: save it with adapters 1.x.")
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
    """The N rows `(N, D)` that PEFT puts before the encoder's input.

    On an encoder-decoder PEFT holds 2 N rows by default. peft_model.py, PeftModelForSeq2SeqLM.forward
    cuts them, `prompts[:, : peft_config.num_virtual_tokens]`: the second half is never read.
    """
    if set(tensors) != {"prompt_embeddings"} or config.get("task_type") != "SEQ_2_SEQ_LM":
        raise UserError(
            f"{source} is not a soft prompt for an encoder-decoder: it holds {', '.join(tensors)} for the "
            f"task_type {config.get('task_type')}, where prompt_embeddings for SEQ_2_SEQ_LM are expected."
        )
    rows = _matrix(source, "prompt_embeddings", tensors["prompt_embeddings"])
    used = config.get("num_virtual_tokens")
    if not isinstance(used, int) or len(rows) not in (used, 2 * used):
        raise UserError(f"{source} holds {len(rows)} prompt rows, but its configuration says {used}.")
    return rows[:used]


_PEFT_LORA = re.compile(r"base_model\.model\.(?P<site>.+)\.lora_(?P<matrix>[AB])\.weight")
# `transformer.` comes first in the library's own T5 class, T5AdapterModel.
_ADAPTERHUB_KEY = (
    r"(?:transformer\.)?(?P<site>.+)\.adapters\.{name}\.(?P<layer>adapter_down\.0|adapter_up)\.(?P<part>\w+)"
)


def _our_lora(match: re.Match, tensor: Tensor) -> tuple[str, Tensor]:
    return f"{match['site']}.sharif_llm_{match['matrix']}", tensor.t()  # (D, R) or (R, E)


def _our_adapter(match: re.Match, tensor: Tensor) -> tuple[str, Tensor]:
    layer = next(ours for ours, theirs in _PROJECTIONS.items() if theirs == match["layer"])
    return f"{match['site']}.adapter.sharif_llm_adapter.{layer}.{match['part']}", tensor


def _renamed(
    source: Path,
    tensors: Entries,
    pattern: re.Pattern,
    ours: Callable[[re.Match, Tensor], tuple[str, Tensor]],
) -> Entries:
    entries = {}
    for key, tensor in tensors.items():
        match = pattern.fullmatch(key)
        if match is None or tensor.dim() > 2:
            raise UserError(f"{source} holds the tensor {key!r}, for which the .pt file has no place.")
        name, entry = ours(match, tensor)
        entries[name] = entry
    return entries


def _read_tensors(folder: Path, *names: str) -> Entries:
    """The tensors of the first of the files `names` that is there, in float32. Nothing is executed."""
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
            raise UserError(f"{path}, entry {key!r}: it does not hold finite floating-point numbers.")
    return {key: tensor.to(torch.float32) for key, tensor in tensors.items()}


@contextmanager
def _placed(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, which becomes `target` in the end, or is gone after a failure."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            unfinished.replace(target)
        finally:
            if unfinished.is_dir():
                shutil.rmtree(unfinished)
            unfinished.unlink(missing_ok=True)
    except OSError as problem:
        raise UserError(f"Could not write {target}: {problem.strerror or problem}.") from problem
