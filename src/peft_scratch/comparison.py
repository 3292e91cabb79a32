"""How far two results are apart, and whether reviews and seeds can tell them apart.

Two runs predict the same test reviews, so only the reviews that exactly one of them gets right count
(McNemar 1947). Several seeds of two runs are compared in pairs too: the same seed, the same reviews.
Accuracies and differences are shares of 1; sentences give them in points, hundredths of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy import stats

from peft_scratch.assignment import PROFILES, RUNS, SEED_SPREAD, points_outside
from peft_scratch.results import Accuracy, Result, RunResult, reviews_of

#: A difference that chance alone makes less often than this is called clear.
SIGNIFICANT = 0.05
#: How often a true difference of the size `SeedDifference.findable` is found with that many seeds.
POWER = 0.8
#: How often an interval contains the true value.
CONFIDENCE = 0.95
_RESAMPLES = 1000

Kind = Literal["none", "chance", "clear"]


@dataclass(frozen=True)
class Difference:
    """Two runs on the same test reviews.

    Attributes:
        gap: accuracy of the first less that of the second.
        error: the standard error of `gap`, from the chance of the reviews alone.
        p: how often chance alone would make a gap at least this large if both were equally good.
        only_first, only_second, both: reviews that only the first, only the second, both get wrong.
    """

    gap: float
    error: float
    p: float
    only_first: int
    only_second: int
    both: int
    reviews: int

    @property
    def kind(self) -> Kind:
        """`none` if the gap rounds to 0.0 points; `clear` if chance alone would rarely make it."""
        return kind_of(self.gap, self.p)


def kind_of(gap: float, p: float) -> Kind:
    """What can be said of a difference of `gap` (a share) that has the probability `p` under chance."""
    if round(100 * gap, 1) == 0:
        return "none"
    return "clear" if p < SIGNIFICANT else "chance"


def error_of(run: RunResult, share: float) -> float | None:
    """The standard error of a run's accuracy `share`; `None` if the number of test reviews is not known."""
    reviews = reviews_of(run, "test")
    return math.sqrt(share * (1 - share) / reviews) if reviews else None


def paired(first: Result, second: Result, reviews: int) -> Difference | None:
    """The difference of two results on the same `reviews` test reviews, by McNemar's exact test (1947).

    Let b and c be the numbers of the n reviews that only the first or only the second gets right. The gap
    (b - c) / n has the standard error sqrt(b + c - (b - c)^2 / n) / n.

    Returns:
        The difference; `None` if a result, as of an older kit, does not list its mistakes.
    """
    if not all(_lists_its_mistakes(result, reviews) for result in (first, second)):
        return None
    wrong_first, wrong_second = set(first.mistakes), set(second.mistakes)
    b, c = len(wrong_second - wrong_first), len(wrong_first - wrong_second)
    return Difference(
        gap=(b - c) / reviews,
        error=math.sqrt(b + c - (b - c) ** 2 / reviews) / reviews,
        p=float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0,
        only_first=c,
        only_second=b,
        both=len(wrong_first & wrong_second),
        reviews=reviews,
    )


def _lists_its_mistakes(result: Result | OneSeed, reviews: int) -> bool:
    return abs(len(result.mistakes) / reviews - (1 - result.accuracy.best)) < 0.5 / reviews


#: In English, for notebooks and the report alike. `gap` has a sign, `p` its own `=` or `<`.
SENTENCES = {
    "none": "There is no difference.",
    "chance": "The difference is {gap} points (standard error {error}, p {p}): chance alone can explain it.",
    "clear": (
        "The difference is {gap} points (standard error {error}, p {p}): chance alone can hardly explain it."
    ),
}


def sentence(difference: Difference) -> str:
    """The difference in one English sentence.

    >>> sentence(Difference(0.0, 0.0, 1.0, 0, 0, 12, 1000))
    'There is no difference.'
    """
    return SENTENCES[difference.kind].format(
        gap=f"{100 * difference.gap:+.1f}",
        error=two_figures(100 * difference.error),
        p=two_figures(difference.p) if difference.p < 0.001 else f"= {two_figures(difference.p)}",
    )


