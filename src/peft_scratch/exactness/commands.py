"""The commands `parity`, `convert` and `parameters`. torch takes seconds to import, so they do it late."""

from __future__ import annotations

import sys
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

    Earlier results of other bases are kept. The base of t5-small's size takes many minutes.
    """
    from peft_scratch.exactness.parity import run
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
        typer.Option(help="The model it was trained on, as for `parameters`; checked, named in the folder."),
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
    """Show how many parameters each method adds to a T5: by hand, here, and in the libraries."""
    from rich.console import Console

    from peft_scratch.exactness.ledger import ledger
    from peft_scratch.exactness.ledger_tables import tables
    from peft_scratch.results import write_json

    result = ledger(model, method=method, size=size)

    # A file or a pipe has no width of its own. No markup: the brackets of a regular expression are no style.
    width = None if sys.stdout.isatty() else 140
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for table in tables(result):
        console.print(table)
    if json is not None:
        write_json(json, result.as_dict())
