"""The set-up of a notebook that is opened alone: what it asks pip for, and when it asks for a restart."""

import importlib.util
import subprocess
import sys
import zipfile
from importlib import metadata
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


def test_the_torch_and_the_kernel_that_are_there_are_kept(setup_notebook, pip, monkeypatch):
    versions = {"torch": "2.8.0+cu126", "ipykernel": "6.17.1"}
    monkeypatch.setattr(setup_notebook, "_version", lambda name: versions.get(name) or metadata.version(name))
    setup_notebook.install()
    kept = dict(line.split("==") for line in pip[0].kept.splitlines())
    assert kept.keys() == set(setup_notebook.KEPT)
    assert kept.items() >= versions.items()
    assert all(call.command[:4] == [sys.executable, "-m", "pip", "install"] for call in pip)
    assert [call.command[-1] for call in pip[1:]] == [str(ROOT / "requirements-no-deps.txt"), str(ROOT)]
    assert all("--no-deps" in call.command for call in pip[1:])
    assert sys.path[0] == str(ROOT / "src"), "the kit cannot be imported in this process"


def test_what_is_not_there_is_not_kept(setup_notebook, pip, monkeypatch):
    monkeypatch.setattr(setup_notebook, "_imported", dict)
    monkeypatch.setattr(setup_notebook, "_version", lambda name: None)
    setup_notebook.install()
    assert pip[0].kept == ""


@pytest.mark.parametrize("there", ["4.50.3", "5.2.0"])
def test_a_restart_is_asked_for_only_if_something_imported_was_replaced(
    there, setup_notebook, pip, monkeypatch
):
    exact = dict(line.split("==") for line in _lines(ROOT / "constraints.txt") if "==" in line)

    now = setup_notebook._version

    def installed(name):
        return exact[name] if name == "transformers" else now(name)

    wanted = {r.name: r.specifier for r in map(Requirement, _lines(ROOT / "requirements.txt"))}[
        "transformers"
    ]
    assert there not in wanted and installed("transformers") in wanted, "pip would not replace it"

    def version(name):  # pip "replaces" transformers
        return there if not pip and name == "transformers" else installed(name)

    monkeypatch.setattr(setup_notebook, "_version", version)
    with pytest.raises(
        setup_notebook.SetupStopped, match=r"^transformers had been imported .* restart the runtime"
    ):
        setup_notebook.install()
    assert "transformers" not in pip[0].kept
    pip.clear()
    monkeypatch.delitem(sys.modules, "transformers")
    setup_notebook.install()


def test_what_pip_says_is_shown_when_it_fails(setup_notebook, monkeypatch, capsys):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="No space left on device")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    with pytest.raises(setup_notebook.SetupStopped, match="pip could not install"):
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
        assert [*command[:2], command[3]] == ["git", "clone", command[3]]
        assert command[3].startswith("https://github.com/")
        Path(command[4]).mkdir()
        (Path(command[4]) / "setup_notebook.py").write_text(STUB)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", clone)
    exec(CELL, {})
    assert fresh_runtime() == tmp_path / "peft-scratch"


def test_a_clone_that_fails_ends_in_one_sentence(fresh_runtime, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, **options: SimpleNamespace(returncode=128))
    with pytest.raises(SystemExit, match=r"cannot be cloned: upload peft-scratch\.zip"):
        exec(CELL, {})
