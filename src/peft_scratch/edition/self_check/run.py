"""Run the checks of a student's layers, and say what they found."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

from peft_scratch.edition import layers_file
from peft_scratch.edition.self_check import adapter, libraries, lora, soft_prompt, whole_model
from peft_scratch.edition.self_check.diagnoses import DIAGNOSES
from peft_scratch.edition.self_check.oracle import Oracle, recorded
from peft_scratch.edition.self_check.shapes import DoNotFit
from peft_scratch.errors import UserError

Check = Callable[[Any, Oracle], "str | None"]


@dataclass(frozen=True)
class Item:
    """One check.

    Attributes:
        group: the section of `layers.py`.
        name: the blank that it is about, and its method if there is a check for that alone.
        check: returns a mistake's name, or None.
        after: blanks that must be right first; otherwise this check would name the wrong blank.
        library: imports the library that the blank is about.
    """

    group: str
    name: str
    check: Check
    after: tuple[str, ...] = ()
    library: Callable[[], ModuleType] | None = None

    @property
    def blank(self) -> str:
        """The blank's name in `layers.py`."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Outcome:
    """The result of one check.

    Attributes:
        mistake: a name of `DIAGNOSES`, or `raised`, `blank` or `waits`; None if there is none.
        sentence: what the student is told about it.
    """

    name: str
    mistake: str | None
    sentence: str = ""

    def __str__(self) -> str:
        verdict = self.mistake if self.mistake in ("blank", "waits") else "wrong"
        if self.mistake is None:
            verdict = "skipped" if self.sentence else "passed"
        return f"{verdict:7}  {self.name}{': ' * bool(self.sentence)}{self.sentence}"


def _formula(group: str, name: str) -> Item:
    return Item(group, name, partial(whole_model.formula, name=name))


#: In the order in which the notebooks ask for the blanks.
ITEMS = (
    Item("rest", "find_in_blocks", whole_model.places),
    Item("rest", "freeze_all_but", whole_model.freezing),
    Item("rest", "entries_of", whole_model.saving),
    Item("soft_prompt", "first_rows", soft_prompt.start),
    Item("soft_prompt", "PromptRows", soft_prompt.rows),
    Item("soft_prompt", "lengthened", soft_prompt.mask),
    Item("soft_prompt", "prepend_prompt", soft_prompt.encoder_hook, ("PromptRows", "lengthened")),
    Item("soft_prompt", "lengthen_cross_attention_mask", soft_prompt.decoder_hook, ("lengthened",)),
    Item(
        "soft_prompt",
        "hook_prompt",
        soft_prompt.hooks,
        ("PromptRows", "prepend_prompt", "lengthen_cross_attention_mask"),
    ),
    Item("soft_prompt", "tokens_left", soft_prompt.tokens),
    _formula("soft_prompt", "parameters_of_a_prompt"),
    Item("libraries", "prompt_by_opendelta", libraries.delta_call, (), libraries.import_opendelta),
    Item("adapter", "Bottleneck", adapter.bottleneck),
    Item("adapter", "AdaptedLayerFF", adapter.adapted_layer, ("Bottleneck",)),
    Item("adapter", "adapter_places", adapter.places),
    _formula("adapter", "feed_forward_layers"),
    _formula("adapter", "parameters_of_a_bottleneck"),
    Item("libraries", "bottleneck_config", libraries.hub_config, (), libraries.import_adapters),
    Item("libraries", "adapter_by_adapterhub", libraries.hub_call, (), libraries.import_adapters),
    Item("lora", "low_rank_update", lora.update),
    Item("lora", "kaiming_uniform_down", lora.start_of_a),
    Item("lora", "LoRALinear", lora.layer, ("low_rank_update", "kaiming_uniform_down")),
    Item("lora", "LoRALinear.merge", lora.merging, ("LoRALinear",)),
    _formula("lora", "attention_blocks"),
    _formula("lora", "parameters_of_an_update"),
    Item("libraries", "lora_by_peft", libraries.peft_call, (), libraries.import_peft),
)

