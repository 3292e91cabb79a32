"""The commands `check` and `submit`. Imports stand inside the functions, so that help is quick."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from peft_scratch.submission.findings import Checked
    from peft_scratch.submission.marking import Table
    from peft_scratch.submission.students import Group


def check(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Folders or files of one or many students."),
    ],
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also load the weights into the base and measure the accuracy again."),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write a CSV file with a row per student.")] = None,
    page: Annotated[Path | None, typer.Option(help="Also write an HTML page to read.")] = None,
    feedback: Annotated[Path | None, typer.Option(help="Also write a text file per student here.")] = None,
    class_list: Annotated[
        Path | None,
        typer.Option(help="CSV with student numbers and names; students without a submission are listed."),
    ] = None,
    deadline: Annotated[
        datetime | None,
        typer.Option(help="Files changed later count as late; for example 2026-11-20 23:59:00."),
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Submissions to check at a time.")] = None,
) -> None:
    """Check submissions against the assignment, line by line.

    Nothing in a submission is executed. A folder is one submission. Files are grouped by the student number
    at the start of their names; a folder with files of several students is a class. One submission gets a
    checklist. Several get a line each, and every two of them are compared, to find copies.

    Exit status 0: everything is ready to hand in. 1: something is not ready, or is a rehearsal, because it
    was run in a profile other than course. 2: the command was not understood.
    """
    from peft_scratch.errors import UserError
    from peft_scratch.files import write_atomically
    from peft_scratch.submission import marking
    from peft_scratch.submission.findings import READY, printable
    from peft_scratch.submission.page import page as page_of
    from peft_scratch.submission.students import read_class_list, submissions

    listed = read_class_list(class_list) if class_list else None
    groups, others = submissions(paths)
    for path in others[:20]:
        typer.echo(f"{printable(str(path))} does not belong to a submission and is not read.", err=True)
    if not groups:
        raise UserError("There is no submission among these paths: give folders, or zip files and PDFs.")
    table = marking.Table(csv) if csv else None
    many = _check_each(groups, deep, processes, table)
    rows = marking.students(many, listed, deadline)
    for pair in marking.mark_copies(rows):
        first, second = rows[pair.first].title, rows[pair.second].title
        typer.echo(f"copy? {first} and {second}: {printable(pair.text)}")
    for row in (row for row in rows if listed and row.checked is None):
        typer.echo(f"{row.title}: {marking.MISSING}")
    if table:
        table.finish(rows)
    if page:
        write_atomically(page, page_of(rows))
    if feedback:
        marking.write_feedback(feedback, rows)
    raise typer.Exit(int(any(one.verdict != READY for one in many)))


def _check_each(groups: list[Group], deep: bool, processes: int | None, table: Table | None) -> list[Checked]:
    """Check every submission, print each as soon as it is checked, and return all in order."""
    from tqdm import tqdm

    from peft_scratch.submission.findings import printable
    from peft_scratch.submission.pool import check_all

    done: dict[int, Checked] = {}
    with tqdm(total=len(groups), unit="submission", disable=None if len(groups) > 1 else True) as bar:
        for n, one in check_all(groups, deep, processes):
            done[n] = one
            if table:
                table.add(one)
            bar.update()
            with bar.external_write_mode():
                for line in one.lines() if len(groups) == 1 else [f"{printable(one.name)}: {one.sentence}"]:
                    typer.echo(line)
    return [done[n] for n in sorted(done)]


def submit(
    number: Annotated[str, typer.Option(help="Student number.")],
    name: Annotated[str, typer.Option(help="The student's name.")],
    part_files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PART...]", help="With --parts: part-1.zip to part-5.zip."),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts", help="Put together the parts that the notebooks made, then make the report and pack."
        ),
    ] = False,
    profile: Annotated[
        str,
        typer.Option(help="Pack the run of this profile; by default course, or else the one that was run."),
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run, if it is not the profile's own.")
    ] = None,
    language: Annotated[
        str, typer.Option(help="With --parts: en or fa, the language of the report that is packed.")
    ] = "",
    any_number: Annotated[
        bool,
        typer.Option("--any-number", help="Accept a student number that does not have 8 to 10 digits."),
    ] = False,
) -> None:
    """Check notebooks, weights and report of a run, and pack the three files to hand in.

    The three files go to the folder `submission` in the run's output folder. A run of any profile except
    course is packed too, as a rehearsal: the names of its files then begin with REHEARSAL_.
    --parts is for notebooks that were run on separate machines: their parts are put together in the output
    folder, and the report is made there.
    """
    from peft_scratch.assignment import FILES, find_profile
    from peft_scratch.errors import UserError
    from peft_scratch.paths import shown
    from peft_scratch.submission.findings import LOOK, READY, run_of
    from peft_scratch.submission.pack import pack

    if profile != "auto":
        output = output or find_profile(profile).output
    if parts:
        output = _put_together(part_files or [], output, number, name, language, any_number)
    elif part_files:
        raise UserError(f"{part_files[0]} is not an option: to put parts together, write --parts before it.")
    packed = pack(output, number, name, any_number)
    typer.echo(f"Packed the run in {shown(packed.folder)}:", err=True)
    for path in packed.files:
        typer.echo(path)
    for found in packed.checked.marked(LOOK):
        if found.item != FILES:
            typer.echo(found, err=True)
    if packed.checked.verdict != READY:
        run = run_of(packed.checked.profile)
        typer.echo(f"Note: {run} is a rehearsal and not a submission; do not hand these files in.", err=True)


def _put_together(
    files: list[Path], output: Path | None, number: str, name: str, language: str, any_number: bool
) -> Path:
    """Put the parts together and make their report; return the folder of both.

    Raises:
        UserError: the parts do not belong together, some are missing, or name or number cannot be used.
    """
    from peft_scratch.errors import UserError
    from peft_scratch.notebook.parts import merge_parts, missing_from
    from peft_scratch.paths import shown
    from peft_scratch.reporting.content import Student
    from peft_scratch.reporting.report import write
    from peft_scratch.submission.pack import checked_name, checked_number
    from peft_scratch.wording import counted

    checked_name(name), checked_number(number, any_number)  # before the report is made
    folder = merge_parts(files, output)
    typer.echo(f"Put {counted(len(files), 'part')} together in {shown(folder)}.", err=True)
    if lacking := missing_from(folder):
        raise UserError(f"Still missing in {shown(folder)}: {'; '.join(lacking)}. Give those parts too.")
    write(folder, Student(name, number), language)
    return folder
