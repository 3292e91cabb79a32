"""Reviews as the assignment prepares them."""

from __future__ import annotations

import re


def clean(review: str) -> str:
    """Lower-case `review` and replace each `<br />` by a space.

    Repeated white space becomes one space, which makes no difference to a SentencePiece tokenizer.
    """
    return re.sub(r"\s+", " ", review.lower().replace("<br />", " ")).strip()
