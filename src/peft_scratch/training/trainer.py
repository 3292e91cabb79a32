"""The one training loop: every method, from scratch or through a library, is trained here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import release_memory, set_seed
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from tqdm import tqdm

from peft_scratch.data.batches import Batches, Collator, make_loader
from peft_scratch.errors import UserError
from peft_scratch.training.checkpoints import Checkpoints, History, restore, trainable_state
from peft_scratch.training.device import keep_freed_memory
from peft_scratch.training.float16 import IN_FLOAT32, Float16Failed, LossScale
from peft_scratch.training.progress import progress
from peft_scratch.training.recipe import Recipe
from peft_scratch.wording import duration


class Trainer:
    """A model with its optimizer, ready to be trained by a recipe.

    AdamW on the trainable parameters with a constant learning rate, as the assignment fixes it.

    Attributes:
        model: on the accelerator's device.
        optimizer: of its trainable parameters.
        micro_batch: how many reviews of a batch go through the model at once: the whole batch, halved
            whenever memory runs out.
        recipe: the recipe, in float32 after float16 has failed.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        accelerator: Accelerator,
        recipe: Recipe,
        learning_rate: float,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self.model = model.to(accelerator.device)
        self.accelerator = accelerator
        self.recipe = recipe
        self.learning_rate = learning_rate
        self.batch_size = self.micro_batch = batch_size
        self.seed = seed
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained, lr=learning_rate, fused=True)
        self._prepared: nn.Module | None = None
        self._began_in_float16 = recipe.precision[0] == torch.float16
        self.loss_scale = LossScale(accelerator.device) if self._began_in_float16 else None
        self._start = trainable_state(model)
        self._history = History()

    @property
    def prepared(self) -> nn.Module:
        """The model as Accelerate has prepared it. This is what is trained and evaluated."""
        if self._prepared is None:
            self._prepared, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        return self._prepared

    def fit(
        self,
        collator: Collator,
        evaluate: Callable[[nn.Module], dict[str, Any]],
        epochs: int,
        folder: Path | None = None,
        remark: Callable[[dict[str, Any]], str | None] = lambda epoch: None,
    ) -> History:
        """Train for `epochs` epochs, evaluating after each.

        Data order and dropout of an epoch depend only on (seed, epoch). So an interrupted run, which
        continues after its last finished epoch, ends with the same weights as an uninterrupted one. On a
        CPU they are equal to the last bit.

        In float16, steps that are not finite are skipped and counted. If there are too many, the run
        continues from its last finished epoch in float32, and says so. In a run that starts in float16,
        each epoch records its precision and its skipped steps.

        Args:
            collator: makes training batches from indices.
            evaluate: given the model, returns a dictionary with `accuracy`, from 0 to 1, at least.
            folder: holds the run's checkpoints; training continues from the newest readable one.
            remark: given an epoch as it is recorded, returns a remark about it, or None.

        Raises:
            UserError: the loss or a weight stopped being a number, a single review does not fit into memory,
                or a checkpoint cannot be written; checkpoints of earlier epochs stay.
        """
        checkpoints = Checkpoints(folder) if folder else None
        history = self._resume(checkpoints, epochs)
        try:
            self._fit(collator, evaluate, epochs, checkpoints, history, remark)
        except Float16Failed as problem:
            history = self._back_in_float32(checkpoints, epochs, problem)
            self._fit(collator, evaluate, epochs, checkpoints, history, remark)
        self.close()
        self._start = {}  # a finished run does not start over, and memory is measured next
        self._history = history
        return history

    def _fit(
        self,
        collator: Collator,
        evaluate: Callable[[nn.Module], dict[str, Any]],
        epochs: int,
        checkpoints: Checkpoints | None,
        history: History,
        remark: Callable[[dict[str, Any]], str | None],
    ) -> None:
        """Train the epochs that `history` lacks and add them to it."""
        history.micro_batch = self.micro_batch
        prepared = self.prepared
        for epoch in range(len(history.epochs), epochs):
            started = time.perf_counter()
            title = f"epoch {epoch + 1}/{epochs}"
            losses = self.train_epoch(collator, title, 10_000 * self.seed + epoch)
            trained = time.perf_counter()
            scores = evaluate(prepared)
            history.micro_batch = self.micro_batch
            evaluated = time.perf_counter()
            history.add(losses, scores, trained - started, evaluated - trained, **self._watched())
            history.loss_scale = self.loss_scale.state if self.loss_scale else {}
            if history.best == epoch:
                history.best_state = trainable_state(self.model)
            if checkpoints and self.accelerator.is_main_process:
                checkpoints.save(self.model, self.optimizer, history)
            self.accelerator.print(
                f"{title}: loss {history.epochs[-1]['loss']:.4f}, "
                f"test accuracy {100 * scores['accuracy']:.1f} %, "
                f"{_pace(time.perf_counter() - started, epoch, epochs)}"
            )
            if said := remark(history.epochs[-1]):
                self.accelerator.print(said)
        if checkpoints and self.accelerator.is_main_process:
            # Not in the last save: a run that is killed right after it comes here when it is started again.
            checkpoints.remove_all_but(len(history.epochs))

    def train_epoch(self, collator: Collator, title: str, seed: int) -> list[float]:
        """One pass over the reviews of `collator`, in the recipe's batches; returns the loss of each step.

        Args:
            title: names the pass in its progress bar and in messages.
            seed: decides order and dropout.

        Raises:
            UserError: as `fit`.
        """
        set_seed(seed, device_specific=True)
        lengths = [len(row) for row in collator.inputs]
        batches = self.recipe.training_batches(lengths, self.batch_size, seed)
        losses = self.train_batches(collator, batches, title)
        if not losses:
            raise Float16Failed(f"float16 gave numbers that are not finite in all of {title}: {IN_FLOAT32}.")
        return losses

    def train_batches(self, collator: Collator, batches: Batches, title: str) -> list[float]:
        """Do one step on each batch. Returns the losses; skipped steps have none.

        Raises:
            UserError: as `fit`.
        """
        if self.recipe.cpu_kernels and self.accelerator.device.type == "cpu":
            keep_freed_memory()
        model = self.prepared.train()
        losses: list[float] = []
        loader = make_loader(batches, collator, self.accelerator)
        bar = progress(loader, title, "step")
        for step, batch in enumerate(bar):
            loss = self._step(batch, bar, f"{title}, step {step + 1}")
            if loss is None:
                continue
            losses.append(loss)
            bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}", refresh=False)
        # No loss was computed after the last update, and bad weights must not get into a checkpoint.
        if not all(p.sum().isfinite() for p in model.parameters() if p.requires_grad):
            raise self._diverged(f"A weight stopped being a number in the last step of {title}")
        return losses

    def put_back_best(self) -> None:
        """Give the model the weights of the best epoch that `fit` found, ready to predict."""
        restore(self.model, self._history.best_state)
        self.model.eval()

    def close(self) -> None:
        """Let go of the optimizer's state, and of what Accelerate holds for this trainer."""
        self.optimizer.state.clear()
        self.accelerator.free_memory()

    def _step(self, batch: dict[str, Tensor], bar: tqdm, where: str) -> float | None:
        """One step of the optimizer on `batch`; returns its loss, or None if float16 had it skipped."""
        loss = _backward_in_parts_that_fit(self, batch, bar, where)
        taken = True
        if self.loss_scale:  # needs torch's own optimizer, which Accelerate has wrapped
            taken = self.loss_scale.step(self.optimizer.optimizer, where)
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()
        if not taken:
            return None
        value = self.accelerator.reduce(loss, "mean").item()
        if not math.isfinite(value):
            raise self._diverged(f"The loss became {value} in {where}")
        return value

    def _resume(self, checkpoints: Checkpoints | None, epochs: int) -> History:
        """Reset model and optimizer to the end of the run's last finished epoch, or to their start."""
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        restore(self.model, self._start)
        if checkpoints is None:
            return History()
        history = checkpoints.resume(self.model, self.optimizer, self.accelerator)
        if done := len(history.epochs):
            again = f"; to train it again, delete {checkpoints.folder}" if done == epochs else ""
            self.accelerator.print(f"found on disk: {done} of {epochs} epochs of this run{again}")
            self.micro_batch = history.micro_batch or self.batch_size
            if self.loss_scale and history.epochs[-1].get("precision") == "float32":
                self._work_in_float32()
            elif self.loss_scale:
                self.loss_scale.resume(history.loss_scale)
        return history

    def _back_in_float32(
        self, checkpoints: Checkpoints | None, epochs: int, problem: Float16Failed
    ) -> History:
        """Reset the run to its last finished epoch, to continue in float32."""
        history = self._resume(checkpoints, epochs)
        self._work_in_float32()
        self.accelerator.print(
            f"{str(problem).partition(':')[0]}: this run goes on in float32, from its last finished epoch "
            f"({len(history.epochs)} of {epochs})"
        )
        return history

    def _work_in_float32(self) -> None:
        self.recipe = self.recipe.in_float32()
        self.recipe.cast_frozen(self.model)
        self.loss_scale = None

    def _watched(self) -> dict[str, Any]:
        """What an epoch records of a run that began in float16."""
        if not self._began_in_float16:
            return {}
        skipped = self.loss_scale.take_skipped() if self.loss_scale else 0
        return {"precision": self.recipe.precision_name, "skipped_steps": skipped}

    def _diverged(self, what: str) -> UserError:
        return UserError(
            f"{what}: lower the learning rate (`learning_rate`, now {self.learning_rate:g}) and run again, "
            "which starts from the first epoch; the finished epochs of this run are kept."
        )


