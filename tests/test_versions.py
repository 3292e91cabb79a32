"""Both versions of transformers: the same numbers, and the same tests pass on both."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from transformers.models.t5 import modeling_t5

from peft_scratch.exactness import versions
from peft_scratch.exactness.page import page
from peft_scratch.exactness.parity import BASES, already_measured

ROOT = Path(__file__).resolve().parents[1]
#: AdapterHub as it comes, the methods, and the core of exactness: run once more, on transformers 4.57.6.
ON_THE_OLDER = (
    "libraries/test_libraries.py",
    "methods/test_adapter.py",
    "methods/test_lora.py",
    "methods/test_soft_prompt.py",
    "exactness/test_parity.py",
    "exactness/test_convert.py",
    "training/test_cpu_kernels.py",
)

newer = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="compares version 5 with an older one"
)


@pytest.fixture(scope="module")
def rows():
    return versions.agreement(BASES["tiny"])


@newer
def test_every_method_computes_the_same_on_both_versions(rows):
    assert len(rows) == 2 * len(versions.METHODS)
    for row in rows:
        assert row.equal, row
    plain = [row for row in rows if row.attention == "eager"]
    assert max(row.logits for row in plain) == max(row.loss for row in plain) == 0
    assert {row.gradients for row in plain if "Full" not in row.method} == {0}
    assert any(row.logits > 0 for row in rows if row.attention == "sdpa"), "sdpa was not used"


@newer
def test_the_lines_that_changed_are_there():
    versions.older_environment()
    older = (versions.FOLDER / "transformers" / "models" / "t5" / "modeling_t5.py").read_text()
    assert "position_bias = position_bias + causal_mask" in older
    assert "attn_weights = attn_weights + position_bias" in inspect.getsource(
        modeling_t5.eager_attention_forward
    )


@newer
@pytest.mark.parametrize("part", ["logits", "loss", "gradients", "weights_after_steps"])
def test_a_difference_is_noticed(rows, part):
    assert not replace(rows[0], **{part: 2e-6}).equal
    assert not replace(rows[0], tokens=False).equal


@newer
def test_the_page_has_a_row_for_each(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "agreement", lambda base: rows)
    measured = versions.run(tmp_path, ["tiny"])
    text = (tmp_path / "exactness.md").read_text()
    assert text.count("| eager |") == text.count("| sdpa |") == len(versions.METHODS)
    assert "FAILED" not in text and "4.57.6" in text
    measured[0]["rows"][0]["equal"] = False
    assert "FAILED" in page({**already_measured(tmp_path), "versions": measured})


@newer
@pytest.mark.parametrize("file", ON_THE_OLDER)
def test_the_tests_pass_on_transformers_4(file):
    """In a process of its own, with the older version first on its path."""
    environment = versions.older_environment()
    check = "import transformers; print(transformers.__version__)"
    asked = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True)
    assert asked.stdout.strip() == "4.57.6"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [*command, str(ROOT / "tests" / file)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 5, done.stdout[-400:]
    print(f"{file} on transformers 4.57.6: {passed[0]}")


def test_the_older_version_goes_into_its_own_folder_and_no_other(tmp_path, monkeypatch):
    asked = []

    def pip(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(versions.subprocess, "run", pip)
    environment = versions.older_environment(tmp_path / "older")
    (command,) = asked
    assert command[command.index("--target") + 1] == str(tmp_path / "older") and "--no-deps" in command
    assert set(versions.OLDER) <= set(command)
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path / "older")
