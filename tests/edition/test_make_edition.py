"""The edition as a folder: nothing in it holds an answer, and it can be solved."""

import json
import os
import re
import subprocess
import sys
import zipfile

import pytest

from peft_scratch.assignment import PARTS
from peft_scratch.edition.blanks import BLANKS, GROUPS
from peft_scratch.edition.make_edition import make_edition
from peft_scratch.edition.self_check.run import CHECKS
from peft_scratch.edition.solutions import layers, regions, solution_lines, sources, squeezed, telling
from peft_scratch.errors import UserError
from peft_scratch.paths import NOTEBOOKS, ROOT

#: Trains each method a few steps on a toy and one run of the smoke profile; says what came of it, as JSON.
_TRAIN = """
import hashlib, io, json, sys, tempfile
import torch
from peft_scratch.experiments.session import Session
from peft_scratch.methods import Adapter, LoRA, SoftPrompt, apply, count_parameters, merge, save_delta
from peft_scratch.notebook.toy import take_steps, tiny_batch, tiny_t5

said = {}
for method in (SoftPrompt(3), Adapter(8), LoRA(2)):
    torch.manual_seed(0)
    model = apply(method, tiny_t5()).model
    take_steps(model, tiny_batch(), steps=3)
    if method.kind == "lora":
        merge(model)
    with tempfile.TemporaryDirectory() as folder:
        save_delta(model, f"{folder}/delta.pt")
        file = hashlib.sha256(open(f"{folder}/delta.pt", "rb").read()).hexdigest()
    loss = model(**tiny_batch()).loss.item()
    said[method.kind] = [loss.hex(), file, count_parameters(model), method.derivation(model.config).symbols]
with tempfile.TemporaryDirectory() as folder:
    session = Session.open("smoke", 0, folder)
    prepared = session.prepare("lora_scratch_r8")
    training = prepared.collator(session.reviews.train)
    score = dict.fromkeys(("accuracy", "validation_accuracy", "rest_accuracy", "malformed"), 0.0)
    history = prepared.trainer.fit(training, lambda model: dict(score), 1, prepared.folder)
    said["run"] = [[loss.hex() for _, loss in history.curve], len(training.inputs)]
    said["layers"] = prepared.configuration.get("layers")
print("SAID" + json.dumps(said))
"""

_IMPORT_ALL = """
import importlib, pkgutil
import peft_scratch
for module in pkgutil.walk_packages(peft_scratch.__path__, "peft_scratch."):
    importlib.import_module(module.name)
"""


#: The first cells of a notebook, while nothing is written yet.
_OPEN = """
import tempfile
from peft_scratch.notebook.start import open_session
with tempfile.TemporaryDirectory() as folder:
    open_session("smoke", 0, folder, notebook=5)
print("OPENED")
"""

#: As the command does, in a process that has imported everything already.
_SELF_CHECK = """
from peft_scratch.cli import app
app(["self-check", "layers.py"])
"""


