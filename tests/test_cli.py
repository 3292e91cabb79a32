"""The command line: what each command prints, writes and returns when all goes well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from peft_scratch.assignment import RUNS, TEN
from peft_scratch.cli import app
from peft_scratch.paths import OFFLINE_BASE, ROOT
from peft_scratch.pretraining import pretrain


def _run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_help_needs_no_torch():
    program = "import sys, peft_scratch.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("peft-scratch")
    said = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("runs", "run", "baselines", "notebooks", "tables", "base"):
        assert f"\n  {name} " in said


def test_runs_lists_the_ten():
    assert [line.split()[0] for line in _run("runs").splitlines()] == list(RUNS)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """An output folder after one run of the ten, and what the command printed."""
    folder = tmp_path_factory.mktemp("output")
    return folder, _run("run", "adapter_scratch_b8", "--profile", "smoke", "--seed", 1, "--output", folder)


def test_run_leaves_result_and_weights(output):
    folder, printed = output
    result = json.loads((folder / "report" / "results" / "adapter_scratch_b8.json").read_text())
    assert result["config"]["seed"] == 1
    assert (folder / "weights" / "adapter.pt").exists()
    assert "smoke, because it was asked for" in printed
    assert f"best epoch {100 * result['accuracy']['best']:.1f} %" in printed


def test_a_changed_constant_reaches_the_run_and_keeps_it_apart(tmp_path):
    settings = ("--set", "bottleneck=3", "--set", "learning_rate=1e-2", "--set", "epochs=1")
    _run("run", "adapter_scratch_b8", "--profile", "smoke", "--output", tmp_path, *settings)
    (kept,) = (tmp_path / "runs").glob("*/result.json")
    config = json.loads(kept.read_text())["config"]
    assert config["hyperparameters"] == {"bottleneck": 3}
    assert (config["learning_rate"], config["epochs"]) == (0.01, 1)
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "weights").exists()


def test_baselines_print_and_keep_three_numbers(tmp_path):
    printed = _run("baselines", "--profile", "smoke", "--output", tmp_path)
    kept = [json.loads(path.read_text()) for path in (tmp_path / "report" / "results").iterdir()]
    assert {result["id"] for result in kept} == {"zero_shot", "zero_shot_prefix", "bag_of_words"}
    for result in kept:
        assert f"{result['title']}: {100 * result['accuracy']['best']:.1f} %" in printed


def test_tables_are_written_and_the_numbers_printed(output):
    folder, __ = output
    readme = (ROOT / "README.md").read_bytes()
    printed = _run("tables", "--profile", "smoke", "--output", folder)
    page = (folder / "report" / "tables" / "numbers.md").read_text()
    assert printed == page + "\n"
    assert page.count("missing") == len(TEN) - 1 + 3
    names = {path.name for path in (folder / "report" / "tables").iterdir()}
    assert names == {"numbers.csv", "numbers.md", "parameters.csv", "parameters.md"}
    assert (ROOT / "README.md").read_bytes() == readme, "only the project's own numbers go to its README"


@pytest.mark.parametrize(("budget", "seconds"), [("90s", 90), ("2m", 120), ("1.5h", 5400)])
def test_base_reads_its_budget(monkeypatch, tmp_path, budget, seconds):
    called = []
    monkeypatch.setattr(pretrain, "pretrain", lambda *arguments: called.append(arguments))
    _run("base", "--budget", budget, "--output", tmp_path)
    _run("base", "--budget", budget)
    assert called == [(seconds, tmp_path), (seconds, OFFLINE_BASE)]
