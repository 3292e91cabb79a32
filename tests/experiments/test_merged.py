"""`export merged`: an ordinary T5, which answers as the merged model does and needs no library to load."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_t5
from transformers import AutoTokenizer, T5ForConditionalGeneration
from typer.testing import CliRunner

from peft_scratch.cli import app
from peft_scratch.exactness.convert import convert
from peft_scratch.methods import Adapter, LoRA, apply, load_delta, merge, save_delta
from peft_scratch.paths import OFFLINE_BASE


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A tiny base with the offline base's tokenizer, a LoRA of alpha 16 for it, and its PEFT folder."""
    folder = tmp_path_factory.mktemp("made")
    tokenizer = AutoTokenizer.from_pretrained(OFFLINE_BASE)
    base = make_t5(vocab_size=len(tokenizer))
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    model = apply(LoRA(4, alpha=16.0), base).model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    save_delta(model, folder / "lora.pt")
    convert(folder / "lora.pt", folder / "peft", base=folder / "base", alpha=16)
    return folder


def _export(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", "merged", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.parametrize("source", ["lora.pt", "peft"])
def test_the_folder_is_an_ordinary_t5(source, made, batch, tmp_path):
    status, output = _export(made / source, tmp_path / "merged", "--base", made / "base", "--alpha", 16)
    assert status == 0, output
    plain, said = T5ForConditionalGeneration.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"]
    expected = apply(LoRA(4, alpha=16.0), T5ForConditionalGeneration.from_pretrained(made / "base")).model
    load_delta(expected, made / "lora.pt")
    with torch.no_grad():
        unmerged = expected.eval()(**batch).logits
        merge(expected)
        assert torch.equal(plain.eval()(**batch).logits, expected(**batch).logits)
        torch.testing.assert_close(plain(**batch).logits, unmerged, rtol=0, atol=1e-4)
        untuned = T5ForConditionalGeneration.from_pretrained(made / "base").eval()
        assert (untuned(**batch).logits - unmerged).abs().max() > 0.1


def test_five_plain_lines_load_it(made, tmp_path):
    assert _export(made / "lora.pt", tmp_path / "merged", "--base", made / "base", "--alpha", 16)[0] == 0
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line and not line.startswith("from ")]) == 5
    program = code + "\nimport sys; assert not {'peft_scratch', 'peft'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "library_name: transformers" in card and "merged into T5" in card


def test_what_cannot_be_merged(made, tmp_path):
    save_delta(apply(Adapter(2), make_t5()).model, tmp_path / "adapter.pt")
    make_t5().config.save_pretrained(tmp_path / "config")
    for source, base, sentence in (
        (tmp_path / "adapter.pt", tmp_path / "config", "is of adapter, and only LoRA can be merged"),
        (made / "lora.pt", "t5-small", "was not trained on the base t5-small"),
        (made / "nothing.pt", made / "base", "nothing.pt is not there"),
        (made / "lora.pt", tmp_path / "config", "cannot be loaded"),  # sizes without weights
    ):
        status, output = _export(source, tmp_path / "merged", "--base", base)
        assert status == 2 and sentence in output, output
    assert not (tmp_path / "merged").exists()
    assert "is there already" in _export(made / "lora.pt", made / "base", "--base", made / "base")[1]
