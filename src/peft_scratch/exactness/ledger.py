"""The parameter ledger: every count derived by hand, and counted on the model and on each library's.

Letters: V vocabulary, d width (`d_model`), i width inside attention (heads x `d_kv`), f width inside
the feed-forward layer, g its matrices (2, or 3 where it is gated), h heads, k buckets of relative
positions, E encoder layers, D decoder layers; r rank, b bottleneck, N prompt rows.

Nothing here needs memory for a model: the whole of it is on the device `meta`, where a tensor is a shape.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.exactness.t5_configs import t5_config
from peft_scratch.libraries.adapterhub_adapter import initialise, reduction_factor
from peft_scratch.libraries.adapterhub_compat import import_adapters
from peft_scratch.libraries.opendelta_compat import import_opendelta
from peft_scratch.libraries.peft_lora import import_peft
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, Method, SoftPrompt, apply, count_parameters
from peft_scratch.methods.parameters import is_tied, untie

#: The methods at the assignment's sizes.
METHODS: dict[str, Callable[..., Method]] = {
    "full": FullFineTuning,
    "soft_prompt": SoftPrompt,
    "adapter": Adapter,
    "lora": LoRA,
}
_SIZE = {"soft_prompt": ("N", "virtual_tokens"), "adapter": ("b", "bottleneck"), "lora": ("r", "rank")}

_FLOAT32 = 4
# AdamW keeps two running means a parameter (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2).
_ADAMW_STATES = 2
_LARGEST_FILE_MEASURED = 2**30


@dataclass(frozen=True)
class Step:
    """A line of a derivation: what is counted, in symbols, with the numbers put in, and its value."""

    what: str
    symbols: str
    numbers: str
    value: int


@dataclass(frozen=True)
class LibraryCount:
    """What a library adds, by hand and counted.

    Attributes:
        library: PEFT, AdapterHub or OpenDelta.
        setting: `defaults`, `as ours`, or another one that has a name.
        call: what the library is called with.
        by_hand: the number of parameters by the library's own rules; `None` without the method.
        counted: counted on the model with the library's method in it; `None` if it has none, or is missing.
        difference: from what our method adds; `None` without a count.
        reason: why it differs, or what to mind where it does not; or that the library is not installed.
    """

    library: str
    setting: str
    call: str
    by_hand: int | None
    counted: int | None
    difference: int | None
    reason: str


@dataclass(frozen=True)
class Account:
    """One method at one size.

    Attributes:
        kind, size: the method and its size, such as `lora` and `r = 8`.
        steps: the derivation of `added`; its last step is the sum.
        added, trainable, whole: parameters, counted on the model with the method in it.
        gradient_bytes, optimiser_bytes: of the trainable parameters, in float32; AdamW.
        file_bytes: of what training leaves behind. The file is really written, to nowhere; above 1 GiB it
            is four bytes a parameter, less the container's few kilobytes.
        libraries: the same method in the libraries.
    """

    kind: str
    size: str
    steps: list[Step]
    added: int
    trainable: int
    whole: int
    gradient_bytes: int
    optimiser_bytes: int
    file_bytes: int
    libraries: list[LibraryCount]


@dataclass(frozen=True)
class Ledger:
    """A model and what each method adds to it.

    Attributes:
        model: the name or path that was asked for.
        sizes: the letters of the derivations.
        steps: the derivation of the model's own count; its last step is the sum.
        parameters: the same, counted on the model.
        accounts: one a method.
    """

    model: str
    sizes: dict[str, int]
    steps: list[Step]
    parameters: int
    accounts: list[Account] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


def ledger(model: str | Path = "t5-small", *, method: str | None = None, size: int | None = None) -> Ledger:
    """The ledger of a model.

    Args:
        model: as `t5_config` takes it: a known name, a configuration file or its folder.
        method: `full`, `soft_prompt`, `adapter` or `lora`; all four by default.
        size: prompt rows, bottleneck or rank; the assignment's by default.

    Raises:
        UserError: there is no such model or method, or the size cannot be.
        AssertionError: a count is not what its derivation says.
    """
    if method is not None and method not in METHODS:
        raise UserError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if size is not None and method not in _SIZE:
        raise UserError(f"A size belongs to one method: give --method with one of {', '.join(_SIZE)}.")
    methods = [
        make() if size is None else make(size) for kind, make in METHODS.items() if method in (None, kind)
    ]
    config = t5_config(model)
    models = _Models(config)
    sizes = letters(config)
    steps = base_steps(sizes, tied=is_tied(config))
    parameters = count_parameters(models.base)
    assert parameters == steps[-1].value, f"{parameters:,} counted, {steps[-1].value:,} by hand"
    return Ledger(str(model), sizes, steps, parameters, [_account(one, models) for one in methods])


def account(method: Method, config: T5Config) -> Account:
    """The account of one method from scratch on a model of `config`."""
    return _account(method, _Models(config))


# 1. By hand


def letters(config: T5Config) -> dict[str, int]:
    """The sizes of a T5 under the letters of the derivations."""
    return {
        "V": config.vocab_size,
        "d": config.d_model,
        "i": config.num_heads * config.d_kv,
        "f": config.d_ff,
        "g": 3 if config.is_gated_act else 2,
        "h": config.num_heads,
        "k": config.relative_attention_num_buckets,
        "E": config.num_layers,
        "D": config.num_decoder_layers,
    }


def _step(what: str, symbols: str, sizes: dict[str, int]) -> Step:
    """A step whose numbers and value are those of its symbols: letters, digits, `+`, `·` and brackets."""
    numbers = "".join(str(sizes.get(symbol, symbol)) for symbol in symbols)
    return Step(what, symbols, numbers, _value(numbers))


def _value(numbers: str) -> int:
    """The value of sums and products of whole numbers, such as `(6 + 2·6)·8`."""
    while "(" in numbers:  # the innermost brackets first
        numbers = re.sub(r"\(([^()]*)\)", lambda inner: str(_value(inner[1])), numbers)
    return sum(math.prod(map(int, term.split("·"))) for term in numbers.split("+"))


def base_steps(sizes: dict[str, int], *, tied: bool) -> list[Step]:
    """The derivation of a plain T5's count. No layer of it has a bias, and its norms have a scale alone."""
    steps = [
        _step("vocabulary, one table for encoder and decoder", "V·d", sizes),
        _step("encoder layers: q, k, v, o; feed-forward; 2 norms", "E·(4·d·i + g·d·f + 2·d)", sizes),
        _step("decoder layers: the same, cross-attention, 3 norms", "D·(8·d·i + g·d·f + 3·d)", sizes),
        _step("relative positions: one table a stack", "2·k·h", sizes),
        _step("last norm of each stack", "2·d", sizes),
    ]
    if not tied:
        steps.append(_step("output layer, not tied to the vocabulary", "V·d", sizes))
    return [*steps, _sum(steps)]


