"""Compare the two sides of a pair: the largest differences, with the same weights and batches.

Float32, dropout off. Everything but the method itself is a copy of the same base.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.assignment import LABEL_WORDS, PROFILES
from peft_scratch.data.base_model import load_base
from peft_scratch.data.batches import Collator
from peft_scratch.data.offline_reviews import imdb_split
from peft_scratch.errors import UserError
from peft_scratch.exactness.differences import DIFFERENCES
from peft_scratch.exactness.page import page
from peft_scratch.exactness.pairs import PAIRS, Pair, as_it_is
from peft_scratch.methods.method import apply
from peft_scratch.methods.parameters import count_parameters, freeze_all_but, trainable_names

#: The largest allowed `max |difference|`: of logits, loss and gradients, and of the weights after the steps.
LIMIT, LIMIT_AFTER_STEPS = 1e-6, 1e-5
STEPS = 50
#: How much one weight is changed by for the negative control.
NUDGE = 1e-2
#: The standard deviation of the noise on the starting weights: without noise LoRA and the adapter start as
#: the identity, and half of their gradients are zero.
NOISE = 0.05

_LIBRARIES = ("torch", "transformers", "peft", "adapters", "opendelta")

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Differences:
    """max |ours - theirs| of each thing compared."""

    logits: float
    loss: float
    gradients: float
    weights_after_steps: float = 0.0
    moved: float = 0.0  # how far the steps moved our own weights

    @property
    def equal(self) -> bool:
        """Whether each is within its limit."""
        return (
            max(self.logits, self.loss, self.gradients) <= LIMIT
            and self.weights_after_steps <= LIMIT_AFTER_STEPS
        )


def compare(
    pair: Pair, base: T5ForConditionalGeneration, batches: Sequence[Batch], steps: int
) -> Differences:
    """Build both sides of `pair` on copies of `base` and compare them.

    Logits, loss and gradients are compared on the first batch. Then come `steps` steps of AdamW, each on the
    next batch; after the last batch, the first is used again.
    """
    ours, theirs, names = build(pair, base)
    logits, loss, gradients = _differences(pair, ours, theirs, names, batches[0])
    start = {name: ours.get_parameter(name).detach().clone() for name in names}
    for model in (ours, theirs):
        optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), pair.learning_rate)
        for step in range(steps):
            optimiser.zero_grad()
            model(**batches[step % len(batches)]).loss.backward()
            optimiser.step()
    after = max(distance(*_partners(pair, ours, theirs, name)) for name in names)
    moved = max(distance(ours.get_parameter(name), start[name]) for name in names)
    return Differences(logits, loss, gradients, after, moved)


def negative_control(pair: Pair, base: T5ForConditionalGeneration, batch: Batch) -> Differences:
    """The same comparison, but one weight of the library is changed by `NUDGE`: it must fail."""
    ours, theirs, names = build(pair, base)
    with torch.no_grad():
        weight = _partners(pair, ours, theirs, names[-1])[1]
        weight[(0,) * weight.dim()] += NUDGE
    return Differences(*_differences(pair, ours, theirs, names, batch))


def base_difference(pair: Pair, base: T5ForConditionalGeneration, batch: Batch) -> float:
    """max |difference| between the logits of the plain base and of the library's base, without any method."""
    prepared = copy.deepcopy(base)
    pair.prepare(prepared)
    with torch.no_grad():
        return distance(base(**batch).logits, prepared(**batch).logits)


def logits_in_our_order(pair: Pair, base: T5ForConditionalGeneration, batch: Batch) -> float | None:
    """max |difference| of the logits without `pair.reorder`; None for a pair that does not reorder."""
    if pair.reorder is as_it_is:
        return None
    ours, theirs, _ = build(replace(pair, reorder=as_it_is), base)
    with torch.no_grad():
        return distance(ours(**batch).logits, theirs(**batch).logits)


