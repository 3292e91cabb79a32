"""Tokenised reviews in batches: which reviews a batch has, in which order, padded to one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import get_length_grouped_indices


def pad(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
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


# Lists of positions of reviews, one list for each batch.
Batches = Sequence[list[int]]


def plain_batches(lengths: list[int], size: int) -> Batches:
    """Batches of reviews in their order."""
    return _parts(list(range(len(lengths))), size)


def sorted_batches(lengths: list[int], size: int) -> Batches:
    """Batches in order of length, the longest first, which need the least padding. For evaluation."""
    return _parts(sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True), size)


def shuffled_batches(lengths: list[int], size: int, seed: int) -> Batches:
    """Random batches of reviews, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return _parts(torch.randperm(len(lengths), generator=generator).tolist(), size)


def length_grouped_batches(lengths: list[int], size: int, seed: int) -> Batches:
    """Random batches of reviews of similar length, in random order, the same for the same seed.

    Every batch is padded to its longest review. Batches of similar lengths need far less padding, and
    which reviews share a batch still changes every epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = _parts(get_length_grouped_indices(lengths, size, generator=generator), size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def _parts(order: list[int], size: int) -> list[list[int]]:
    return [order[i : i + size] for i in range(0, len(order), size)]


def process_shard(batches: Batches, process: int, processes: int) -> Batches:
    """One process's part of each batch, so that a step still takes the assignment's 32 reviews.

    Accelerate would give each process whole batches, so a step would take as many batches as there are
    processes. Its `split_batches` splits them, but drops a short batch that is not the last.

    A batch with fewer reviews than processes goes to each process as a whole: the mean gradient is the same.
    """
    return [batch if len(batch) < processes else batch[process::processes] for batch in batches]


def make_loader(batches: Batches, collator: Collator, accelerator: Accelerator) -> DataLoader:
    """This process's share of `batches`, collated, on its device."""
    share = process_shard(batches, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(range(len(collator.inputs)), batch_sampler=share, collate_fn=collator)
    # For accelerate this is the only process, because `process_shard` has already split the batches.
    return prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True
    )


def evenly_spaced(there: int, wanted: int) -> list[int]:
    """Evenly spaced positions of `wanted` of `there` reviews, or the positions of all.

    Every split has the reviews of one label before those of the other, so each label gets half.
    """
    return np.linspace(0, there - 1, min(wanted, there)).round().astype(int).tolist()


def subset(collator: Collator, rows: Sequence[int]) -> Collator:
    """`collator` with only the reviews at `rows`."""
    return replace(
        collator, inputs=[collator.inputs[i] for i in rows], labels=[collator.labels[i] for i in rows]
    )
