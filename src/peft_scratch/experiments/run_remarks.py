"""Remarks on numbers that look like a mistake although they are right, each with its usual cause."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from peft_scratch.assignment import LABEL_WORDS, SST2_PREFIX
from peft_scratch.data.batches import evenly_spaced
from peft_scratch.training.checkpoints import History

if TYPE_CHECKING:
    from peft_scratch.experiments.run import PreparedRun

#: How many test reviews the base is asked about without a prompt: enough to see that one is worse.
ASKED_REVIEWS = 200
# A learning rate this many times above or below the usual one is named as the cause.
_FAR = 3


def remark_on_epoch(epoch: dict[str, Any], labels: Sequence[int], rate: float, usual: float) -> str | None:
    """A sentence if an evaluation predicted every review the same, and `None` otherwise.

    Args:
        epoch: as `Trainer.fit` records it; `malformed` and `mistakes` say what was predicted.
        labels: of the test reviews.
        rate, usual: the run's learning rate, and the one that its profile has for the method.
    """
    if (said := _the_one_prediction(epoch, labels)) is None:
        return None
    return (
        f"remark: after epoch {epoch['epoch']} all {len(labels):,} test reviews are predicted {said}; the "
        f"usual cause is {_cause(rate, usual)}."
    )


def remark_on_prompt(prepared: PreparedRun, history: History) -> str | None:
    """A sentence if a trained soft prompt is worse than none, and `None` otherwise.

    The base predicts some of the run's test reviews without a prompt, once with the prefix of its own
    pre-training and once without. The better result counts. A gap of at most one standard error is allowed.
    """
    session, test = prepared.session, prepared.reviews.test
    rows = evenly_spaced(len(test), ASKED_REVIEWS)
    mistakes = set(history.epochs[history.best]["mistakes"])
    tuned = sum(row not in mistakes for row in rows) / len(rows)

    def asked(prefix: str) -> float:
        collator = session.collator(test.select(rows), prepared.profile.max_tokens, prefix)
        title = "asking the base without a prompt"
        return session.predict(base, collator, prepared.profile.batch_size, title=title).score()["accuracy"]

    with torch.random.fork_rng():  # so that later random numbers stay the same
        base = session.frozen_base().to(session.accelerator.device)
        best, prefix = max((asked(prefix), prefix) for prefix in ("", SST2_PREFIX))
    if best - tuned <= math.sqrt(best * (1 - best) / len(rows)):
        return None
    how = f'with the prefix "{prefix.strip()}"' if prefix else "without a prefix"
    usual = prepared.run.learning_rate_in(prepared.profile)
    return (
        f"remark: the soft prompt is worse than none: of {len(rows)} test reviews it predicts "
        f"{100 * tuned:.1f} % correctly, and the base without a prompt, asked {how}, {100 * best:.1f} %; the "
        f"usual cause is {_cause(prepared.learning_rate, usual)}."
    )


def _the_one_prediction(epoch: dict[str, Any], labels: Sequence[int]) -> str | None:
    """The prediction that all reviews got, in words; `None` if they differ, or if all labels are the same."""
    if len(set(labels)) < 2:
        return None
    if epoch["malformed"] == 1:
        return "as neither label word"
    mistakes = set(epoch["mistakes"])
    said = {1 - label if i in mistakes else label for i, label in enumerate(labels)}
    return LABEL_WORDS[said.pop()] if epoch["malformed"] == 0 and len(said) == 1 else None


def _cause(rate: float, usual: float) -> str:
    if rate > _FAR * usual:
        return f"a learning rate that is too high: it is {rate:g} here, and {usual:g} is usual"
    if rate < usual / _FAR:
        return f"a learning rate that is too low: it is {rate:g} here, and {usual:g} is usual"
    return (
        "too little training: train for more epochs or on more reviews, and if nothing changes, with another "
        f"learning rate than {rate:g}"
    )
