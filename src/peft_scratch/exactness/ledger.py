"""The parameter ledger: every count is derived by hand, and counted on our model and on each library's.

The letters of the derivations are those of `peft_scratch.methods.derivation`. Every model here is on the
device `meta`, where a tensor has a shape and no memory.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.assignment import SIZES
from peft_scratch.errors import UserError
from peft_scratch.exactness.t5_configs import empty_t5, t5_config
from peft_scratch.libraries.catalogue import OPENDELTA, Call, calls
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, Method, SoftPrompt, apply, count_parameters
from peft_scratch.methods.derivation import Step, letters, step, total
from peft_scratch.methods.parameters import is_tied, untie

#: The methods at the assignment's sizes.
METHODS: dict[str, type[Method]] = {
    method.kind: method for method in (FullFineTuning, SoftPrompt, Adapter, LoRA)
}

_FLOAT32 = 4
# AdamW keeps two running means per parameter (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2).
_ADAMW_STATES = 2
_LARGEST_FILE_MEASURED = 2**30


@dataclass(frozen=True)
class LibraryCount:
    """What a library adds, by hand and counted.

    Attributes:
        library: PEFT, AdapterHub or OpenDelta.
        setting: `defaults`, `as ours`, or another named one.
        call: the call of the library.
        by_hand: the number of parameters by the library's own rules; `None` if it has no such method.
        counted: on the model with the library's method in it; `None` also if the library is not installed.
        difference: how many more than our method adds; `None` without a count.
        reason: why it differs, or a note if it does not; or that the library is not installed.
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
        gradient_bytes, optimiser_bytes: for the trainable parameters, in float32, with AdamW.
        file_bytes: the size of the weight file, measured with `torch.save` into a file that keeps nothing.
            Above 1 GiB it is four bytes per parameter, without the container's few kilobytes.
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
        accounts: one per method.
    """

    model: str
    sizes: dict[str, int]
    steps: list[Step]
    parameters: int
    accounts: list[Account]


def ledger(model: str | Path = "t5-small", *, method: str | None = None, size: int | None = None) -> Ledger:
    """The ledger of a model.

    Args:
        model: a known name, a configuration file or its folder, as `t5_config` takes it.
        method: `full`, `soft_prompt`, `adapter` or `lora`; all four by default.
        size: prompt rows, bottleneck or rank; the assignment's by default.

    Raises:
        UserError: there is no such model or method, or the size is impossible.
        AssertionError: a count is not what its derivation says.
    """
    if method is not None and method not in METHODS:
        raise UserError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if size is not None and method not in SIZES:
        raise UserError(f"A size belongs to one method: give --method with one of {', '.join(SIZES)}.")
    methods = [
        make() if size is None else make(size) for kind, make in METHODS.items() if method in (None, kind)
    ]
    config = t5_config(model)
    base, steps = empty_t5(config), base_steps(config)
    parameters = count_parameters(base)
    assert parameters == steps[-1].value, f"{parameters:,} counted, {steps[-1].value:,} by hand"
    return Ledger(str(model), letters(config), steps, parameters, [account(one, base) for one in methods])


def base_steps(config: T5Config) -> list[Step]:
    """The derivation of a plain T5's count. Its layers have no bias, and its norms have only a scale."""
    sizes = letters(config)
    steps = [
        step("vocabulary, one table for encoder and decoder", "V·d", sizes),
        step("encoder blocks: q, k, v, o; feed-forward; 2 norms", "L_enc·(4·d·d' + g·d·f + 2·d)", sizes),
        step("decoder blocks: the same, cross-attention, 3 norms", "L_dec·(8·d·d' + g·d·f + 3·d)", sizes),
        step("relative positions: one table per stack", "2·k·H", sizes),
        step("last norm of each stack", "2·d", sizes),
    ]
    if not is_tied(config):
        steps.append(step("output layer, not tied to the vocabulary", "V·d", sizes))
    # A sum of six values is easier to follow than a sum of six formulas.
    return [*steps, replace(total(steps), numbers=" + ".join(str(line.value) for line in steps))]


