"""What the base is trained on: texts of the training parts only, as tokens, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor
from transformers import T5TokenizerFast

from peft_scratch.assignment import LABEL_WORDS, SST2_PREFIX
from peft_scratch.data.batches import pad
from peft_scratch.data.corruption import IGNORED, corrupt, cut, draw_spans, sentinel_ids
from peft_scratch.data.offline_reviews import fingerprint, imdb_split, sentence_split

CHUNK = 128  # tokens of a span-corruption sequence before corruption
LONGEST = 192  # tokens of a supervised input
WINDOW = (12, 184)  # tokens of a piece of a review that the teacher labels
PHRASE = 3  # fewest tokens of a part of a sentence that the teacher labels
POOL = 12  # number of batches whose examples are sorted by length together
SENTIMENT_WEIGHT = 6.0  # at a word of strong sentiment, a span starts 1 + this times as often


@dataclass(frozen=True)
class Sources:
    """The cleaned texts. The reviews come without their labels, so that nothing can use them."""

    reviews: list[str]
    sentences: list[str]
    labels: list[int]  # of the sentences

    def fingerprints(self) -> dict[str, str]:
        """Hashes that identify the texts without containing them."""
        return {"reviews": fingerprint(self.reviews), "sentences": fingerprint(self.sentences)}


def training_sources() -> Sources:
    """The training parts of the offline split: review texts, and sentences with their labels."""
    reviews, sentences = imdb_split(), sentence_split()
    sentences = sentences[sentences.part == "train"]
    return Sources(
        reviews.text[reviews.part == "train"].to_list(),
        sentences.text.to_list(),
        sentences.label.to_list(),
    )


def tokenizer_texts(sources: Sources) -> Iterator[str]:
    """What the tokenizer is trained on: every text, and the words of the supervised task."""
    yield from sources.reviews
    for text, label in zip(sources.sentences, sources.labels, strict=True):
        yield SST2_PREFIX + text
        yield LABEL_WORDS[label]


@dataclass
class Corpus:
    """The sources as token ids, and the random batches that training draws from them.

    Attributes:
        stream: (N,) the tokens of all reviews, one after another, each with its end of sequence.
        starts: where each review begins in `stream`, and N.
        sentences, labels: the labelled sentences, without prefix and end.
        windows, phrases: (tokens, label) of the parts of reviews and of sentences that a teacher has
            labelled; empty before that.
    """

    tokenizer: T5TokenizerFast
    stream: np.ndarray
    starts: np.ndarray
    sentences: list[np.ndarray]
    labels: np.ndarray
    windows: list[tuple[np.ndarray, int]] = field(default_factory=list)
    phrases: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sentinels = sentinel_ids(self.tokenizer)
        self.end = self.tokenizer.eos_token_id
        self.prefix = np.array(self.tokenizer(SST2_PREFIX, add_special_tokens=False)["input_ids"])
        self.targets = np.array(self.tokenizer(list(LABEL_WORDS))["input_ids"])  # (2, 2): word, end
        self.weights = 1 + SENTIMENT_WEIGHT * self.sentiment()

    @classmethod
    def from_sources(cls, sources: Sources, tokenizer: T5TokenizerFast) -> Corpus:
        reviews = tokenizer(sources.reviews, return_attention_mask=False, verbose=False)["input_ids"]
        sentences = tokenizer(sources.sentences, add_special_tokens=False)["input_ids"]
        lengths = np.array([len(r) for r in reviews])
        return cls(
            tokenizer,
            np.concatenate(reviews).astype(np.uint16),
            np.concatenate([[0], np.cumsum(lengths)]),
            [np.array(s) for s in sentences],
            np.array(sources.labels),
        )

    def sentiment(self) -> np.ndarray:
        """(V,) how strongly each token marks a sentence as positive or negative, between 0 and 1.

        It is the z-score of the log-odds ratio with a prior (Monroe et al. 2008, section 3.5), from the
        labelled sentences alone. Scores of 3 and more count as 1, below 1.5 as 0. A token whose odds hardly
        differ also counts as 0, however often it occurs.
        """
        size = len(self.tokenizer)
        counts = np.zeros((2, size))
        for tokens, label in zip(self.sentences, self.labels, strict=True):
            counts[label] += np.bincount(tokens, minlength=size)
        prior = 0.01 + 0.05 * counts.sum(0)
        smooth = counts + prior
        odds = np.log(smooth / (smooth.sum(1, keepdims=True) - smooth))
        difference = np.abs(odds[1] - odds[0])
        z = difference / np.sqrt((1 / smooth).sum(0))
        return np.where(difference > 0.4, np.clip((z - 1.5) / 1.5, 0, 1), 0)

    def chunks(self, rng: np.random.Generator, length: int = CHUNK) -> Iterator[np.ndarray]:
        """One pass over the stream in random order, in pieces of `length` tokens; no token is left out.

        The pieces start at a random offset in each pass, so they differ between passes.
        """
        cuts = np.arange(rng.integers(1, length + 1), len(self.stream), length)
        for piece in rng.permutation(len(cuts) + 1):
            begin = cuts[piece - 1] if piece else 0
            yield self.stream[begin : cuts[piece] if piece < len(cuts) else None].astype(np.int64)

    def span_batches(
        self, rng: np.random.Generator, size: int, continued: float = 0.0
    ) -> Iterator[dict[str, Tensor]]:
        """Endless batches of `size` pieces: the share `continued` is cut in two, the others are corrupted."""
        rows = []
        while True:
            for tokens in self.chunks(rng):
                if rng.random() < continued:
                    rows.append(cut(tokens, self.end))
                else:
                    mask = draw_spans(self.weights[tokens], rng)
                    rows.append(corrupt(tokens, mask, self.sentinels, self.end))
                if len(rows) == size:
                    yield self._batch(rows)
                    rows = []

    def labelled_batches(
        self, rng: np.random.Generator, tokens: int, shares: dict[str, float]
    ) -> Iterator[dict[str, Tensor]]:
        """Endless batches of supervised examples, about `tokens` input tokens each, padding included.

        `shares` gives the share of each kind: labelled sentences (`sentences`), and parts of them
        (`phrases`) and of reviews (`windows`) with a teacher's labels. All of a batch is of one kind.
        """
        labelled = list(zip(self.sentences, self.labels, strict=True))
        draw = {
            "sentences": partial(_drawn, labelled, 0.25),
            "phrases": partial(_drawn, self.phrases, 0.1),
            "windows": partial(_drawn, self.windows, 0.1),
        }
        pools: dict[str, list[dict[str, Tensor]]] = {kind: [] for kind in shares}
        kinds = list(shares)
        while True:
            kind = kinds[rng.choice(len(kinds), p=np.array(list(shares.values())))]
            if not pools[kind]:
                pools[kind] = self._pool(draw[kind], rng, tokens)
            yield pools[kind].pop()

    def _pool(self, draw, rng: np.random.Generator, tokens: int) -> list[dict[str, Tensor]]:
        examples: list[tuple[np.ndarray, np.ndarray]] = []
        while sum(len(inputs) for inputs, _ in examples) < POOL * tokens:
            text, label = draw(rng)
            inputs = np.concatenate([self.prefix, text[: LONGEST - len(self.prefix) - 1], [self.end]])
            examples.append((inputs, self.targets[label]))
        examples.sort(key=lambda example: len(example[0]))
        batches: list[list] = [[]]
        for example in examples:
            if batches[-1] and (len(batches[-1]) + 1) * len(example[0]) > tokens:
                batches.append([])
            batches[-1].append(example)
        return [self._batch(batches[i]) for i in rng.permutation(len(batches))]

    def draw_windows(self, rng: np.random.Generator, count: int) -> list[np.ndarray]:
        """Pieces of random reviews, each from the start of a sentence; the lengths are log-uniform."""
        stops = set(self.tokenizer.convert_tokens_to_ids([".", "!", "?"]))
        shortest, longest = WINDOW
        lengths = np.exp(rng.uniform(np.log(shortest), np.log(longest), count)).round().astype(int)
        windows = []
        for row, length in zip(rng.integers(len(self.starts) - 1, size=count), lengths, strict=True):
            review = self.stream[self.starts[row] : self.starts[row + 1] - 1].astype(np.int64)
            begins = [0, *(i + 1 for i, t in enumerate(review[:-shortest].tolist()) if t in stops)]
            begin = begins[rng.integers(len(begins))]
            windows.append(review[begin : begin + length])
        return windows

    def draw_phrases(self, rng: np.random.Generator, count: int) -> list[np.ndarray]:
        """Random parts of the labelled sentences, like the phrases of SST-2."""
        phrases = []
        for row in rng.integers(len(self.sentences), size=count):
            sentence = self.sentences[row]
            length = rng.integers(min(PHRASE, len(sentence)), len(sentence) + 1)
            begin = rng.integers(len(sentence) - length + 1)
            phrases.append(sentence[begin : begin + length])
        return phrases

    def texts(self, rows: list[np.ndarray]) -> list[str]:
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def _batch(self, rows: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
        inputs = pad([r[0] for r in rows], self.tokenizer.pad_token_id)
        return {
            "input_ids": inputs,
            "attention_mask": (inputs != self.tokenizer.pad_token_id).long(),
            "labels": pad([r[1] for r in rows], IGNORED),
        }


def _drawn(
    examples: list[tuple[np.ndarray, int]], dropped: float, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """A random example without the share `dropped` of its tokens.

    Otherwise text that is seen many times would be learnt by heart.
    """
    tokens, label = examples[rng.integers(len(examples))]
    return tokens[rng.random(len(tokens)) >= dropped], label
