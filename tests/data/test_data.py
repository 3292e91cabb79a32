"""The reviews: who is on which side, how they are cut, padded and batched."""

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from peft_scratch.assignment import PROFILES
from peft_scratch.data import tokens
from peft_scratch.data.batches import Collator, length_grouped_batches, pad, process_shard, sorted_batches
from peft_scratch.data.offline_reviews import imdb_split, sentence_split
from peft_scratch.data.reviews import load_reviews
from peft_scratch.data.text import clean
from peft_scratch.data.tokens import tokenise, tokenise_cached
from peft_scratch.paths import OFFLINE_BASE


def test_cleaning_follows_the_contract():
    assert clean("A GREAT film.<br /><br />Really") == "a great film. really"


def test_no_text_is_on_two_sides():
    table = imdb_split()
    assert table.text.is_unique
    assert set(table.part) == {"train", "validation", "test"}
    assert not set(table.text) & set(sentence_split().text)


def test_parts_are_balanced_and_of_the_planned_size():
    shares = imdb_split().groupby("part").label.agg(["mean", "size"])
    assert (shares["mean"] - 0.5).abs().max() < 0.01
    # 80 blocks of 250 train, 4 validate, 16 test; texts that occur twice were dropped.
    planned = {"train": 20_000, "validation": 1_000, "test": 4_000}
    for part, size in planned.items():
        assert 0.99 * size < shares.loc[part, "size"] <= size


def test_neighbouring_reviews_stay_on_one_side():
    table = imdb_split()
    # In a split by row every second neighbour or so would change sides; by blocks only at the edges.
    assert (table.part != table.part.shift()).sum() <= 100


@pytest.mark.parametrize("name", ["offline", "smoke"])
def test_a_profile_takes_balanced_subsets(name):
    profile = PROFILES[name]
    reviews = load_reviews(profile)
    for split, size in ((reviews.train, profile.train_reviews), (reviews.test, profile.test_reviews)):
        assert len(split) == size
        assert sum(split["label"]) == size // 2
    assert not set(reviews.train["text"]) & set(reviews.test["text"])
    test = set(imdb_split().query("part == 'test'").text)
    assert set(reviews.test["text"]) <= test
    chosen = np.asarray(reviews.test["validation"])
    assert chosen.mean() == pytest.approx(0.2)
    assert np.asarray(reviews.test["label"])[chosen].mean() == pytest.approx(0.5)


def test_a_batch_is_padded_and_masked():
    collator = Collator([[5, 6, 1], [7, 1]], [1, 0], [[10, 1], [11, 12, 1]], pad_id=0)
    batch = collator([0, 1])
    assert batch["input_ids"].tolist() == [[5, 6, 1], [7, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[11, 12, 1], [10, 1, -100]]
    assert batch["index"].tolist() == [0, 1]


LENGTHS = [int(n) for n in torch.randint(5, 200, (1000,), generator=torch.Generator().manual_seed(0))]


def _padding(batches) -> float:
    batches = list(batches)
    padded = sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in batches)
    return padded / sum(LENGTHS) - 1


def test_every_review_is_in_one_batch():
    for batches in (length_grouped_batches(LENGTHS, 32, seed=3), sorted_batches(LENGTHS, 32)):
        seen = [i for batch in batches for i in batch]
        assert sorted(seen) == list(range(1000))
        assert len(list(batches)) == len(batches)


def test_batches_are_random_repeatable_and_carry_little_padding():
    epoch = [length_grouped_batches(LENGTHS, 32, seed) for seed in (1, 2)]
    assert list(epoch[0]) == list(length_grouped_batches(LENGTHS, 32, 1))
    assert list(epoch[0]) != list(epoch[1])
    partners = [{frozenset(batch) for batch in batches} for batches in epoch]
    assert not partners[0] & partners[1], "the same reviews meet again in the next epoch"
    longest = [max(LENGTHS[i] for i in batch) for batch in epoch[0]]
    assert longest != sorted(longest, reverse=True), "batches come in order of length"
    in_order = [list(range(i, min(i + 32, 1000))) for i in range(0, 1000, 32)]
    assert _padding(in_order) > 0.8
    assert _padding(epoch[0]) < 0.15
    assert _padding(sorted_batches(LENGTHS, 32)) < 0.05


def test_pad_fills_on_the_right():
    assert pad([[1, 2], [3]], -100).tolist() == [[1, 2], [3, -100]]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_each_batch_out(processes):
    lengths = [3 + i % 9 for i in range(33)]
    batches = length_grouped_batches(lengths, 8, seed=0)
    shares = [list(process_shard(batches, i, processes)) for i in range(processes)]
    for batch, *parts in zip(batches, *shares, strict=True):
        if len(batch) < processes:
            assert parts == [batch] * processes
        else:
            assert sorted(i for part in parts for i in part) == sorted(batch)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


# Tokens kept on disk

TEXTS = ["a fine film", "dull", ""]


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(OFFLINE_BASE)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the kept tokens, empty; `asked` has what was tokenised in spite of it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return tmp_path / "peft-scratch"


@pytest.fixture
def asked(monkeypatch):
    asked = []

    def counting(texts, *others):
        asked.append(list(texts))
        return tokenise(texts, *others)

    monkeypatch.setattr(tokens, "tokenise", counting)
    return asked


def test_tokens_are_made_once_and_read_back_the_same(cache, asked, tokenizer):
    first = tokenise_cached(TEXTS, tokenizer, 8)
    assert first == tokenise(TEXTS, tokenizer, 8)
    tokenizer("something else", truncation=True, max_length=3, padding=True)  # leaves its settings behind
    assert tokenise_cached(TEXTS, AutoTokenizer.from_pretrained(OFFLINE_BASE), 8) == first
    assert tokenise_cached(TEXTS, tokenizer, 8) == first
    assert asked == [TEXTS]
    assert len(list(cache.iterdir())) == 1


def test_kept_tokens_are_told_apart_by_all_they_depend_on(cache, asked, tokenizer):
    tokenise_cached(TEXTS, tokenizer, 8)
    assert tokenise_cached(TEXTS, tokenizer, 2) == tokenise(TEXTS, tokenizer, 2)
    assert tokenise_cached(TEXTS[:2], tokenizer, 8) == tokenise(TEXTS[:2], tokenizer, 8)
    tokenizer.add_tokens(["film"])
    assert tokenise_cached(TEXTS, tokenizer, 8) == tokenise(TEXTS, tokenizer, 8)
    assert len(asked) == 4


def test_damaged_tokens_are_made_again(cache, asked, tokenizer):
    whole = tokenise_cached(TEXTS, tokenizer, 8)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert tokenise_cached(TEXTS, tokenizer, 8) == whole
    assert tokenise_cached(TEXTS, tokenizer, 8) == whole
    assert len(asked) == 3, "at first, of the damaged ones, and to replace them"


def test_tokens_that_cannot_be_kept_are_made_nevertheless(cache, asked, tokenizer):
    cache.write_text("a file where the folder should be")
    assert tokenise_cached(TEXTS, tokenizer, 8) == tokenise(TEXTS, tokenizer, 8)
