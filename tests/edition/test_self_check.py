"""The self-check: it passes the solution, and names the mistake of every wrong layer."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import wrong_lora
from solution import solution
from typer.testing import CliRunner
from wrong import WRONG

from peft_scratch.cli import app
from peft_scratch.edition import layers_file
from peft_scratch.edition.blanks import BLANKS
from peft_scratch.edition.record import SHIPPED, random_sizes, record
from peft_scratch.edition.self_check import oracle as oracles
from peft_scratch.edition.self_check.diagnoses import DIAGNOSES
from peft_scratch.edition.self_check.run import CHECKS, ITEMS, check_all, outcome_of, outcomes
from peft_scratch.errors import UserError
from peft_scratch.methods.derivation import step

#: What is said of a mistake that nobody has made yet, or that no single wrong layer stands for.
REMAINDERS = {
    *(
        "lora_forward",
        "merge_wrong",
        "bottleneck_forward",
        "adapted_forward",
        "adapter_places",
    ),
    *("rows_wrong", "places_wrong", "count_wrong"),
}


def _mistake(group, blank, student, recordings):
    item = next(item for item in CHECKS[group] if item.name == blank)
    return outcome_of(item, student, recordings).mistake


def _with(blank, instead):
    return solution(**{blank.partition(".")[0]: instead})


@pytest.fixture(scope="module")
def recordings():
    return oracles.recorded()


@pytest.mark.parametrize("group", CHECKS)
def test_the_solution_passes(group, recordings):
    assert [o for o in outcomes(solution(), group, recordings) if o.mistake is not None] == []


@pytest.mark.parametrize(("group", "mistake", "blank", "instead"), WRONG)
def test_a_wrong_layer_is_recognised(group, mistake, blank, instead, recordings):
    assert _mistake(group, blank, _with(blank, instead), recordings) == mistake


def test_mistakes_are_told_apart_at_random_sizes_and_seeds():
    """And the solution has none at any of them."""
    here = [
        case for case in WRONG if case[0] != "libraries"
    ]  # those do not depend on the recording's numbers
    right = 0
    for seed in (11, 12, 13):
        recording = [record(random_sizes(seed), seed)]
        for group in CHECKS:
            if group != "libraries":
                assert all(o.mistake is None for o in outcomes(solution(), group, recording)), (seed, group)
        right += sum(
            _mistake(g, blank, _with(blank, i), recording) == mistake for g, mistake, blank, i in here
        )
    assert right >= 0.95 * 3 * len(here)


def test_every_diagnosis_has_a_wrong_layer():
    shown = {mistake for _, mistake, _, _ in WRONG}
    assert len(shown) >= 30
    assert shown <= set(DIAGNOSES)
    assert set(DIAGNOSES) - shown == REMAINDERS
    assert all(d.sentence.endswith(".") and "`" not in d.read for d in DIAGNOSES.values())


def test_a_sentence_shows_no_code_of_the_solution():
    from peft_scratch.edition.solutions import solution_lines, squeezed

    said = [squeezed(str(diagnosis)) for diagnosis in DIAGNOSES.values()]
    assert not [line for line in solution_lines() if any(line in sentence for sentence in said)]


@pytest.mark.parametrize("group", ["lora", "adapter", "soft_prompt", "rest"])
def test_a_check_takes_at_most_two_seconds(group):
    outcomes(solution(), group)  # whatever is imported late
    started = time.process_time()
    outcomes(solution(), group)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("index", range(len(SHIPPED)))
def test_the_recordings_are_what_the_layers_do(index, recordings):
    """After a change to a layer: `python -m peft_scratch.edition.record`."""
    made = record(*SHIPPED[index])
    kept = recordings[index]
    assert made.facts == kept.facts and set(made.tensors) == set(kept.tensors)
    if torch.equal(made["lora/x"], kept["lora/x"]):  # another torch may draw other numbers from a seed
        assert [name for name in kept.tensors if not oracles.close(made[name], kept[name])] == []


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A `layers.py` to write, from which `layers_file.current()` is made."""
    path = tmp_path / "layers.py"
    monkeypatch.setattr(layers_file, "PATH", path)
    monkeypatch.setitem(layers_file._state, "stamp", None)
    monkeypatch.setitem(layers_file._state, "module", None)
    return path


def _of_update(file, computed, recordings):
    file.write_text(f"def low_rank_update(x, a, b, scaling):\n    return {computed}\n")
    student = _with("low_rank_update", layers_file.current().low_rank_update)
    return outcomes(student, "lora", recordings)[0]


