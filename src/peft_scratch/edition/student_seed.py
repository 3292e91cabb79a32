"""A seed for each student, so that the same code gives different numbers."""

from __future__ import annotations

import hashlib
import unicodedata

from peft_scratch.errors import UserError


def seed_of(number: str) -> int:
    """The seed of the student with this number. Digits of any script are accepted.

    Raises:
        UserError: it is not a number.
    """
    digits = "".join(str(unicodedata.decimal(digit, "")) for digit in number.strip())
    if len(digits) != len(number.strip()):
        raise UserError(f"A student number is made of digits, not {number!r}.")
    if not digits:
        raise UserError("Write your student number between the quotes of `seed_of`, then run the cell again.")
    return int(hashlib.sha256(digits.encode()).hexdigest()[:6], 16) % 100_000
