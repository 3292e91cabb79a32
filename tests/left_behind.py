"""What a finished notebook leaves in an output folder, made of the committed results."""

import json

from peft_scratch.assignment import NOTEBOOKS, RUNS
from peft_scratch.files import write_atomically
from peft_scratch.notebook.parts import write_part
from peft_scratch.paths import ROOT


def make(output, notebook, **changes):
    """What notebook `notebook` leaves in `output`: committed results, with `changes` in their settings."""
    for run in RUNS.values():
        if run.notebook != notebook:
            continue
        result = json.loads((ROOT / "report" / "results" / f"{run.id}.json").read_text())
        result["config"].update(changes)
        write_atomically(output / "report" / "results" / f"{run.id}.json", json.dumps(result))
        if run.weight_file:
            write_atomically(output / "weights" / run.weight_file, f"weights of {run.id}")
    write_atomically(output / "notebooks" / NOTEBOOKS[notebook], f"notebook {notebook}")
    return write_part(output, notebook)
