"""The one training loop: every method, from scratch or through a library, is trained here."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import release_memory, set_seed
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from peft_scratch.data.batches import Collator, ShuffledBatches, make_loader
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.methods.checkpoint import serialised
from peft_scratch.training.device import keep_freed_memory
from peft_scratch.training.progress import progress
from peft_scratch.training.recipe import Recipe
from peft_scratch.wording import duration

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
        micro_batch: how many reviews of a batch go through the model at once: all, unless memory ran out;
            0 before the first epoch.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)
    micro_batch: int = 0

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


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters, as the contract fixes it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=learning_rate, fused=True)


def train(
    model: nn.Module,
    collator: Collator,
    evaluate: Callable[[nn.Module], dict[str, Any]],
    *,
    accelerator: Accelerator,
    recipe: Recipe,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    checkpoints: Path | None = None,
) -> History:
    """Train the trainable parameters of `model`, evaluating after every epoch.

    AdamW at a constant learning rate, as the contract fixes it. Data order and dropout of an epoch
    follow from (`seed`, epoch) alone, so a run that continues from its last whole epoch ends where
    an uninterrupted one does, to the bit on a CPU.

    Args:
        collator: makes training batches from indices.
        recipe: which batches, and in what precision.
        evaluate: given the model, returns at least `accuracy`, a share of 1.
        checkpoints: folder of the run's last two epochs (the one alone once it is finished); continued
            from the newest that can be read.

    Raises:
        UserError: the loss or a weight stopped being a number, a review alone does not fit into memory, or
            a checkpoint cannot be written; those of earlier epochs stay.
    """
    model.to(accelerator.device)
    optimizer = make_optimizer(model, learning_rate)
    history = _resume(checkpoints, model, optimizer, accelerator) if checkpoints else History()
    if history.epochs:
        again = f"; to train it anew, delete {checkpoints}" if len(history.epochs) == epochs else ""
        accelerator.print(f"found on disk: {len(history.epochs)} of {epochs} epochs of this run{again}")
    history.micro_batch = history.micro_batch or batch_size
    prepared, optimizer = accelerator.prepare(model, optimizer)

    for epoch in range(len(history.epochs), epochs):
        set_seed(_epoch_seed(seed, epoch), device_specific=True)
        started = time.perf_counter()
        lengths = [len(row) for row in collator.inputs]
        batches = recipe.training_batches(lengths, batch_size, _epoch_seed(seed, epoch))
        title = f"epoch {epoch + 1}/{epochs}"
        losses = train_epoch(prepared, optimizer, batches, collator, accelerator, recipe, history, title)
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
        if checkpoints and accelerator.is_main_process:
            _save(checkpoints, model, optimizer, history)
        accelerator.print(
            f"{title}: loss {history.epochs[-1]['loss']:.4f}, "
            f"test accuracy {100 * scores['accuracy']:.1f} %, "
            f"{_pace(time.perf_counter() - started, epoch, epochs)}"
        )
    if checkpoints and accelerator.is_main_process:
        # Not with the last save: a run killed just after that one comes by here when it is started again.
        _remove_all_but(checkpoints, len(history.epochs))
    accelerator.free_memory()
    return history


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: ShuffledBatches,
    collator: Collator,
    accelerator: Accelerator,
    recipe: Recipe,
    history: History,
    title: str,
) -> list[float]:
    if recipe.lean and accelerator.device.type == "cpu":
        keep_freed_memory()
    loader = make_loader(batches, collator, accelerator)
    losses = []
    model.train()
    bar = progress(loader, title, "step", accelerator.is_main_process)
    for step, batch in enumerate(bar):
        while (loss := _backward(model, batch, accelerator, recipe, history.micro_batch)) is None:
            optimizer.zero_grad()
            release_memory()
            if history.micro_batch == 1:
                raise UserError(
                    f"Memory ran out in {title}, step {step + 1}, with a single review at a time: close what "
                    "else uses the device (other notebooks), or set a smaller max_tokens, then run again."
                )
            history.micro_batch = -(-history.micro_batch // 2)
            bar.write(
                f"memory ran out: each batch of {batches.batch_size} now goes through in parts of "
                f"{history.micro_batch}, with the same gradients"
            )
        optimizer.step()
        optimizer.zero_grad()
        losses.append(accelerator.reduce(loss, "mean").item())
        if not math.isfinite(losses[-1]):
            raise _diverged(f"The loss became {losses[-1]} in {title}, step {step + 1}", optimizer)
        bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}", refresh=False)
    # The last step's update has met no loss yet, and must not get into a checkpoint.
    if not all(p.sum().isfinite() for p in model.parameters() if p.requires_grad):
        raise _diverged(f"A weight stopped being a number in the last step of {title}", optimizer)
    return losses


def _backward(
    model: nn.Module, batch: dict[str, Tensor], accelerator: Accelerator, recipe: Recipe, micro_batch: int
) -> Tensor | None:
    """The loss of `batch` and its gradients, `micro_batch` reviews at a time; None if memory runs out.

    The loss of a part is a mean over its target tokens, so each part counts by its share of them: the sums
    are loss and gradients of the whole batch, but for rounding, and for dropout's draws. So it is with
    the shares of several processes, over which gradients (and, by the caller, losses) are averaged.
    """
    counted = batch["labels"] != -100  # (B, T'): the tokens that the loss is a mean of
    tokens = accelerator.reduce(counted.sum().float(), "mean")  # in a process's share, on average
    whole = torch.zeros((), device=counted.device)
    if accelerator.num_processes > 1:  # as many parts in each process: they wait for each other's gradients
        micro_batch = len(counted)
    try:
        for rows in torch.arange(len(counted), device=counted.device).split(micro_batch):
            part = {name: batch[name][rows] for name in ("input_ids", "attention_mask", "labels")}
            with recipe.at_work(model, accelerator.device):
                loss = model(**part, use_cache=False).loss * (counted[rows].sum() / tokens)
            accelerator.backward(loss)
            whole += loss.detach()
    except RuntimeError as problem:
        if not should_reduce_batch_size(problem):
            raise
        if accelerator.num_processes > 1:  # the others wait for this one's gradients
            raise UserError(
                "Memory ran out in one of several processes: start as many as there are devices, or one "
                "alone, which goes on with parts of a batch."
            ) from None
        return None
    return whole


def _diverged(what: str, optimizer: torch.optim.Optimizer) -> UserError:
    rate = optimizer.param_groups[0]["lr"]
    return UserError(
        f"{what}: lower the learning rate (`learning_rate`, now {rate:g}) and run again, which starts "
        "from the first epoch; the finished epochs of this run are kept."
    )


def _pace(seconds: float, epoch: int, epochs: int) -> str:
    """How long an epoch took, and how long those after it will take at its pace."""
    left = epochs - epoch - 1
    return duration(seconds) + (f", about {duration(left * seconds)} to go" if left else "")


def _epoch_seed(seed: int, epoch: int) -> int:
    return 10_000 * seed + epoch


def _curve(losses: list[float], epoch: int) -> list[tuple[float, float]]:
    size = math.ceil(len(losses) / CURVE_POINTS)
    chunks = [losses[i : i + size] for i in range(0, len(losses), size)]
    ends = [min((i + 1) * size, len(losses)) for i in range(len(chunks))]
    return [(epoch + end / len(losses), sum(c) / len(c)) for end, c in zip(ends, chunks, strict=True)]


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _saved_epochs(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first."""
    return sorted(folder.glob("epoch-*.pt"), reverse=True)


