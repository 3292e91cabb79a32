"""The command line: what each command prints, writes and returns when all goes well."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from peft_scratch import cli
from peft_scratch.assignment import RUNS, TEN
from peft_scratch.cli import app
from peft_scratch.experiments import commands as experiments
from peft_scratch.experiments.jobs import Engine
from peft_scratch.paths import OFFLINE_BASE, ROOT
from peft_scratch.pretraining import pretrain


def _run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


# Who has none of these answers at once; each of them takes a second or several.
SLOW = ("torch", "transformers", "datasets", "accelerate", "numpy", "pandas", "matplotlib", "sklearn")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("", 2),
        ("--help", 0),
        ("--version", 0),
        ("runs", 0),
        ("run --help", 0),
        ("submit", 2),
        ("check", 2),
        ("no-such-command", 2),
        ("run no-such-run", 2),
        ("run --set rank=4", 2),
        ("base --budget never", 2),
        *(
            (f"{command} --profile cource", 2)
            for command in ("run", "run full", "notebooks", "baselines", "claims", "tables", "report")
        ),
    ],
)
def test_a_command_that_needs_no_torch_imports_none(arguments, status):
    program = (
        "import sys\n"
        "from peft_scratch.cli import main\n"
        f"sys.argv = ['peft-scratch', *{arguments.split()!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        f"    print('LOADED', end.code, *[name for name in {SLOW!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"LOADED {status}"
    assert "Traceback" not in done.stderr


def _help(*arguments):
    done = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert done.exit_code == 0
    return done.stdout


def test_help_lists_the_commands_with_a_whole_line_each():
    said = _help()
    listed = said.partition("Commands:\n")[2].splitlines()
    assert all(line.endswith(".") and not line.endswith("...") for line in listed), said
    assert max(map(len, said.splitlines())) <= 80
    names = [line.split()[0] for line in listed]
    assert len(set(names)) == len(names) == len(app.registered_commands)


@pytest.mark.parametrize("command", get_command(app).commands)
def test_every_command_explains_itself_within_80_columns(command):
    said = _help(command)
    assert max(map(len, said.splitlines())) <= 80
    assert "--help" in said


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("peft-scratch")
    said = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("runs", "run", "baselines", "notebooks", "tables", "base"):
        assert f"\n  {name} " in said


def test_version_is_the_package_s():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert _run("--version") == f"peft-scratch {said}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete(shell, tmp_path):
    environment = {
        "_PEFT_SCRATCH_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "peft-scratch base",
        "COMP_WORDS": "peft-scratch base",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = CliRunner().invoke(app, [], env=environment, prog_name="peft-scratch")
    assert "base" in done.stdout
    assert "baselines" in done.stdout


def test_run_without_a_name_does_what_make_run_does(monkeypatch, tmp_path):
    done = []
    for name in ("notebooks", "tables", "report"):
        monkeypatch.setattr(cli, name, lambda *arguments, name=name: done.append((name, *arguments)))
    place = ("--profile", "smoke", "--output", tmp_path)
    _run("run", *place, "--seed", 3, "--recipe", "reference", "--name", "Ada", "--number", "4")
    assert done == [
        ("notebooks", "smoke", 3, tmp_path, "reference"),
        ("tables", "smoke", tmp_path),
        ("report", "smoke", tmp_path, "Ada", "4"),
    ]


def test_run_with_seeds_makes_the_report_after_the_last_of_them(monkeypatch, tmp_path):
    done = []
    for name in ("notebooks", "tables", "report"):
        monkeypatch.setattr(cli, name, lambda *arguments, name=name: done.append((name, *arguments)))
    monkeypatch.setattr(experiments, "train_many", lambda *arguments: done.append(("seeds", *arguments)))
    _run("run", "--profile", "smoke", "--output", tmp_path, "--seeds", "1-2")
    assert done == [
        ("notebooks", "smoke", 1, tmp_path, "fast"),
        ("seeds", list(RUNS), {}, "smoke", [1, 2], tmp_path, "fast", Engine()),
        ("tables", "smoke", tmp_path),
        ("report", "smoke", tmp_path, "", ""),
    ]


def test_notebooks_train_the_first_seed_and_the_others_follow(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(
        "peft_scratch.notebook.execute.execute_all", lambda *arguments: done.append(arguments) or []
    )
    monkeypatch.setattr(experiments, "train_many", lambda *arguments: done.append(arguments))
    place = ("--profile", "smoke", "--output", tmp_path)
    _run("notebooks", *place, "--seeds", "2-4")
    assert done == [
        ("smoke", 2, tmp_path, "fast"),
        (list(RUNS), {}, "smoke", [2, 3, 4], tmp_path, "fast", Engine()),
    ]
    done.clear()
    _run("notebooks", *place, "--seed", 2)
    assert done == [("smoke", 2, tmp_path, "fast")]


# Targets of make and commands


def _make(*arguments):
    # A make that these tests were started by would speak through its variables.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    command = ["make", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_alone_lists_every_target_with_a_line():
    listed = {line.split()[1] for line in _make().splitlines() if line.startswith("  make ")}
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert listed == targets - {"submission"}
    assert targets <= set(
        re.sub(r"\\\n", "", "".join(re.findall(r"^\.PHONY:(.*)", text, re.MULTILINE))).split()
    )


def test_targets_and_commands_of_one_name_are_one_thing():
    commands = {command.callback.__name__ for command in app.registered_commands}
    for target in commands & set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)):
        steps = _make(
            "--dry-run", "--assume-old=.venv/installed", target, "NAME=Ada L", "NUMBER=4", "BUDGET=2m"
        )
        last = shlex.split(steps.splitlines()[-1])
        assert last[:2] == [".venv/bin/peft-scratch", target]
        # Every option that make passes is one that the command has.
        said = _help(target)
        for option in last[2:]:
            assert not option.startswith("--") or option in said, option


@pytest.mark.parametrize(("given", "seeds"), [(["SEEDS=5"], "0-4"), (["SEEDS=3", "SEED=7"], "7-9")])
@pytest.mark.parametrize("target", ["run", "notebooks"])
def test_make_counts_seeds(target, given, seeds):
    steps = _make("--dry-run", "--assume-old=.venv/installed", target, *given)
    said = subprocess.run(
        ["bash", "-c", f"echo {steps.splitlines()[-1]}"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[said.index("--seeds") + 1] == seeds
    assert "--seed" not in said


def test_submission_is_still_a_target():
    steps = _make("--dry-run", "--assume-old=.venv/installed", "submission", "NAME=Ada L", "STD_NUMBER=4")
    asked = ["submit", "--number", "4", "--name", "Ada L"]
    assert shlex.split(steps.splitlines()[-1])[1:] == asked
    steps = _make(
        "--dry-run", "--assume-old=.venv/installed", "submit", "NAME=Ada L", "NUMBER=4", "PROFILE=quick"
    )
    assert shlex.split(steps.splitlines()[-1])[1:] == [*asked, "--profile", "quick"]


def test_another_index_for_torch_reaches_pip():
    steps = _make("--dry-run", "--always-make", "install", "TORCH_INDEX=https://index/cpu")
    (first,) = [line for line in steps.splitlines() if "-r requirements.txt" in line]
    assert "pip install --extra-index-url https://index/cpu " in first.replace('"', "")


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
    assert f"result: {folder / 'report' / 'results' / 'adapter_scratch_b8.json'}" in printed
    assert f"best epoch {100 * result['accuracy']['best']:.1f} %" in printed


def test_a_changed_constant_reaches_the_run_and_keeps_it_apart(tmp_path):
    settings = ("--set", "bottleneck=3", "--set", "learning_rate=1e-2", "--set", "epochs=1")
    printed = _run("run", "adapter_scratch_b8", "--profile", "smoke", "--output", tmp_path, *settings)
    (kept,) = (tmp_path / "runs").glob("*/result.json")
    title = "Adapter, from scratch, b = 3, learning_rate = 0.01, epochs = 1"
    assert f"adapter_scratch_b3: {title}\n" in printed
    changed = "bottleneck = 3 (8 otherwise), learning_rate = 0.01 (0.001 otherwise), epochs = 1 (2 otherwise)"
    assert f"changed: {changed}\n" in printed
    assert f"result: {kept}\n" in printed
    config = json.loads(kept.read_text())["config"]
    assert config["hyperparameters"] == {"bottleneck": 3}
    assert (config["learning_rate"], config["epochs"]) == (0.01, 1)
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "weights").exists()


def test_what_can_be_set_is_listed():
    printed = _run("run", "lora_peft_r1", "--profile", "course", "--set", "--help")
    listed = dict(line.split() for line in printed.splitlines() if line.startswith("  "))
    assert listed == {
        **{"rank": "1", "alpha": "4.0", "scaling": "4.0", "learning_rate": "0.0001"},
        **{"schedule": "constant", "max_tokens": "256"},
        **{"train_reviews": "all", "test_reviews": "all", "epochs": "10", "batch_size": "32"},
    }
    printed = _run("run", "--profile", "offline", "--set", "--help")
    for line in ("full, in the offline profile:", "  virtual_tokens  10", "  bottleneck      8", "  rank "):
        assert line in printed


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
    assert (ROOT / "README.md").read_bytes() == readme, "the README is `publish`'s to change"


@pytest.mark.parametrize(("budget", "seconds"), [("90s", 90), ("2m", 120), ("1.5h", 5400)])
def test_base_reads_its_budget(monkeypatch, tmp_path, budget, seconds):
    called = []
    monkeypatch.setattr(pretrain, "pretrain", lambda *arguments: called.append(arguments))
    _run("base", "--budget", budget, "--output", tmp_path)
    _run("base", "--budget", budget)
    assert called == [(seconds, tmp_path), (seconds, OFFLINE_BASE)]
