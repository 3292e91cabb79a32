"""The work of the assignment, counted: what no way of doing it gets around, and what that means in hours.

Counted are the products of one forward and backward pass, by torch's own counter, on a model without numbers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.methods import FullFineTuning, LoRA, Method, apply

#: Tokens of the 25,000 reviews of either split, cut to 256: what an epoch reads.
EPOCH_TOKENS = 5.6e6
EPOCHS = PROFILES["course"].epochs
TARGET_TOKENS = 2  # a label word and the end


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet: operations a second in float16's matrix units and in float32."""

    name: str
    half: float
    single: float


CARDS = {
    card.name: card
    for card in (
        Card("T4", 65e12, 8.1e12),
        Card("P100", 18.7e12, 9.3e12),
        Card("V100", 112e12, 14e12),
        Card("A100", 312e12, 19.5e12),
        Card("H100", 990e12, 67e12),
    )
}
#: Shares of the data sheet's speed that matrix products of these sizes may reach: guesses, not measurements.
SHARES = (1 / 2, 1 / 3, 1 / 5, 1 / 8)


def operations(config: T5Config, method: Method, tokens: int, training: bool) -> float:
    """Operations for an input token: of a forward pass, or of one with its backward pass."""
    config = copy.deepcopy(config)
    config.decoder_start_token_id = config.pad_token_id  # as in every released T5
    config._attn_implementation = "eager"  # the only one that looks at no value of the mask
    with torch.device("meta"):
        model = apply(method, T5ForConditionalGeneration(config)).model.train(training)
        ids = torch.zeros(1, tokens, dtype=torch.long)
        labels = torch.zeros(1, TARGET_TOKENS, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        # Without a mask, whose values cannot be looked at here; it takes no products.
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        if training:
            loss.backward()
    return counter.get_total_flops() / tokens


def assignment_operations(config: T5Config, tokens: int = 256) -> dict[str, float]:
    """Operations of a full run, of a frozen one, of the evaluations of either, and of all ten runs."""
    read = EPOCHS * EPOCH_TOKENS
    full = read * operations(config, FullFineTuning(), tokens, training=True)
    frozen = read * operations(config, LoRA(rank=8), tokens, training=True)
    evaluation = read * operations(config, LoRA(rank=8), tokens, training=False)
    count = sum(run.kind == "full" for run in RUNS.values())
    return {
        "full_training": full,
        "frozen_training": frozen,
        "evaluation": evaluation,
        "all": count * full + (len(RUNS) - count) * frozen + len(RUNS) * evaluation,
    }


def hours(card: Card, work: float) -> dict[str, Any]:
    """Hours of `work` on `card` at each of `SHARES`, in float16 and in float32."""
    return {
        "half": {f"{share:.3f}": work / (share * card.half) / 3600 for share in SHARES},
        "single": {f"{share:.3f}": work / (share * card.single) / 3600 for share in SHARES},
    }
