"""Tiny random models and a batch for every test: seeded, nothing downloaded."""

from __future__ import annotations

import os

# Before transformers is imported: a test must never wait for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Before torch is loaded, so that two test processes leave each other the cores.
import peft_scratch  # noqa: F401, I001

import pytest
import torch
from hypothesis import settings
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.methods.parameters import is_tied, untie

# `pytest --hypothesis-profile long`: thousands of inputs per test that fuzzes (docs/checking.md).
settings.register_profile("long", deadline=None)

# Each of the test processes takes the next file when it has finished one. The longest come first, so that
# none of them is left for the end.
LONGEST = (
    "notebook/test_cells.py",
    "notebook/test_execute.py",
    "experiments/test_jobs.py",
    "end_to_end/test_by_hand.py",
    "end_to_end/test_kills.py",
    "tests/test_versions.py",
    "edition/test_self_check.py",
    "tests/test_hard_times.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files in `LONGEST` to the front; the order is as it was otherwise."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


TINY = {
    "vocab_size": 128,
    "d_model": 32,
    "d_ff": 64,
    "d_kv": 16,
    "num_heads": 2,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "dropout_rate": 0.1,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def t5_config(**settings: object) -> T5Config:
    """With T5's plain attention, in any version of transformers."""
    return T5Config(**settings, attn_implementation="eager")


def t5_of(config: T5Config) -> T5ForConditionalGeneration:
    """A random T5, with an output layer of its own if the configuration says so."""
    model = T5ForConditionalGeneration(config)
    if not is_tied(config):
        untie(model)
    return model


def make_t5(seed: int = 0, **changes: object) -> T5ForConditionalGeneration:
    """A tiny random T5 in eval mode; `changes` overrides entries of its configuration."""
    torch.manual_seed(seed)
    return t5_of(t5_config(**{**TINY, **changes})).eval()


@pytest.fixture
def tiny_t5() -> T5ForConditionalGeneration:
    """As t5-small: ReLU, tied embeddings; d_model 32, 2 + 2 layers, 128 words."""
    return make_t5()


@pytest.fixture
def tiny_gated_t5() -> T5ForConditionalGeneration:
    """As flan-t5 and mT5: gated GELU, an output layer of its own; attention wider than d_model."""
    return make_t5(num_heads=3, feed_forward_proj="gated-gelu", tie_word_embeddings=False)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three texts of 7, 5 and 2 tokens, padded to 7, with targets of 2 and 1 tokens and the end token."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(2, 128, (3, 7), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for row, length in enumerate((7, 5, 2)):
        input_ids[row, length:] = 0
        attention_mask[row, length:] = 0
    labels = torch.tensor([[5, 9, 1], [7, 1, -100], [5, 8, 1]])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
