"""Differences: the same reviews, several seeds, published ranges; and what is said of them."""

import json
import math
import random
import subprocess
import sys

import pytest
from report_documents import as_result, documents

from peft_scratch import comparison
from peft_scratch.comparison import (
    Difference,
    gap_with_interval,
    holm,
    outside_published,
    over_seeds,
    paired,
    paired_over_seeds,
    seeds_needed,
    sentence,
    two_figures,
)
from peft_scratch.results import RunResult

N = 1000


def _run(name: str = "lora_scratch_r8", mistakes: range | list[int] = range(180), **changes) -> RunResult:
    run = as_result(documents().results[name]).model_copy(deep=True)
    run.mistakes = list(mistakes)
    run.accuracy.best = 1 - len(run.mistakes) / N
    for key, value in changes.items():
        setattr(run.config, key, value)
    return run


# The same reviews


def test_equal_runs_do_not_differ():
    difference = paired(_run(), _run(), N)
    assert (difference.gap, difference.error, difference.p, difference.kind) == (0, 0, 1, "none")
    assert sentence(difference) == "There is no difference."


def test_as_many_other_mistakes_are_no_difference_either():
    difference = paired(_run(mistakes=range(100)), _run(mistakes=range(100, 200)), N)
    assert difference.gap == 0 and difference.error == pytest.approx(math.sqrt(200) / N)
    assert "no difference" in sentence(difference)


def test_mcnemars_exact_test_by_hand():
    # The first misses reviews 0 and 1 alone, the second 10 to 17 alone: b = 8, c = 2.
    difference = paired(_run(mistakes=[0, 1, 99]), _run(mistakes=[*range(10, 18), 99]), N)
    assert (difference.only_first, difference.only_second, difference.both) == (2, 8, 1)
    assert difference.gap == pytest.approx(0.006)
    by_hand = 2 * sum(math.comb(10, k) for k in range(3)) / 2**10
    assert difference.p == pytest.approx(by_hand)
    assert difference.error == pytest.approx(math.sqrt(10 - 36 / N) / N)
    assert sentence(difference) == (
        "The difference is +0.6 points (standard error 0.32, p = 0.11): chance alone can explain it."
    )


def test_a_large_difference_is_more_than_chance():
    difference = paired(_run(mistakes=range(300)), _run(mistakes=range(100)), N)
    assert difference.kind == "clear"
    assert sentence(difference).startswith("The difference is -20.0 points")
    assert sentence(difference).endswith("p < 0.001): chance alone can hardly explain it.")


def test_results_without_their_mistakes_are_not_compared():
    older = _run()
    older.mistakes = []
    assert paired(older, _run(), N) is None


def test_no_sentence_calls_nothing_a_gap():
    """Whatever the numbers: 0.0 points are no difference, and no number is given with an error of 0."""
    rng = random.Random(0)
    for _ in range(300):
        wrong = [rng.sample(range(N), rng.randint(0, 40)) for _ in range(2)]
        difference = paired(_run(mistakes=wrong[0]), _run(mistakes=wrong[1]), N)
        said = sentence(difference)
        assert ("no difference" in said) == (round(100 * difference.gap, 1) == 0)
        assert "+0.0" not in said and "-0.0" not in said and "error 0.0)" not in said


def test_two_figures_count():
    assert [two_figures(value) for value in (12.34, 1.0, 0.5, 0.0999, 0.02, 0.0, 0.0009)] == [
        *("12.3", "1.0", "0.50", "0.100", "0.020", "0.0", "< 0.001")
    ]


# Several seeds


def _seeds(name: str, rates: list[float]) -> list[RunResult]:
    runs = []
    for seed, rate in enumerate(rates):
        rng = random.Random(f"{name} {seed}")
        runs.append(_run(name, [i for i in range(N) if rng.random() < rate], seed=seed))
    return runs


def test_the_interval_of_one_run_holds_its_mean_and_is_as_wide_as_reviews_and_seeds_make_it():
    runs = _seeds("lora_scratch_r8", [0.18] * 6)
    of = over_seeds(runs, N)
    assert of.seeds == 6
    assert of.mean == pytest.approx(sum(run.accuracy.best for run in runs) / 6)
    assert of.low < of.mean < of.high
    # Reviews: the mistakes are independent here, so 6000 of them; the seeds are resampled besides.
    error = math.sqrt(0.18 * 0.82 / (6 * N))
    assert 2.5 * error < of.high - of.low < 9 * error


def test_a_true_difference_is_found_and_none_is_not():
    near = paired_over_seeds(_seeds("lora_scratch_r8", [0.18] * 8), _seeds("lora_peft_r8", [0.18] * 8), N)
    assert near.kind != "clear" and near.low < 0 < near.high
    far = paired_over_seeds(_seeds("lora_scratch_r8", [0.10] * 8), _seeds("lora_peft_r8", [0.18] * 8), N)
    assert far.kind == "clear" and far.low > 0.05 and far.p == pytest.approx(2 / 2**8)
    assert far.findable < far.gap


