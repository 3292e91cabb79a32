"""How idle threads wait: set before torch is loaded, wherever a user starts."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from peft_scratch import threads
from peft_scratch.notebook.execute import execute
from peft_scratch.paths import ROOT

NAMES = ("OMP_WAIT_POLICY", *threads.WAITING)
SHOW = f"import json, os; print(json.dumps({{n: os.environ.get(n) for n in {NAMES}}}))"


def _in_a_process(code: str, **extra: str) -> dict[str, str | None]:
    """What a fresh process, whose user has set `extra` alone, finds in its environment after `code`."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | extra
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{SHOW}"], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_kit_sets_it_before_torch_is_loaded():
    code = "import peft_scratch, sys; assert 'torch' not in sys.modules"
    assert _in_a_process(code) == {"OMP_WAIT_POLICY": None, **threads.WAITING}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_stays(name):
    found = _in_a_process("import peft_scratch", **{name: "7" if name != "OMP_WAIT_POLICY" else "ACTIVE"})
    assert [key for key, value in found.items() if value is not None] == [name]


def test_nothing_is_set_once_torch_is_loaded(monkeypatch):
    """It would say something that is not so."""
    environment: dict[str, str] = {}
    monkeypatch.setitem(sys.modules, "torch", object())
    assert not threads.let_idle_threads_sleep(environment)
    assert environment == {}
    monkeypatch.delitem(sys.modules, "torch")
    assert threads.let_idle_threads_sleep(environment)
    assert environment == threads.WAITING


def test_the_command_line_and_these_tests_have_it():
    assert _in_a_process("import peft_scratch.cli")["GOMP_SPINCOUNT"] == "5000"
    assert any(name in os.environ for name in NAMES)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("0*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_imports_the_kit_before_torch(path):
    """Its first cells are run as a kernel opened by hand runs them. The first of them loads torch, by way of
    the kit: once torch is loaded without it, the kit sets nothing."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    first = next(i for i, cell in enumerate(cells) if "import torch" in cell.source)
    before = "\n".join(cell.source for cell in cells[:first])
    found = _in_a_process(before)
    assert found["GOMP_SPINCOUNT"] == threads.WAITING["GOMP_SPINCOUNT"]


def test_a_kernel_that_the_kit_starts_inherits_it(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1234")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW)])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    (cell,) = execute(tmp_path / "a.ipynb", {}).cells
    assert json.loads(cell.outputs[0].text)["GOMP_SPINCOUNT"] == "1234"
