"""How long a run will take on this machine, measured on a few of its own steps before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from accelerate import Accelerator
from torch import nn

from peft_scratch.assignment import Profile
from peft_scratch.data.batches import Collator, subset
from peft_scratch.training.recipe import Recipe
from peft_scratch.training.trainer import History, make_optimizer, train_epoch

# One step warms up (memory is asked for, kernels are chosen), these are timed.
TIMED_STEPS = 2


def sample(reviews: int, size: int) -> list[int]:
    """`size` positions among `reviews`, at random but always the same; all of them if there are fewer."""
    return np.random.default_rng(0).permutation(reviews)[:size].tolist()


def seconds_of_a_run(
    model: nn.Module,
    train: Collator,
    judge: Callable[[nn.Module], object],
    *,
    accelerator: Accelerator,
    recipe: Recipe,
    profile: Profile,
    reviews: tuple[int, int],
    judged: int,
) -> float:
    """What a run of `profile` will take, by a few steps of training and an evaluation of a few reviews.

    Checkpoints and what is measured after the last epoch come on top of it.

    Args:
        model: with its method in it; the steps change it.
        train: at least `1 + TIMED_STEPS` batches of reviews, if there are so many.
        judge: evaluates a model on `judged` reviews.
        reviews: how many there are to train on, and to test on.
    """
    model.to(accelerator.device)
    prepared, optimizer = accelerator.prepare(model, make_optimizer(model, learning_rate=1e-4))
    size = profile.batch_size

    def steps(rows: range) -> int:
        collator = subset(train, rows)
        batches = recipe.training_batches([len(row) for row in collator.inputs], size, seed=0)
        history = History(micro_batch=size)
        losses = train_epoch(prepared, optimizer, batches, collator, accelerator, recipe, history, "timing")
        return len(losses)

    there = len(train.inputs)
    steps(range(min(size, there)))
    judge(prepared)
    started = time.perf_counter()
    taken = steps(range(size if there > size else 0, there))
    trained = time.perf_counter()
    judge(prepared)
    evaluated = time.perf_counter()
    accelerator.free_memory()
    training = math.ceil(reviews[0] / size) * (trained - started) / taken
    evaluation = reviews[1] / judged * (evaluated - trained)
    return profile.epochs * (training + evaluation)
