"""Copies among the submissions of a class: weights, notebooks and reports, compared between all pairs.

The weights of two honest students have a cosine of about 0 (LoRA, adapter) or 0.3 (prompts, which start from
the same rows), and their products A·B one of about 0.4. A copy has 1, even if it was rescaled or has a little
noise. The product A·B stays the same if LoRA's rank directions or the adapter's units are permuted, or if A
and B are changed in any other way that leaves the model as it is.

All students of a class complete the same template, so equal code proves nothing and is not compared. Honest
students never share the digits that their own training printed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from peft_scratch.assignment import REPORT, RUNS
from peft_scratch.submission import pdf
from peft_scratch.submission.archive import Gathered
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.numerals import western

#: Above this cosine, two weight files are copies. Honest pairs stay below 0.5.
NEARLY_EQUAL = 0.9
#: Random directions on each side of a product A·B, and entries of the weights that are compared.
_PROBES, _SAMPLE = 12, 4096
#: Long numbers that a training printed: how many a comparison needs, and the share that copies have alike.
_FEWEST_DIGITS, _SHARED_DIGITS = 10, 0.8
_FEWEST_WORDS, _SHARED_WORDS, _FEWEST_DECIMALS = 40, 0.9, 6
#: A number with four digits or more after the point: a loss or an accuracy, not a constant.
_LONG_NUMBER = re.compile(r"(?<![\d.])\d{1,3}\.\d{4,}(?!\d)")


@dataclass
class Traces:
    """What is kept of a submission to find copies. It is small, because a whole class is kept in memory.

    Attributes:
        weights: by run, a hash of the entries, a sample of them, and what rearranging does not change.
        digits: by notebook, hashes of the long numbers that the training printed.
        words: hashes of every five words in a row in the report, without the student's name and digits.
        decimals: the decimal numbers of the report in their order.
    """

    weights: dict[str, tuple[str, np.ndarray, np.ndarray]] = field(default_factory=dict)
    digits: dict[int, frozenset[int]] = field(default_factory=dict)
    words: frozenset[int] = frozenset()
    decimals: str = ""


@dataclass(frozen=True)
class Pair:
    """Two submissions that share something that honest ones do not share.

    Attributes:
        first, second: their indexes in the list that was compared.
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
        outputs = [output for cell in notebook.code for output in cell.outputs]
        printed = [output.text for output in outputs]
        printed += [part for output in outputs for row in output.rows for part in row]
        found = {number for text in printed for number in _LONG_NUMBER.findall(text[:100_000])}
        traces.digits[number] = frozenset(map(_hash, found))
    for report in gathered.of(".pdf")[:1]:
        with contextlib.suppress(pdf.Damaged, pdf.Locked):
            text = pdf.read(report.data).plain
            words = re.findall(r"[^\W\d_]{2,}", unicodedata.normalize("NFKC", text).casefold())
            own = {*student, *student[1].split()}
            words = [word for word in words if word not in own]
            traces.words = frozenset(_hash(" ".join(words[n : n + 5])) for n in range(len(words) - 4))
            traces.decimals = " ".join(re.findall(r"\d{1,3}[.,]\d{1,6}", western(text)))
    return traces


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _sampled(vector: np.ndarray) -> np.ndarray:
    """Numbers at random positions, which are the same for all vectors of a length."""
    if len(vector) <= _SAMPLE:
        return vector
    return vector[np.sort(np.random.default_rng(0).choice(len(vector), _SAMPLE, replace=False))]