def two_figures(value: float) -> str:
    """A small positive number with two significant digits, without an exponent.

    >>> two_figures(1.234), two_figures(0.0567), two_figures(0.00001)
    ('1.2', '0.057', '< 0.001')
    """
    if 0 < value < 0.001:
        return "< 0.001"
    digits = 1 if value >= 1 or value == 0 else 1 - math.floor(math.log10(value))
    return f"{value:.{digits}f}"


# Several seeds


class OneSeed(Protocol):
    """What a comparison of seeds needs of a run: `RunResult` and `seeds.SeedResult` both have it."""

    accuracy: Accuracy
    mistakes: list[int]

    @property
    def seed(self) -> int | None: ...


@dataclass(frozen=True)
class SeedSummary:
    """The accuracy of one run over its seeds.

    Attributes:
        low, high: the interval of the mean, from resampled seeds and test reviews.
    """

    seeds: int
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class SeedDifference:
    """Two runs over the seeds that both have.

    Attributes:
        gap: mean difference.
        low, high: its interval, from resampled seeds and test reviews.
        p: of the permutation test on the seeds' differences; after `holm`, corrected.
        findable: the difference that this many seeds call clear in `POWER` of all cases.
    """

    seeds: int
    gap: float
    low: float
    high: float
    p: float
    findable: float

    @property
    def kind(self) -> Kind:
        """As `Difference.kind`, but a gap whose interval contains 0 is not clear."""
        kind = kind_of(self.gap, self.p)
        return "chance" if kind == "clear" and self.low <= 0 <= self.high else kind


def over_seeds(runs: Sequence[OneSeed], reviews: int) -> SeedSummary:
    """Mean, standard deviation and interval of two seeds or more of one run.

    Args:
        runs: one result for each seed.
        reviews: how many test reviews there are.
    """
    shares = np.array([run.accuracy.best for run in runs])
    low, high = _interval(_right(runs, reviews))
    return SeedSummary(len(runs), float(shares.mean()), float(shares.std(ddof=1)), low, high)


def paired_over_seeds(
    first: Sequence[OneSeed],
    second: Sequence[OneSeed],
    reviews: int,
    comparisons: int = 1,
) -> SeedDifference | None:
    """The difference of two runs over the seeds that both have; `None` for fewer than two.

    The p-value is that of SciPy's permutation test, which exchanges the two runs of a seed: with n seeds
    it cannot fall below 2 / 2^n.

    Args:
        comparisons: how many are made at once. The more there are, the larger is `findable`.
    """
    ours, theirs = _common(first, second)
    if len(ours) < 2:
        return None
    shares = [np.array([run.accuracy.best for run in runs]) for runs in (ours, theirs)]
    gaps = shares[0] - shares[1]
    low, high = _interval(_right(ours, reviews) - _right(theirs, reviews))
    count = len(ours)
    if np.any(gaps):
        test = stats.permutation_test(
            shares, lambda a, b: float(np.mean(a - b)), permutation_type="samples",
            vectorized=False, n_resamples=10_000, rng=0,
        )  # fmt: skip
        p = float(test.pvalue)
    else:
        p = 1.0
    reach = sum(stats.t.ppf(share, count - 1) for share in (1 - SIGNIFICANT / comparisons / 2, POWER))
    by_seeds = float(reach * gaps.std(ddof=1) / math.sqrt(count))
    # A clear difference also needs an interval without 0, which depends on the reviews too.
    ends = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    by_interval = (high - low) / 2 / ends * (ends + float(stats.norm.ppf(POWER)))
    return SeedDifference(count, float(gaps.mean()), low, high, p, max(by_seeds, by_interval))