def test_only_common_seeds_are_compared():
    ours, theirs = _seeds("lora_scratch_r8", [0.1] * 3), _seeds("lora_peft_r8", [0.2] * 5)
    assert paired_over_seeds(ours, theirs, N).seeds == 3
    assert paired_over_seeds(ours[:1], theirs, N) is None


def test_equal_seeds_do_not_differ():
    runs = _seeds("lora_scratch_r8", [0.1, 0.2, 0.15])
    of = paired_over_seeds(runs, runs, N)
    assert (of.gap, of.low, of.high, of.p, of.findable, of.kind) == (0, 0, 0, 1, 0, "none")


def test_what_can_be_found_is_no_smaller_than_the_reviews_allow():
    # Every seed has the same gap of ten reviews: the seeds alone would find any difference at all.
    ours = [_run("lora_scratch_r8", range(seed, seed + 100), seed=seed) for seed in range(8)]
    theirs = [_run("lora_peft_r8", range(seed, seed + 110), seed=seed) for seed in range(8)]
    of = paired_over_seeds(ours, theirs, N)
    assert of.findable == pytest.approx((of.high - of.low) / 2 * (1.96 + 0.8416) / 1.96, rel=1e-3)
    assert of.findable > 0.004


def test_more_seeds_find_smaller_differences():
    few, many = (
        paired_over_seeds(_seeds("lora_scratch_r8", [0.18] * n), _seeds("lora_peft_r8", [0.18] * n), N)
        for n in (4, 16)
    )
    assert many.findable < few.findable


def test_one_seed_has_an_interval_too_from_the_reviews_alone():
    ours, theirs = _seeds("lora_scratch_r8", [0.1] * 3), _seeds("lora_peft_r8", [0.2] * 3)
    gap, low, high = gap_with_interval(ours[:1], theirs[:1], N)
    assert gap == pytest.approx(ours[0].accuracy.best - theirs[0].accuracy.best)
    error = paired(ours[0], theirs[0], N).error
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    wider = gap_with_interval(ours[:1], theirs[:1], N, confidence=0.99)
    assert wider[1] < low and wider[2] > high
    several = paired_over_seeds(ours, theirs, N)
    assert gap_with_interval(ours, theirs, N) == pytest.approx((several.gap, several.low, several.high))
    assert gap_with_interval(ours[:1], theirs[1:], N) is None, "no seed in common"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_seeds_that_are_needed_are_enough_and_one_less_is_not():
    for comparisons in (1, 3, 6):
        seeds = seeds_needed(comparisons)
        assert comparisons * 2 / 2**seeds <= comparison.SIGNIFICANT < comparisons * 2 / 2 ** (seeds - 1)


# The published ranges


def _course(best: float, **changes) -> RunResult:
    run = _run(learning_rate=1e-4, epochs=10, train_reviews=None, test_reviews=None)
    run.accuracy.best, run.malformed, run.base_model.name = best, 0.0, "google-t5/t5-small"
    for key, value in changes.items():
        holder = next(of for of in (run.config, run.base_model, run) if key in type(of).model_fields)
        setattr(holder, key, value)
    return run


@pytest.mark.parametrize(
    ("best", "changes", "points", "cause"),
    [
        (0.897, {}, 0.2, "seed"),
        (0.930, {}, 3.5, "unknown"),
        (0.850, {}, -4.1, "unknown"),
        (0.850, {"malformed": 0.05}, -4.1, "malformed"),
        (0.850, {"learning_rate": 1e-5}, -4.1, "rate"),
        (0.850, {"epochs": 2}, -4.1, "epochs"),
        (0.850, {"train_reviews": 2000}, -4.1, "cut"),
        (0.930, {"name": "google-t5/t5-base"}, 3.5, "base"),
    ],
)
def test_a_number_outside_its_range_has_a_usual_cause(best, changes, points, cause):
    outside = outside_published(_course(best, **changes))
    assert outside.points == pytest.approx(points)
    assert outside.cause == cause


@pytest.mark.parametrize("best", [0.891, 0.893, 0.895])
def test_a_number_inside_its_range_has_none(best):
    assert outside_published(_course(best)) is None


def test_neither_comparison_nor_report_imports_torch():
    code = (
        "import sys, json, peft_scratch.comparison, peft_scratch.reporting.report;"
        "import peft_scratch.reporting.tables;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(json.loads(done.stdout))


def test_the_kinds_have_sentences():
    assert {
        Difference(gap, 0.01, p, 0, 0, 0, N).kind for gap, p in ((0.0, 1.0), (0.1, 0.5), (0.1, 0.01))
    } == comparison.SENTENCES.keys()