def _run(folder, *command):
    """A Python process that sees the kit of `folder` alone."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _said(printed):
    return json.loads(printed.partition("SAID")[2])


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blank") / "edition"
    make_edition(folder)
    return folder


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solved") / "edition"
    make_edition(folder, solved=True)
    return folder


def _texts(folder):
    return {
        path.relative_to(folder): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.suffix in (".py", ".ipynb", ".md", ".toml", ".txt", ".json", ".typ")
        and "weights" not in path.parts
    }


def _answers():
    """What must stand nowhere: the marked lines of modules and notebooks."""
    found = solution_lines()
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            lines = "".join(cell["source"]).split("\n")
            for start, end in regions(lines, path.name):
                found += telling(lines[start : end - 1])
    return found


def test_nothing_in_the_edition_contains_an_answer(edition):
    answers = _answers()
    assert len(answers) > 70 and squeezed("return y + low_rank_update(x, a, b, self.scaling)") in answers
    for name, text in _texts(edition).items():
        bare = (
            squeezed(text).replace("\\n", "").replace('",', "").replace('"', "")
            if name.suffix == ".ipynb"
            else squeezed(text)
        )
        for answer in answers:
            wanted = answer.replace('"', "") if name.suffix == ".ipynb" else answer
            assert wanted not in bare, (name, answer)


@pytest.mark.parametrize(
    "said",
    [
        "L_enc + 2·L_dec",
        "L_enc + L_dec",
        "d·r + r",
        "d·b + b",
        "294,912",
        "104,544",
        "2·L",
        "# BEGIN SOLUTION",
    ],
)
def test_no_formula_or_count_is_told(edition, said):
    assert [str(name) for name, text in _texts(edition).items() if said in text] == []


def test_whole_definitions_can_be_blank_too():
    text = layers("classes")
    assert not [answer for answer in solution_lines() if answer in squeezed(text)]
    assert text.count("raise NotImplementedError") > layers("lines").count("raise NotImplementedError")
    assert "weight_before_merge" not in text and "weight_before_merge" in layers("lines")
    for level in ("lines", "classes"):
        compile(layers(level), "layers.py", "exec")


def test_there_is_no_result_no_weight_file_and_no_report(edition):
    names = {path.relative_to(edition).as_posix() for path in edition.rglob("*") if path.is_file()}
    assert {"layers.py", "README.md", "handout.pdf", "handout.fa.pdf", "notebooks/05_lora.ipynb"} <= names
    assert not [
        name for name in names if name.endswith(".pt") or name.startswith(("report", "out", "docs", "tests"))
    ]
    package = [name for name in names if name.startswith("src/")]
    assert not [
        name for name in package if re.search("exactness|reporting|pretraining|catalogue|record.py", name)
    ]
    with zipfile.ZipFile(edition.with_name("peft-scratch-student.zip")) as archive:
        assert {name.removeprefix("peft-scratch/") for name in archive.namelist()} == names


def test_the_blank_edition_is_imported_and_fails_every_check_with_a_sentence(edition):
    done = _run(edition, "-c", _IMPORT_ALL + _OPEN + _SELF_CHECK)
    assert done.returncode == 1, done.stderr[-2000:]
    opened, _, checked = done.stdout.partition("OPENED\n")
    assert "for this notebook's runs" in opened
    lines = checked.strip().split("\n")
    assert len(lines) == sum(map(len, CHECKS.values()))
    assert all(re.fullmatch(r"(blank|waits)    [\w.]+: .+\.", line) for line in lines), done.stdout


def test_the_solution_put_back_passes_and_trains_to_the_same_bits(solved, capsys):
    done = _run(solved, "-c", _TRAIN + _SELF_CHECK)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert not re.search("^(wrong|blank|waits|skipped) ", done.stdout, re.MULTILINE) and done.stdout.count(
        "passed"
    ) == sum(map(len, CHECKS.values()))
    exec(_TRAIN, {})
    ours, theirs = _said(capsys.readouterr().out), _said(done.stdout.partition("passed")[0])
    assert ours.pop("layers") is None and re.fullmatch("[0-9a-f]{8}", theirs.pop("layers"))
    assert theirs == ours


def test_every_blank_has_a_check_a_task_and_points(edition):
    assert {blank.name for blank in BLANKS} == {
        i.name.partition(".")[0] for items in CHECKS.values() for i in items
    }
    assert {blank.group for blank in BLANKS} == set(GROUPS) == set(CHECKS)
    tasks = []
    for path in sorted((edition / "notebooks").glob("*.ipynb")):
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = document["cells"]
        assert len({cell["id"] for cell in cells}) == len(cells)
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None
                compile(source, path.name, "exec")
                assert "proofs" not in source and "session.ask" not in source
                tasks += re.findall(r'^check\("(\w+)"\)$', source)
            else:
                assert "The code shows" not in source and "This is the bottleneck, and" not in source
                assert "Returns:" not in source and "Raises:" not in source
        assert sum("This cell is still blank." in "".join(cell["source"]) for cell in cells) == 1
    assert sorted(tasks) == sorted(blank.name for blank in BLANKS)
    for number in {blank.notebook for blank in BLANKS}:  # the other points are for runs and answers
        assert sum(blank.points for blank in BLANKS if blank.notebook == number) < PARTS[number].points


def test_a_notebook_says_where_its_points_are_and_what_it_needs(edition):
    texts = {name: text.replace("\\n", " ") for name, text in _notebook_texts(edition).items()}
    assert "6 pieces of code, for 20 of this notebook's 30 points. The other 10 points are for" in texts[5]
    assert "12 pieces of code, for 23 of this notebook's 25 points. The other 2 points are for" in texts[2]
    for number in (3, 5):
        assert "also needs `find_in_blocks`, `freeze_all_but` and `entries_of`" in texts[number]
    rule = "Write a formula as text, with letters, whole numbers, `+`, `·` and brackets"
    assert {number: text.count(rule) for number, text in texts.items()} == {1: 0, 2: 1, 3: 2, 4: 0, 5: 2}
    assert (edition / "layers.py").read_text(encoding="utf-8").count(rule) == 5


def _notebook_texts(edition):
    found = {}
    for number, path in enumerate(sorted((edition / "notebooks").glob("*.ipynb")), start=1):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[number] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return found


def test_helpers_are_named_only_where_they_are_there():
    whole = {level: layers(level) for level in ("lines", "classes")}
    assert "`_put` gives" in " ".join(whole["lines"].split()) and "_put" not in whole["classes"]
    for text in whole.values():
        assert "While the update is merged, `weight` alone gives the output." in text
        assert "because other models may share it." in " ".join(text.split())


def test_every_marked_solution_is_described():
    """A solution that no blank describes would stay in the edition."""
    marked = [
        path
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"^ *# BEGIN SOLUTION$", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(marked) == len(sources())


def test_what_is_no_edition_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="no student edition"):
        make_edition(tmp_path)
    with pytest.raises(UserError, match="no level 'all'"):
        make_edition(tmp_path / "other", "all")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