@functools.cache
def _probes(width: int, side: int) -> np.ndarray:
    return np.random.default_rng(side).standard_normal((width, _PROBES)).astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = vector.astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def _invariant(run: str, entries: Mapping[str, np.ndarray]) -> np.ndarray:
    """What does not change when the parts of a method are rearranged without changing the model.

    LoRA: A·B of every place, multiplied by random directions on both sides and scaled to length one. Adapter:
    the same with its two projections. Prompt: its rows in the order of their lengths.
    """
    kind = RUNS[run].kind
    if kind == "soft_prompt":
        rows = next(iter(entries.values()))
        return _unit(rows[np.argsort(np.linalg.norm(rows, axis=1))].ravel())
    # The product is left·right: (d, r) and (r, d) of LoRA, (d, b) and (b, d) of the adapter.
    left, right = ("_A", "_B") if kind == "lora" else (".2.weight", ".0.weight")
    products = []
    for name in sorted(name for name in entries if name.endswith(left)):
        a, b = entries[name], entries[name.removesuffix(left) + right]
        products.append(_unit(((_probes(len(a), 1).T @ a) @ (b @ _probes(b.shape[1], 2))).ravel()))
    return _unit(np.concatenate(products))


# All pairs


def find(many: list[Traces | None]) -> list[Pair]:
    """The pairs of a class that share what honest submissions do not; `None` is in no pair."""
    known = [traces or Traces() for traces in many]
    return [*_equal_weights(known), *_equal_notebooks(known), *_equal_reports(known)]


def _equal_weights(many: list[Traces]) -> Iterator[Pair]:
    for run in RUNS.values():
        # Only weights of one size are compared: a rehearsal on a smaller base has fewer numbers.
        by_size: dict[tuple[int, int], list[int]] = {}
        for n, traces in enumerate(many):
            if run.id in traces.weights:
                _, sample, sketch = traces.weights[run.id]
                by_size.setdefault((len(sample), len(sketch)), []).append(n)
        for places in by_size.values():
            digests, samples, sketches = zip(*(many[n].weights[run.id] for n in places), strict=True)
            raw, products = np.stack(samples), np.stack(sketches)
            cosines, of_products = np.abs(raw @ raw.T), np.abs(products @ products.T)
            alike = np.triu(np.maximum(cosines, of_products) > NEARLY_EQUAL, 1)
            for i, j in zip(*np.nonzero(alike), strict=True):
                if digests[i] == digests[j]:
                    same = "the same numbers"
                elif cosines[i, j] > NEARLY_EQUAL:
                    same = f"nearly the same numbers (cosine {cosines[i, j]:.3f})"
                else:
                    same = f"the same update in another form (cosine {of_products[i, j]:.3f})"
                yield Pair(places[i], places[j], run.notebook, f"{run.weight_file}: {same}")


def _equal_notebooks(many: list[Traces]) -> Iterator[Pair]:
    """Notebooks whose training printed the same long numbers."""
    for number in range(1, 6):
        holders: dict[int, list[int]] = {}
        sizes = {n: len(traces.digits.get(number, ())) for n, traces in enumerate(many)}
        for n in (n for n, size in sizes.items() if size >= _FEWEST_DIGITS):
            for digit in many[n].digits[number]:
                holders.setdefault(digit, []).append(n)
        for (i, j), shared in _shared(holders, len(many)).items():
            fewer = min(sizes[i], sizes[j])
            if shared >= _SHARED_DIGITS * fewer:
                text = f"notebook {number}: {shared} of {fewer} long numbers printed are the same"
                yield Pair(i, j, number, text)


def _shared(holders: Mapping[int, list[int]], students: int) -> Counter[tuple[int, int]]:
    """How many things each pair shares, without what a tenth of the class has: that is in the template."""
    most = max(students // 10, 4)
    few = (places for places in holders.values() if len(places) <= most)
    return Counter(pair for places in few for pair in itertools.combinations(places, 2))


def _equal_reports(many: list[Traces]) -> Iterator[Pair]:
    """Reports with the same numbers in the same order and nearly the same words."""
    groups: dict[str, list[int]] = {}
    for n, traces in enumerate(many):
        if len(traces.decimals.split()) >= _FEWEST_DECIMALS:
            groups.setdefault(traces.decimals, []).append(n)
    for places in groups.values():
        for i, j in itertools.combinations(places, 2):
            one, other = many[i].words, many[j].words
            together = len(one | other)
            if together >= _FEWEST_WORDS and len(one & other) >= _SHARED_WORDS * together:
                yield Pair(i, j, REPORT, "the reports have the same numbers and the same words")
