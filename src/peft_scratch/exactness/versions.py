"""Every method on two versions of transformers: the same weights and batches, and the largest difference.

The kit uses version 5; `adapters` was made for 4.57.6. That version is installed into a folder of its own,
which comes first on the path of a second process; nothing in the environment is replaced. Both processes
compute the same things and write down the outcomes. This module compares them.

Float32, dropout off. Version 4 has only T5's plain attention ("eager"). Version 5 is run with that and with
its default, torch's fused attention ("sdpa").
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.exactness.parity import (
    LIMIT,
    NOISE,
    Base,
    Batch,
    already_measured,
    chosen,
    distance,
    review_batches,
    write,
)
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, Method, SoftPrompt, apply
from peft_scratch.methods.parameters import trainable_names
from peft_scratch.paths import ROOT

#: What goes into the folder. Everything else that these need is in the environment.
OLDER = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface-hub==0.36.2")
FOLDER = ROOT / "build" / "transformers-4.57.6"

STEPS = 3
METHODS: tuple[Method, ...] = (
    FullFineTuning(),
    SoftPrompt(10),
    OpenDeltaPrompt(10),
    Adapter(8),
    AdapterHubAdapter(8),
    LoRA(8),
    PeftLoRA(8),
)
#: What version 5 computes attention with: the plain way, and its default.
ATTENTIONS = ("eager", "sdpa")


def older_environment(folder: Path = FOLDER) -> dict[str, str]:
    """The environment variables of a process that imports transformers 4.57.6; installs it if it is missing.

    Raises:
        UserError: pip could not install it.
    """
    if not (folder / "transformers").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*command, *OLDER], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                f"transformers 4.57.6 could not be installed into {folder} "
                f"({done.stderr.strip().splitlines()[-1:]}): check the connection and run again."
            )
    path = [str(folder), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


# One side: what every method computes in this process.


def outcomes(base: T5ForConditionalGeneration, batches: list[Batch]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each method by name, and what it computes on copies of `base`: logits, loss and gradients of the first
    batch, the tokens it generates, and its weights after `STEPS` steps of AdamW."""
    for method in METHODS:
        yield repr(method), _outcome(apply(method, copy.deepcopy(base)).model, batches)


def _outcome(model: nn.Module, batches: list[Batch]) -> dict[str, Any]:
    model.eval()
    names = trainable_names(model)
    generator = torch.Generator().manual_seed(0)
    # Noise replaces a method's own weights, because LoRA and the adapter start as the identity, and because
    # each library draws its own start. In full fine-tuning it would destroy the base, so there is none.
    if len(names) < len(list(model.named_parameters())):
        with torch.no_grad():
            for name in names:
                model.get_parameter(name).normal_(std=NOISE, generator=generator)
    output = model(**batches[0])
    output.loss.backward()
    found = {
        "logits": output.logits.detach(),
        "loss": output.loss.detach(),
        "gradients": {name: model.get_parameter(name).grad.clone() for name in names},
    }
    with torch.no_grad():
        inputs = {name: batches[0][name] for name in ("input_ids", "attention_mask")}
        found["tokens"] = model.generate(**inputs, max_length=8, do_sample=False, num_beams=1)
    optimiser = torch.optim.SGD([model.get_parameter(name) for name in names], 1e-2)
    for batch in batches[:STEPS]:
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
    found["weights"] = {name: model.get_parameter(name).detach().clone() for name in names}
    return found


def _write(source: Path, target: Path, attention: str) -> None:
    """Read base and batches from `source`, write the outcomes to `target`."""
    given = torch.load(source, weights_only=True)
    config = transformers.T5Config(**given["config"])
    config._attn_implementation = attention
    base = T5ForConditionalGeneration(config)
    base.load_state_dict(given["state"])
    made = dict(outcomes(base.eval(), given["batches"]))
    torch.save({"version": transformers.__version__, "outcomes": made}, target)


# Both sides, and the differences.


@dataclass(frozen=True)
class Agreement:
    """max |difference| between the two versions, of each thing compared, for one method.

    Attributes:
        attention: what version 5 computed attention with; version 4 has `eager` only.
        largest_logit, largest_gradient: of version 5, in absolute value.
        tokens: whether the same tokens were generated.
    """

    method: str
    attention: str
    logits: float
    largest_logit: float
    loss: float
    gradients: float
    largest_gradient: float
    weights_after_steps: float
    tokens: bool

    @property
    def equal(self) -> bool:
        """Whether each is within the limit, which is relative where sums are in another order."""
        logits, gradients = self.logits, self.gradients
        if self.attention != "eager":
            logits /= max(1.0, self.largest_logit)
            gradients /= max(1.0, self.largest_gradient)
        return max(logits, self.loss, gradients, self.weights_after_steps) <= LIMIT and self.tokens


def agreement(base: Base, attentions: tuple[str, ...] = ATTENTIONS) -> list[Agreement]:
    """Compare the two versions on `base`, one row for each method and attention of version 5.

    Raises:
        UserError: transformers 4.57.6 cannot be installed into its folder, or one side failed.
    """
    model, encode = base.load()
    older = older_environment()
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("architectures", "transformers_version", "dtype", "torch_dtype")
    }
    with tempfile.TemporaryDirectory() as folder:
        source, ours, theirs = (Path(folder) / name for name in ("given.pt", "ours.pt", "theirs.pt"))
        given = {"config": config, "state": model.state_dict(), "batches": review_batches(encode, STEPS)}
        torch.save(given, source)
        other = _run(source, theirs, "eager", older)
        rows = []
        for attention in attentions:
            mine = _run(source, ours, attention, dict(os.environ))
            rows += [_compare(name, attention, mine[name], other[name]) for name in mine]
    return rows


def run(output: Path, names: Sequence[str] = ("tiny", "offline")) -> list[dict]:
    """Compare the versions on every base named, and write that part of the exactness page in `output`.

    Raises:
        UserError: a name is unknown, a base is missing, or a side cannot be run.
    """
    measured = [
        {
            "name": base.name,
            "title": base.title,
            "versions": [version("transformers"), OLDER[0].partition("==")[2]],
            "limit": LIMIT,
            "steps": STEPS,
            "rows": [{**asdict(row), "equal": row.equal} for row in agreement(base)],
        }
        for base in chosen(names)
    ]
    write(output, {**already_measured(output), "versions": measured})
    return measured


def _run(source: Path, target: Path, attention: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, str(source), str(target), attention]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"The comparison of versions stopped: {done.stderr.strip().splitlines()[-1]}")
    return torch.load(target, weights_only=True)["outcomes"]


def _compare(name: str, attention: str, mine: dict[str, Any], other: dict[str, Any]) -> Agreement:
    def largest(part: str) -> float:
        assert mine[part].keys() == other[part].keys(), f"{name}: the {part} have other names"
        return max(distance(mine[part][key], other[part][key]) for key in mine[part])

    return Agreement(
        name,
        attention,
        distance(mine["logits"], other["logits"]),
        mine["logits"].abs().max().item(),
        distance(mine["loss"], other["loss"]),
        largest("gradients"),
        max(gradient.abs().max().item() for gradient in mine["gradients"].values()),
        largest("weights"),
        torch.equal(mine["tokens"], other["tokens"]),
    )


if __name__ == "__main__":
    _write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