def _checkpoint(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}.pt"


def _save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
    epoch = len(history.epochs)
    content = {"state": trainable_state(model), "optimizer": optimizer.state_dict(), "history": vars(history)}
    write_atomically(_checkpoint(folder, epoch), serialised(content))
    _remove_all_but(folder, epoch, epoch - 1)


def _remove_all_but(folder: Path, *epochs: int) -> None:
    kept = [_checkpoint(folder, epoch) for epoch in epochs]
    for path in _saved_epochs(folder):
        if path not in kept:
            with suppress(OSError):  # the next epoch, or the next start, tries again
                path.unlink()


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> History:
    shapes = _shapes(trainable_state(model))
    for path in _saved_epochs(folder):
        try:
            data = path.read_bytes()
        except OSError as problem:
            raise UserError(f"Could not read {path}: {problem.strerror or problem}; run again.") from problem
        try:
            saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            state, history = saved["state"], History(**saved["history"])
            if not shapes == _shapes(state) == _shapes(history.best_state):
                raise ValueError("of another model")
            optimizer.load_state_dict(saved["optimizer"])
            restore(model, state)
            return history
        except Exception:  # torch raises half a dozen kinds, by where the damage is
            accelerator.print(f"{path} is damaged and passed over: this run goes on from before it")
    return History()
