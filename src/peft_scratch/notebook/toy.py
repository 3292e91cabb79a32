"""Models to reason with: a tiny random T5 to check claims in a cell, and t5-small's sizes for counting."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration


def tiny_t5(seed: int = 0) -> T5ForConditionalGeneration:
    """A random T5 of two encoder and two decoder blocks in evaluation mode, the same for the same seed."""
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        attn_implementation="eager",  # as for the base: the same bits, whatever trains
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(config).eval()


def t5_small() -> T5ForConditionalGeneration:
    """A model of t5-small's sizes without weights, for counting."""
    with torch.device("meta"):
        return T5ForConditionalGeneration(T5Config())  # the defaults of T5Config are t5-small's


def tiny_batch() -> dict[str, Tensor]:
    """Two inputs for `tiny_t5`, the second one padded: ids and mask (2, 6), `labels` (2, 2)."""
    return {
        "input_ids": torch.tensor([[20, 21, 22, 23, 24, 1], [30, 31, 1, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]),
        "labels": torch.tensor([[10, 1], [11, 1]]),
    }


def take_steps(model: nn.Module, batch: dict[str, Tensor], steps: int = 1) -> torch.optim.Optimizer:
    """Train on `batch` for `steps` steps of AdamW, dropout off; return the optimiser."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return optimizer
