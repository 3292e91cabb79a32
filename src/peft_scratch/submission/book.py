"""One notebook of a submission, and its numbers compared with the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft_scratch.assignment import FAR_OUTSIDE, RUNS, SEED_SPREAD, Run, points_outside
from peft_scratch.submission.archive import File
from peft_scratch.submission.cells import Cell
from peft_scratch.submission.findings import Finding, look, ok

RUN_AGAIN = "restart the kernel, run all cells from the top, and save"


@dataclass
class Notebook:
    """One notebook of a submission.

    Attributes:
        number: which of the five, 1 to 5.
        file: where it was found.
        cells: its cells with something in them.
        profile: the profile that it was run with; `None` if it is not the kit's notebook.
        is_part: whether the same file holds other notebooks too.
        numbers: the accuracies in %, by run; a run whose number was not found is not in it.
        curves: the accuracy after each epoch in %, by run, where a table or a log shows it.
    """

    number: int
    file: File
    cells: list[Cell]
    profile: str | None = None
    is_part: bool = False
    numbers: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Its name in messages."""
        return self.file.where

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "code"]

    @property
    def runs(self) -> list[Run]:
        """The runs whose numbers it has to give."""
        return [run for run in RUNS.values() if run.notebook == self.number]

    def compared(self, run: Run, percent: float) -> Finding:
        """A number compared with the published range, which only the course profile has."""
        said = f"{self.where}: {run.title} is {percent:.1f} %"
        if self.profile not in (None, "course"):
            text = f"{said} (profile {self.profile}, for which nothing is published)"
            return ok(run.notebook, "number", text)
        low, high = run.published
        outside = points_outside(run.id, percent)
        if outside <= SEED_SPREAD:
            return ok(run.notebook, "number", f"{said}; published runs gave {low} to {high}")
        text = f"{said}; published runs with the course's constants gave {low} to {high}"
        if outside <= FAR_OUTSIDE:
            fix = "look for the reason, because another seed changes it by about 0.3 only"
            return look(run.notebook, "number-unusual", text, fix)
        fix = "check which constant, base or split was different"
        return look(run.notebook, "number-out-of-band", text, fix)
