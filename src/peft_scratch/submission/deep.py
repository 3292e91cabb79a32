"""The reported accuracies, measured again from the weight files alone."""

from __future__ import annotations

import tempfile

from torch import Tensor

from peft_scratch.assignment import RUNS
from peft_scratch.errors import UserError
from peft_scratch.experiments.session import Session
from peft_scratch.methods.checkpoint import copy_delta
from peft_scratch.submission.contract import RELOAD
from peft_scratch.submission.findings import Finding, fault, note, ok


def reproduce(
    weights: dict[str, dict[str, Tensor]], numbers: dict[str, float], profile: str
) -> list[Finding]:
    """Load the entries of each run into a fresh base, judge all test reviews, compare with the number.

    Args:
        weights: entries by run, known to fit.
        numbers: the reported accuracies in %, by run.
        profile: whose base and reviews to take.
    """
    findings = []
    with tempfile.TemporaryDirectory() as output:
        for name, entries in weights.items():
            run = RUNS[name]
            if name not in numbers:
                text = f"{run.weight_file} was not tried: there is no number of {run.title} to compare with"
                findings.append(note(run.notebook, "not-reproduced", text))
                continue
            try:
                bench = Session.open(profile, output=output)
                prepared = bench.prepare(name)
                copy_delta(prepared.tuned.model, entries, str(run.weight_file))
                percent = 100 * prepared.score()["accuracy"]
            except UserError as problem:
                text = f"{run.weight_file} was not tried: {str(problem).rstrip('.')}"
                findings.append(note(run.notebook, "not-reproduced", text))
                continue
            said = f"{run.weight_file} on its base gives {percent:.1f} %, reported are {numbers[name]:.1f} %"
            if abs(percent - numbers[name]) > RELOAD:
                mend = "hand in the weights of that very run, from its best epoch"
                findings.append(fault(run.notebook, "not-reproducible", said, mend))
            else:
                findings.append(ok(run.notebook, "reproduced", said))
    return findings