def test_what_a_students_code_raises_is_one_sentence(file, recordings):
    outcome = _of_update(file, "x.at(b)", recordings)
    assert outcome.mistake == "raised"
    assert outcome.sentence.startswith("AttributeError in line 2 of layers.py: ")
    assert "\n" not in outcome.sentence


@pytest.mark.parametrize(
    ("computed", "said"),
    [
        (
            "x @ a.T @ b * scaling",
            "In the product `x @ a.T`, the shapes (2, 5, 16) and (3, 16) do not fit: the last axis of the "
            "first has length 16, the last but one of the second 3.",
        ),
        (
            "x @ a * scaling @ b.T",
            "In the product `x @ a @ b.T`, the shapes (2, 5, 3) and (16, 3) do not fit: the last axis of the "
            "first has length 3, the last but one of the second 16.",
        ),
        (
            "x @ (a @ b.T)",
            "In the product `a @ b.T`, the shapes (16, 3) and (16, 3) do not fit: the last axis of the first "
            "has length 3, the last but one of the second 16.",
        ),
        ("x @ a + b", "The shapes (2, 5, 3) of `x @ a` and (3, 16) of `b` do not fit together."),
    ],
)
def test_shapes_that_do_not_fit_are_named_with_their_place(file, recordings, computed, said):
    outcome = _of_update(file, computed, recordings)
    assert outcome.mistake == "shapes"
    assert outcome.sentence == f"Line 2 of layers.py: {said} Read the shapes in the docstring."


def test_a_check_that_builds_on_a_wrong_blank_waits(recordings):
    def blank(*_):
        raise NotImplementedError("Bottleneck.__init__ is still blank.")

    found = {o.name: o for o in outcomes(_with("Bottleneck", blank), "adapter", recordings)}
    assert found["Bottleneck"].sentence == "Bottleneck.__init__ is still blank."
    assert found["AdaptedLayerFF"].sentence == "Not checked yet: it builds on Bottleneck."
    assert found["adapter_places"].mistake is None
    assert str(found["AdaptedLayerFF"]).startswith("waits    AdaptedLayerFF: ")
    assert str(found["Bottleneck"]).startswith("blank    Bottleneck: ")


def test_a_layer_does_not_wait_for_a_blank_that_it_was_handed_over_without(recordings):
    student = _with("low_rank_update", lambda x, a, b, scaling: x @ a.T)
    found = {o.name: o for o in outcomes(student, "lora", recordings)}
    assert str(found["low_rank_update"]).startswith("wrong    low_rank_update: In the product")
    assert found["LoRALinear"].sentence == "Not checked yet: it builds on low_rank_update."
    assert found["LoRALinear.merge"].sentence == "Not checked yet: it builds on LoRALinear."
    given = SimpleNamespace(**{**vars(student), "LoRALinear": wrong_lora.Plain})
    found = {o.name: o for o in outcomes(given, "lora", recordings, instead=["LoRALinear"])}
    assert found["LoRALinear"].mistake is None and found["LoRALinear.merge"].mistake is None


def test_checks_come_in_the_order_of_the_notebooks():
    in_notebooks = [blank.name for blank in sorted(BLANKS, key=lambda blank: blank.notebook)]
    assert list(dict.fromkeys(item.blank for item in ITEMS)) == in_notebooks


def test_one_blank_alone_can_be_checked(file, monkeypatch, capsys):
    file.write_text("def tokens_left(most, rows):\n    return most\n")
    monkeypatch.setattr(layers_file, "use", lambda path: None)
    assert CliRunner().invoke(app, ["self-check", str(file), "--only", "tokens_left"]).exit_code == 1
    assert not check_all(["tokens_left"])
    assert capsys.readouterr().out == f"wrong    tokens_left: {DIAGNOSES['beyond_length']}\n"
    with pytest.raises(UserError, match="No blank is called token_left; the blanks are find_in_blocks, "):
        check_all(["token_left"])


def test_a_library_that_is_not_there_is_skipped(monkeypatch):
    def missing():
        raise UserError("not installed")

    item = replace(CHECKS["libraries"][0], library=missing)
    said = str(outcome_of(item, solution(), []))
    assert said == "skipped  prompt_by_opendelta: Not checked: the library is not installed."


def test_brackets_that_do_not_pair_up_end_in_an_error():
    """They once made the kit look for the other bracket without end."""
    with pytest.raises(ValueError):
        step("", "(d + r", {"d": 2, "r": 3})
