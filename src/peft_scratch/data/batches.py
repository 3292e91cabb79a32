"""Tokenised reviews in batches: which reviews, in which order, padded to one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import get_length_grouped_indices


def pad(sequences: list[list[int]], value: int) -> Tensor:
    """The sequences as one (B, T) tensor, padded with `value` on the right."""
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
            # The cross-entropy of transformers ignores -100.
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
    """Random batches of reviews of similar length, in random order, the same for the same seed.

    Every batch is padded to its longest review. Batches of similar lengths need far less padding, and
    which reviews share a batch still changes every epoch.
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


# Lists of positions of reviews, one list per batch: one of the kinds above, or a list of lists.
Batches = ShuffledBatches | PlainBatches | Sequence[list[int]]


def _parts(order: list[int], size: int) -> Iterator[list[int]]:
    return (order[i : i + size] for i in range(0, len(order), size))


@dataclass(frozen=True)
class ProcessShard:
    """One process's part of each batch, so that a step stays the assignment's 32 reviews.

    Accelerate would give each process whole batches, so that a step would take as many batches as there are
    processes. Its `split_batches` splits them, but drops a short batch that is not the last.

    A batch with fewer reviews than processes goes whole to each of them: the mean over them is the same.
    """

    batches: Batches
    process: int
    processes: int

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch if len(batch) < self.processes else batch[self.process :: self.processes]

    def __len__(self) -> int:
        return len(self.batches)


def make_loader(batches: Batches, collator: Collator, accelerator: Accelerator) -> DataLoader:
    """This process's share of `batches`, collated, on its device."""
    share = ProcessShard(batches, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(range(len(collator.inputs)), batch_sampler=share, collate_fn=collator)
    # As one process of one: `ProcessShard` has already split the batches.
    return prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True
    )


def evenly_spaced(there: int, wanted: int) -> list[int]:
    """Positions of `wanted` of `there` reviews (or of all), evenly spaced. All splits here have one label's
    reviews before the other's, so this takes half of each label."""
    return np.linspace(0, there - 1, min(wanted, there)).round().astype(int).tolist()


def subset(collator: Collator, rows: Sequence[int]) -> Collator:
    """`collator` with only the reviews at `rows`."""
    return replace(
        collator, inputs=[collator.inputs[i] for i in rows], labels=[collator.labels[i] for i in rows]
    )
