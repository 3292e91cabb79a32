"""The set-up of a notebook that is opened alone: what it asks pip for, and where it finds the kit."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from packaging.requirements import Requirement

from peft_scratch.paths import ROOT

CELL = next(
    cell.source
    for cell in nbformat.read(ROOT / "notebooks" / "05_lora.ipynb", as_version=4).cells
    if cell.cell_type == "code"
)
# As `make address` leaves it.
ADDRESSED = CELL.replace('REPOSITORY = ""', 'REPOSITORY = "https://github.com/some-one/a.fork"')
assert ADDRESSED != CELL


@pytest.fixture
def setup_notebook(monkeypatch):
    spec = importlib.util.spec_from_file_location("setup_notebook", ROOT / "setup_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return module


def _lines(requirements):
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    return [line for line in lines if line]


@pytest.fixture
def pip(monkeypatch):
    """Stands in for pip: keeps the arguments of every call, and the constraints that the file held."""
    calls = []

    def run(command, **options):
        call = [str(part) for part in command]
        kept = Path(call[call.index("-c") + 1]).read_text() if "-c" in call else ""
        calls.append(SimpleNamespace(command=call, kept=kept))
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_only_what_is_missing_is_added_and_the_rest_is_a_constraint(setup_notebook, pip, monkeypatch):
    there = {
        "torch": "2.11.0+cu128",
        "transformers": "4.40.0",
        "ipykernel": "6.17.1",
        "scikit-learn": "1.6.1",
    }
    monkeypatch.setattr(setup_notebook, "_installed", lambda: there)
    setup_notebook.install()
    assert all(call.command[:4] == [sys.executable, "-m", "pip", "install"] for call in pip)
    assert dict(line.split("==") for line in pip[0].kept.splitlines()) == there
    asked = {Requirement(part).name for part in pip[0].command[5:-2]}
    wanted = {Requirement(line).name for line in _lines(ROOT / "requirements.txt")}
    assert asked == wanted - there.keys(), "something that is there is asked for, so pip might replace it"
    assert "--no-deps" not in pip[0].command and all("--no-deps" in call.command for call in pip[1:])
    assert [call.command[-1] for call in pip[1:]] == ["opendelta==0.3.2", str(ROOT)]
    assert sys.path[0] == str(ROOT / "src"), "the kit cannot be imported in this process"


def test_where_all_is_there_nothing_but_the_kit_is_added(setup_notebook, pip, capsys):
    setup_notebook.install()
    assert [call.command[-1] for call in pip] == [str(ROOT)]
    assert "nothing that was installed has changed" in capsys.readouterr().out


def test_a_version_that_the_kit_does_not_ask_for_stays_and_is_named(setup_notebook, pip, monkeypatch, capsys):
    monkeypatch.setattr(setup_notebook, "_installed", lambda: {"psutil": "5.0.0"})
    setup_notebook.install()
    assert not any("psutil" in part for part in pip[0].command)
    assert "psutil 5.0.0 stays, though the kit was made for >=5.9" in capsys.readouterr().out


def test_what_pip_says_is_shown_when_it_fails(setup_notebook, monkeypatch, capsys):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="No space left on device")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    with pytest.raises(setup_notebook.SetupStopped, match="pip could not add"):
        setup_notebook.install()
    assert "No space left on device" in capsys.readouterr().out


@pytest.fixture
def fresh_runtime(tmp_path, monkeypatch):
    """A Python that has no kit yet, in an empty folder; returns which kit the cell installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "setup_notebook", raising=False)
    yield lambda: Path(sys.modules["setup_notebook"].__file__).parent
    sys.modules.pop("setup_notebook", None)


STUB = "def install():\n    pass\n"


def test_the_cell_does_nothing_where_the_kit_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(CELL, {})
    assert not list(tmp_path.iterdir())


def test_the_cell_takes_the_clone_around_the_notebook(fresh_runtime, tmp_path, monkeypatch):
    (tmp_path / "setup_notebook.py").write_text(STUB)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    exec(CELL, {})
    assert fresh_runtime() == tmp_path


def test_the_cell_unpacks_an_uploaded_bundle(fresh_runtime, tmp_path):
    with zipfile.ZipFile(tmp_path / "peft-scratch.zip", "w") as bundle:
        bundle.writestr("peft-scratch/setup_notebook.py", STUB)
    exec(CELL, {})
    assert fresh_runtime() == tmp_path / "peft-scratch"


def test_the_cell_clones_the_repository(fresh_runtime, tmp_path, monkeypatch):
    def clone(command, **options):
        *git, address, folder = command
        assert git == ["git", "clone", "--quiet", "--depth=1"]
        assert address.startswith("https://github.com/")
        Path(folder).mkdir()
        (Path(folder) / "setup_notebook.py").write_text(STUB)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", clone)
    exec(ADDRESSED, {})
    assert fresh_runtime() == tmp_path / "peft-scratch"


def test_a_clone_that_fails_ends_in_one_sentence(fresh_runtime, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, **options: SimpleNamespace(returncode=128))
    with pytest.raises(SystemExit, match=r"The kit is not here: upload peft-scratch\.zip"):
        exec(ADDRESSED, {})


def test_without_an_address_nothing_is_cloned(fresh_runtime, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing is to be run"))
    with pytest.raises(SystemExit, match=r"The kit is not here: upload peft-scratch\.zip"):
        exec(CELL, {})
