"""The time that a notebook announces at its top for a run, and the time that the run then takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from parts import Part

from peft_scratch.assignment import RUNS
from peft_scratch.experiments.session import Session


def estimates(results: Path, profile: str, run_ids: Sequence[str]) -> None:
    """Train runs as a notebook does; write the announced and the taken seconds of each to `results`."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session.open(profile, output=folder)
        part = Part(results, "estimates", {"profile": profile, "recipe": session.recipe.name})
        session.summary()  # the rates are measured before the first run, at the top of a notebook
        for name in run_ids:
            announced = session.seconds_of([RUNS[name]])
            started = time.perf_counter()
            session.prepare(name).train()
            taken = time.perf_counter() - started
            row = {"id": name, "title": RUNS[name].title, "announced": announced, "taken": taken}
            part.add(row)
            print(f"{name}: {announced:.0f} s announced, {taken:.0f} s taken", flush=True)
    part.close()
