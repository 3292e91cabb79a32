"""What is measured: a T5 with random weights and a method in it, in the training loop, on real reviews."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from peft_scratch.data.batches import Collator, evenly_spaced, subset
from peft_scratch.data.offline_reviews import imdb_split
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.errors import UserError
from peft_scratch.exactness.pairs import Pair
from peft_scratch.methods import Method, apply
from peft_scratch.methods.parameters import count_parameters
from peft_scratch.paths import OFFLINE_BASE
from peft_scratch.training.evaluation import MALFORMED, generated_predictions
from peft_scratch.training.recipe import Recipe
from peft_scratch.training.trainer import Trainer

SEED = 0
# So small that the few steps of a measurement hardly change the model.
LEARNING_RATE = 1e-6
# `taught` asks the model about this many reviews, and gives up after this many steps.
ASKED = 16
MOST_STEPS = 200


@functools.cache
def tokenizer() -> PreTrainedTokenizerBase:
    """The offline base's: t5-small's own is on the Hub. Its ids are fewer than t5-small's rows."""
    return AutoTokenizer.from_pretrained(OFFLINE_BASE)


@functools.cache
def reviews(part: str, size: int, max_tokens: int) -> Collator:
    """`size` reviews of the offline split's `part`, evenly spaced, cut to `max_tokens` tokens."""
    table = imdb_split()
    table = table[table.part == part]
    table = table.iloc[evenly_spaced(len(table), size)]
    return Collator(
        tokenise(table.text.tolist(), tokenizer(), max_tokens),
        table.label.tolist(),
        label_ids(tokenizer()),
        tokenizer().pad_token_id,
    )


def full_batch(size: int, tokens: int) -> Collator:
    """`size` inputs of exactly `tokens` tokens, cut from reviews that are joined together."""
    if tokens < 1:
        raise UserError("The prompt rows leave no token for a review: ask for longer inputs.")
    collator = reviews("train", 20 * size, tokens)
    joined = [id for row in collator.inputs for id in row]
    rows = [joined[i * tokens : (i + 1) * tokens] for i in range(size)]
    if len(rows[-1]) < tokens:
        raise UserError(f"The reviews are too few for {size} inputs of {tokens} tokens.")
    return Collator(rows, [i % 2 for i in range(size)], collator.targets, collator.pad_id)


def random_t5(config: T5Config) -> T5ForConditionalGeneration:
    """A T5 of `config` in evaluation mode with random weights, the same every time."""
    config = copy.deepcopy(config)
    config.decoder_start_token_id = config.pad_token_id  # as in every released T5
    if len(tokenizer()) > config.vocab_size:
        raise UserError(
            f"The reviews' tokens need {len(tokenizer())} rows, the model has {config.vocab_size}."
        )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return T5ForConditionalGeneration(config).eval()


def taught(config: T5Config) -> T5ForConditionalGeneration:
    """`random_t5`, taught to answer as a trained model does: with a label word and the end token.

    With random weights, generation would always continue to its limit of five tokens, which takes longer than
    with a trained model. All weights are trained on short beginnings of reviews, until the model answers
    each of `ASKED` reviews with a label word. For the time it does not matter which one.
    """
    model = random_t5(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    short = reviews("train", 8 * MOST_STEPS, 16)
    asked = reviews("test", ASKED, 64)(list(range(ASKED)))
    inputs = {name: asked[name] for name in ("input_ids", "attention_mask")}
    for step in range(MOST_STEPS):
        # From both ends of the split, which has the negative reviews first.
        rows = [step * 4 + i for i in range(4)] + [len(short.inputs) - 1 - step * 4 - i for i in range(4)]
        batch = short(rows)
        del batch["index"]
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            with torch.inference_mode():
                if (generated_predictions(model, inputs, tokenizer()) != MALFORMED).all():
                    return model
    raise RuntimeError(f"after {MOST_STEPS} steps the model does not answer with label words")


def typical(batches: Sequence[list[int]], lengths: Sequence[int], count: int) -> list[list[int]]:
    """`count` of the batches, evenly spaced among all of them in the order of their padded size."""
    ordered = sorted(batches, key=lambda batch: len(batch) * max(lengths[i] for i in batch))
    return [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]


def method_rows(method: Method) -> int:
    """How many rows `method` puts before an input."""
    return getattr(method, "virtual_tokens", 0)


def tuned(method: Method, base: nn.Module) -> nn.Module:
    """A copy of `base` with `method` in it."""
    torch.manual_seed(SEED)
    return apply(method, copy.deepcopy(base)).model


def by_library(pair: Pair, base: nn.Module) -> nn.Module:
    """A copy of `base` with the library's method of `pair` in it. Only what the library adds is trained."""
    torch.manual_seed(SEED)
    model = copy.deepcopy(base)
    frozen = {id(parameter) for parameter in model.parameters()}
    model = pair.build(model)
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
    added, expected = count_parameters(model, trainable_only=True), pair.ours.added_parameters(base.config)
    assert added == expected, f"{pair.id}: {added:,} parameters train, not {expected:,}"
    return model


class Subject:
    """A model (of `tuned` or `by_library`), about to be trained by `recipe`.

    Attributes:
        model: prepared by `accelerator`.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.recipe, self.accelerator = recipe, Accelerator(cpu=True)
        self._trainer = Trainer(
            recipe.cast_frozen(model),
            accelerator=self.accelerator,
            recipe=recipe,
            learning_rate=LEARNING_RATE,
            batch_size=1,
        )
        self.model = self._trainer.prepared

    def train(self, collator: Collator, batches: list[list[int]] | None = None) -> None:
        """Steps of the one training loop on `batches`; without any, one step on all of `collator`."""
        batches = batches or [list(range(len(collator.inputs)))]
        self._trainer.batch_size = self._trainer.micro_batch = max(map(len, batches))
        self._trainer.train_batches(collator, batches, "measuring")


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each of `works` in each round. They take turns, in reverse order in every other round, so
    that a slow moment of the machine affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for i in range(rounds):
        for name in list(works)[:: 1 if i % 2 == 0 else -1]:
            started = time.perf_counter()
            works[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def peak_allocated(work: Callable[[], object]) -> int:
    """The most bytes that torch held at once during `work`, above what it held before, by its profiler.

    Unlike the memory of the process, it does not depend on what was allocated and freed before.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(np.cumsum([change for _, change in changes]).max())


def chosen_reviews(collator: Collator, batches: list[list[int]]) -> Collator:
    """The reviews of `batches` alone."""
    return subset(collator, [i for batch in batches for i in batch])
