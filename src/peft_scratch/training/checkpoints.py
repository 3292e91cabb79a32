"""What training saves after each epoch, so that an interrupted run continues from there."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.methods.checkpoint import serialised

# How many points of the loss curve an epoch leaves, whatever its number of steps.
CURVE_POINTS = 25


@dataclass
class History:
    """What training records: one entry per epoch, and the loss curve within the epochs.

    Attributes:
        epochs: one dict per epoch, as results hold it: what the evaluation returned, the mean training loss,
            and the seconds of training and of evaluation.
        curve: (epochs done, mean loss since the previous point).
        best_state: the trainable tensors after the best epoch.
        micro_batch: how many reviews of a batch go through the model at once: all, unless memory ran out;
            0 before the first epoch.
        loss_scale: the state of float16's `LossScale` after the last epoch; empty in other precisions.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)
    micro_batch: int = 0
    loss_scale: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> int:
        """Position of the epoch with the highest accuracy; of equal ones, the earliest."""
        return max(range(len(self.epochs)), key=lambda i: (self.epochs[i]["accuracy"], -i))

    def add(
        self,
        losses: list[float],
        scores: dict[str, Any],
        train_seconds: float,
        evaluation_seconds: float,
        **watched: Any,
    ) -> None:
        """Add an epoch: the loss of each of its steps, what its evaluation returned, how long both took."""
        self.curve += _curve(losses, len(self.epochs))
        self.epochs.append(
            {
                "epoch": len(self.epochs) + 1,
                "loss": sum(losses) / len(losses),
                **scores,
                "train_seconds": train_seconds,
                "evaluation_seconds": evaluation_seconds,
                **watched,
            }
        )


def _curve(losses: list[float], epoch: int) -> list[tuple[float, float]]:
    size = math.ceil(len(losses) / CURVE_POINTS)
    chunks = [losses[i : i + size] for i in range(0, len(losses), size)]
    ends = [min((i + 1) * size, len(losses)) for i in range(len(chunks))]
    return [(epoch + end / len(losses), sum(c) / len(c)) for end, c in zip(ends, chunks, strict=True)]


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable tensors, on the CPU."""
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters() if p.requires_grad}


def restore(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put `state` (from `trainable_state`) back into `model`."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: its last two epochs, or only the last one of a finished run.

    Each is one file, written whole or not at all, and read with `weights_only=True`.
    """

    folder: Path

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
        """Write the epoch that `history` ends with.

        Raises:
            UserError: the file cannot be written; those of earlier epochs stay.
        """
        epoch = len(history.epochs)
        content = {
            "state": trainable_state(model),
            "optimizer": optimizer.state_dict(),
            "history": vars(history),
        }
        write_atomically(self._path(epoch), serialised(content))
        self.remove_all_but(epoch, epoch - 1)

    def remove_all_but(self, *epochs: int) -> None:
        """Remove the checkpoints of every other epoch."""
        kept = [self._path(epoch) for epoch in epochs]
        for path in self._newest_first():
            if path not in kept:
                with suppress(OSError):  # the next epoch or the next start tries again
                    path.unlink()

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> History:
        """Load the newest checkpoint that can be read into `model` and `optimizer`; return its history.

        A damaged file is reported and skipped. Without any file the history is empty.

        Raises:
            UserError: a file exists but the system refuses to read it.
        """
        shapes = _shapes(trainable_state(model))
        for path in self._newest_first():
            try:
                data = path.read_bytes()
            except OSError as problem:
                raise UserError(
                    f"Could not read {path}: {problem.strerror or problem}; run again."
                ) from problem
            try:
                saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                state, history = saved["state"], History(**saved["history"])
                if not shapes == _shapes(state) == _shapes(history.best_state):
                    raise ValueError("of another model")
                optimizer.load_state_dict(saved["optimizer"])
                restore(model, state)
                return history
            except Exception:  # depending on the damage, torch raises half a dozen kinds
                accelerator.print(
                    f"{path} is damaged and skipped: this run continues from the epoch before it"
                )
        return History()

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.pt"), reverse=True)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}.pt"


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