def account(method: Method, base: T5ForConditionalGeneration) -> Account:
    """The account of one method from scratch on copies of `base`, an empty T5 without a method."""
    # `apply` asserts that exactly the added parameters train, and that the derivation gives their number.
    model = apply(method, copy.deepcopy(base)).model
    trainable, whole = count_parameters(model, trainable_only=True), count_parameters(model)
    steps = list(method.derivation(base.config).steps)
    added = whole - count_parameters(base)
    assert added == steps[-1].value, f"{method!r}: {added:,} counted, {steps[-1].value:,} by hand"
    field_name, letter = SIZES.get(method.kind, ("", ""))
    return Account(
        kind=method.kind,
        size=f"{letter} = {getattr(method, field_name)}" if letter else "",
        steps=steps,
        added=added,
        trainable=trainable,
        whole=whole,
        gradient_bytes=_FLOAT32 * trainable,
        optimiser_bytes=_ADAMW_STATES * _FLOAT32 * trainable,
        file_bytes=file_bytes({name: p.shape for name, p in model.named_parameters() if p.requires_grad}),
        libraries=[_counted(call, base, added) for call in calls(method, base.config)],
    )


def _counted(call: Call, base: T5ForConditionalGeneration, added: int) -> LibraryCount:
    """What `call` adds to a copy of `base`, compared with the `added` parameters of our own method."""
    by_hand = counted = difference = None
    reason = call.remark
    if call.setting:
        by_hand = step("", call.symbols, letters(base.config) | call.sizes).value
        try:
            counted = _growth(call, copy.deepcopy(base))
            difference = counted - added
        except UserError as missing:
            reason = str(missing)  # that it is not installed, and how to install it
    return LibraryCount(call.library, call.setting, str(call), by_hand, counted, difference, reason)


def _growth(call: Call, model: T5ForConditionalGeneration) -> int:
    """How many parameters `call` adds to `model`."""
    before = count_parameters(model)
    if call.library == OPENDELTA and call.name == "SoftPromptModel":
        tied = model.lm_head.weight is model.shared.weight
        model.shared.to_empty(device="cpu")  # the call copies rows of the vocabulary; any values will do
        model.tie_weights()
        if not tied:  # transformers 5 ties every output layer
            untie(model)
    return count_parameters(call.put_into(model)) - before


class _Nowhere(io.RawIOBase):
    """A file that keeps only its length."""

    length = 0

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


# As tables for the terminal


def tables(ledger: Ledger) -> Iterator[Table]:
    """The derivations, what the libraries count, and the costs, in the order to read them in."""
    yield _derivation(f"{ledger.model}: {ledger.parameters:,} parameters", ledger.steps)
    for account in ledger.accounts:
        yield _derivation(f"{_name(account)} adds {account.added:,}", account.steps)
        if account.libraries:
            yield _libraries(account)
    yield _costs(ledger)


def _name(account: Account) -> str:
    return f"{account.kind} {account.size}".strip()


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _table(title: str, rows: list[dict[str, str]], words: tuple[str, ...]) -> Table:
    """A table of `rows`, each by column. The columns in `words` may be folded; the others are numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in rows[0]:
        if column in words:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    return table


def _derivation(title: str, steps: list[Step]) -> Table:
    rows = [
        {"what": one.what, "symbols": one.symbols, "numbers": one.numbers, "parameters": _number(one.value)}
        for one in steps
    ]
    return _table(title, rows, ("what", "symbols", "numbers"))


def _libraries(account: Account) -> Table:
    rows = [
        {
            "library": count.library,
            "called with": f"{count.setting}: {count.call}".removeprefix(": "),
            "by hand": _number(count.by_hand),
            "counted": _number(count.counted),
            "difference": f"{count.difference:+,}" if count.difference else _number(count.difference),
            "what differs": count.reason,
        }
        for count in account.libraries
    ]
    return _table(f"{_name(account)} in the libraries", rows, ("library", "called with", "what differs"))


def _costs(ledger: Ledger) -> Table:
    rows = [
        {
            "method": _name(account),
            "added": _number(account.added),
            "trainable": _number(account.trainable),
            "whole model": _number(account.whole),
            "trained": f"{100 * account.trainable / account.whole:.3f} %",
            "gradients": _number(account.gradient_bytes),
            "AdamW": _number(account.optimiser_bytes),
            "file": _number(account.file_bytes),
        }
        for account in ledger.accounts
    ]
    return _table("what it costs, in parameters and in bytes of float32", rows, ("method",))
