"""The commands `parity`, `versions`, `parameters`, `convert`, `export` and `push`.

torch takes seconds to import, so each command imports it late.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from peft_scratch.paths import ROOT
from peft_scratch.wording import counted

PageFolder = Annotated[Path | None, typer.Option(help="Folder of the page; report by default.")]


def parity(
    bases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BASE]...", help="tiny, offline, t5-small; all three by default."),
    ] = None,
    output: PageFolder = None,
) -> None:
    """Compare every method from scratch with its libraries; write exactness.md and exactness.json.

    Earlier results of other bases are kept. The base of t5-small's size takes many minutes.
    """
    from peft_scratch.exactness.parity import run

    _write_page(run, bases, output)


Alpha = Annotated[float, typer.Option(help="LoRA's alpha, which a .pt file does not contain.")]
ResultFile = Annotated[
    Path | None,
    typer.Option(help="The run's result (JSON), for the model card. The kit's own weights need no --result."),
]
Licence = Annotated[
    str | None,
    typer.Option(help="Licence of the weights, for the card: apache-2.0 or another; by default the base's."),
]


def versions(
    bases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BASE]...", help="tiny, offline, t5-small; by default the first two."),
    ] = None,
    output: PageFolder = None,
) -> None:
    """Compare every method on two versions of transformers; write a part of exactness.md and exactness.json.

    transformers 4.57.6 goes into a folder of its own, build/transformers-4.57.6, if it is not there.
    """
    from peft_scratch.exactness.versions import run

    _write_page(run, bases, output)


def _write_page(run: Callable[..., object], bases: list[str] | None, output: Path | None) -> None:
    folder = output or ROOT / "report"
    run(folder, *([bases] if bases else []))
    typer.echo(folder / "exactness.md")


def convert(
    source: Annotated[
        Path, typer.Argument(help="lora.pt, prompts.pt or adapter.pt; or a folder of PEFT or AdapterHub.")
    ],
    target: Annotated[Path, typer.Argument(help="A new folder; or a new .pt file.")],
    base: Annotated[
        str | None,
        typer.Option(
            help="The base of these weights (names as for `parameters`); checked and written into the folder."
        ),
    ] = None,
    alpha: Alpha = 4.0,
    result: ResultFile = None,
    licence: Licence = None,
) -> None:
    """Convert a weight file to the adapter folder of a library, or such a folder to a weight file.

    A folder gets a model card, README.md, that says what it is, how to load it, and what it scored.
    """
    from peft_scratch.exactness.convert import convert

    done = convert(source, target, base=base, alpha=alpha, result=result, licence=licence)
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
    json: Annotated[Path | None, typer.Option(help="Also write the counts to this file.")] = None,
) -> None:
    """Show how many parameters each method adds to a T5: by hand, here, and in the libraries."""
    from rich.console import Console

    from peft_scratch.exactness.ledger import ledger, tables
    from peft_scratch.results import write_json

    result = ledger(model, method=method, size=size)
    # A file or a pipe has no width of its own. No markup: the brackets of a regular expression are no style.
    width = None if sys.stdout.isatty() else 140
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for table in tables(result):
        console.print(table)
    if json is not None:
        write_json(json, asdict(result))


class Form(enum.StrEnum):
    """What `export` writes."""

    MERGED = "merged"


def export(
    form: Annotated[Form, typer.Argument(help="An ordinary T5 with the update merged into its weights.")],
    source: Annotated[Path, typer.Argument(help="lora.pt, or a folder of PEFT.")],
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    base: Annotated[
        str, typer.Option(help="The base of these weights (names as for `parameters`).")
    ] = "t5-small",
    alpha: Alpha = 4.0,
    result: ResultFile = None,
    licence: Licence = None,
) -> None:
    """Merge a LoRA into its base: an ordinary T5 folder, which loads without this kit and without PEFT."""
    from peft_scratch.experiments.merged import export_merged

    done = export_merged(source, target, base=base, alpha=alpha, result=result, licence=licence)
    typer.echo(f"{done}: load it with T5ForConditionalGeneration.from_pretrained('{done}').")


def push(
    folder: Annotated[Path, typer.Argument(help="A folder that `convert` or `export merged` wrote.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new repository.")] = False,
) -> None:
    """Upload an adapter folder or a merged model to the Hugging Face Hub.

    It uses the token of `hf auth login` or of the environment variable HF_TOKEN.
    """
    from peft_scratch.exactness.push import push

    typer.echo(push(folder, name, public=public))
