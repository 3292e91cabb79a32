"""Copies among a class: each planted one is found, and no honest pair is accused."""

from __future__ import annotations

import time

import numpy as np
import pytest

from peft_scratch.assignment import RUNS
from peft_scratch.submission import copies
from peft_scratch.submission.archive import File, Gathered
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.cells import read_cells
from peft_scratch.submission.sizes import sizes_of
from submission import course
from submission.parts import pdf

FROM_SCRATCH = [run.id for run in RUNS.values() if run.weight_file]


def weights(seed: int, profile: str = "course") -> dict[str, dict[str, np.ndarray]]:
    """Of an honest student: prompts start alike, as the measured cosine of 0.28 says; the rest does not."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(0)
    made = {}
    for run in FROM_SCRATCH:
        entries = {}
        for name, shape in sizes_of(run, profile).entries.items():
            start = shared.standard_normal(shape) * 0.6 if run.startswith("prompt") else 0
            entries[name] = (start + rng.standard_normal(shape)).astype(np.float32)
        made[run] = entries
    return made


def traces(
    made: dict, books: dict[int, bytes] | None = None, report: bytes | None = None, name: str = ""
) -> copies.Traces:
    found = {n: Notebook(n, File("x", "x", data), read_cells(data)) for n, data in (books or {}).items()}
    gathered = Gathered("x", files=[File("r.pdf", "r.pdf", report)] if report else [])
    return copies.traces_of(gathered, found, made, ("400123456", name))


def noisy(made: dict) -> dict:
    rng = np.random.default_rng(9)
    return {
        run: {
            name: e * (1 + 0.001 * rng.standard_normal(e.shape).astype(np.float32))
            for name, e in entries.items()
        }
        for run, entries in made.items()
    }


def rescaled(made: dict) -> dict:
    """A times 2 and B by 2: the model is the same."""
    return {
        run: {
            name: e
            * (
                2
                if name.endswith(("_A", ".0.weight", ".0.bias"))
                else 0.5
                if name.endswith(("_B", ".2.weight"))
                else 1
            )
            for name, e in entries.items()
        }
        for run, entries in made.items()
    }


def permuted(made: dict) -> dict:
    """The rank directions, units or rows in another order."""
    order = np.random.default_rng(3).permutation(8)
    changed = {}
    for run, entries in made.items():
        changed[run] = {
            name: e[:, order]
            if name.endswith(("_A", ".2.weight"))
            else e[order]
            if name.endswith(("_B", ".0.weight", ".0.bias"))
            else e[::-1].copy()
            if run.startswith("prompt")
            else e
            for name, e in entries.items()
        }
    return changed


@pytest.fixture(scope="module")
def honest() -> list[copies.Traces]:
    return [traces(weights(seed)) for seed in range(1, 25)]


def test_no_honest_pair_is_accused(honest):
    assert copies.find(honest) == []


@pytest.mark.parametrize(
    "change", [lambda made: made, noisy, rescaled, permuted], ids=["equal", "noisy", "rescaled", "permuted"]
)
def test_a_planted_copy_of_weights_is_found(change, honest):
    pairs = copies.find([*honest, traces(change(weights(7)))])
    assert {(pair.first, pair.second, pair.item) for pair in pairs} == {(6, 24, 2), (6, 24, 3), (6, 24, 5)}


def test_rehearsals_on_a_smaller_base_are_compared_with_each_other(honest):
    rehearsals = [traces(weights(seed, "offline")) for seed in (1, 2, 1)]
    pairs = copies.find([*honest, *rehearsals, None])
    assert {(pair.first, pair.second, pair.item) for pair in pairs} == {(24, 26, 2), (24, 26, 3), (24, 26, 5)}


def test_a_class_of_300_takes_less_than_a_minute(honest):
    rng = np.random.default_rng(0)
    many = []
    for n in range(300):
        kept = {
            run: (
                f"{run}{n}",
                copies._unit(rng.standard_normal(len(raw))),
                copies._unit(rng.standard_normal(len(sketch))),
            )
            for run, (_, raw, sketch) in honest[0].weights.items()
        }
        digits = {k: frozenset(rng.integers(0, 2**60, 400).tolist()) for k in range(1, 6)}
        many.append(
            copies.Traces(
                kept, digits, frozenset(rng.integers(0, 2**60, 2000).tolist()), f"{n}.1 2.3 4.5 6.7 8.9 1.2"
            )
        )
    start = time.process_time()
    assert copies.find(many) == []
    assert time.process_time() - start < 20


def test_notebooks_of_one_template_are_not_accused_and_equal_ones_are():
    def books(seed: int) -> dict[int, bytes]:
        return {n: course.notebook(n, seed=seed) for n in (1, 5)}

    renamed = {n: data.replace(b"model", b"my_net") for n, data in books(3).items()}
    pairs = copies.find([traces({}, books(seed)) for seed in range(8)] + [traces({}, renamed)])
    assert {(pair.first, pair.second, pair.item) for pair in pairs} == {(3, 8, 1), (3, 8, 5)}


def test_reports_equal_but_for_names_are_found_and_a_shared_template_is_not():
    words = [f"word{chr(97 + n % 26)} about{chr(97 + n // 26)} the method" for n in range(60)]

    def made(name: str, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        return pdf(
            [f"Report of {name}", *words, *(f"accuracy {value:.1f}" for value in rng.uniform(60, 90, 10))]
        )

    names = ["ada", "bea", "cyd", "dan", "eve"]
    many = [traces({}, report=made(name, seed), name=name) for seed, name in enumerate(names)]
    many.append(traces({}, report=made("mallory", 2), name="mallory"))
    assert {(pair.first, pair.second, pair.item) for pair in copies.find(many)} == {(2, 5, 6)}
