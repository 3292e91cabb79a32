"""How good a base is: the few figures of its model card, all on reviews that it has not seen."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from peft_scratch.assignment import FROM_SCRATCH, PROFILES, SST2_PREFIX
from peft_scratch.data.batches import Collator
from peft_scratch.data.offline_reviews import sentence_split
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.experiments.profile_choice import ProfileChoice
from peft_scratch.experiments.session import Session
from peft_scratch.paths import BUILD, OFFLINE_BASE
from peft_scratch.pretraining.card import write_card
from peft_scratch.training.evaluation import predict
from peft_scratch.training.recipe import RECIPES

#: The offline profile with these changes; its runs from scratch are repeated on it.
CONDITIONS = {"max_tokens": 192, "train_reviews": 4000, "test_reviews": 1500, "epochs": 2}
RECIPE = RECIPES["fast"]


def measure(base: Path = OFFLINE_BASE, output: Path = BUILD / "base-scores") -> dict[str, float]:
    """Accuracy in percent, by name: without tuning, with each method, and from random weights.

    Every figure after tuning is from the last epoch. An interrupted measurement continues with the first
    unfinished run.
    """
    scores = {"sentences_zero_shot": _sentences(base)}
    session = _session(base, output)
    scores["imdb_zero_shot"] = session.zero_shot().accuracy.best
    scores["imdb_zero_shot_prefix"] = session.zero_shot(SST2_PREFIX).accuracy.best
    for run in FROM_SCRATCH:
        scores[run] = _tuned(session, run)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(session.seed)
        T5ForConditionalGeneration(T5Config.from_pretrained(base)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
        scores["full_from_random_weights"] = _tuned(_session(Path(folder), output), "full")
    return {name: round(100 * score, 1) for name, score in scores.items()}


def _session(base: Path, output: Path) -> Session:
    profile = replace(PROFILES["offline"], name="base-scores", base=str(base), output=output, **CONDITIONS)
    return Session(ProfileChoice(profile, "it measures the base"), 0, output, Accelerator(), RECIPE)


def _tuned(session: Session, run: str) -> float:
    return session.prepare(run).train().accuracy.last


def _sentences(base: Path) -> float:
    """Zero-shot accuracy on the one-sentence reviews that the base was not trained on."""
    model = T5ForConditionalGeneration.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    held_out = sentence_split().query("part == 'held_out'")
    collator = Collator(
        tokenise([SST2_PREFIX + text for text in held_out.text], tokenizer, CONDITIONS["max_tokens"]),
        held_out.label.to_list(),
        label_ids(tokenizer),
        tokenizer.pad_token_id,
    )
    return predict(model, collator, tokenizer, Accelerator(), 64, RECIPE).score()["accuracy"]


if __name__ == "__main__":
    write_card(OFFLINE_BASE, measure())
