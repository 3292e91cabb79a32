"""The model card beside a converted folder: what it says, and that the code on it loads the folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_t5
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

from peft_scratch.errors import UserError
from peft_scratch.exactness.convert import convert
from peft_scratch.exactness.versions import older_environment
from peft_scratch.methods import Adapter, LoRA, SoftPrompt, apply, save_delta
from peft_scratch.paths import OFFLINE_BASE, ROOT

FILES = {"lora": LoRA(2), "prompts": SoftPrompt(3), "adapter": Adapter(2)}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny T5 with the offline base's tokenizer, as a folder that the libraries load."""
    folder = tmp_path_factory.mktemp("base") / "base"
    tokenizer = AutoTokenizer.from_pretrained(OFFLINE_BASE)
    make_t5(vocab_size=len(tokenizer)).save_pretrained(folder)
    # As files: transformers 5 would write them in a form that 4.57, which AdapterHub needs, does not read.
    for file in OFFLINE_BASE.glob("*token*"):
        shutil.copy(file, folder)
    return folder


def _code(folder: Path) -> str:
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.mark.parametrize("name", FILES)
def test_the_code_on_the_card_loads_the_folder(name, base, tmp_path):
    model = make_t5(vocab_size=len(AutoTokenizer.from_pretrained(base)))
    save_delta(apply(FILES[name], model).model, tmp_path / f"{name}.pt")
    convert(tmp_path / f"{name}.pt", tmp_path / name, base=base)
    code = _code(tmp_path / name)
    lines = [line for line in code.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) == 5
    # AdapterHub's own environment is the older one, as the card says.
    environment = older_environment() if name == "adapter" else None
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    card = ModelCard.load(tmp_path / name / "README.md")
    assert card.data.library_name == ("adapter-transformers" if name == "adapter" else "peft")
    assert card.data.base_model is None  # a folder of this machine is no name that others know
    assert ("pip install adapters" in card.text) == (name == "adapter")
    assert "no accuracy is stated" in card.text
    assert "No licence was named" in card.text and card.data.license == "other"


@pytest.fixture
def trained(tmp_path) -> Path:
    """The repository's own weights and results, as a run leaves them."""
    shutil.copytree(ROOT / "report" / "results", tmp_path / "report" / "results")
    (tmp_path / "weights").mkdir()
    shutil.copy(ROOT / "weights" / "lora.pt", tmp_path / "weights")
    return tmp_path


def test_the_numbers_come_from_the_run_that_wrote_the_file(trained):
    result = json.loads((trained / "report" / "results" / "lora_scratch_r8.json").read_text())
    convert(trained / "weights" / "lora.pt", trained / "folder", base="offline", licence="mit")
    card = ModelCard.load(trained / "folder" / "README.md")
    scores = {score.metric_name: score.metric_value for score in card.data.eval_results}
    assert scores == {
        "Accuracy, best epoch": round(result["accuracy"]["best"], 4),
        "Accuracy, last epoch": round(result["accuracy"]["last"], 4),
    }
    for said in (
        "| Hyperparameters | rank = 8, alpha = 4.0, targets = q, v |",
        "| Trainable parameters | 57,344 |",
        "| Library of this folder | PEFT |",
        "| Base | the offline base of peft-scratch, `weights/base` |",
        "1,600 IMDB reviews",
        "2 epochs, batches of 32, learning rate 0.003, seed 0",
        f"| last epoch | {100 * result['accuracy']['last']:.1f} % | no epoch was chosen |",
        "These weights: mit.",
    ):
        assert said in card.text, said
    assert card.data.license == "mit"


def test_without_a_base_no_folder_of_this_machine_is_named(trained):
    convert(trained / "weights" / "lora.pt", trained / "folder")
    text = (trained / "folder" / "README.md").read_text()
    assert str(ROOT) not in text and 'from_pretrained("BASE")' in text
    assert "| Base | the offline base of peft-scratch, `weights/base` |" in text
    assert "`BASE` is the model that it was trained on." in text


def test_a_result_of_something_else_is_not_taken(trained):
    results = trained / "report" / "results"
    source = trained / "weights" / "lora.pt"
    with pytest.raises(UserError, match="is not the result of the run that trained"):
        convert(source, trained / "folder", result=results / "adapter_scratch_b8.json")
    with pytest.raises(UserError, match="There is no result"):
        convert(source, trained / "folder", result=results / "nothing.json")
    assert not (trained / "folder").exists()
    # Found beside the weights, but not of these weights: the card states nothing.
    shutil.copy(results / "adapter_scratch_b8.json", results / "lora_scratch_r8.json")
    convert(source, trained / "folder")
    assert "no accuracy is stated" in (trained / "folder" / "README.md").read_text()


def test_a_released_t5_is_named_as_on_the_hub(tmp_path):
    from transformers import T5ForConditionalGeneration

    from peft_scratch.exactness.t5_configs import t5_config

    save_delta(
        apply(SoftPrompt(3), T5ForConditionalGeneration(t5_config("t5-small"))).model, tmp_path / "p.pt"
    )
    convert(tmp_path / "p.pt", tmp_path / "folder", base="t5-small")
    card = ModelCard.load(tmp_path / "folder" / "README.md")
    assert (card.data.base_model, card.data.license) == ("google-t5/t5-small", "apache-2.0")
    config = json.loads((tmp_path / "folder" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "google-t5/t5-small"
    assert 'T5ForConditionalGeneration.from_pretrained("google-t5/t5-small")' in _code(tmp_path / "folder")
