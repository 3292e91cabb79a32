"""The exactness of one method as a table for a notebook. Each function asserts what it shows."""

from __future__ import annotations

from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.exactness.ledger import account
from peft_scratch.exactness.pairs import PAIRS
from peft_scratch.exactness.parity import Batch, compare, negative_control
from peft_scratch.exactness.t5_configs import empty_t5
from peft_scratch.methods import Method

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def equal_to_the_libraries(method: Method, base: T5ForConditionalGeneration, batch: Batch) -> Table:
    """The largest differences between our method and each library's, with the same weights on `base`.

    The last column is the negative control: one weight of the library is changed, and the outputs differ.

    Args:
        method: from scratch, at one of the assignment's sizes.

    Returns:
        Header and rows.

    Raises:
        UserError: the method is not compared at this size.
    """
    pairs = [pair for pair in PAIRS if pair.ours == method]
    if not pairs:
        raise UserError(f"There is no comparison of {method!r}; take one of the assignment's sizes.")
    rows = []
    for pair in pairs:
        same = compare(pair, base, [batch], steps=0)
        nudged = negative_control(pair, base, batch)
        assert same.equal, f"{pair.id}: {same}"
        assert not nudged.equal, f"{pair.id}: the changed weight was not noticed"
        numbers = (same.logits, same.loss, same.gradients, max(nudged.logits, nudged.loss, nudged.gradients))
        rows.append((f"{pair.library} {pair.what}", *(f"{number:.1g}" for number in numbers)))
    return ("library", "logits", "loss", "gradients", "with one weight moved"), rows


def counted_in_the_libraries(method: Method, config: T5Config) -> Table:
    """How many parameters each library adds, by hand and counted, by default and set up like ours.

    Returns:
        Header and rows; the last column says what differs.
    """
    rows = []
    for count in account(method, empty_t5(config)).libraries:
        if count.counted is not None:
            assert count.counted == count.by_hand, count
            numbers = (f"{count.by_hand:,}", f"{count.counted:,}")
            rows.append((f"{count.library}, {count.setting}", *numbers, count.reason))
    return ("library", "by hand", "counted", "what differs"), rows
