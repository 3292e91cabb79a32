"""The commands of the student edition. What needs torch is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peft_scratch.errors import UserError


def student_edition(
    folder: Annotated[Path, typer.Argument(help="Where to write it; a zip is written beside it.")],
    level: Annotated[
        str,
        typer.Option(
            help="What is blank. lines: the lines that matter; classes: whole functions and classes."
        ),
    ] = "lines",
    solved: Annotated[
        bool, typer.Option("--solved", help="With the solution put in, to try the edition yourself.")
    ] = False,
) -> None:
    """Write the student edition: notebooks and layers with blanks, the kit without its solution, the handout.

    For lecturers. Set constants, points, deadline and text in `course.toml`; see docs/lecturer.md.
    """
    from peft_scratch.edition.make_edition import make_edition

    archive = make_edition(folder, level, solved)
    typer.echo(folder)
    typer.echo(archive)


def self_check(
    layers: Annotated[Path, typer.Argument(help="The file with the student's layers.")] = Path("layers.py"),
    only: Annotated[
        list[str] | None, typer.Option(help="Check this blank alone, such as LoRALinear; can be repeated.")
    ] = None,
) -> None:
    """Check the layers of a layers.py: what is wrong, in one sentence each, and where to read.

    A line per check, in the order of the notebooks: passed, blank, wrong, waits (it builds on a blank that is
    not right yet), or skipped (its library is not installed). The code of the file is run. Exit status 1:
    something is not right yet.
    """
    if not layers.is_file():
        raise UserError(f"{layers} is not there: give the file with the layers, such as layers.py.")
    from peft_scratch.edition import layers_file
    from peft_scratch.edition.self_check import check_all

    layers_file.use(layers)
    if not check_all(only or ()):
        raise typer.Exit(1)
