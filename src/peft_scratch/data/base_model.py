"""The model that every run starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from httpx import HTTPError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5ForConditionalGeneration
from transformers.utils import cached_file, logging
from transformers.utils.hub import extract_commit_hash

from peft_scratch.assignment import Profile
from peft_scratch.data import hub
from peft_scratch.errors import UserError
from peft_scratch.paths import OFFLINE_BASE, shown
from peft_scratch.results import Origin

WEIGHTS = "model.safetensors"


def load_base(profile: Profile) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerBase]:
    """The profile's base model in float32, in evaluation mode, and its tokenizer.

    Raises:
        UserError: the model is not where the profile says, or cannot be read.
    """
    source, revision = hub.place(profile.base), hub.revision(profile.base)
    try:
        # Only safetensors: a pickle can run code, so none is read, even if there is nothing else.
        # "eager" is T5's plain attention, as in transformers 4. Unlike "sdpa", it gives the same bits whether
        # or not something in it trains. A recipe may replace it with a faster one.
        with _no_progress_bar():
            model = T5ForConditionalGeneration.from_pretrained(
                source,
                dtype=torch.float32,
                use_safetensors=True,
                attn_implementation="eager",
                revision=revision,
            )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, revision=revision)
    except Exception as problem:  # damaged files raise a dozen kinds, a tokenizer's a bare Exception
        raise _failure(profile, problem) from None
    return model.eval(), tokenizer


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Hide the bar that transformers 5 shows while it reads the weights, which takes a moment."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def base_fingerprint(profile: Profile) -> str:
    """A hash of the base's weight file; it makes a run on another base a different run."""
    return hashlib.sha256(_weight_file(profile).read_bytes()).hexdigest()


def base_origin(profile: Profile) -> Origin:
    """What results record of the base: its name, the revision on the Hub, and a hash of the weights."""
    commit = extract_commit_hash(str(_weight_file(profile)), None)
    return Origin(name=shown(profile.base), revision=commit, sha256=base_fingerprint(profile))


def base_bytes(profile: Profile) -> int:
    """The size of the base's weight file."""
    return _weight_file(profile).stat().st_size


def _weight_file(profile: Profile) -> Path:
    try:
        return Path(cached_file(hub.place(profile.base), WEIGHTS, revision=hub.revision(profile.base)))
    except (OSError, HTTPError) as problem:
        raise _failure(profile, problem) from None


def _failure(profile: Profile, problem: Exception) -> UserError:
    if Path(profile.base) == OFFLINE_BASE:
        return UserError(
            f"The offline base model in weights/base is missing or damaged ({type(problem).__name__}): "
            "restore that folder from the repository, or pre-train it again with `make base`."
        )
    if Path(profile.base).is_dir():
        return UserError(
            f"The base model in {profile.base} cannot be loaded ({type(problem).__name__}): give a folder "
            "with model.safetensors, config.json and the tokenizer's files."
        )
    return hub.failure(hub.MODEL, profile.base, problem)
