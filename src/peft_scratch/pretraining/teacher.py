"""Labels for the training reviews, made by the half-trained base itself: self-training.

The base has learnt the two label words from one-sentence reviews alone. Its own firm judgements on
whole reviews become training examples, so that it learns to judge texts of that length and kind.
The reviews' true labels are nowhere read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import T5ForConditionalGeneration

from peft_scratch.experiments.corruption import pad

if TYPE_CHECKING:
    from peft_scratch.pretraining.corpus import Corpus

KEPT = 0.2  # share of the reviews that is kept on either side: the firmest


@torch.inference_mode()
def label_reviews(
    model: T5ForConditionalGeneration,
    corpus: Corpus,
    rng: np.random.Generator,
    reviews: int,
    tokens: int = 128,
) -> list[tuple[np.ndarray, int]]:
    """(tokens, label) of the reviews that the model and a bag of words judge most firmly, in equal numbers.

    Reviews are ranked by the sum of two standardised scores: the model's log-odds of the label
    words, and those of a logistic regression on words and word pairs; both know the labelled
    sentences alone. Cutting by rank makes up for a leaning of either towards one label.
    """
    rows = rng.permutation(len(corpus.starts) - 1)[:reviews]
    texts = [corpus.stream[corpus.starts[i] : corpus.starts[i + 1] - 1].astype(np.int64) for i in rows]
    scores = _standardised(_by_model(model, corpus, texts, tokens)) + _standardised(_by_words(corpus, texts))
    order, kept = np.argsort(scores), round(KEPT * len(texts))
    return [(texts[i], 0) for i in order[:kept]] + [(texts[i], 1) for i in order[len(order) - kept :]]


def _standardised(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / (scores.std() + 1e-9)


def _by_model(
    model: T5ForConditionalGeneration, corpus: Corpus, texts: list[np.ndarray], tokens: int
) -> np.ndarray:
    model.eval()
    words = corpus.targets[:, 0].tolist()
    scores = np.zeros(len(texts))
    for batch in np.array_split(np.argsort([len(t) for t in texts]), -(-len(texts) // 64)):
        rows = [
            np.concatenate([corpus.prefix, texts[i][: tokens - len(corpus.prefix) - 1], [corpus.end]])
            for i in batch
        ]
        ids = torch.from_numpy(pad(rows, corpus.tokenizer.pad_token_id))
        logits = model(
            input_ids=ids,
            attention_mask=(ids != corpus.tokenizer.pad_token_id).long(),
            decoder_input_ids=torch.zeros(len(batch), 1, dtype=torch.long),
            use_cache=False,
        ).logits[:, 0, words]
        scores[batch] = (logits[:, 1] - logits[:, 0]).numpy()
    return scores


def _by_words(corpus: Corpus, texts: list[np.ndarray]) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def grams(tokens: np.ndarray) -> list[tuple[int, ...]]:
        return [*zip(tokens.tolist(), strict=True), *pairwise(tokens.tolist())]

    vectorizer = TfidfVectorizer(analyzer=grams, min_df=2, sublinear_tf=True)
    known = vectorizer.fit_transform(corpus.sentences)
    regression = LogisticRegression(C=3, max_iter=300).fit(known, corpus.labels)
    return regression.decision_function(vectorizer.transform(texts))
