"""How long runs will take on this machine, measured on a few of their own steps before they start."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from peft_scratch.assignment import FROM_SCRATCH, RUNS, Profile, Run
from peft_scratch.data.batches import Collator
from peft_scratch.edition import layers_file
from peft_scratch.experiments.measurements import KNOWLEDGE_REVIEWS, pretraining_loss
from peft_scratch.experiments.run import GENERATED_REVIEWS
from peft_scratch.libraries import method_of
from peft_scratch.methods import apply
from peft_scratch.training.evaluation import predict
from peft_scratch.training.recipe import Recipe
from peft_scratch.training.trainer import Trainer

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session

# The first step warms up (memory is allocated, kernels are chosen). The others are timed, but after these
# seconds no further step starts.
TIMED_STEPS, TIMED_SECONDS = 4, 2.0
# Evaluations are in larger batches than training.
EVALUATED_BATCHES = 2
# Training accuracy, two for the comparison with generation, and two at the end of training.
_EVALUATIONS_AFTERWARDS = 5


@dataclass(frozen=True)
class Rates:
    """How fast this machine is, in seconds.

    Attributes:
        step: one training step on a batch, by kind of method; a library's step is assumed to be as fast.
        scored: evaluating one review as the recipe does.
        generated: generating the answer to one review.
        masked: one review of the pre-training task, without gradients.
        collected: one collection of freed memory, which comes before each evaluation.
    """

    step: Mapping[str, float]
    scored: float
    generated: float
    masked: float
    collected: float

    def seconds_of(self, run: Run, profile: Profile, train: int, test: int) -> float:
        """How long `run` takes, with what is measured after its last epoch.

        Args:
            train, test: how many reviews there are of each.
        """
        step = self.step[run.kind]
        epoch = math.ceil(train / profile.batch_size) * step + test * self.scored
        memory = 2 * step
        passes = 2 if run.kind == "full" else 3  # base, tuned, and with the method off
        knowledge = passes * min(KNOWLEDGE_REVIEWS, test) * self.masked
        training_accuracy = min(train, test // 2) * self.scored
        generation = min(GENERATED_REVIEWS, test) * (self.scored + self.generated)
        pauses = (profile.epochs + _EVALUATIONS_AFTERWARDS) * self.collected
        return profile.epochs * epoch + memory + knowledge + training_accuracy + generation + pauses

    def seconds_of_all(self, runs: Iterable[Run], profile: Profile, train: int, test: int) -> float:
        """How long `runs` take together, one after the other."""
        return sum(self.seconds_of(run, profile, train, test) for run in runs)


def sample(reviews: int, size: int) -> list[int]:
    """`size` positions among `reviews`, at random but always the same; all of them if there are fewer."""
    return np.random.default_rng(0).permutation(reviews)[:size].tolist()


def measure_rates(session: Session) -> Rates:
    """The rates of this machine with the session's profile and recipe, from a few steps of each method."""
    profile, reviews, size = session.profile, session.reviews, session.profile.batch_size

    def some(split: torch.utils.data.Dataset, batches: int) -> Collator:
        return session.collator(split.select(sample(len(split), batches * size)), profile.max_tokens)

    training, test = some(reviews.train, 1 + TIMED_STEPS), some(reviews.test, EVALUATED_BATCHES)

    def evaluate(model: torch.nn.Module, recipe: Recipe) -> None:
        tools = (session.tokenizer, session.accelerator, EVALUATED_BATCHES * size, recipe)
        predict(model, test, *tools, title="timing evaluation")

    def know() -> None:
        session.base_knowledge = pretraining_loss(model, session.masked, session)

    with torch.random.fork_rng():  # so that later random numbers stay the same
        step: dict[str, float] = {}
        for run in (RUNS[name] for name in FROM_SCRATCH):  # full fine-tuning is the first
            try:
                step[run.kind] = _seconds_of_a_step(session, run, training)
            except Exception:
                if not layers_file.in_use():
                    raise
                step[run.kind] = step["full"]  # a student's layer that is not right yet
        collected = _timed(session.accelerator.free_memory)
        model = session.frozen_base().to(session.accelerator.device)
        evaluate(model, session.recipe)
        scored = _timed(lambda: evaluate(model, session.recipe))
        generated = _timed(lambda: evaluate(model, replace(session.recipe, scoring=False)))
        masked = _timed(know)
    there = len(test.inputs)
    held_out = min(KNOWLEDGE_REVIEWS, len(reviews.test))
    return Rates(step, scored / there, generated / there, masked / held_out, collected)


def _seconds_of_a_step(session: Session, run: Run, training: Collator) -> float:
    size = session.profile.batch_size
    model = session.recipe.cast_frozen(apply(method_of(run), session.base()).model)
    trainer = Trainer(
        model,
        accelerator=session.accelerator,
        recipe=session.recipe,
        learning_rate=1e-4,
        batch_size=size,
    )

    def steps(rows: range) -> int:
        return len(trainer.train_batches(training, [list(rows)], f"timing {run.title}"))

    there = len(training.inputs)
    steps(range(min(size, there)))
    taken, seconds = 0, 0.0
    for first in range(size if there > size else 0, there, size):
        started = time.perf_counter()
        taken += steps(range(first, min(first + size, there)))
        seconds += time.perf_counter() - started
        if seconds > TIMED_SECONDS:
            break
    return seconds / taken


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
