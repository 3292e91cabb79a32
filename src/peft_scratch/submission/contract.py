"""What a right hand-in is: its parts and their shares, names, honest numbers, entries and counts."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from peft_scratch.exactness.t5_configs import OFFLINE, t5_config
from peft_scratch.experiments.runs import RUNS
from peft_scratch.methods import apply, count_parameters


class Item(NamedTuple):
    """A part of the hand-in, and the share of the grade that the course gives it."""

    title: str
    share: int


#: The parts, in the order of the checklist: 1 to 5 are the notebooks with what belongs to them.
FILES, REPORT = 0, 6
ITEMS = {
    FILES: Item("Files and names", 0),
    1: Item("Notebook 1, full fine-tuning", 5),
    2: Item("Notebook 2, soft prompt", 25),
    3: Item("Notebook 3, adapter", 25),
    4: Item("Notebook 4, adapter by a library", 5),
    5: Item("Notebook 5, LoRA", 30),
    REPORT: Item("Report", 15),
}
#: 105: five are a bonus.
WHOLE = sum(item.share for item in ITEMS.values())

#: What three to four published runs of the course's constants gave, one seed each: lowest, highest, in %.
BANDS = {
    "full": (89.9, 90.1),
    "prompt_scratch_n10": (86.6, 87.1),
    "prompt_opendelta_n1": (84.7, 85.0),
    "prompt_opendelta_n10": (86.5, 86.9),
    "adapter_scratch_b8": (90.5, 90.9),
    "adapter_adapterhub_b8": (90.1, 90.4),
    "adapter_adapterhub_b1": (89.1, 89.3),
    "lora_scratch_r8": (89.1, 89.5),
    "lora_peft_r1": (88.5, 88.8),
    "lora_peft_r8": (88.7, 88.9),
}
#: How far another seed may lie outside the band, in points; from FAR on, something else was run.
SEED, FAR = 0.3, 1.0
#: How far a reload may be from the reported number, in points: another device rounds differently.
RELOAD = 0.5

#: Notebooks that have to print `Number of parameters: …` of the whole model.
PRINT_A_COUNT = (1, 2, 3, 5)

WEIGHT_FILES = {run.weight_file: run for run in RUNS.values() if run.weight_file}

#: Before the names of what was packed from an offline run.
REHEARSAL = "REHEARSAL_"


def points_outside(run_id: str, percent: float) -> float:
    """How many points `percent` lies outside the band of the run's honest numbers; 0 inside."""
    low, high = BANDS[run_id]
    return round(max(low - percent, percent - high, 0.0), 6)


@dataclass(frozen=True)
class Fitted:
    """A run on a base, in sizes alone.

    Attributes:
        entries: the trained parameters by name, without any numbers in them.
        added, whole: parameters that the method adds, and of the whole model.
    """

    entries: dict[str, nn.Parameter]
    added: int
    whole: int


def base_of(profile: str) -> str:
    """The name of the base that a profile's runs start from, as `t5_config` knows it."""
    return "t5-small" if profile == "course" else OFFLINE


@functools.cache
def fitted(run_id: str, base: str) -> Fitted:
    """The sizes of a run on `base`, `t5-small` or `offline`, from the very layers that are trained."""
    config = t5_config(base)
    with torch.device("meta"):  # a shape without memory
        model = T5ForConditionalGeneration(config)
    method, whole = RUNS[run_id].method, count_parameters(model)
    entries = {}
    if RUNS[run_id].weight_file:
        named = apply(method, model).model.named_parameters()
        entries = {name: p for name, p in named if method.declares(name)}
    added = method.added_parameters(config)
    return Fitted(entries, added, whole + added)


# Names


class Name(NamedTuple):
    """Student number and name, as a file's name gives them."""

    number: str
    name: str


_KIND = r"(notebooks?|codes?|weights?|models?|reports?|files?|pdf|zip|\(?\d\)?)"


def read_name(file_name: str) -> Name | None:
    """The number and name in `{STD_Number}_{Name}…`, without what says which of the three files it is.

    >>> read_name("REHEARSAL_400123456_Ada_Lovelace_notebooks.zip")
    Name(number='400123456', name='ada lovelace')
    """
    stem = unicodedata.normalize("NFKC", file_name.removeprefix(REHEARSAL)).rpartition(".")[0].casefold()
    found = re.fullmatch(r"(\d{4,12})[\s_.-]+(\S.*)", stem)
    if found is None:
        return None
    parts = re.split(r"[\s_.-]+", found[2])
    while parts and re.fullmatch(_KIND, parts[-1]):
        parts.pop()
    # Digits of any script: Persian keyboards write Persian ones.
    number = "".join(str(unicodedata.digit(digit)) for digit in found[1])
    return Name(number, " ".join(parts)) if parts else None


def file_names(number: str, name: str) -> tuple[str, str, str]:
    """The names of the three files: notebooks, weights, report."""
    stem = f"{number}_{name}"
    return f"{stem}_notebooks.zip", f"{stem}_weights.zip", f"{stem}.pdf"
