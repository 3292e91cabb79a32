"""The base's tokenizer: SentencePiece trained on the reviews, saved as an ordinary T5 tokenizer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from transformers import T5Tokenizer, T5TokenizerFast

from peft_scratch.assignment import LABEL_WORDS
from peft_scratch.data.corruption import SENTINELS
from peft_scratch.errors import UserError

VOCABULARY = 8192  # rows of the embedding, the sentinels included


def train_tokenizer(texts: Iterable[str], folder: Path, vocabulary: int = VOCABULARY) -> T5TokenizerFast:
    """A unigram SentencePiece tokenizer of `vocabulary` entries with T5's special ids, saved in `folder`.

    Padding is 0, end of sequence 1, unknown 2; the last `SENTINELS` ids are `<extra_id_99>` down to
    `<extra_id_0>` (Raffel et al. 2020, section 3.1.4).

    Raises:
        UserError: a label word is not one token.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocabulary - SENTINELS,
        hard_vocab_limit=False,  # a tiny corpus has fewer pieces than requested
        character_coverage=0.9999,
        max_sentence_length=100_000,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=2,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    T5Tokenizer.from_pretrained(folder, extra_ids=SENTINELS, model_max_length=512).save_pretrained(folder)
    # With this entry every load would convert the slow tokenizer again; tokenizer.json holds its effect.
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("add_prefix_space", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tokenizer = T5TokenizerFast.from_pretrained(folder)
    for word in LABEL_WORDS:
        if len(tokenizer(word)["input_ids"]) != 2:
            raise UserError(
                f"The label word {word!r} is not one token in the tokenizer trained here: "
                "give it more text, or a larger vocabulary."
            )
    return tokenizer