def _sum(steps: list[Step]) -> Step:
    return Step(
        "sum",
        " + ".join(step.symbols for step in steps),
        " + ".join(f"{step.value}" for step in steps),
        sum(step.value for step in steps),
    )


def method_steps(method: Method, sizes: dict[str, int]) -> list[Step]:
    """The derivation of what a method adds; its last step is the whole."""
    if method.kind == "full":
        return [_step("nothing is added", "0", sizes)]
    letter, field_name = _SIZE[method.kind]
    sizes = sizes | {letter: getattr(method, field_name)}
    if method.kind == "soft_prompt":
        return [_step("rows as wide as the model", "N·d", sizes)]
    if method.kind == "adapter":
        return [
            _step("feed-forward layers, one in each layer", "E + D", sizes),
            _step("a bottleneck: down, its bias, up, its bias", "d·b + b + b·d + d", sizes),
            _step("all of them", f"(E + D)·({_BOTTLENECK})", sizes),
        ]
    return [
        _step("attention blocks: a decoder layer has two", "E + 2·D", sizes),
        _step("an update: A (d, r) and B (r, i)", "d·r + r·i", sizes),
        _step("q and v of all blocks", "(E + 2·D)·2·(d·r + r·i)", sizes),
    ]


_BOTTLENECK = "d·b + b + b·d + d"


