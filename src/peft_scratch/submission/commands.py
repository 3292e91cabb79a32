"""The commands `check` and `submit`. Imports stand inside them: torch alone takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="A folder, or the files that are handed in; of many students too."
        ),
    ],
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also load the weights into their base and measure the accuracy again."),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write a table with a row a submission.")] = None,
) -> None:
    """Check what is handed in against the assignment, line by line.

    Nothing in a submission is executed. A folder is one submission; files are put together by the student
    number they begin with. One submission gets a checklist, several a line each.

    Exit status 0: everything is ready to be handed in. 1: something is not ready, or is an offline run, which
    is a rehearsal and not a hand-in. 2: the command was not understood.
    """
    from peft_scratch.errors import UserError
    from peft_scratch.files import write_atomically
    from peft_scratch.submission.check import check_safely, submissions, table
    from peft_scratch.submission.findings import READY, printable

    found, others = submissions(paths)
    for path in others:
        typer.echo(f"{printable(str(path))} is no file of a submission and is passed over.", err=True)
    if not found:
        raise UserError("There is no submission among these paths: give folders, or zip files and PDFs.")
    many = []
    for group in found:
        one = check_safely(group, deep)
        many.append(one)
        for line in one.lines() if len(found) == 1 else [f"{printable(one.name)}: {one.sentence}"]:
            typer.echo(line)
    if csv is not None:
        write_atomically(csv, table(many).to_csv(index=False))
    raise typer.Exit(int(any(one.verdict != READY for one in many)))


def submit(
    number: Annotated[str, typer.Option(help="Student number.")],
    name: Annotated[str, typer.Option(help="The student's name.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder with notebooks, weights and report; by default the course profile's, if it was run."
        ),
    ] = None,
) -> None:
    """Check notebooks, weights and report, and pack them into the three files that are handed in.

    They go to `submission` in the same folder. An offline run is packed too, but as a rehearsal, and its
    files say so in their names.
    """
    from peft_scratch.assignment import REPORT
    from peft_scratch.submission.findings import NOTE, READY
    from peft_scratch.submission.pack import pack

    written, checked = pack(number, name, output)
    for path in written:
        typer.echo(path)
    for found in checked.of(REPORT, NOTE):
        typer.echo(found, err=True)
    if checked.verdict != READY:
        typer.echo(
            "Mind: an offline run is a rehearsal and not a hand-in; do not hand these files in.", err=True
        )
