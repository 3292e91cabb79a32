"""The ledger as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from peft_scratch.exactness.ledger import Account, Ledger
from peft_scratch.methods.derivation import Step


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


def _table(title: str, *columns: str, numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def _derivation(title: str, steps: list[Step]) -> Table:
    table = _table(title, "what", "symbols", "numbers", "parameters", numbers=("parameters",))
    for step in steps:
        table.add_row(step.what, step.symbols, step.numbers, _number(step.value))
    return table


def _libraries(account: Account) -> Table:
    numbers = ("by hand", "counted", "difference")
    table = _table(
        f"{_name(account)} in the libraries", "library", "called with", *numbers, "why", numbers=numbers
    )
    for count in account.libraries:
        table.add_row(
            count.library,
            f"{count.setting}: {count.call}".removeprefix(": "),
            _number(count.by_hand),
            _number(count.counted),
            f"{count.difference:+,}" if count.difference else _number(count.difference),
            count.reason,
        )
    return table


def _costs(ledger: Ledger) -> Table:
    numbers = ("added", "trainable", "whole model", "trained", "gradients", "AdamW", "file")
    table = _table(
        "what it costs, in parameters and in bytes of float32", "method", *numbers, numbers=numbers
    )
    for account in ledger.accounts:
        table.add_row(
            _name(account),
            _number(account.added),
            _number(account.trainable),
            _number(account.whole),
            f"{100 * account.trainable / account.whole:.3f} %",
            _number(account.gradient_bytes),
            _number(account.optimiser_bytes),
            _number(account.file_bytes),
        )
    return table