# 2. On the model


class _Models:
    """The model of one configuration, to count on: made once, since it has thousands of modules."""

    def __init__(self, config: T5Config) -> None:
        self.config = config

    def _empty(self) -> T5ForConditionalGeneration:
        """All of the model but its memory."""
        # OpenDelta runs a forward pass; only with the plain attention is no value of the mask looked at.
        self.config._attn_implementation = "eager"
        with torch.device("meta"):
            model = T5ForConditionalGeneration(self.config).eval()
            if not is_tied(self.config):
                untie(model)
        return model

    @cached_property
    def base(self) -> T5ForConditionalGeneration:
        """The model without a method; see `borrowed`."""
        return self._empty()

    @cached_property
    def in_adapterhub(self) -> nn.Module:
        """The model as AdapterHub's T5, which holds any number of adapters beside each other."""
        model = self._empty()
        initialise(model)
        return model

    @cached_property
    def _before(self) -> list[tuple[nn.Module, dict[str, Any], list[tuple[dict, dict]]]]:
        """The base's modules: each with its attributes, and what the dictionaries among these hold."""
        return [
            (
                module,
                dict(vars(module)),
                [(value, dict(value)) for value in vars(module).values() if isinstance(value, dict)],
            )
            for module in self.base.modules()
        ]

    @contextmanager
    def borrowed(self) -> Iterator[T5ForConditionalGeneration]:
        """The base to put a method into. Afterwards each of its modules is again what it was before."""
        before = self._before
        try:
            yield self.base
        finally:
            for module, attributes, dictionaries in before:
                for dictionary, content in dictionaries:
                    dictionary.clear()
                    dictionary.update(content)
                vars(module).clear()
                vars(module).update(attributes)
            self.base.requires_grad_(True)


