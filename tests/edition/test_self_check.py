"""The self-check: it passes the solution, and names the mistake of every wrong layer."""

import time

import pytest
import torch
from solution import solution
from wrong import WRONG

from peft_scratch.edition import layers_file
from peft_scratch.edition.record import SHIPPED, random_sizes, record
from peft_scratch.edition.self_check import oracle as oracles
from peft_scratch.edition.self_check.diagnoses import DIAGNOSES
from peft_scratch.edition.self_check.run import CHECKS, outcomes

#: What is said of a mistake that nobody has made yet, or that no single wrong layer stands for.
REMAINDERS = {
    *(
        "lora_shapes",
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
    for recording in recordings:
        if (mistake := item.check(student, recording)) is not None:
            return mistake.strip()
    return None


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


def test_what_a_students_code_raises_is_one_sentence(tmp_path, monkeypatch, recordings):
    file = tmp_path / "layers.py"
    file.write_text("def low_rank_update(x, a, b, scaling):\n    return x @ b\n")
    monkeypatch.setattr(layers_file, "PATH", file)
    monkeypatch.setitem(layers_file._state, "stamp", None)
    monkeypatch.setitem(layers_file._state, "module", None)
    student = _with("low_rank_update", layers_file.current().low_rank_update)
    outcome = outcomes(student, "lora", recordings)[0]
    assert outcome.mistake == "raised"
    assert outcome.sentence.startswith("RuntimeError in line 2 of layers.py: ")
    assert "\n" not in outcome.sentence


def test_a_check_that_builds_on_a_wrong_blank_waits(recordings):
    def blank(*_):
        raise NotImplementedError("Bottleneck.__init__ is still blank.")

    found = {o.name: o for o in outcomes(_with("Bottleneck", blank), "adapter", recordings)}
    assert found["Bottleneck"].sentence == "Bottleneck.__init__ is still blank."
    assert found["AdaptedLayerFF"].sentence == "Not checked yet: it builds on Bottleneck."
    assert found["adapter_places"].mistake is None
