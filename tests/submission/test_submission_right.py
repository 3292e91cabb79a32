"""A right submission passes, in whatever way it comes."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_output
from safetensors.torch import save_file

from peft_scratch.assignment import ALL_POINTS, PARTS, PROFILES, RUNS
from peft_scratch.experiments.settings import configuration
from peft_scratch.paths import ROOT
from peft_scratch.submission import archive, cells, check, notebooks
from peft_scratch.submission import weights as own_weights
from peft_scratch.submission.findings import ERROR, READY
from peft_scratch.submission.names import read_name
from peft_scratch.submission.sizes import sizes_of
from submission.parts import (
    NUMBERS,
    PROMPT,
    STEM,
    code_cells,
    codes,
    zipped,
)


def test_a_right_submission_is_ready(right, tmp_path):
    checked = check.check([right.write(tmp_path)])
    assert checked.marked(ERROR) == []
    assert checked.verdict == READY
    assert checked.numbers == NUMBERS
    assert checked.student == ("400123456", "ada lovelace")
    assert checked.points_without_error == ALL_POINTS == 105
    # Nothing but what a machine without t5-small cannot know.
    assert [found.code for found in checked.marked("!")] == ["start-unknown"]
    said = "\n".join(checked.lines())
    for item in PARTS.values():
        assert item.title in said
    for count in ("60,506,624", "60,511,744", "60,611,168", "60,801,536"):
        assert f": {count} parameters" in said
    for tensors in ("1 tensor, 5,120", "48 tensors, 104,544", "72 tensors, 294,912"):
        assert f"pt: {tensors} parameters" in said


def test_it_may_come_in_other_ways(right, tmp_path):
    folder = right.write(tmp_path / "files")
    ways = {"files": sorted(folder.iterdir())}
    # One zip around the three, as some course pages make it; folders in the zips.
    (tmp_path / f"{STEM}.zip").write_bytes(zipped({f"{STEM}/{n}": c for n, c in right.files().items()}))
    ways["one zip"] = [tmp_path / f"{STEM}.zip"]
    books, tensors = right.parts()
    nested = {"400123456-Ada-Lovelace-Code.zip": zipped({f"a/b/{n}": c for n, c in books.items()})}
    nested["۴۰۰۱۲۳۴۵۶_ada_lovelace_weights.zip"] = zipped({f"w/{n}": c for n, c in tensors.items()})
    nested["400123456_Ada Lovelace_Report.pdf"] = right.report
    (tmp_path / "nested").mkdir()
    for name, content in nested.items():
        (tmp_path / "nested" / name).write_bytes(content)
    ways["nested"] = [tmp_path / "nested"]
    ways["working folder"] = [right.write_unpacked(tmp_path / "kit")]
    for way, paths in ways.items():
        checked = check.check(paths)
        assert (way, checked.marked(ERROR)) == (way, [])
        assert checked.numbers == NUMBERS


def test_the_kit_s_own_notebooks_are_read():
    """So that what the kit prints and what the check looks for stay the same."""
    found, said = notebooks.examine(archive.gather([ROOT]).of(".ipynb"))
    kept = {path.stem: json.loads(path.read_text()) for path in (ROOT / "report" / "results").glob("*.json")}
    assert sorted(found) == [1, 2, 3, 4, 5]
    for number, book in found.items():
        assert Path(book.file.name).name.startswith(f"0{number}")
        assert book.profile == "offline"
        assert book.numbers == {run.id: round(100 * kept[run.id]["accuracy"]["best"], 1) for run in book.runs}
        assert all(max(book.curves[run.id]) == book.numbers[run.id] for run in book.runs)
    assert [(one.item, one.code) for one in said if one.mark == ERROR and "number" in one.code] == []


def test_a_prompt_that_was_not_trained_is_found_where_the_base_is_at_hand(right, tmp_path, monkeypatch):
    base = tmp_path / "hub" / PROFILES["course"].base
    base.mkdir(parents=True)
    table = torch.randn(12, 512)
    save_file({"shared.weight": table}, base / "model.safetensors")
    monkeypatch.setattr(own_weights, "BY_HAND", tmp_path / "hub")
    checked = check.check([right.write(tmp_path / "trained")])
    assert (checked.verdict, checked.marked("!")) == (READY, [])
    right.weights["prompts.pt"] = {PROMPT: table[:10].clone()}
    checked = check.check([right.write(tmp_path / "not")])
    assert (2, "weights-untrained") in codes(checked, ERROR)


def test_names_and_messages_cannot_play_tricks(right, tmp_path):
    right.more["\x1b[2J\u202egp.exe"] = b""
    said = "\n".join(check.check([right.write(tmp_path)]).lines())
    assert "\x1b" not in said and "\u202e" not in said
    assert "gp.exe" in said


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("400123456_Ada_Lovelace_notebooks.zip", ("400123456", "ada lovelace")),
        ("400123456-Ada-Lovelace-Weights.zip", ("400123456", "ada lovelace")),
        ("400123456_Ada Lovelace.pdf", ("400123456", "ada lovelace")),
        ("400123456_Ada_Lovelace (1).zip", ("400123456", "ada lovelace")),
        ("REHEARSAL_400123456_Ada_Lovelace.pdf", ("400123456", "ada lovelace")),
        ("۴۰۰۱۲۳۴۵۶_علی.pdf", ("400123456", "علی")),
        ("report.pdf", None),
        ("400123456_notebooks.zip", None),
        ("Ada_400123456.pdf", None),
    ],
)
def test_names_are_read(file_name, name):
    assert read_name(file_name) == name


# Results beside the notebooks


def result(name: str) -> dict:
    run, best = RUNS[name], NUMBERS[name] / 100
    sizes = sizes_of(name, "course")
    base = {"name": "t5-small", "d_model": 512, "num_layers": 6, "num_decoder_layers": 6, "inner_dim": 512}
    versions = {
        "python": "3.11",
        "versions": {},
        "device": "cuda",
        "device_name": "T4",
        "precision": "float32",
    }
    return {
        "id": name,
        "title": run.title,
        "profile": "course",
        "malformed": 0.0,
        "environment": versions,
        "config": configuration(run, PROFILES["course"], run.learning_rate, 0, "0" * 64, "fast"),
        "accuracy": {"best": best},
        "epochs": [epoch(1, best - 0.01), epoch(2, best)],
        "curve": [],
        "seconds": {"training": 1.0, "evaluation": 1.0},
        "base_model": {**base, "parameters": 60_506_624},
        "parameters": {"added": sizes.added, "trainable": sizes.added, "whole": sizes.whole},
    }


def epoch(number: int, accuracy: float) -> dict:
    return {"epoch": number, "loss": 0.3, "accuracy": accuracy}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: None, None),
        (
            lambda r: (r["accuracy"].update(best=0.9), r["epochs"].append(epoch(3, 0.9))),
            "number-not-json",
        ),
        (lambda r: r["accuracy"].update(best=0.9), "json-differs"),
        (lambda r: r["config"].update(learning_rate=1e-3), "constants"),
        (lambda r: r["config"].update(epochs=3), "constants"),
        (lambda r: r["config"]["hyperparameters"].update(rank=4), "constants"),
        (lambda r: r["parameters"].update(whole=60_506_624), "json-count"),
        (lambda r: r.update(epochs="many"), "json-damaged"),
        (lambda r: r.update(profile="offline"), "profiles-mixed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_result_is_compared_with_its_notebook(change, code, right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    content = result("lora_scratch_r8")
    change(content)
    (folder / "report" / "results").mkdir()
    (folder / "report" / "results" / "lora_scratch_r8.json").write_text(json.dumps(content))
    checked = check.check([folder])
    if code is None:
        assert checked.marked(ERROR) == []
    else:
        assert code in {found.code for found in checked.marked(ERROR)}


# What this kit's notebooks display for programs


def with_results(right, change=lambda results: None, number: int = 5) -> list:
    """The findings of a notebook of the kit that displays its results as JSON, in place of its table."""
    made = right.notebooks[f"0{number}_part.ipynb"]
    runs = [run for run in RUNS.values() if run.notebook == number]
    entries = [
        {
            "id": run.id,
            "percent": NUMBERS[run.id],
            "fingerprint": "0" * 8,
            "added": sizes.added,
            "whole": sizes.whole,
        }
        for run in runs
        for sizes in [sizes_of(run.id, "course")]
    ]
    results = {"format": 1, "profile": "course", "notebook": number, "results": entries}
    change(results)
    data = {cells.RESULTS_TYPE: results, "text/plain": "the results of this notebook"}
    code_cells(made)[-1].outputs = [new_output("display_data", data=data)]
    name = f"0{number}_part.ipynb"
    found, said = notebooks.examine([archive.File(name, name, nbformat.writes(made).encode())])
    return [found, [one for one in said if one.code != "notebook-missing"]]


def test_the_results_that_the_kit_displays_are_read(right):
    found, said = with_results(right)
    assert found[5].numbers == {run: value for run, value in NUMBERS.items() if run.startswith("lora")}
    assert found[5].profile == "course" and {one.mark for one in said} == {"✓"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: r["results"].pop(), "number-missing"),
        (lambda r: r["results"][0].update(percent="89.1"), "number-missing"),
        (lambda r: r["results"][0].update(percent=float("nan")), "number-missing"),
        (lambda r: r["results"][0].update(percent=91.0), "number-differs"),
        (lambda r: r["results"][1].update(whole=60_506_624), "count-wrong"),
    ],
)
def test_what_is_wrong_in_the_displayed_results_is_named(change, code, right):
    _, said = with_results(right, change)
    assert code in {one.code for one in said if one.mark == ERROR}


def test_results_of_another_form_are_not_taken_for_the_kit_s(right):
    found, _ = with_results(right, lambda r: r.update(format=99))
    assert found[5].number == 5