def _account(method: Method, models: _Models) -> Account:
    steps = method_steps(method, letters(models.config))
    added = steps[-1].value
    before = count_parameters(models.base)
    with models.borrowed() as model:
        # `apply` asserts that what trains is what was added, and what the method's own formula says.
        model = apply(method, model).model
        trainable, whole = count_parameters(model, trainable_only=True), count_parameters(model)
        shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    assert whole == before + added, f"{method!r}: {whole - before:,} counted, {added:,} by hand"
    letter, field_name = _SIZE.get(method.kind, ("", ""))
    return Account(
        kind=method.kind,
        size=f"{letter} = {getattr(method, field_name)}" if letter else "",
        steps=steps,
        added=added,
        trainable=trainable,
        whole=whole,
        gradient_bytes=_FLOAT32 * trainable,
        optimiser_bytes=_ADAMW_STATES * _FLOAT32 * trainable,
        file_bytes=file_bytes(shapes),
        libraries=[_counted(setting, models, added) for setting in _SETTINGS[method.kind](method, models)],
    )


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing but its length."""

    length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        self.length += size
        return size


def file_bytes(shapes: dict[str, torch.Size]) -> int:
    """The length of the file that `save_delta` writes for entries of these names and shapes."""
    numbers = _FLOAT32 * sum(shape.numel() for shape in shapes.values())
    if numbers > _LARGEST_FILE_MEASURED:
        return numbers
    nowhere = _Nowhere()
    torch.save({name: torch.empty(shape) for name, shape in shapes.items()}, nowhere)
    return nowhere.length


# 3. In the libraries


@dataclass(frozen=True)
class _Setting:
    """A library with one of its settings: how it counts by its own rules, and how to let it count.

    Attributes:
        library, setting, call, reason: as in `LibraryCount`.
        symbols, sizes: its derivation, and the letters that are its own.
        grow: puts the method into the model, and returns by how many parameters that grew.
    """

    library: str
    setting: str
    call: str
    reason: str
    symbols: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    grow: Callable[[], int] | None = None


def _counted(setting: _Setting, models: _Models, added: int) -> LibraryCount:
    by_hand = counted = difference = None
    reason = setting.reason
    if setting.grow is not None:
        by_hand = _step("", setting.symbols, letters(models.config) | setting.sizes).value
        try:
            counted = setting.grow()
            difference = counted - added
        except UserError as missing:
            reason = str(missing)  # that it is not installed, and how to install it
    return LibraryCount(setting.library, setting.setting, setting.call, by_hand, counted, difference, reason)


def _growth(model: nn.Module, inject: Callable[[], nn.Module | None]) -> int:
    """By how many parameters `inject` makes `model`, or the wrapper that it returns, the larger."""
    before = count_parameters(model)
    with torch.device(next(model.parameters()).device):
        wrapper = inject()
    return count_parameters(model if wrapper is None else wrapper) - before


def _by_peft(models: _Models, config: str, **settings: Any) -> int:
    peft = import_peft()
    made = getattr(peft, config)(task_type=peft.TaskType.SEQ_2_SEQ_LM, **settings)
    with models.borrowed() as model:
        return _growth(model, lambda: peft.get_peft_model(model, made))


def _by_adapterhub(models: _Models, config: str, **settings: Any) -> int:
    model = models.in_adapterhub
    name = f"number_{len(model.adapters_config)}"
    return _growth(
        model, lambda: model.add_adapter(name, config=getattr(import_adapters(), config)(**settings))
    )


def _by_opendelta(models: _Models, delta: str, **settings: Any) -> int:
    opendelta = import_opendelta()
    with models.borrowed() as model:
        if delta == "SoftPromptModel":  # it reads rows: memory for the vocabulary, of whatever values
            model.shared.to_empty(device="cpu")
            model.tie_weights()
        # What it returns is no module of the model.
        return _growth(model, lambda: getattr(opendelta, delta)(model, **settings) and None)


def _where_ours(letter: str, theirs: int, ours: int) -> str:
    return f"{letter} = {theirs}" if theirs == ours else f"{letter} = {theirs} where ours is {ours}"


def _lora(method: LoRA, models: _Models) -> list[_Setting]:
    r, alpha = method.rank, method.alpha
    everywhere = "(E + 2·D)·2·(d·r + r·i)"
    default = _where_ours("r", 8, r)
    named = [f"{block}.{target}" for block in ("SelfAttention", "EncDecAttention") for target in "qv"]
    turned = "none; A and B are stored as the transposes of ours"
    return [
        _Setting(
            "PEFT",
            "defaults",
            "LoraConfig()",
            f"the same layers; {default}; alpha = 8 where ours is {alpha:g}, so the update is scaled by 1",
            everywhere,
            {"r": 8},
            partial(_by_peft, models, "LoraConfig"),
        ),
        _Setting(
            "PEFT",
            "as ours",
            f"LoraConfig(r={r}, lora_alpha={alpha:g})",
            turned,
            everywhere,
            {"r": r},
            partial(_by_peft, models, "LoraConfig", r=r, lora_alpha=alpha),
        ),
        _Setting(
            "AdapterHub",
            "defaults",
            "LoRAConfig()",
            f"the same layers, cross-attention too, though the setting is called selfattn_lora; {default}; "
            f"alpha = 8 where ours is {alpha:g}",
            everywhere,
            {"r": 8},
            partial(_by_adapterhub, models, "LoRAConfig"),
        ),
        _Setting(
            "AdapterHub",
            "as ours",
            f"LoRAConfig(r={r}, alpha={alpha:g})",
            turned,
            everywhere,
            {"r": r},
            partial(_by_adapterhub, models, "LoRAConfig", r=r, alpha=alpha),
        ),
        _Setting(
            "OpenDelta",
            "defaults",
            "LoraModel(model)",
            "its names attn.q and attn.v stand for self-attention alone: the D cross-attentions go without; "
            f"{default}; alpha = 16 where ours is {alpha:g}",
            "(E + D)·2·(d·r + r·i)",
            {"r": 8},
            partial(_by_opendelta, models, "LoraModel"),
        ),
        _Setting(
            "OpenDelta",
            "as ours",
            f"LoraModel(model, lora_r={r}, lora_alpha={alpha:g}, modified_modules={named})",
            f"{turned}; cross-attention has to be named",
            everywhere,
            {"r": r},
            partial(_by_opendelta, models, "LoraModel", lora_r=r, lora_alpha=alpha, modified_modules=named),
        ),
    ]


def _adapter(method: Adapter, models: _Models) -> list[_Setting]:
    b, d = method.bottleneck, models.config.d_model
    once, twice = f"(E + D)·({_BOTTLENECK})", f"2·(E + D)·({_BOTTLENECK})"
    default = d // 16
    reduction = reduction_factor(d, b)
    doubled = "also after each self-attention (not after cross-attention), so twice the places"
    # As regular expressions: by its end alone, the encoder's `layer.1` is also the decoder's cross-attention.
    places = [r"[r]encoder\.block\.\d+\.layer\.1", r"[r]decoder\.block\.\d+\.layer\.2"]
    named = ", ".join(f"r'{place}'" for place in places)
    return [
        _Setting(
            "AdapterHub",
            "defaults",
            "SeqBnConfig()",
            f"the same layers; its reduction_factor is 16, so {_where_ours('b', default, b)}",
            once,
            {"b": default},
            partial(_by_adapterhub, models, "SeqBnConfig"),
        ),
        _Setting(
            "AdapterHub",
            "as ours",
            f"SeqBnConfig(reduction_factor={reduction:g})",
            "none",
            once,
            {"b": b},
            partial(_by_adapterhub, models, "SeqBnConfig", reduction_factor=reduction),
        ),
        _Setting(
            "AdapterHub",
            "double_seq_bn",
            "DoubleSeqBnConfig()",
            f"{doubled}; its reduction_factor is 16, so {_where_ours('b', default, b)}",
            twice,
            {"b": default},
            partial(_by_adapterhub, models, "DoubleSeqBnConfig"),
        ),
        _Setting(
            "OpenDelta",
            "defaults",
            "AdapterModel(model)",
            f"{doubled}, and before the residual connection; {_where_ours('b', 24, b)}; "
            "gelu_new where ours is ReLU",
            twice,
            {"b": 24},
            partial(_by_opendelta, models, "AdapterModel"),
        ),
        _Setting(
            "OpenDelta",
            "as ours",
            f"AdapterModel(model, bottleneck_dim={b}, non_linearity='relu', modified_modules=[{named}])",
            "none; the feed-forward layers have to be named in full",
            once,
            {"b": b},
            partial(_by_opendelta, models, "AdapterModel", bottleneck_dim=b, modified_modules=places),
        ),
        _Setting("PEFT", "", "", "it has no bottleneck adapter"),
    ]


def _soft_prompt(method: SoftPrompt, models: _Models) -> list[_Setting]:
    n = method.virtual_tokens
    return [
        _Setting(
            "PEFT",
            "defaults",
            f"PromptTuningConfig(num_virtual_tokens={n})",
            "it holds N rows for each stack, 2·N, of which forward takes the first N",
            "2·N·d",
            {"N": n},
            partial(_by_peft, models, "PromptTuningConfig", num_virtual_tokens=n),
        ),
        _Setting(
            "PEFT",
            "as ours",
            f"PromptTuningConfig(num_virtual_tokens={n}, num_transformer_submodules=1)",
            "none",
            "N·d",
            {"N": n},
            partial(
                _by_peft, models, "PromptTuningConfig", num_virtual_tokens=n, num_transformer_submodules=1
            ),
        ),
        _Setting(
            "OpenDelta",
            "defaults",
            "SoftPromptModel(model)",
            _where_ours("N", 100, n),
            "N·d",
            {"N": 100},
            partial(_by_opendelta, models, "SoftPromptModel"),
        ),
        _Setting(
            "OpenDelta",
            "as ours",
            f"SoftPromptModel(model, soft_token_num={n})",
            "none",
            "N·d",
            {"N": n},
            partial(_by_opendelta, models, "SoftPromptModel", soft_token_num=n),
        ),
        _Setting("AdapterHub", "", "PromptTuningConfig()", "its T5 does not take prompt tuning"),
    ]


_SETTINGS: dict[str, Callable[..., list[_Setting]]] = {
    "full": lambda method, models: [],
    "soft_prompt": _soft_prompt,
    "adapter": _adapter,
    "lora": _lora,
}
