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

from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.exactness.t5_configs import OFFLINE, t5_config
from peft_scratch.libraries import method_of
from peft_scratch.methods import apply, count_parameters

#: How far a reload may be from the reported number, in points: another device rounds differently.
RELOAD = 0.5

#: Before the names of what was packed from an offline run.
REHEARSAL = "REHEARSAL_"


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


def base_name_of(profile: str) -> str:
    """The name of the base that a profile's runs start from, as `t5_config` knows it."""
    return "t5-small" if PROFILES[profile].is_assignment else OFFLINE


@functools.cache
def fitted(run_id: str, base: str) -> Fitted:
    """The sizes of a run on `base`, `t5-small` or `offline`, from the very layers that are trained."""
    config = t5_config(base)
    with torch.device("meta"):  # a shape without memory
        model = T5ForConditionalGeneration(config)
    method, whole = method_of(RUNS[run_id]), count_parameters(model)
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
