"""The one training loop: every method, from scratch or through a library, is trained here."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from peft_scratch.errors import UserError
from peft_scratch.experiments.data import Collator, LengthGroupedBatches

# How many points of the loss curve an epoch leaves, whatever its number of steps.
CURVE_POINTS = 25


@dataclass
class History:
    """What training leaves: one entry an epoch, and the loss curve within the epochs.

    Attributes:
        epochs: a dict an epoch, as the results hold it: what `evaluate` returned, with the mean
            training loss and the seconds of training and of evaluation.
        curve: (epochs done, mean loss since the point before).
        best: position of the epoch with the highest accuracy, the earliest of equals.
        best_state: the trainable tensors after that epoch.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best(self) -> int:
        return max(range(len(self.epochs)), key=lambda i: (self.epochs[i]["accuracy"], -i))


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable tensors, on the CPU."""
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters() if p.requires_grad}


def restore(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put `state` (from `trainable_state`) back into `model`."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)


def train(
    model: nn.Module,
    collator: Collator,
    evaluate: Callable[[nn.Module], dict[str, Any]],
    *,
    accelerator: Accelerator,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    checkpoint: Path | None = None,
) -> History:
    """Train the trainable parameters of `model`, evaluating after every epoch.

    AdamW at a constant learning rate, as the contract fixes it. Data order and dropout of an epoch
    follow from (`seed`, epoch) alone, so a run that continues from its last whole epoch ends where
    an uninterrupted one does, to the bit on a CPU.

    Args:
        collator: makes training batches from indices.
        evaluate: given the model, returns at least `accuracy`, a share of 1.
        checkpoint: file that holds the last whole epoch; continued from if it is there.

    Raises:
        UserError: the loss stopped being a number; the last whole epoch's checkpoint stays.
    """
    model.to(accelerator.device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    history = History()
    if checkpoint is not None and checkpoint.exists():
        history = _resume(checkpoint, model, optimizer)
        accelerator.print(f"found on disk: {len(history.epochs)} of {epochs} epochs of this run")
    prepared, optimizer = accelerator.prepare(model, optimizer)

    for epoch in range(len(history.epochs), epochs):
        set_seed(_epoch_seed(seed, epoch), device_specific=True)
        started = time.perf_counter()
        lengths = [len(row) for row in collator.inputs]
        batches = LengthGroupedBatches(lengths, batch_size, _epoch_seed(seed, epoch))
        losses = _train_epoch(
            prepared, optimizer, batches, collator, accelerator, f"epoch {epoch + 1}/{epochs}"
        )
        trained = time.perf_counter()
        scores = evaluate(prepared)
        history.curve += _curve(losses, epoch)
        history.epochs.append(
            {
                "epoch": epoch + 1,
                "loss": sum(losses) / len(losses),
                **scores,
                "train_seconds": trained - started,
                "evaluation_seconds": time.perf_counter() - trained,
            }
        )
        if history.best == epoch:
            history.best_state = trainable_state(model)
        if checkpoint is not None and accelerator.is_main_process:
            _save(checkpoint, model, optimizer, history)
        accelerator.print(
            f"epoch {epoch + 1}/{epochs}: loss {history.epochs[-1]['loss']:.4f}, "
            f"test accuracy {100 * scores['accuracy']:.1f} %, {time.perf_counter() - started:.0f} s"
        )
    accelerator.free_memory()
    return history


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: LengthGroupedBatches,
    collator: Collator,
    accelerator: Accelerator,
    title: str,
) -> list[float]:
    loader = accelerator.prepare_data_loader(
        DataLoader(range(len(batches.lengths)), batch_sampler=batches, collate_fn=collator)
    )
    losses = []
    model.train()
    bar = tqdm(
        loader, desc=title, leave=False, mininterval=1, unit="step", disable=not accelerator.is_main_process
    )
    for step, batch in enumerate(bar):
        with accelerator.autocast():
            loss = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(accelerator.reduce(loss.detach(), "mean").item())
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"The loss became {losses[-1]} in {title}, step {step + 1}: lower the learning rate "
                "(or leave float16) and run again; it continues from the last whole epoch."
            )
        bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}", refresh=False)
    return losses


def _epoch_seed(seed: int, epoch: int) -> int:
    return 10_000 * seed + epoch


def _curve(losses: list[float], epoch: int) -> list[tuple[float, float]]:
    size = math.ceil(len(losses) / CURVE_POINTS)
    chunks = [losses[i : i + size] for i in range(0, len(losses), size)]
    ends = [min((i + 1) * size, len(losses)) for i in range(len(chunks))]
    return [(epoch + end / len(losses), sum(c) / len(c)) for end, c in zip(ends, chunks, strict=True)]


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(
            {
                "state": trainable_state(model),
                "optimizer": optimizer.state_dict(),
                "epochs": history.epochs,
                "curve": history.curve,
                "best_state": history.best_state,
            },
            draft,
        )
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> History:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    restore(model, saved["state"])
    optimizer.load_state_dict(saved["optimizer"])
    return History(saved["epochs"], saved["curve"], saved["best_state"])
