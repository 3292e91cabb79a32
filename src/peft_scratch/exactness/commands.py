"""The commands `parity`, `convert` and `parameters`. Imports stand inside them: torch alone takes seconds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from peft_scratch.wording import counted


def parity(
    bases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BASE]...", help="tiny, offline, t5-small; all three by default."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the page; report by default.")] = None,
) -> None:
    """Compare every method from scratch with its libraries: exactness.md and exactness.json.

    What is there already of the other bases is kept. t5-small's size takes many minutes.
    """
    from peft_scratch.exactness.parity import run
    from peft_scratch.paths import OFFLINE_BASE, ROOT

    folder = output or ROOT / "report"
    run(folder, OFFLINE_BASE, *([bases] if bases else []))
    typer.echo(folder / "exactness.md")


def versions(
    bases: Annotated[
        list[str] | None, typer.Argument(metavar="[BASE]...", help="tiny, offline, t5-small; the first two.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the page; report by default.")] = None,
) -> None:
    """Compare every method on two versions of transformers: that part of exactness.md and exactness.json.

    transformers 4.57.6 goes into a folder of its own, build/transformers-4.57.6, if it is not there.
    """
    from peft_scratch.exactness.versions import run
    from peft_scratch.paths import OFFLINE_BASE, ROOT

    folder = output or ROOT / "report"
    run(folder, OFFLINE_BASE, *([bases] if bases else []))
    typer.echo(folder / "exactness.md")


def convert(
    source: Annotated[
        Path, typer.Argument(help="lora.pt, prompts.pt or adapter.pt; or a folder of PEFT or AdapterHub.")
    ],
    target: Annotated[Path, typer.Argument(help="A new folder; or a new .pt file.")],
    base: Annotated[
        str | None,
        typer.Option(help="The model it was trained on, as for `parameters`: checked, and written down."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="LoRA's alpha, which a .pt file does not hold.")] = 4.0,
) -> None:
    """Convert a weight file to the adapter folder of a library, or such a folder to a weight file."""
    from peft_scratch.exactness.convert import convert

    done = convert(source, target, base=base, alpha=alpha)
    typer.echo(
        f"{done.target}: {done.form} of {done.method!r}, {counted(done.tensors, 'tensor')}, "
        f"{counted(done.parameters, 'parameter')}. {done.next_step}"
    )


def parameters(
    model: Annotated[
        str,
        typer.Argument(
            help="t5-small to t5-11b, flan-t5-small to flan-t5-xxl, offline; or a config.json or its folder."
        ),
    ] = "t5-small",
    method: Annotated[
        str | None, typer.Option(help="full, soft_prompt, adapter or lora; all four by default.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Prompt rows, bottleneck or rank; the assignment's by default.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the ledger to this file.")] = None,
) -> None:
    """Derive by hand and count what each method adds to a T5, here and in the libraries."""
    with _in_seconds():
        from peft_scratch.exactness.ledger import ledger
        from peft_scratch.exactness.ledger_tables import tables
        from peft_scratch.results import write_json

        result = ledger(model, method=method, size=size)
    from rich.console import Console

    # A file or a pipe is as wide as need be. No markup: a regular expression's brackets are no style.
    width = None if sys.stdout.isatty() else 140
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for table in tables(result):
        console.print(table)
    if json is not None:
        write_json(json, result.as_dict())


@contextmanager
def _in_seconds() -> Iterator[None]:
    """Leave out what takes a third of a short command's time and is of no use to it.

    That is collecting garbage, while some hundred thousand objects are made that stay; and two packages
    that transformers imports where it finds them: scikit-learn, with scipy.stats and pandas, for assisted
    generation (generation/candidate_generator.py), and scipy.optimize for the losses of object detection
    (loss/loss_for_object_detection.py).
    """
    collecting = gc.isenabled()
    gc.disable()
    from transformers import utils

    found = {name: getattr(utils, name) for name in ("is_sklearn_available", "is_scipy_available")}
    vars(utils).update(dict.fromkeys(found, lambda: False))
    try:
        yield
    finally:
        vars(utils).update(found)
        if collecting:
            gc.enable()
