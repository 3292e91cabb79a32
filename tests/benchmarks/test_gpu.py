"""What `make gpu` does, on a CPU with a tiny model: no figure here says anything about a GPU."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import make_t5

from peft_scratch.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import counted
import gpu
from gpu_page import page

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sizes():
    config = make_t5(vocab_size=8192).config
    return gpu.Sizes(
        config, tokens=24, batch=4, steps=2, rounds=1, profile="smoke", runs=("lora_scratch_r8",)
    )


@pytest.fixture(scope="module")
def parts(sizes, tmp_path_factory):
    path = gpu.measure(sizes, CPU, tmp_path_factory.mktemp("gpu"), minutes=8)
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_every_part_is_there(parts):
    found, _ = parts
    assert list(found) == ["machine", "correctness", "attention", "speed", "projection", "ten_numbers"]
    assert all("found" in part for part in found.values()), found


def test_every_method_is_right_in_every_type(parts):
    rows = parts[0]["correctness"]["found"]
    assert {(row["method"], row["type"]) for row in rows} == {
        (method, dtype) for method in gpu.METHODS for dtype in ("float32", "float16", "bfloat16")
    }
    limits = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.3}
    for row in rows:
        assert row["finite"]
        assert max(row["logits"], row["gradients"], row["losses"]) < limits[row["type"]], row
    assert max(row["logits"] for row in rows) > 1e-4, "all of them were float32"


def test_the_fused_attention_is_right(parts):
    limits = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
    for row in parts[0]["attention"]["found"]:
        assert max(row["values"], row["gradients"]) < limits[row["type"]], row


def test_speed_is_of_both_recipes_and_both_peers(parts):
    rows = parts[0]["speed"]["found"]
    assert {row["by"] for row in rows} == {
        *("reference", "fast", "Seq2SeqTrainer, plain", "Seq2SeqTrainer, tuned")
    }
    assert all(row["step_seconds"]["median"] > 0 for row in rows)


def test_the_page_has_every_part(parts):
    assert parts[1].startswith("# CPU\n")
    assert parts[1].count("\n## ") == 5
    assert "Not measured" not in parts[1]


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path):
    measurement = gpu.Measurement(tmp_path / "a.json", deadline=float("inf"))
    measurement.part("machine", lambda: {"card": "x", "versions": {}, "python": "3", "precision": "float32"})
    measurement.part("speed", lambda: 1 / 0)
    measurement.deadline = 0
    measurement.part("attention", lambda: [])
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["speed"]["failed"].startswith("ZeroDivisionError")
    assert "found" not in written["attention"]
    text = page(written)
    assert "Not measured: ZeroDivisionError" in text
    assert "Not measured: the time was over" in text


def test_without_a_gpu_it_says_so_in_one_sentence():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "This machine has no GPU that torch can use: run `make gpu` where there is one."
    )


# The counted work


def test_products_are_counted_as_by_hand():
    """One encoder layer of plain numbers: each weight twice a token, and attention's two products."""
    config = make_t5(num_layers=1, num_decoder_layers=1, d_model=32).config
    tokens = 64
    found = counted.operations(config, gpu.METHODS["full"], tokens, training=False) * tokens
    inner, ff, words = 2 * 16, 64, config.vocab_size
    encoder = tokens * 2 * (4 * 32 * inner + 2 * 32 * ff) + 2 * 2 * tokens * tokens * inner
    own = 2 * 2 * (4 * 32 * inner + 2 * 32 * ff) + 2 * 2 * 2 * 2 * inner
    cross = 2 * 2 * 2 * 32 * inner + tokens * 2 * 2 * 32 * inner + 2 * 2 * 2 * tokens * inner
    assert found == encoder + own + cross + 2 * 2 * 32 * words


def test_the_assignment_is_some_eighty_petaflop():
    from peft_scratch.exactness.t5_configs import t5_config

    work = counted.assignment_operations(t5_config("t5-small"))
    assert 70e15 < work["all"] < 100e15
    assert 2.5 < work["full_training"] / work["evaluation"] < 3.2
    assert 1.5 < work["frozen_training"] / work["evaluation"] < 2.2
    hours = counted.hours(counted.CARDS["T4"], work["all"])
    assert hours["half"]["0.333"] < 1.5
    assert hours["single"]["0.500"] > 4
