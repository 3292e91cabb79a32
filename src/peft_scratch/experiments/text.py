"""Reviews as the assignment prepares them, and the words that stand for the labels."""

from __future__ import annotations

import re

#: Label 0 and label 1, as the targets spell them.
LABEL_WORDS = ("negative", "positive")

#: What the original T5 was trained with on SST-2; the assignment itself uses no prefix.
SST2_PREFIX = "sst2 sentence: "


def clean(review: str) -> str:
    """Lower-case `review` and put a space for each `<br />`.

    Runs of white space become one space: a SentencePiece tokenizer reads both alike.
    """
    return re.sub(r"\s+", " ", review.lower().replace("<br />", " ")).strip()
