"""How long a run will take on this machine, measured on a few of its own steps before it starts."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from peft_scratch.assignment import find_run
from peft_scratch.data.batches import Collator, subset
from peft_scratch.libraries import method_of
from peft_scratch.methods import apply
from peft_scratch.training.trainer import Trainer

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session

# One step warms up (memory is asked for, kernels are chosen), these are timed.
TIMED_STEPS = 2
# Evaluations are in larger batches than training.
EVALUATED_BATCHES = 2


def sample(reviews: int, size: int) -> list[int]:
    """`size` positions among `reviews`, at random but always the same; all of them if there are fewer."""
    return np.random.default_rng(0).permutation(reviews)[:size].tolist()


def seconds_of_a_run(session: Session) -> float:
    """What a run of the session's profile will take, by a few steps of LoRA and a small evaluation.

    Checkpoints and what is measured after the last epoch come on top of it.
    """
    profile, reviews, size = session.profile, session.reviews, session.profile.batch_size

    def some(split: torch.utils.data.Dataset, batches: int) -> Collator:
        return session.collator(split.select(sample(len(split), batches * size)), profile.max_tokens)

    training, test = some(reviews.train, 1 + TIMED_STEPS), some(reviews.test, EVALUATED_BATCHES)
    with torch.random.fork_rng():  # so that nothing after it comes out otherwise
        model = session.recipe.cast_frozen(
            apply(method_of(find_run("lora_scratch_r8")), session.base()).model
        )
        trainer = Trainer(
            model,
            accelerator=session.accelerator,
            recipe=session.recipe,
            learning_rate=1e-4,
            batch_size=size,
        )

        def steps(rows: range) -> int:
            collator = subset(training, rows)
            batches = session.recipe.training_batches([len(row) for row in collator.inputs], size, seed=0)
            return len(trainer.train_batches(collator, batches, "timing"))

        there = len(training.inputs)
        steps(range(min(size, there)))
        session.predict(trainer.prepared, test, size)
        started = time.perf_counter()
        taken = steps(range(size if there > size else 0, there))
        trained = time.perf_counter()
        session.predict(trainer.prepared, test, size)
        evaluated = time.perf_counter()
        trainer.close()
    per_epoch = math.ceil(len(reviews.train) / size) * (trained - started) / taken
    per_evaluation = len(reviews.test) / len(test.inputs) * (evaluated - trained)
    return profile.epochs * (per_epoch + per_evaluation)
