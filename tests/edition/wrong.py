"""Every mistake that has a wrong layer, with the group and the blank it stands in."""

from wrong_adapter import ADAPTER
from wrong_lora import LORA
from wrong_prompt import PROMPT
from wrong_rest import LIBRARIES, REST

WRONG = [
    (group, mistake, blank, instead)
    for group, cases in (
        ("lora", LORA),
        ("adapter", ADAPTER),
        ("soft_prompt", PROMPT),
        ("rest", REST),
        ("libraries", LIBRARIES),
    )
    for mistake, blank, instead in cases
]
