"""The tables: right from a JSON to the cell, honest about what is missing and where numbers are from."""

import io
import json

import pandas as pd
import pytest
from report_documents import as_result
from transformers import T5Config

from peft_scratch.assignment import BASELINES, RUNS, TEN
from peft_scratch.errors import UserError
from peft_scratch.libraries import method_of
from peft_scratch.reporting.tables import (
    numbers,
    numbers_markdown,
    parameters,
    parameters_markdown,
    tables,
)
from peft_scratch.results import HandCount, RunResult, read_results

T5_SMALL = {
    "name": "google-t5/t5-small",
    "d_model": 512,
    "inner_dim": 512,
    "num_layers": 6,
    "num_decoder_layers": 6,
    "parameters": 60_506_624,
}
# id: kind, hyperparameters, added, whole; the contract's accounting table.
ACCOUNTING = {
    "full": ("full", {}, 0, 60_506_624),
    "prompt_scratch_n10": ("soft_prompt", {"virtual_tokens": 10}, 5_120, 60_511_744),
    "prompt_opendelta_n1": ("soft_prompt", {"virtual_tokens": 1}, 512, 60_507_136),
    "adapter_scratch_b8": ("adapter", {"bottleneck": 8}, 104_544, 60_611_168),
    "adapter_adapterhub_b1": ("adapter", {"bottleneck": 1}, 18_444, 60_525_068),
    "lora_scratch_r8": ("lora", {"rank": 8, "alpha": 4.0}, 294_912, 60_801_536),
    "lora_peft_r1": ("lora", {"rank": 1, "alpha": 4.0}, 36_864, 60_543_488),
}


def _document(name: str, profile: str = "course") -> dict:
    kind, hyperparameters, added, whole = ACCOUNTING[name]
    return {
        "id": name,
        "title": TEN[name],
        "profile": profile,
        "config": {
            "kind": kind,
            "library": "",
            "hyperparameters": hyperparameters,
            "learning_rate": 1e-4,
            "epochs": 3,
            "batch_size": 32,
            "reviews": "stanfordnlp/imdb",
            "base_sha256": "0123456789abcdef",
            "seed": 3,
        },
        "environment": {
            "python": "3.11.7",
            "versions": {},
            "device": "cpu",
            "device_name": "2 cores",
            "precision": "float32",
        },
        "base_model": T5_SMALL,
        "parameters": {
            "added": added,
            "trainable": added or whole,
            "whole": whole,
            "by_hand": _by_hand(name, T5Config(d_model=512, num_heads=8, d_kv=64, num_layers=6)),
        },
        "accuracy": {
            "best": 0.90164,
            "best_epoch": 2,
            "last": 0.8996,
            "validation_chosen": 0.8975,
            "validation_chosen_epoch": 1,
        },
        "malformed": 0.0012,
        "epochs": [{"epoch": epoch, "loss": 0.5, "accuracy": 0.9} for epoch in (1, 2, 3)],
        "curve": [[1.0, 0.5]],
        "seconds": {"training": 100.25, "evaluation": 50.5},
    }


def _by_hand(name: str, config: T5Config) -> dict:
    """The count that the method itself derives."""
    derivation = method_of(RUNS[name]).derivation(config)
    keys = ("symbols", "with_numbers", "value")
    return {key: getattr(derivation, key) for key in keys}


def _run(name: str, profile: str = "course") -> RunResult:
    return RunResult.model_validate(_document(name, profile))


@pytest.fixture
def results() -> dict:
    zero_shot = {
        **{"id": "zero_shot", "title": BASELINES["zero_shot"], "profile": "course"},
        **{"accuracy": {"best": 0.5}, "malformed": 0.25},
    }
    return {name: _run(name) for name in ACCOUNTING} | {"zero_shot": as_result(zero_shot)}


def test_the_rows_are_the_ten_runs_as_they_are_titled():
    assert {name: run.title for name, run in RUNS.items()} == TEN


def test_numbers_are_percents_with_one_decimal(results):
    row = numbers(results).loc["lora_scratch_r8"]
    assert (row.best, row.best_epoch, row["last"]) == (90.2, 2, 90.0)
    assert (row.validation_chosen, row.validation_epoch) == (89.8, 1)
    assert (row.malformed, row.epochs, row.seconds, row.profile) == (0.1, 3, 151, "course")


def test_a_baseline_has_no_epochs(results):
    row = numbers(results).loc["zero_shot"]
    assert (row.best, row.malformed) == (50.0, 25.0)
    assert row[["last", "epochs", "seconds"]].isna().all()


def test_what_was_not_run_is_shown_as_missing(results):
    table = numbers(results)
    assert list(table.index) == [*TEN, *BASELINES]
    assert table.loc["prompt_opendelta_n10"].drop(["run", "published_low", "published_high"]).isna().all()
    lines = numbers_markdown(results).splitlines()
    missing = [line for line in lines if "missing" in line]
    assert len(missing) == len(TEN) + len(BASELINES) - len(results)
    assert any("Soft prompt, OpenDelta, N = 10" in line for line in missing)