#: The same by group.
CHECKS = {
    group: tuple(item for item in ITEMS if item.group == group)
    for group in dict.fromkeys(item.group for item in ITEMS)
}


def outcomes(
    student: Any,
    group: str | None = None,
    oracles: Sequence[Oracle] | None = None,
    only: Collection[str] = (),
    instead: Collection[str] = (),
) -> list[Outcome]:
    """What the checks say of `student`, which has the names of `layers.py`.

    Args:
        group: only these checks.
        oracles: the recordings; by default those that come with the kit.
        only: only the checks of these blanks.
        instead: blanks that were given in place of those of `layers.py`; they do not build on the file's.
    """
    oracles = recorded() if oracles is None else oracles
    found: dict[str, Outcome] = {}

    def find(item: Item) -> Outcome:
        if item.name not in found:
            before = [one for one in ITEMS if one.name in item.after]
            if item.blank in instead:
                before = [one for one in before if one.blank in instead]
            wrong = next((one.name for one in before if find(one).mistake is not None), None)
            waits = Outcome(item.name, "waits", f"Not checked yet: it builds on {wrong}.")
            found[item.name] = waits if wrong else outcome_of(item, student, oracles)
        return found[item.name]

    return [find(item) for item in ITEMS if group in (None, item.group) and (not only or item.blank in only)]


def outcome_of(item: Item, student: Any, oracles: Sequence[Oracle]) -> Outcome:
    """What one check says of `student`, without checking the blanks that it builds on."""
    if item.library is not None:
        try:
            item.library()
        except UserError:
            return Outcome(item.name, None, "Not checked: the library is not installed.")
    for oracle in oracles:
        try:
            mistake = item.check(student, oracle)
        except NotImplementedError as blank:
            return Outcome(item.name, "blank", str(blank) or f"{item.name} is still blank.")
        except DoNotFit as problem:
            line = _line_of(problem)
            said = f"Line {line} of {layers_file.PATH.name}: {problem}" if line else str(problem)
            return Outcome(item.name, "shapes", str(DIAGNOSES["shapes"]).format(said))
        except Exception as problem:  # a student's code may raise anything
            return Outcome(item.name, "raised", _raised(problem))
        if mistake is not None:
            mistake = mistake.strip()
            return Outcome(item.name, mistake, str(DIAGNOSES[mistake]))
    return Outcome(item.name, None)


def _raised(problem: Exception) -> str:
    """What was raised, in one line, and at which line of the student's own code."""
    line = _line_of(problem)
    where = f" in line {line} of {layers_file.PATH.name}" if line else ""
    said = " ".join(str(problem).split())[:200]
    return f"{type(problem).__name__}{where}: {said or 'no message'}."


def _line_of(problem: Exception) -> int | None:
    """The line of the student's own code that raised, if it is in there."""
    frames = traceback.extract_tb(problem.__traceback__)
    own = [f for f in frames if f.filename == str(layers_file.PATH) or "ipykernel" in f.filename]
    return own[-1].lineno if own else None


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


def check_libraries() -> None:
    """Check the calls of the libraries."""
    _say("libraries")


def check(*names: str) -> None:
    """Check the blanks called `names`, such as `"PromptRows"`."""
    check_all(names)


def check_all(only: Sequence[str] = ()) -> bool:
    """Check every blank, or `only` those; return whether they are right.

    Raises:
        UserError: there is no such blank.
    """
    known = list(dict.fromkeys(item.blank for item in ITEMS))
    if unknown := [name for name in only if name not in known]:
        raise UserError(f"No blank is called {unknown[0]}; the blanks are {', '.join(known)}.")
    return _say(only=only)


def _say(group: str | None = None, only: Sequence[str] = (), **instead: type | None) -> bool:
    """Print what the checks say; return whether all passed."""
    student: Any = layers_file.current()
    given = {name: thing for name, thing in instead.items() if thing is not None}
    if given:
        student = SimpleNamespace(**{**vars(student), **given})
    found = outcomes(student, group, only=only, instead=given)
    print("\n".join(map(str, found)))
    return all(outcome.mistake is None for outcome in found)
