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
        typer.Option(help="lines: blank are the lines that matter; classes: each function and class whole."),
    ] = "lines",
    solved: Annotated[
        bool, typer.Option("--solved", help="With the solution put in, to try the edition yourself.")
    ] = False,
) -> None:
    """Write the student edition: notebooks and layers with blanks, the kit without its solution, the handout.

    For lecturers. `course.toml` changes constants, points, deadline and text; see docs/lecturer.md.
    """
    from peft_scratch.edition.make_edition import make_edition

    archive = make_edition(folder, level, solved)
    typer.echo(folder)
    typer.echo(archive)


def self_check(
    layers: Annotated[Path, typer.Argument(help="The file with the student's layers.")] = Path("layers.py"),
) -> None:
    """Check the layers of a layers.py: what is wrong, in one sentence each, and where to read.

    The code of the file is run. Ends with status 1 if something is wrong or still blank.
    """
    if not layers.is_file():
        raise UserError(f"{layers} is not there: give the file with the layers, such as layers.py.")
    from peft_scratch.edition import layers_file
    from peft_scratch.edition.self_check import check_all

    layers_file.use(layers)
    if not check_all():
        raise typer.Exit(1)
