"""The model that every run starts from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5ForConditionalGeneration
from transformers.utils import cached_file

from peft_scratch.errors import UserError
from peft_scratch.experiments.profiles import OFFLINE_BASE, Profile

WEIGHTS = "model.safetensors"


def load_base(profile: Profile) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerBase]:
    """The profile's base model in float32, in evaluation mode, and its tokenizer.

    Raises:
        UserError: the model is not where the profile says, or cannot be read.
    """
    try:
        model = T5ForConditionalGeneration.from_pretrained(profile.base, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(profile.base)
    except (OSError, ValueError, SafetensorError) as problem:
        raise UserError(_missing(profile, problem)) from None
    return model.eval(), tokenizer


def base_fingerprint(profile: Profile) -> str:
    """A hash of the base's weight file, so that a run on another base is another run."""
    try:
        path = cached_file(profile.base, WEIGHTS)
    except OSError as problem:
        raise UserError(_missing(profile, problem)) from None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _missing(profile: Profile, problem: Exception) -> str:
    if Path(profile.base) == OFFLINE_BASE:
        return (
            f"The offline base model in weights/base is missing or damaged ({type(problem).__name__}): "
            "restore that folder from the repository, or make it anew with `make base`."
        )
    return (
        f"The base model {profile.base!r} could not be loaded from the Hugging Face Hub or its local cache "
        f"({type(problem).__name__}): check the connection, or use the offline profile."
    )
