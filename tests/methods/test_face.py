"""The public face: what it names, what it imports, and the lines that the engineer's page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers import T5ForConditionalGeneration

import peft_scratch
from peft_scratch import methods
from peft_scratch.paths import OFFLINE_BASE, ROOT


def _requirements(lines):
    """Each requirement by its name, with its range."""
    found = map(Requirement, filter(None, (line.partition("#")[0].strip() for line in lines)))
    return {canonicalize_name(one.name): str(one.specifier) for one in found}


REQUIREMENTS = _requirements((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())


def _modules_after(script):
    """Names of the top-level modules that a fresh process has after `script`, by the line that it prints."""
    script = f"{script}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_name_is_that_of_methods():
    assert set(peft_scratch.__all__) <= set(dir(peft_scratch))
    for name in peft_scratch.__all__:
        assert getattr(peft_scratch, name) is getattr(methods, name)
    with pytest.raises(AttributeError, match="'peft_scratch' has no attribute 'Lora'"):
        peft_scratch.Lora  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    assert not _modules_after("import peft_scratch") & {"torch", "transformers", "numpy", "tqdm", "filelock"}


USE = """
import torch
from transformers import T5Config, T5ForConditionalGeneration
sizes = dict(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
config = T5Config(**sizes, decoder_start_token_id=0)
ids = torch.tensor([[5, 7, 1]])
T5ForConditionalGeneration(config)(input_ids=ids, labels=ids).loss.backward()
"""
USE_THE_FACE = """
import tempfile
from peft_scratch import *
for method in (LoRA(2), Adapter(2), SoftPrompt(2), FullFineTuning()):
    tuned = apply(method, T5ForConditionalGeneration(config))
    tuned.model(input_ids=ids, labels=ids).loss.backward()
    with tempfile.TemporaryDirectory() as folder:
        save_delta(tuned.model, folder + "/delta.pt", method.declares)
        load_delta(tuned.model, folder + "/delta.pt", method.declares)
    if method.kind == "lora":
        merge(tuned.model)
        unmerge(tuned.model)
    if method.kind != "full":
        base_of(tuned)
"""


def test_using_the_face_imports_torch_and_transformers_and_no_other_requirement():
    distributions = metadata.packages_distributions()
    with_torch_and_transformers, with_the_face = _modules_after(USE), _modules_after(USE + USE_THE_FACE)
    assert "peft_scratch" in with_the_face
    added = {
        canonicalize_name(name)
        for module in with_the_face - with_torch_and_transformers
        for name in distributions.get(module, [])
    }
    assert not added & set(REQUIREMENTS)


def test_core_and_extras_together_are_requirements_txt():
    tomllib = pytest.importorskip("tomllib")  # Python's own from 3.11 on
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    every = extras.pop("all")
    for alone in ("app", "cluster"):  # for one command each, and so not in the list that everybody installs
        extras.pop(alone)
    assert every == [f"peft-scratch[{','.join(extras)}]"]
    together = {}
    for lines in (project["dependencies"], *extras.values()):
        for name, versions in _requirements(lines).items():
            assert together.setdefault(name, versions) == versions, name
    assert together == REQUIREMENTS
    assert set(_requirements(project["dependencies"])) == {"torch", "transformers"}


@pytest.mark.parametrize("method", ["LoRA(rank=8)", "Adapter(bottleneck=8)", "SoftPrompt(virtual_tokens=10)"])
def test_the_lines_of_the_engineers_page_run(method, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "engineer.md").read_text(encoding="utf-8")
    loop, trainer = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in loop.splitlines() if line and "import" not in line]) <= 12
    if method != "LoRA(rank=8)":  # the others are not merged
        loop = re.sub(r"^merge\(.*\n^model\.save_pretrained.*\n", "", loop, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    for block in (loop, trainer):
        block = block.replace("LoRA(rank=8)", method).replace(
            "import LoRA,", f"import {method.split('(')[0]},"
        )
        block = block.replace("google-t5/t5-small", str(OFFLINE_BASE))
        exec(block, names)
        with torch.no_grad():
            assert names["model"].eval()(**names["batch"]).loss < 0.9  # it is learning the two words
        assert (tmp_path / "lora.pt").is_file()
    if method == "LoRA(rank=8)":
        again = T5ForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
        assert not any("sharif_llm" in name for name, _ in again.named_parameters())
