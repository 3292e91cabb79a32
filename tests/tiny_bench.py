"""A whole workbench in small: a random T5 with the offline base's tokenizer, and made-up reviews."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from accelerate import Accelerator
from conftest import make_t5
from datasets import Dataset
from transformers import AutoTokenizer

from peft_scratch.assignment import PROFILES, Profile
from peft_scratch.data.reviews import Reviews
from peft_scratch.experiments.profile_choice import ProfileChoice
from peft_scratch.experiments.session import Session
from peft_scratch.paths import OFFLINE_BASE
from peft_scratch.training.recipe import RECIPES

#: The fast recipe in float32, whatever the hardware has.
IN_FLOAT32 = dataclasses.replace(RECIPES["fast"], low_precision=False)
WORDS = ("dull", "fine", "slow", "warm", "loud", "deep", "long")


def tiny_profile(folder: Path) -> Profile:
    """`smoke`, made smaller still; its base is written into `folder`."""
    base = folder / "base"
    tokenizer = AutoTokenizer.from_pretrained(OFFLINE_BASE)
    tokenizer.save_pretrained(base)
    make_t5(vocab_size=len(tokenizer)).save_pretrained(base)
    return profile_on(base, folder)


def profile_on(base: Path, folder: Path) -> Profile:
    """`tiny_profile` on the base that is there."""
    return dataclasses.replace(
        PROFILES["smoke"], base=str(base), max_tokens=24, epochs=3, batch_size=8, output=folder / "output"
    )


def made_up_reviews(train: int = 24, test: int = 10) -> Reviews:
    """Reviews of a few words each, every other one negative."""

    def split(size: int) -> Dataset:
        texts = [" ".join(WORDS[(i * (k + 1)) % 7] for k in range(1 + i % 5)) for i in range(size)]
        return Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(size)]})

    return Reviews(split(train), split(test).add_column("validation", [i < 4 for i in range(test)]))


def tiny_workbench(folder: Path, reviews: Reviews | None = None) -> Session:
    """A workbench on `tiny_profile` and `reviews`, in float32; its output folder lies in `folder`."""
    profile = tiny_profile(folder)
    bench = Session(
        ProfileChoice(profile, "a test asked for it"), 0, profile.output, Accelerator(cpu=True), IN_FLOAT32
    )
    bench.reviews = reviews or made_up_reviews()
    return bench