def build(pair: Pair, base: T5ForConditionalGeneration) -> tuple[nn.Module, nn.Module, list[str]]:
    """Both sides on copies of `base`, with the same weights; and our names of the parameters that both train.

    Raises:
        AssertionError: the library trains parameters that the map between the weights does not cover.
    """
    plain = copy.deepcopy(base)
    pair.prepare(plain)
    ours = apply(pair.ours, plain).model
    pair.reorder(ours)
    names = [name for name in trainable_names(ours) if pair.shares(name)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name in names:
                parameter += NOISE * torch.randn(parameter.shape, generator=generator)
    freeze_all_but(ours, set(names).__contains__)

    theirs = pair.build(copy.deepcopy(base)).eval()
    partners = {pair.names.theirs(name) for name in names}
    freeze_all_but(theirs, partners.__contains__)
    added = count_parameters(theirs) - count_parameters(base)
    covered = sum(theirs.get_parameter(name).numel() for name in partners)
    assert added == covered, f"{pair.id}: the library adds {added:,} parameters, we have {covered:,} of them"
    with torch.no_grad():
        for name in names:
            mine, other = _partners(pair, ours, theirs, name)
            other.copy_(mine)
    return ours, theirs, names


def _partners(pair: Pair, ours: nn.Module, theirs: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """Our parameter called `name` and the library's, as matrices of the same orientation."""
    return ours.get_parameter(name), pair.names.turned(theirs.get_parameter(pair.names.theirs(name)))


def _differences(
    pair: Pair, ours: nn.Module, theirs: nn.Module, names: Iterable[str], batch: Batch
) -> tuple[float, float, float]:
    outputs = [model(**batch) for model in (ours, theirs)]
    for output in outputs:
        output.loss.backward()
    gradients = []
    for name in names:
        theirs_of_it = theirs.get_parameter(pair.names.theirs(name))
        gradients.append(distance(ours.get_parameter(name).grad, pair.names.turned(theirs_of_it.grad)))
    return (
        distance(outputs[0].logits, outputs[1].logits),
        distance(outputs[0].loss, outputs[1].loss),
        max(gradients),
    )


def distance(a: Tensor, b: Tensor) -> float:
    """max |a - b| over all entries."""
    return (a - b).abs().max().item()


# What the comparison uses: bases, and batches of real reviews.

REVIEWS, TOKENS = 2, 48


@dataclass(frozen=True)
class Base:
    """A base for the comparison: its name, what it is, and how to load it with its tokenizer.

    Attributes:
        load: returns the model, in evaluation mode, and a function from a text to token numbers.
    """

    name: str
    title: str
    about: str
    load: Callable[[], tuple[T5ForConditionalGeneration, Callable[[str], list[int]]]]


def _random(config: T5Config) -> tuple[T5ForConditionalGeneration, Callable[[str], list[int]]]:
    """A seeded random T5. Its embedding rows mean nothing, so a word's number is its hash."""

    def encode(text: str) -> list[int]:
        return [2 + zlib.crc32(word.encode()) % (config.vocab_size - 2) for word in text.split()]

    torch.manual_seed(0)
    config._attn_implementation = "eager"  # as the kit loads its base
    return T5ForConditionalGeneration(config).eval(), encode


def _offline() -> tuple[T5ForConditionalGeneration, Callable[[str], list[int]]]:
    """The kit's own base."""
    model, tokenizer = load_base(PROFILES["offline"])

    def encode(text: str) -> list[int]:
        # Cut here, because transformers warns about texts of more than the 512 tokens that T5 was trained on.
        return tokenizer(text, add_special_tokens=False, truncation=True, max_length=TOKENS).input_ids

    return model, encode


_TINY = T5Config(
    vocab_size=512, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
)
_SMALL = T5Config(decoder_start_token_id=0)  # transformers' defaults are t5-small's sizes

#: The three bases by name.
BASES = {
    base.name: base
    for base in (
        Base("tiny", "A tiny random T5", "d_model 32, 2 + 2 layers.", partial(_random, _TINY)),
        Base("offline", "The offline base", "The kit's own pre-trained T5.", _offline),
        Base(
            "t5-small",
            "A random model of t5-small's size",
            "60,506,624 parameters, d_model 512, 6 + 6 layers.",
            partial(_random, _SMALL),
        ),
    )
}


def chosen(names: Sequence[str]) -> list[Base]:
    """The bases called `names`.

    Raises:
        UserError: there is no base of one of these names.
    """
    if unknown := [name for name in names if name not in BASES]:
        raise UserError(f"There is no base {unknown[0]!r}; there are {', '.join(BASES)}.")
    return [BASES[name] for name in names]


def review_batches(encode: Callable[[str], list[int]], count: int) -> list[Batch]:
    """`count` batches of training reviews with their label words. A batch has one review of each label.

    The second review is cut to half the length of the first, so that there is padding. Shapes:
    `(REVIEWS, TOKENS)`.
    """
    table = imdb_split()
    train = table[table.part == "train"]
    by_label = [train[train.label == label].text.head(count).tolist() for label in (0, 1)]
    targets = [[*encode(word), 1] for word in LABEL_WORDS]
    batches = []
    for texts in zip(*by_label, strict=True):
        lengths = (TOKENS, TOKENS // 2)
        rows = [[*encode(text)[: length - 1], 1] for text, length in zip(texts, lengths, strict=True)]
        batch = Collator(rows, [0, 1], targets, pad_id=0)([0, 1])
        del batch["index"]
        batches.append(batch)
    return batches


def run(output: Path, names: Sequence[str] = ("tiny", "offline", "t5-small")) -> dict:
    """Compare every pair on every base named; write `exactness.json` and `exactness.md` into `output`.

    Earlier results of other bases are kept, because t5-small's size takes many minutes.

    Returns:
        The content of the JSON.

    Raises:
        UserError: a name is unknown, or the offline base or a library is missing.
    """
    wanted = chosen(names)
    output.mkdir(parents=True, exist_ok=True)
    results = already_measured(output)
    measured = {base["name"]: base for base in results["bases"]}
    measured |= {base.name: _on(base) for base in wanted}
    results["bases"] = [measured[name] for name in BASES if name in measured]
    write(output, results)
    return results


def already_measured(output: Path) -> dict:
    """What `exactness.json` in `output` holds before a measurement: earlier results, limits, differences."""
    path = output / "exactness.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        "limit": LIMIT,
        "limit_after_steps": LIMIT_AFTER_STEPS,
        "nudge": NUDGE,
        "noise": NOISE,
        "bases": before.get("bases", []),
        "differences": [difference.record() for difference in DIFFERENCES],
        "versions": before.get("versions", []),
    }


def write(output: Path, results: dict) -> None:
    """Write `exactness.json` and `exactness.md` into `output`."""
    (output / "exactness.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (output / "exactness.md").write_text(page(results), encoding="utf-8")


def _on(base: Base) -> dict:
    model, encode = base.load()
    batches = review_batches(encode, STEPS)
    rows = []
    for pair in tqdm(PAIRS, desc=base.title):
        differences = compare(pair, model, batches, STEPS)
        control = negative_control(pair, model, batches[0])
        rows.append(
            {
                "ours": pair.name,
                "library": pair.library,
                "what": pair.what,
                **asdict(differences),
                "equal": differences.equal,
                "control": control.logits,
                "control_detected": not control.equal,
                "base_alone": base_difference(pair, model, batches[0]),
                "logits_in_our_order": logits_in_our_order(pair, model, batches[0]),
            }
        )
    return {
        "name": base.name,
        "title": base.title,
        "about": base.about,
        "reviews": REVIEWS,
        "tokens": TOKENS,
        "steps": STEPS,
        "versions": {library: version(library) for library in _LIBRARIES},
        "rows": rows,
    }
