"""Checks of a student's layers: each says what is wrong in one sentence, and where to read.

In a notebook, `check_lora()` checks what stands in `layers.py`, and `check_lora(MyLoRALinear)` a class of
a cell. On the command line, `peft-scratch self-check layers.py` checks everything.
"""

from peft_scratch.edition.self_check.run import (
    check,
    check_adapter,
    check_all,
    check_libraries,
    check_lora,
    check_soft_prompt,
    check_the_rest,
)

__all__ = [
    "check",
    "check_adapter",
    "check_all",
    "check_libraries",
    "check_lora",
    "check_soft_prompt",
    "check_the_rest",
]