def _backward_in_parts_that_fit(trainer: Trainer, batch: dict[str, Tensor], bar: tqdm, where: str) -> Tensor:
    """`_backward`, again with `micro_batch` halved for as long as memory runs out."""
    while (loss := _backward(trainer, batch)) is None:
        trainer.optimizer.zero_grad()
        release_memory()
        if trainer.micro_batch == 1:
            raise UserError(
                f"Memory ran out in {where}, with a single review at a time: close what else uses the "
                "device (other notebooks), or set a smaller max_tokens, then run again."
            )
        trainer.micro_batch = -(-trainer.micro_batch // 2)
        bar.write(
            f"memory ran out: each batch of {trainer.batch_size} now goes through in parts of "
            f"{trainer.micro_batch}, with the same gradients"
        )
    return loss


def _backward(trainer: Trainer, batch: dict[str, Tensor]) -> Tensor | None:
    """The loss of `batch` and its gradients, `micro_batch` reviews at a time; None if memory runs out.

    The loss of a part is a mean over its target tokens, so each part is weighted by its share of them. The
    sums are then loss and gradients of the whole batch, except for rounding and dropout's random draws. The
    same holds for several processes, over which gradients (and, by the caller, losses) are averaged.
    """
    accelerator, model, micro_batch = trainer.accelerator, trainer.prepared, trainer.micro_batch
    counted = batch["labels"] != -100  # (B, T'): the tokens that the loss is a mean of
    tokens = accelerator.reduce(counted.sum().float(), "mean")  # in one process's part, on average
    whole = torch.zeros((), device=counted.device)
    if accelerator.num_processes > 1:  # as many parts in each: processes wait for each other's gradients
        micro_batch = len(counted)
    try:
        for rows in torch.arange(len(counted), device=counted.device).split(micro_batch):
            part = {name: batch[name][rows] for name in ("input_ids", "attention_mask", "labels")}
            with trainer.recipe.forward_context(model, accelerator.device):
                loss = model(**part, use_cache=False).loss * (counted[rows].sum() / tokens)
            accelerator.backward(trainer.loss_scale.scaled(loss) if trainer.loss_scale else loss)
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


def _pace(seconds: float, epoch: int, epochs: int) -> str:
    """How long an epoch took, and how long the remaining ones will take at that pace."""
    left = epochs - epoch - 1
    return duration(seconds) + (f", about {duration(left * seconds)} to go" if left else "")
