"""The hand counts: how many parameters a method adds, derived step by step in letters and in numbers.

Letters: V vocabulary, d width of the model (`d_model`), d' width of the attention (heads x `d_kv`), f width
of the feed-forward layer, g its matrices (2, or 3 where it is gated), H heads, k buckets of relative
positions, L_enc encoder blocks, L_dec decoder blocks; r rank, b bottleneck, N prompt rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from transformers import T5Config

#: A letter of a formula, with its index or its prime: `d`, `d'`, `L_enc`.
LETTER = re.compile(r"[A-Za-z](?:_[a-z]+)?'?")


@dataclass(frozen=True)
class Step:
    """A line of a derivation: what is counted, in symbols, with numbers, and its value."""

    what: str
    symbols: str
    numbers: str
    value: int


@dataclass(frozen=True)
class Derivation:
    """A hand count, such as `d·(f + f)`; the last step is the total."""

    steps: tuple[Step, ...]

    @property
    def symbols(self) -> str:
        """The formula in letters."""
        return self.steps[-1].symbols

    @property
    def with_numbers(self) -> str:
        """The formula with numbers, such as `512·(2048 + 2048)`."""
        return self.steps[-1].numbers

    @property
    def value(self) -> int:
        """The number of parameters."""
        return self.steps[-1].value


def letters(config: T5Config) -> dict[str, int]:
    """The sizes of a T5 of `config` under the letters above; an encoder alone has no decoder block."""
    return {
        "V": config.vocab_size,
        "d": config.d_model,
        "d'": config.num_heads * config.d_kv,
        "f": config.d_ff,
        "g": 3 if config.is_gated_act else 2,
        "H": config.num_heads,
        "k": config.relative_attention_num_buckets,
        "L_enc": config.num_layers,
        "L_dec": config.num_decoder_layers if config.is_encoder_decoder else 0,
    }


def attention_blocks() -> str:
    """How many attention layers a T5 has, in letters: an encoder block has one, a decoder block two."""
    # BEGIN SOLUTION
    return "L_enc + 2·L_dec"
    # END SOLUTION


def feed_forward_layers() -> str:
    """How many feed-forward layers a T5 has, in letters: each block has one."""
    # BEGIN SOLUTION
    return "L_enc + L_dec"
    # END SOLUTION


def step(what: str, symbols: str, sizes: Mapping[str, int]) -> Step:
    """A step whose numbers and value are those of its symbols: letters, digits, `+`, `·` and brackets."""
    numbers = LETTER.sub(lambda letter: str(sizes.get(letter[0], letter[0])), symbols)
    return Step(what, symbols, numbers, _value(numbers))


def total(steps: list[Step]) -> Step:
    """The sum of `steps`."""
    return Step(
        "sum",
        " + ".join(step.symbols for step in steps),
        " + ".join(step.numbers for step in steps),
        sum(step.value for step in steps),
    )


def _value(numbers: str) -> int:
    """The value of sums and products of whole numbers, such as `(6 + 6)·8`."""
    pairs = 1
    while pairs:  # the innermost brackets first; one without its other is no number below
        numbers, pairs = re.subn(r"\(([^()]*)\)", lambda inner: str(_value(inner[1])), numbers)
    return sum(math.prod(map(int, term.split("·"))) for term in numbers.split("+"))
