"""Reviews as token ids: made by the base's tokenizer and kept on disk for the next process."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import datasets
import tokenizers
from datasets import Dataset, Features, Sequence, Value
from pyarrow import ArrowInvalid
from transformers import PreTrainedTokenizerBase

from peft_scratch.assignment import LABEL_WORDS


def tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[list[int]]:
    """Token ids of each text, cut to `max_tokens` including the end-of-sequence token."""
    return tokenizer(list(texts), truncation=True, max_length=max_tokens, return_attention_mask=False)[
        "input_ids"
    ]


def tokenise_cached(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[list[int]]:
    """`tokenise`, with the result kept on disk beside the other caches of `datasets`.

    The file's name depends on everything that the tokens depend on, so the file is never out of date. If it
    is damaged or cannot be written, the reviews are tokenised again.
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for of_the_last_call in ("truncation", "padding"):
        rules.pop(of_the_last_call)
    everything = json.dumps([tokenizers.__version__, rules, max_tokens, texts])
    key = hashlib.sha256(everything.encode()).hexdigest()[:32]
    path = Path(datasets.config.HF_DATASETS_CACHE) / "peft-scratch" / f"tokens-{key}.arrow"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = Dataset.from_dict({"text": texts}).map(
            lambda rows: {"input_ids": tokenise(rows["text"], tokenizer, max_tokens)},
            batched=True,
            remove_columns="text",
            features=Features({"input_ids": Sequence(Value("int32"))}),
            cache_file_name=str(path),
            new_fingerprint=key,
        )
        return kept["input_ids"][:]
    except (OSError, ArrowInvalid):
        with suppress(OSError):
            path.unlink()
        return tokenise(texts, tokenizer, max_tokens)


def label_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The target token ids of label 0 and of label 1, end-of-sequence token included."""
    return tokenizer(list(LABEL_WORDS))["input_ids"]
