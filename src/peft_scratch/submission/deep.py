"""The reported accuracies, measured again from the weight files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from peft_scratch.assignment import RUNS
from peft_scratch.errors import UserError
from peft_scratch.experiments.session import Session
from peft_scratch.methods.checkpoint import copy_delta
from peft_scratch.submission.findings import Finding, error, look, ok

#: The accuracy may differ by so many points from the reported one, because another device rounds differently.
RELOAD = 0.5


def reproduce(
    weights: Mapping[str, Mapping[str, np.ndarray]], numbers: Mapping[str, float], profile: str
) -> Iterator[Finding]:
    """Load the entries of each run into a fresh base, predict all test reviews, and compare the accuracy.

    Args:
        weights: entries by run, which fit the model.
        numbers: the reported accuracies in %, by run.
        profile: the profile whose base and reviews are used.
    """
    with tempfile.TemporaryDirectory() as output:
        for name, entries in weights.items():
            run = RUNS[name]
            try:
                if name not in numbers:
                    raise UserError(f"no accuracy of {run.title} was found to compare with")
                prepared = Session.open(profile, output=output).prepare(name)
                tensors = {key: torch.from_numpy(np.array(entry)) for key, entry in entries.items()}
                copy_delta(prepared.tuned.model, tensors, str(run.weight_file))
                percent = 100 * prepared.score()["accuracy"]
            except UserError as problem:
                text = f"{run.weight_file} was not measured again: {str(problem).rstrip('.')}"
                yield look(run.notebook, "not-reproduced", text)
                continue
            said = f"{run.weight_file} in its base gives {percent:.1f} %; reported: {numbers[name]:.1f} %"
            if abs(percent - numbers[name]) > RELOAD:
                fix = "hand in the weights of the same run, from its best epoch"
                yield error(run.notebook, "not-reproducible", said, fix)
            else:
                yield ok(run.notebook, "reproduced", said)
