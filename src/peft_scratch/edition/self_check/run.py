"""Run the checks of a group of blanks on a student's layers, and say what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from peft_scratch.edition import layers_file
from peft_scratch.edition.self_check import adapter, libraries, lora, soft_prompt, whole_model
from peft_scratch.edition.self_check.diagnoses import DIAGNOSES
from peft_scratch.edition.self_check.oracle import Oracle, recorded

Check = Callable[[Any, Oracle], "str | None"]


@dataclass(frozen=True)
class Item:
    """One check.

    Attributes:
        name: the blank that it is about.
        check: returns a mistake's name, or None.
        after: blanks that have to be right before; otherwise the check would blame the wrong one.
    """

    name: str
    check: Check
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of one check: `mistake` is None if it passed, and a name of `DIAGNOSES` where it has one."""

    name: str
    mistake: str | None
    sentence: str = ""


def _formula(name: str) -> Item:
    return Item(name, partial(whole_model.formula, name=name))


CHECKS: dict[str, tuple[Item, ...]] = {
    "lora": (
        Item("low_rank_update", lora.update),
        Item("kaiming_uniform_down", lora.start_of_a),
        Item("LoRALinear", lora.layer),
        Item("LoRALinear.merge", lora.merging, ("LoRALinear",)),
        _formula("attention_blocks"),
        _formula("parameters_of_an_update"),
    ),
    "adapter": (
        Item("Bottleneck", adapter.bottleneck),
        Item("AdaptedLayerFF", adapter.adapted_layer, ("Bottleneck",)),
        Item("adapter_places", adapter.places),
        _formula("feed_forward_layers"),
        _formula("parameters_of_a_bottleneck"),
    ),
    "soft_prompt": (
        Item("first_rows", soft_prompt.start),
        Item("PromptRows", soft_prompt.rows),
        Item("lengthened", soft_prompt.mask),
        Item("prepend_prompt", soft_prompt.encoder_hook, ("PromptRows",)),
        Item("lengthen_cross_attention_mask", soft_prompt.decoder_hook),
        Item(
            "hook_prompt",
            soft_prompt.hooks,
            ("PromptRows", "prepend_prompt", "lengthen_cross_attention_mask"),
        ),
        Item("tokens_left", soft_prompt.tokens),
        _formula("parameters_of_a_prompt"),
    ),
    "rest": (
        Item("find_in_blocks", whole_model.places),
        Item("freeze_all_but", whole_model.freezing),
        Item("entries_of", whole_model.saving),
    ),
    "libraries": (
        Item("prompt_by_opendelta", libraries.delta_call),
        Item("bottleneck_config", libraries.hub_config),
        Item("adapter_by_adapterhub", libraries.hub_call),
        Item("lora_by_peft", libraries.peft_call),
    ),
}


def outcomes(student: Any, group: str, oracles: Sequence[Oracle] | None = None) -> list[Outcome]:
    """What the checks of `group` say of `student`, which has the names of `layers.py`."""
    found: dict[str, Outcome] = {}
    for item in CHECKS[group]:
        if group == "libraries" and not libraries.available(item.check):
            found[item.name] = Outcome(item.name, None, "not checked: the library is not installed")
            continue
        wrong = next((name for name in item.after if found[name].mistake is not None), None)
        if wrong:
            found[item.name] = Outcome(item.name, "waits", f"Not checked yet: it builds on {wrong}.")
        else:
            found[item.name] = _outcome(item, student, recorded() if oracles is None else oracles)
    return list(found.values())


def _outcome(item: Item, student: Any, oracles: Iterable[Oracle]) -> Outcome:
    for oracle in oracles:
        try:
            mistake = item.check(student, oracle)
        except NotImplementedError as blank:
            return Outcome(item.name, "blank", str(blank) or f"{item.name} is still blank.")
        except Exception as problem:  # whatever a student's code may raise
            return Outcome(item.name, "raised", _raised(problem))
        if mistake is not None:
            mistake = mistake.strip()
            return Outcome(item.name, mistake, str(DIAGNOSES[mistake]))
    return Outcome(item.name, None)


def _raised(problem: Exception) -> str:
    """What was raised, in one line, and at which line of the student's own code."""
    own = [frame for frame in traceback.extract_tb(problem.__traceback__) if _is_students(frame.filename)]
    where = f" in line {own[-1].lineno} of {layers_file.PATH.name}" if own else ""
    said = " ".join(str(problem).split())[:200]
    return f"{type(problem).__name__}{where}: {said or 'no message'}."


def _is_students(file: str) -> bool:
    return file == str(layers_file.PATH) or "ipykernel" in file


# What a notebook calls


def check_lora(layer: type | None = None) -> None:
    """Check the LoRA blanks; `layer` is a class to check in place of the `LoRALinear` of `layers.py`."""
    _say("lora", LoRALinear=layer)


def check_adapter(bottleneck: type | None = None, layer: type | None = None) -> None:
    """Check the adapter blanks; classes given are checked in place of those of `layers.py`."""
    _say("adapter", Bottleneck=bottleneck, AdaptedLayerFF=layer)


def check_soft_prompt(rows: type | None = None) -> None:
    """Check the soft prompt blanks; `rows` is a class to check in place of `PromptRows` of `layers.py`."""
    _say("soft_prompt", PromptRows=rows)


def check_the_rest() -> None:
    """Check the blanks that all methods share: finding places, freezing, saving."""
    _say("rest")


def check_libraries(*names: str) -> None:
    """Check the calls of the libraries, all or those named, such as `"lora_by_peft"`."""
    _say("libraries", only=names)


def check(*names: str) -> None:
    """Check the blanks called `names`, such as `"PromptRows"`, and what each builds on."""
    for group, items in CHECKS.items():
        if any(item.name.partition(".")[0] in names for item in items):
            _say(group, only=names)


def check_all() -> bool:
    """Check every blank; return whether all are right."""
    return all([_say(group) for group in CHECKS])


def _say(group: str, only: Sequence[str] = (), **instead: type | None) -> bool:
    """Print what the checks of `group` say; return whether all passed."""
    student = layers_file.current()
    given = {name: thing for name, thing in instead.items() if thing is not None}
    if given:
        student = SimpleNamespace(**{**vars(student), **given})
    found = [o for o in outcomes(student, group) if not only or o.name.partition(".")[0] in only]
    for outcome in found:
        verdict = "passed" if outcome.mistake is None else "not yet"
        print(f"{verdict:7}  {outcome.name}{': ' * bool(outcome.sentence)}{outcome.sentence}")
    return all(outcome.mistake is None for outcome in found)