def gap_with_interval(
    first: Sequence[OneSeed], second: Sequence[OneSeed], reviews: int, confidence: float = CONFIDENCE
) -> tuple[float, float, float] | None:
    """The mean difference over the seeds that both have, and the ends of its interval; `None` without any.

    With one seed, only the reviews are resampled.
    """
    ours, theirs = _common(first, second)
    if not ours:
        return None
    differences = _right(ours, reviews) - _right(theirs, reviews)
    return float(differences.mean()), *_interval(differences, confidence)


def _common(first: Sequence[OneSeed], second: Sequence[OneSeed]) -> tuple[list[OneSeed], list[OneSeed]]:
    """The results of the seeds that both have, in the same order."""
    by_seed = [{run.seed: run for run in runs} for runs in (first, second)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys(), key=str)
    ours, theirs = ([of[seed] for seed in seeds] for of in by_seed)
    return ours, theirs


def _right(runs: Sequence[OneSeed], reviews: int) -> np.ndarray:
    """(seeds, reviews): 1 where a review is predicted right; without a list of mistakes, the accuracy."""
    rows = []
    for run in runs:
        row = np.ones(reviews)
        if _lists_its_mistakes(run, reviews):
            row[run.mistakes] = 0
        else:
            row[:] = run.accuracy.best
        rows.append(row)
    return np.stack(rows)


def _interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of the mean of (seeds, reviews); seeds and reviews are resampled apart."""
    if not np.ptp(values):
        return float(values.flat[0]), float(values.flat[0])
    # An axis of length 1 cannot be resampled.
    axes = [np.arange(length) for length in values.shape if length > 1]
    squeezed = values.squeeze()
    found = stats.bootstrap(
        axes, lambda *chosen: float(squeezed[np.ix_(*chosen)].mean()), vectorized=False,
        method="percentile", n_resamples=_RESAMPLES,
        confidence_level=confidence, rng=0,
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def holm(ps: Sequence[float]) -> list[float]:
    """`ps` corrected for their number (Holm 1979), so that even one false difference stays unlikely."""
    corrected, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = least
    return corrected


def seeds_needed(comparisons: int) -> int:
    """The fewest seeds with which the permutation test can find a difference among so many comparisons."""
    return math.ceil(math.log2(2 * comparisons / SIGNIFICANT))


# The published numbers

Cause = Literal["seed", "malformed", "rate", "epochs", "cut", "base", "unknown"]

#: What usually puts a number outside the published range.
CAUSES = {
    "seed": "another seed alone can do this",
    "malformed": "many outputs are neither label word, and those count as wrong",
    "rate": "the learning rate is not the assignment's",
    "epochs": "the number of epochs is not the assignment's",
    "cut": "not all reviews were used",
    "base": "the base model is not the assignment's",
    "unknown": "usual causes are another base model, other reviews, or other constants than the assignment's",
}


@dataclass(frozen=True)
class Outside:
    """A number outside its published range: by how many points, with sign, and what usually causes it."""

    points: float
    cause: Cause


def outside_published(run: RunResult) -> Outside | None:
    """How far a run of the assignment lies outside its published range, and the cause that its record shows.

    Returns:
        `None` for a number inside.
    """
    points = points_outside(run.id, run.percent)
    if not points:
        return None
    low, _ = RUNS[run.id].published
    return Outside(points if run.percent > low else -points, _cause(run, points))


def _cause(run: RunResult, points: float) -> Cause:
    wanted = next(profile for profile in PROFILES.values() if profile.is_assignment)
    if run.base_model.name != wanted.base:
        return "base"
    if run.config.learning_rate != RUNS[run.id].learning_rate:
        return "rate"
    if run.config.epochs != wanted.epochs:
        return "epochs"
    if run.config.train_reviews or run.config.test_reviews:
        return "cut"
    if run.malformed > points / 100:
        return "malformed"
    return "seed" if points <= SEED_SPREAD else "unknown"