@pytest.mark.parametrize("name", ACCOUNTING)
def test_the_hand_count_is_the_contracts(results, name):
    __, __, added, whole = ACCOUNTING[name]
    row = parameters(results).loc[name]
    assert (row.added, row.whole, row.difference) == (added, whole, 0)


def test_the_derivation_is_written_out(results):
    table = parameters(results)
    assert table.loc["adapter_scratch_b8", "with_numbers"] == "(6 + 6)·(512·8 + 8 + 8·512 + 512)"
    assert table.loc["lora_peft_r1", "with_numbers"] == "(6 + 2·6)·2·(512·1 + 1·512)"
    assert table.loc["prompt_scratch_n10", "with_numbers"] == "10·512"


def test_encoder_decoder_and_attention_may_differ_in_size(results):
    # By hand: 3 + 2 layers of width 8, attention 12 wide. LoRA r = 8: 3 + 4 attentions, a q and a v each,
    # 8 rows of 8 in and 8 columns of 12 out. Adapter b = 8: 5 times 64 + 8 + 64 + 8.
    config = T5Config(d_model=8, num_heads=3, d_kv=4, num_layers=3, num_decoder_layers=2)
    for name in ACCOUNTING:
        results[name].parameters.by_hand = HandCount(**_by_hand(name, config))
    table = parameters(results)
    assert table.loc["lora_scratch_r8", "added"] == 7 * 2 * (8 * 8 + 8 * 12)
    assert table.loc["adapter_scratch_b8", "added"] == 5 * 144


@pytest.mark.parametrize("counted", ["trainable", "whole"])
def test_a_wrong_count_shows(results, counted):
    of = results["lora_scratch_r8"].parameters
    setattr(of, counted, getattr(of, counted) + 7)
    assert parameters(results).loc["lora_scratch_r8", "difference"] == 7


def test_the_heading_says_where_the_numbers_are_from(results):
    for page in (numbers_markdown(results), parameters_markdown(results)):
        heading = page.splitlines()[0]
        assert "profile course, base google-t5/t5-small of 60,506,624 parameters" in heading
        assert "stanfordnlp/imdb, seed 3" in heading
        assert "Not the assignment's numbers" not in page


def test_another_profile_is_no_hand_in_and_a_mixture_shows(results):
    results["full"] = _run("full", profile="offline")
    page = numbers_markdown(results)
    assert "profile course" in page.splitlines()[0]
    assert "profile offline" in page.splitlines()[0]
    assert "**Not the assignment's numbers**" in page


def test_the_csv_reads_back(results):
    files = tables(results)
    assert set(files) == {"numbers.csv", "numbers.md", "parameters.csv", "parameters.md"}
    table = pd.read_csv(io.StringIO(files["numbers.csv"]), index_col="id")
    assert table.loc["full", "best"] == 90.2
    assert pd.isna(table.loc["bag_of_words", "best"])
    assert (
        pd.read_csv(io.StringIO(files["parameters.csv"]), index_col="id").loc["full", "whole"] == 60_506_624
    )


def test_nothing_run_yet_makes_whole_tables():
    assert tables({})["numbers.md"].count("missing") == len(TEN) + len(BASELINES)


def test_results_are_read_by_id(tmp_path, results):
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result.as_json()))
    assert read_results(tmp_path) == results


MEMORY = dict.fromkeys(("parameters", "gradients", "optimizer", "activations", "peak"), 1)
KNOWLEDGE = {"reviews": 128, "base": 2.0, "tuned": 2.5, "off": None}
# What each part of a result holds at least, wherever it has that part.
NEEDED = {
    "accuracy": ("best",),
    "config": (
        *("kind", "library", "hyperparameters", "learning_rate"),
        *("epochs", "batch_size", "reviews"),
    ),
    "environment": ("python", "versions", "device", "device_name", "precision"),
    "parameters": ("added", "trainable", "whole"),
    "base_model": ("name", "d_model", "num_layers", "num_decoder_layers", "inner_dim", "parameters"),
    "seconds": ("training", "evaluation"),
    "memory": tuple(MEMORY),
    "knowledge": tuple(KNOWLEDGE),
    "training_accuracy": ("accuracy", "reviews"),
    "disk": ("delta", "base"),
}


@pytest.mark.parametrize(("part", "name"), [(part, name) for part in NEEDED for name in NEEDED[part]])
def test_a_result_that_lacks_a_part_of_a_part_is_named(tmp_path, results, part, name):
    document = _document("full") | {"memory": MEMORY, "disk": {"delta": 1, "base": 2}}
    document |= {"knowledge": KNOWLEDGE, "training_accuracy": {"accuracy": 0.9, "reviews": 500}}
    assert as_result(document).disk.base == 2, "whole as it is"
    document[part] = {other: value for other, value in document[part].items() if other != name}
    (tmp_path / "full.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=rf"full\.json lacks {part}\.{name}: delete it and run full again"):
        read_results(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '"id"'])
def test_a_damaged_result_is_named(tmp_path, text):
    (tmp_path / "full.json").write_text(text)
    with pytest.raises(UserError, match=r"full\.json is not the JSON of a result"):
        read_results(tmp_path)
