"""Copies among the submissions of a class: weights, notebooks, reports; between all pairs.

Two honest students start from other random numbers: the cosine of their weights is about 0 (LoRA, adapter)
or 0.3 (prompts, which start alike), that of their products A·B about 0.4. A copy with a little noise, or
rescaled, has 1. Products also see through a permutation of LoRA's rank directions or the adapter's units, and
through any other change of A and B that leaves the model as it is.

A class of honest students shares the course's template, so equal code proves nothing, and is not looked at
alone. What honest students never share are the digits that their own training printed.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from peft_scratch.assignment import RUNS
from peft_scratch.submission import pdf
from peft_scratch.submission.archive import Gathered
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.numerals import western

#: From this cosine on, two weight files are one. Honest pairs stay below 0.5.
NEARLY_EQUAL = 0.9
#: Random directions on each side of a product A·B, and entries of the weights that are compared.
_PROBES, _SAMPLE = 12, 4096
#: Long numbers that a training printed: how many make a notebook comparable; the share that copies share.
_FEWEST_DIGITS, _SHARED_DIGITS = 10, 0.8
_FEWEST_WORDS, _SHARED_WORDS, _FEWEST_DECIMALS = 40, 0.9, 6
#: A number with four digits or more behind the point: a loss or an accuracy, not a constant.
_LONG_NUMBER = re.compile(r"(?<![\d.])\d{1,3}\.\d{4,}(?!\d)")


@dataclass
class Traces:
    """What copies are found by. Small, since those of a whole class are kept together.

    Attributes:
        weights: by run, a hash of the entries, a sample, and a sketch of what copies keep.
        digits: by notebook, hashes of the long numbers that the training printed.
        words: hashes of the words of the report, five in a row, without names and digits.
        decimals: the decimal numbers of the report in their order.
    """

    weights: dict[str, tuple[str, np.ndarray, np.ndarray]] = field(default_factory=dict)
    digits: dict[int, frozenset[int]] = field(default_factory=dict)
    words: frozenset[int] = frozenset()
    decimals: str = ""


@dataclass(frozen=True)
class Pair:
    """Two submissions that share what honest ones do not.

    Attributes:
        first, second: their places in the list that was compared.
        item: the part of the submission: 2 to 5, or 6 for the report.
        text: what they share.
    """

    first: int
    second: int
    item: int
    text: str


def traces_of(
    gathered: Gathered,
    notebooks: Mapping[int, Notebook],
    weights: Mapping[str, Mapping[str, np.ndarray]],
    student: tuple[str, str],
) -> Traces:
    """What is kept of a submission, to compare it with the others."""
    traces = Traces()
    for run, entries in weights.items():
        names = sorted(entries)
        vector = np.concatenate([entries[name].ravel() for name in names])
        digest = hashlib.sha256(vector.tobytes()).hexdigest()
        traces.weights[run] = digest, _unit(_sampled(vector)), _invariant(run, entries)
    for number, notebook in notebooks.items():
        printed = [o.text for cell in notebook.code for o in cell.outputs]
        printed += [part for cell in notebook.code for o in cell.outputs for row in o.rows for part in row]
        found = {number for text in printed for number in _LONG_NUMBER.findall(text[:100_000])}
        traces.digits[number] = frozenset(map(_hash, found))
    reports = gathered.of(".pdf")
    if reports:
        try:
            text = pdf.read(reports[0].data).plain
        except (pdf.Damaged, pdf.Locked):
            return traces
        own = {part for part in (*student, *student[1].split()) if len(part) > 1}
        words = [
            w
            for w in re.findall(r"[^\W\d_]{2,}", unicodedata.normalize("NFKC", text).casefold())
            if w not in own
        ]
        traces.words = frozenset(_hash(" ".join(words[n : n + 5])) for n in range(max(len(words) - 4, 0)))
        traces.decimals = " ".join(re.findall(r"\d{1,3}[.,]\d{1,6}", western(text)))
    return traces


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _sampled(vector: np.ndarray) -> np.ndarray:
    return vector[_places(len(vector))] if len(vector) > _SAMPLE else vector


@functools.cache
def _places(length: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).choice(length, _SAMPLE, replace=False))


@functools.cache
def _probes(width: int, side: int) -> np.ndarray:
    return np.random.default_rng(side).standard_normal((width, _PROBES)).astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = vector.astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def _invariant(run: str, entries: Mapping[str, np.ndarray]) -> np.ndarray:
    """What does not change when the parts of a method are rearranged without changing the model.

    LoRA: A·B of every place, seen through random directions on both sides, each place of length one. Adapter:
    the same of its two projections. Prompt: its rows in the order of their lengths.
    """
    kind = RUNS[run].kind
    if kind == "soft_prompt":
        rows = next(iter(entries.values()))
        return _unit(rows[np.argsort(np.linalg.norm(rows, axis=1))].ravel())
    products = []
    if kind == "lora":
        for name in sorted(name for name in entries if name.endswith("_A")):
            down, up = entries[name], entries[f"{name[:-1]}B"]  # (d, r), (r, d)
            products.append((_probes(len(down), 1).T @ down) @ (up @ _probes(up.shape[1], 2)))
    else:
        for name in sorted(name for name in entries if name.endswith(".0.weight")):
            down, up = entries[name], entries[name.replace(".0.weight", ".2.weight")]  # (b, d), (d, b)
            products.append((_probes(len(up), 1).T @ up) @ (down @ _probes(down.shape[1], 2)))
    return _unit(np.concatenate([_unit(product.ravel()) for product in products]))


# All pairs


def find(many: list[Traces | None]) -> list[Pair]:
    """The pairs of a class that share what honest submissions do not."""
    return [*_equal_weights(many), *_equal_notebooks(many), *_equal_reports(many)]


def _equal_weights(many: list[Traces | None]) -> list[Pair]:
    pairs = []
    for run in RUNS.values():
        places = [n for n, traces in enumerate(many) if traces is not None and run.id in traces.weights]
        if len(places) < 2:
            continue
        kept = [many[n].weights[run.id] for n in places]  # type: ignore[union-attr]
        raw = np.stack([sample for _, sample, _ in kept])
        products = np.stack([sketch for _, _, sketch in kept])
        cosines, of_products = np.abs(raw @ raw.T), np.abs(products @ products.T)
        for i, j in zip(
            *np.nonzero(np.triu(np.maximum(cosines, of_products) > NEARLY_EQUAL, 1)), strict=True
        ):
            if kept[i][0] == kept[j][0]:
                text = f"{run.weight_file}: the same numbers"
            elif cosines[i, j] > NEARLY_EQUAL:
                text = f"{run.weight_file}: nearly the same numbers (cosine {cosines[i, j]:.3f})"
            else:
                text = f"{run.weight_file}: the same update in another form (cosine {of_products[i, j]:.3f})"
            pairs.append(Pair(places[i], places[j], run.notebook, text))
    return pairs


def _equal_notebooks(many: list[Traces | None]) -> list[Pair]:
    """Notebooks whose training printed the same digits: an index of digits finds the pairs."""
    pairs = []
    for number in range(1, 6):
        holders: dict[int, list[int]] = {}
        sizes = {}
        for n, traces in enumerate(many):
            digits = traces.digits.get(number, frozenset()) if traces is not None else frozenset()
            if len(digits) >= _FEWEST_DIGITS:
                sizes[n] = len(digits)
                for digit in digits:
                    holders.setdefault(digit, []).append(n)
        pairs += [
            Pair(
                i,
                j,
                number,
                f"notebook {number}: {shared} of {min(sizes[i], sizes[j])} long numbers printed are the same",
            )
            for (i, j), shared in _shared(holders, len(many)).items()
            if shared >= _SHARED_DIGITS * min(sizes[i], sizes[j])
        ]
    return pairs


def _shared(holders: Mapping[int, list[int]], students: int) -> dict[tuple[int, int], int]:
    """How many things each pair shares, without what a tenth of a class shares: that is the template's."""
    most = max(students // 10, 4)
    shared: dict[tuple[int, int], int] = {}
    for places in holders.values():
        if 2 <= len(places) <= most:
            for a, i in enumerate(places):
                for j in places[a + 1 :]:
                    shared[i, j] = shared.get((i, j), 0) + 1
    return shared


def _equal_reports(many: list[Traces | None]) -> list[Pair]:
    """Reports with the same numbers in the same order and nearly the same words."""
    groups: dict[str, list[int]] = {}
    for n, traces in enumerate(many):
        if traces is not None and len(traces.decimals.split()) >= _FEWEST_DECIMALS:
            groups.setdefault(traces.decimals, []).append(n)
    pairs = []
    for places in groups.values():
        for a, i in enumerate(places):
            for j in places[a + 1 :]:
                one, other = many[i].words, many[j].words  # type: ignore[union-attr]
                together = len(one | other)
                if together >= _FEWEST_WORDS and len(one & other) >= _SHARED_WORDS * together:
                    pairs.append(Pair(i, j, 6, "the reports have the same numbers and the same words"))
    return pairs
