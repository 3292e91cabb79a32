"""T5's pre-training tasks: span corruption, with spans that prefer sentiment words, and continuing a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

SENTINELS = 100  # of T5's tokenizers, all of them
NOISE_DENSITY = 0.15  # Raffel et al. 2020, section 3.1.4
MEAN_SPAN = 3
IGNORED = -100  # label that the cross-entropy leaves out


def draw_spans(
    weights: np.ndarray, rng: np.random.Generator, density: float = NOISE_DENSITY, mean_span: int = MEAN_SPAN
) -> np.ndarray:
    """Choose the tokens of one sequence to be masked.

    Spans of 1 to 2 * `mean_span` - 1 tokens start at positions drawn without replacement, in
    proportion to `weights`, until a share `density` of the tokens is masked. With equal weights this
    is T5's noise except for the distribution of span lengths. Higher weights on sentiment words are the
    idea of SKEP (Tian et al. 2020): the model has to infer an opinion from the words around it.

    Args:
        weights: (T,) positive.

    Returns:
        (T,) booleans, exactly max(1, round(`density` * T)) of them true.
    """
    length = len(weights)
    noise = max(1, round(density * length))
    mask = np.zeros(length, dtype=bool)
    # Adding Gumbel noise to log weights and sorting draws without replacement in proportion to them.
    for start in np.argsort(-(np.log(weights) + rng.gumbel(size=length))):
        left = noise - int(mask.sum())
        if left == 0:
            break
        size = min(int(rng.integers(1, 2 * mean_span)), left, length - start)
        mask[start : start + size] = True
    return mask


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>`, ... in the order in which they replace spans."""
    return tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(SENTINELS)])


def corrupt(
    tokens: np.ndarray, mask: np.ndarray, sentinels: Sequence[int], end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Replace each masked span by a sentinel; the target lists the spans (Raffel et al. 2020, figure 2).

    `Thank you <X> me to your party <Y> week </s>` and `<X> for inviting <Y> last <Z> </s>`.

    Args:
        tokens: (T,) ids.
        mask: (T,) true where masked; neighbours form one span.
        sentinels: ids of <X>, <Y>, <Z>, ... in order.
        end: id of the end of sequence.

    Returns:
        Input ids and target ids, both ending in `end`.
    """
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    order = np.cumsum(starts)  # number of the span, from 1, at and after its start
    ids = np.asarray(sentinels)
    inputs = np.where(starts, ids[order - 1], tokens)[~mask | starts]
    # Each span's sentinel stands before its first token.
    targets = np.insert(tokens[mask], np.flatnonzero(starts[mask]), ids[: order[-1]])
    return np.append(inputs, end), np.concatenate([targets, [ids[order[-1]], end]])


def cut(tokens: np.ndarray, end: int, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Cut a text into input and target, which continues it: T5's prefix language modelling.

    Lester et al. 2021 (section 3.2) found that T5 is hard to prompt after span corruption alone, which
    always shows it sentinels, and easy to prompt after some training on this task. After it, T5 also
    continues any text without a prefix.

    Args:
        tokens: (T,) ids.
        end: id of the end of sequence.
        share: the part of the tokens that becomes the target, at least one token.

    Returns:
        Input ids and target ids, both ending in `end`.
    """
    begin = len(tokens) - max(1, round(share * len(tokens)))
    return np.append(tokens[:begin], end), np.append(tokens[begin:], end)
