"""Whole runs, each in a process of its own: ours beside `Seq2SeqTrainer` with PEFT, and two at once.

A run is LoRA by PEFT, r = 8, on the offline base: one epoch and its evaluation. Both are timed; start-up and
tokenising are not.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from parts import Part, ratio, summary

RUN = "lora_peft_r8"
SIZES = {"train_reviews": 640, "test_reviews": 400, "epochs": 1}
#: Who trains: our recipes and the two trainers of `peer.PEERS`, by the names that the page prints.
OURS = {"ours": "fast", "ours, reference recipe": "reference"}
PEERS = {"Seq2SeqTrainer, tuned": "tuned", "Seq2SeqTrainer, plain": "plain"}
#: How threads wait where this kit does not set it: GNU OpenMP's default. So the trainers get theirs.
OWN_WAITING = {"GOMP_SPINCOUNT": "300000"}


def peers(path: Path, rounds: int = 3, sizes: dict[str, int] = SIZES, profile: str = "offline") -> None:
    """Training and evaluation by each of `OURS` and `PEERS`, in turn, one at a time."""
    part = Part(path, "peers", {"profile": profile, "run": RUN, "rounds": rounds, **sizes})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*OURS, *PEERS)}
    for round_ in range(rounds):
        for name in list(found)[:: 1 if round_ % 2 == 0 else -1]:
            with mock.patch.dict(os.environ, OWN_WAITING if name in PEERS else {}):
                found[name] += _side_by_side([(name, round_, sizes, profile)])
    ours = [one["seconds"] for one in found["ours"]]
    for name, each in found.items():
        seconds = [one["seconds"] for one in each]
        part.add(
            {
                "who": name,
                "seconds": summary(seconds),
                "over_ours": ratio(seconds, ours),
                "accuracies": [one["accuracy"] for one in each],
            }
        )


def beside(path: Path, rounds: int = 3, sizes: dict[str, int] = SIZES, profile: str = "offline") -> None:
    """One run of ours alone, then two at once, each with torch's default number of threads."""
    part = Part(path, "beside", {"profile": profile, "run": RUN, "rounds": rounds, **sizes})
    alone, together = [], []
    for round_ in range(rounds):
        job = ("ours", round_, sizes, profile)
        alone.append(_side_by_side([job])[0]["seconds"])
        together.append(max(one["seconds"] for one in _side_by_side([job, job])))
        part.add({"round": round_, "alone": alone[-1], "slower_of_two": together[-1]})
    part.close(over_alone=ratio(together, alone))


def _side_by_side(jobs: list[tuple[str, int, dict[str, int], str]]) -> list[dict[str, float]]:
    """`_whole_run` of each of `jobs` at the same time, each in a new process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(jobs), mp_context=spawn, max_tasks_per_child=1) as pool:
        return list(pool.map(_whole_run, *zip(*jobs, strict=True)))


def _whole_run(name: str, seed: int, sizes: dict[str, int], profile: str) -> dict[str, float]:
    """Seconds of training and evaluation, and the accuracy."""
    from peft_scratch.experiments.session import Session

    with tempfile.TemporaryDirectory() as folder:
        session = Session.open(profile, seed, Path(folder), OURS.get(name, "reference"), extra_seed=True)
        prepared = session.prepare(RUN, sizes)
        if name in OURS:
            result = prepared.train()
            seconds = result.seconds.training + result.seconds.evaluation
            return {"seconds": seconds, "accuracy": result.accuracy.last}
        return _by_peer(PEERS[name], session, prepared)


def _by_peer(peer: str, session: Any, prepared: Any) -> dict[str, float]:
    from accelerate.state import AcceleratorState
    from peer import PEERS as TRAINERS

    profile = prepared.profile
    training, test = map(prepared.collator, (prepared.reviews.train, prepared.reviews.test))
    AcceleratorState._reset_state(reset_partial_state=True)  # otherwise the session's float32 would stay
    trainer = TRAINERS[peer].trainer(
        prepared.tuned.model,
        training,
        test,
        session.tokenizer,
        learning_rate=prepared.learning_rate,
        batch_size=profile.batch_size,
        epochs=profile.epochs,
        seed=session.seed,
    )
    started = time.perf_counter()
    trainer.train()
    accuracy = trainer.evaluate()["eval_accuracy"]
    return {"seconds": time.perf_counter() - started, "accuracy": accuracy}
