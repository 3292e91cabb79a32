"""What the student edition leaves blank; `blanks.md` says what it asks for in its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TEXTS = dict(
    re.findall(
        r"^## (.+)\n\n((?s:.+?))\n(?=\n## |\Z)",
        Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


@dataclass(frozen=True)
class Blank:
    """A function or class that the student writes.

    Attributes:
        name: in its module and in `layers.py`.
        module: the module of the kit that has the solution.
        group: the section of `layers.py`, and the self-check.
        notebook: the notebook that needs it first.
        points: of the notebook's points in the rubric.
    """

    name: str
    module: str
    group: str
    notebook: int
    points: int

    @property
    def text(self) -> str:
        """What is asked."""
        return _TEXTS[self.name].replace("{rule}", _TEXTS["rule"])

    @property
    def methods(self) -> Mapping[str, str]:
        """What is asked of each method of a class; one without a text is not blank."""
        start = re.compile(rf"{self.name}\.(\w+)")
        return {found[1]: text for name, text in _TEXTS.items() if (found := start.fullmatch(name))}

    def hint(self, method: str) -> str:
        """What the class has at hand for the method where single lines are blank; it may be empty."""
        return _TEXTS.get(f"{self.name}.{method} hint", "")


#: The sections of `layers.py` in order: the heading and the self-check of each group.
GROUPS = {
    "rest": ("What all methods share (from notebook 2 on)", "check_the_rest"),
    "soft_prompt": ("Soft prompt (notebook 2)", "check_soft_prompt"),
    "adapter": ("Adapter (notebook 3)", "check_adapter"),
    "lora": ("LoRA (notebook 5)", "check_lora"),
    "libraries": ("The libraries (notebooks 2, 4 and 5)", "check_libraries"),
}

_M = "peft_scratch.methods"
_L = "peft_scratch.libraries"

BLANKS: tuple[Blank, ...] = (
    Blank("find_in_blocks", f"{_M}.injection", "rest", 2, 1),
    Blank("freeze_all_but", f"{_M}.parameters", "rest", 2, 2),
    Blank("entries_of", f"{_M}.checkpoint", "rest", 2, 2),
    Blank("first_rows", f"{_M}.soft_prompt", "soft_prompt", 2, 1),
    Blank("PromptRows", f"{_M}.soft_prompt", "soft_prompt", 2, 3),
    Blank("lengthened", f"{_M}.soft_prompt", "soft_prompt", 2, 2),
    Blank("prepend_prompt", f"{_M}.soft_prompt", "soft_prompt", 2, 3),
    Blank("lengthen_cross_attention_mask", f"{_M}.soft_prompt", "soft_prompt", 2, 3),
    Blank("hook_prompt", f"{_M}.soft_prompt", "soft_prompt", 2, 2),
    Blank("tokens_left", f"{_M}.soft_prompt", "soft_prompt", 2, 1),
    Blank("parameters_of_a_prompt", f"{_M}.soft_prompt", "soft_prompt", 2, 1),
    Blank("Bottleneck", f"{_M}.adapter", "adapter", 3, 7),
    Blank("AdaptedLayerFF", f"{_M}.adapter", "adapter", 3, 6),
    Blank("adapter_places", f"{_M}.adapter", "adapter", 3, 3),
    Blank("feed_forward_layers", f"{_M}.derivation", "adapter", 3, 1),
    Blank("parameters_of_a_bottleneck", f"{_M}.adapter", "adapter", 3, 1),
    Blank("low_rank_update", f"{_M}.lora", "lora", 5, 3),
    Blank("kaiming_uniform_down", f"{_M}.lora", "lora", 5, 3),
    Blank("LoRALinear", f"{_M}.lora", "lora", 5, 9),
    Blank("attention_blocks", f"{_M}.derivation", "lora", 5, 1),
    Blank("parameters_of_an_update", f"{_M}.lora", "lora", 5, 1),
    Blank("prompt_by_opendelta", f"{_L}.opendelta_prompt", "libraries", 2, 2),
    Blank("bottleneck_config", f"{_L}.adapterhub_adapter", "libraries", 4, 1),
    Blank("adapter_by_adapterhub", f"{_L}.adapterhub_adapter", "libraries", 4, 1),
    Blank("lora_by_peft", f"{_L}.peft_lora", "libraries", 5, 3),
)


BY_NAME = {blank.name: blank for blank in BLANKS}
