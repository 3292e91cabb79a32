"""The notebooks executed: the five in `smoke`, and small ones that fail in every way a notebook can."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from peft_scratch.assignment import BASELINES, TEN
from peft_scratch.errors import UserError
from peft_scratch.notebook import execute as notebooks
from peft_scratch.notebook.execute import execute, execute_all
from peft_scratch.paths import ROOT
from peft_scratch.reporting.tables import parameters
from peft_scratch.results import read_results

PARAMETERS = new_code_cell("SEED = 0", metadata={"tags": ["parameters"]})
PROGRESS = """
import sys
for step in range(4):
    print(f"\\r{step}/3", end="", file=sys.stderr, flush=True)
print(file=sys.stderr)
print("\\r   ", end="\\r", file=sys.stderr)
"""
LOOP = """
from peft_scratch.training.progress import progress
for _ in progress(range(3), "looping", "step"):
    pass
print()
print("looped")
for _ in progress(range(3), "looping", "step"):
    pass
"""


def _notebook(path: Path, *sources: str) -> Path:
    cells = [PARAMETERS, *(new_code_cell(source) for source in sources)]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def _text(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_a_notebook_is_executed_with_its_parameters_and_cleaned(tmp_path):
    sources = "print(SEED)", PROGRESS, f"print('{ROOT}/report', '{Path.home()}/x')\n\nprint()\nprint(1)"
    executed = execute(_notebook(tmp_path / "01.ipynb", *sources), {"SEED": 3})
    code = executed.cells
    assert "SEED = 3" in code[1].source
    assert code[1].metadata.tags == ["injected-parameters"]
    assert _text(code[2]) == "3\n"
    assert _text(code[3]) == "3/3\n", "a bar is kept in its last state"
    assert _text(code[4]) == "report ~/x\n\n1\n"
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert set(executed.metadata) == {"language_info"}
    assert not any(set(cell.metadata) - {"tags"} for cell in code)


def test_a_bar_is_seen_and_leaves_nothing(tmp_path, capsys):
    executed = execute(_notebook(tmp_path / "01.ipynb", "print('unheard')", LOOP), {})
    (output,) = executed.cells[2].outputs
    assert (output.name, output.text) == ("stdout", "\nlooped\n")
    said = capsys.readouterr().err
    assert said.count("looping:   0%") == 2, "the bars of a cell do not reach the terminal"
    assert not re.search("unheard|looped", said)


def test_parameters_do_not_pile_up(tmp_path):
    path = _notebook(tmp_path / "01.ipynb", "print(SEED)")
    nbformat.write(execute(path, {"SEED": 3}), path)
    again = execute(path, {})
    assert [cell.source for cell in again.cells] == ["SEED = 0", "print(SEED)"]
    assert _text(again.cells[1]) == "0\n"


def test_a_warning_names_no_file_of_this_machine(tmp_path):
    executed = execute(_notebook(tmp_path / "01.ipynb", "import warnings\nwarnings.warn('mind')"), {})
    assert "mind" in _text(executed.cells[1])
    assert "/tmp/" not in _text(executed.cells[1])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that the executor takes for the project: one notebook that works, one that can be made."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    _notebook(tmp_path / "notebooks" / "01_fine.ipynb", "1 + 1")
    return tmp_path


def test_a_users_mistake_names_notebook_and_cell(project):
    _notebook(
        project / "notebooks" / "02_wrong.ipynb",
        "from peft_scratch.errors import UserError",
        "raise UserError('The rank must be positive.')",
    )
    with pytest.raises(UserError) as raised:
        execute_all("smoke", 0, project / "out")
    place = "02_wrong.ipynb, cell 3 (`raise UserError('The rank must be positive.')`)"
    assert str(raised.value) == f"{place}: The rank must be positive."
    assert [path.name for path in (project / "out").rglob("*") if path.is_file()] == ["01_fine.ipynb"]


def test_a_defect_names_notebook_and_cell_too(project):
    broken = _notebook(project / "notebooks" / "02_wrong.ipynb", "pass", "1 / 0")
    before = broken.read_bytes()
    with pytest.raises(
        RuntimeError, match=r"02_wrong\.ipynb, cell 3 \(`1 / 0`\) failed with ZeroDivisionError"
    ):
        execute_all("smoke", 0, project)
    assert broken.read_bytes() == before
    assert not list((project / "notebooks").glob(".*"))


KILLED_LATER = """
import os, signal, threading, time
threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
time.sleep(600)
"""


@pytest.mark.parametrize(
    "source",
    ["import os\nos._exit(9)", "import ctypes\nctypes.string_at(0)", KILLED_LATER],
    ids=lambda s: s[:18],
)
def test_a_process_that_dies_is_reported_within_seconds(source, project):
    dying = _notebook(project / "notebooks" / "02_dies.ipynb", source)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"02_dies\.ipynb: the process that ran it died"):
        execute(dying, {})
    assert time.monotonic() - started < 60


def test_a_process_that_does_not_start_is_reported(project, monkeypatch):
    command = [sys.executable, "-c", "raise SystemExit(1)", "{connection_file}"]
    monkeypatch.setattr(
        notebooks, "get_kernel_dict", lambda: {"argv": command, "display_name": "x", "language": "python"}
    )
    with pytest.raises(
        UserError, match=r"01_fine\.ipynb: the process that runs it did not start \(Kernel died"
    ):
        execute(project / "notebooks" / "01_fine.ipynb", {})


def test_another_environment_s_kernel_of_the_same_name_is_not_used(project, monkeypatch):
    # As `python -m ipykernel install --user` of an environment that was deleted leaves it.
    kernel = project / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["/gone/bin/python"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(project / "jupyter"))
    executed = execute(_notebook(project / "notebooks" / "02.ipynb", "import sys\nprint(sys.executable)"), {})
    assert _text(executed.cells[1]).strip().endswith(Path(sys.executable).name)


def test_an_interruption_leaves_nothing_behind(project):
    marker = project / "running"
    _notebook(
        project / "notebooks" / "02_long.ipynb",
        f"import os, time\nopen('{marker}', 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    program = (
        "from pathlib import Path; from peft_scratch import cli; "
        f"import peft_scratch.notebook.execute as n; n.ROOT = Path('{project}'); cli.main()"
    )
    command = [sys.executable, "-c", program, "notebooks", "--profile", "smoke", "--output", project / "out"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        # Tests started in the background of a shell inherit that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (marker.exists() and marker.read_text()) and process.poll() is None:
        time.sleep(0.1)
    kernel = int(marker.read_text())
    process.send_signal(signal.SIGINT)
    __, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted: finished epochs are kept" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert [path.name for path in (project / "out").rglob("*") if path.is_file()] == ["01_fine.ipynb"]
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)


def test_the_five_notebooks_run_from_the_command_line(tmp_path):
    """What `make run` does, in `smoke`: results of the ten and the baselines, three weight files, tables."""
    command = Path(sys.executable).with_name("peft-scratch")
    options = ["--profile", "smoke", "--output", tmp_path]
    before = {path: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
    for name in ("notebooks", "tables"):
        done = subprocess.run(
            [command, name, *options], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, done.stderr

    assert {path: path.read_bytes() for path in before} == before, "a smoke run changed the notebooks"
    executed = sorted((tmp_path / "notebooks").iterdir())
    assert [path.name for path in executed] == [path.name for path in sorted(before)]
    for path in executed:
        notebook = json.loads(path.read_text())
        counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert counts == list(range(1, len(counts) + 1))
        outputs = "".join(
            "".join(output.get("text", ""))
            for cell in notebook["cells"]
            for output in cell.get("outputs", ())
        )
        assert "smoke, because it was asked for" in outputs
        assert "Warning" not in outputs
        assert "\r" not in outputs, "a bar has left something behind"
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == [
        "adapter.pt",
        "lora.pt",
        "prompts.pt",
    ]

    results = read_results(tmp_path / "report" / "results")
    assert set(results) == {*TEN, *BASELINES}
    assert (parameters(results).difference == 0).all()
    page = (tmp_path / "report" / "tables" / "numbers.md").read_text()
    assert "profile smoke" in page
    assert "missing" not in page
    assert len(re.findall(r"\d+\.\d \(epoch \d\)", page)) == 2 * len(TEN)
