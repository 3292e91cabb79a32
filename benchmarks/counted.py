"""The matrix products of the assignment, which no implementation can avoid, and what they take in hours.

torch's own counter counts the products of one forward and backward pass, on a model without values.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config

from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.exactness.t5_configs import empty_t5
from peft_scratch.methods import FullFineTuning, LoRA, Method, apply

#: Tokens of the 25,000 reviews of a split, cut to 256: what an epoch reads.
EPOCH_TOKENS = 5.6e6
EPOCHS = PROFILES["course"].epochs
TARGET_TOKENS = 2  # a label word and the end


#: Operations per second of some GPUs by their data sheets: with float16's matrix units, and in float32.
CARDS = {
    "T4": {"half": 65e12, "single": 8.1e12},
    "P100": {"half": 18.7e12, "single": 9.3e12},
    "V100": {"half": 112e12, "single": 14e12},
    "A100": {"half": 312e12, "single": 19.5e12},
    "H100": {"half": 990e12, "single": 67e12},
}
#: Shares of the data sheet's speed that matrix products of these sizes may reach: guesses, not measurements.
SHARES = (1 / 2, 1 / 3, 1 / 5, 1 / 8)


def operations(config: T5Config, method: Method, tokens: int, training: bool) -> float:
    """Operations per input token: of a forward pass or, in `training`, of a forward and a backward pass."""
    model = apply(method, empty_t5(config)).model.train(training)
    model.config.decoder_start_token_id = model.config.pad_token_id  # as in every released T5
    with torch.device("meta"):
        ids = torch.zeros(1, tokens, dtype=torch.long)
        labels = torch.zeros(1, TARGET_TOKENS, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        # Without a mask: it takes no products, and its values cannot be read here.
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        if training:
            loss.backward()
    return counter.get_total_flops() / tokens


def assignment_operations(config: T5Config, tokens: int = 256) -> dict[str, float]:
    """Operations of training every weight, of training with a frozen base, of a run's evaluations, of all."""
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


def hours(card: dict[str, float], work: float) -> dict[str, dict[str, float]]:
    """Hours of `work` on `card`, one of `CARDS`, at each of `SHARES`, in float16 and in float32."""
    return {
        kind: {f"{share:.3f}": work / (share * speed) / 3600 for share in SHARES}
        for kind, speed in card.items()
    }
