"""The benchmark's pieces on a tiny T5: numbers of the right form, products counted as torch counts them."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import TINY
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config

from peft_scratch.methods import Adapter, FullFineTuning, LoRA, SoftPrompt
from peft_scratch.paths import ROOT
from peft_scratch.training.recipe import RECIPES

sys.path.insert(0, str(ROOT / "benchmarks"))

import agreement
import announced
import page
import parts
import speed
import subjects
import whole_runs
from products import Products


class Tiny(speed.Sizes):
    """Sizes of a tiny T5 with rows enough for the reviews' tokens."""

    @property
    def config(self) -> T5Config:
        return T5Config(**{**TINY, "vocab_size": len(subjects.tokenizer())})


SIZES = Tiny(tokens=24, batch=4, rounds=2)


def _is_summary(found):
    assert found["q1"] <= found["median"] <= found["q3"]
    assert len(found["samples"]) == SIZES.rounds
    assert all(value > 0 for value in found["samples"])


# The products


def test_the_products_of_a_frozen_layer_are_those_that_hand_and_torch_count():
    """(4, 16) through a frozen 16 -> 8 and a trained 8 -> 2: two products forward, of the backward ones
    the trained weight's gradient and the two input gradients; no gradient of the frozen weight."""
    frozen, trained = nn.Linear(16, 8, bias=False).requires_grad_(False), nn.Linear(8, 2, bias=False)
    x = torch.randn(4, 16, requires_grad=True)
    products, counter = Products(), FlopCounterMode(display=False)
    with counter, products:
        trained(frozen(x)).sum().backward()
    by_hand = 2 * 4 * 16 * 8 * 2 + 2 * 4 * 8 * 2 * 3
    assert products.flops == counter.get_total_flops() == by_hand
    assert len(products.calls) == 5


@pytest.mark.parametrize("method", [LoRA(), Adapter(), SoftPrompt(), FullFineTuning()], ids=lambda m: m.kind)
def test_a_steps_products_are_those_that_torch_counts_and_can_be_done_again(method):
    model = subjects.tuned(method, subjects.random_t5(SIZES.config))
    subject = subjects.Subject(model, RECIPES["reference"])
    collator = subjects.full_batch(3, 20)
    products, counter = Products(), FlopCounterMode(display=False)
    with counter, products:
        subject.train(collator)
    assert products.flops == counter.get_total_flops() > 0
    again = Products()
    with again:
        products.again(torch.bfloat16)()
    assert again.flops == products.flops
    assert {operand.dtype for _, args in again.calls for operand in args if hasattr(operand, "dtype")} == {
        torch.bfloat16
    }
    full = method.kind == "full"
    weights = {(64, 32), (32, 64)}  # of the feed-forward layers: 64 appears in no other product's result
    results = [args[0].shape[0:1] + args[1].shape[1:2] for func, args in products.calls if "mm" in str(func)
               and len(args[0].shape) == 2]  # fmt: skip
    assert any(shape in weights for shape in map(tuple, results)) == full


# What is measured on


def test_a_full_batch_is_of_one_length():
    collator = subjects.full_batch(5, 40)
    assert [len(row) for row in collator.inputs] == [40] * 5


def test_typical_batches_stand_for_equal_shares():
    lengths = list(range(1, 13))
    batches = [[i] for i in range(12)]
    assert subjects.typical(batches, lengths, 3) == [[2], [6], [10]]
    assert subjects.typical(batches, lengths, 12) == batches


def test_things_take_turns():
    order = []
    seconds = subjects.in_turn({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert "".join(order) == "abbaab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


# The parts


def test_parts_are_written_row_by_row_and_beside_each_other(tmp_path):
    path = tmp_path / "results.json"
    parts.Part(path, "one", {"rounds": 2}).add({"value": 1})
    part = parts.Part(path, "two", {"seeds": (0, 1)}, resume=True)
    part.add({"value": 2})
    part.close(all=3)
    found = parts.read(path)
    assert found["one"]["rows"] == [{"value": 1}]
    assert found["two"]["rows"] == [{"value": 2}] and found["two"]["all"] == 3
    for one in found.values():
        assert one["machine"]["name"] and one["machine"]["threads"] == torch.get_num_threads()
    assert parts.Part(path, "two", {"seeds": (0, 1)}, resume=True).rows == [{"value": 2}]
    assert parts.Part(path, "two", {"seeds": (0, 2)}, resume=True).rows == [], "made with other settings"
    assert parts.Part(path, "two", {"seeds": (0, 1)}).rows == []


def test_a_ratio_is_taken_round_by_round():
    assert parts.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0])["samples"] == [2.0, 3.0, 4.0]
    assert parts.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0])["median"] == 3.0


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Every part about time, in small."""
    path = tmp_path_factory.mktemp("bench") / "results.json"
    speed.recipes(path, SIZES, ["full", "prompt_opendelta_n1"], pool=24)
    speed.steps(path, SIZES)
    speed.limit(path, SIZES)
    speed.growth(path, SIZES, {"tokens": (16, 32), "rank": (1, 2)})
    return path


def test_the_recipes_are_compared_on_answers_such_as_a_trained_model_gives(results):
    part = parts.read(results)["recipes"]
    assert [row["id"] for row in part["rows"]] == ["full", "prompt_opendelta_n1"]
    for row in part["rows"]:
        for name in ("training", "evaluation", "run"):
            _is_summary(row["faster"][name])
        for share in row["shares"].values():
            assert share["answered"] == [1] * (1 + SIZES.rounds)
        course = row["shares"]["reference"]
        assert course["steps"] == 25_000 / SIZES.batch
        times = row["seconds"]
        epoch = course["steps"] * times["reference train"]["samples"][0]
        epoch += course["evaluations"] * times["reference evaluate"]["samples"][0]
        assert row["epoch_seconds"]["reference"]["samples"][0] == pytest.approx(epoch)
    _is_summary(part["faster"])


def test_each_method_is_held_against_each_library_that_has_it(results):
    rows = parts.read(results)["steps"]["rows"]
    assert {(row["method"], row["library"], row["recipe"]) for row in rows} == {
        (method, library, recipe)
        for method, libraries in (
            ("lora", ("PEFT", "AdapterHub", "OpenDelta")),
            ("adapter", ("AdapterHub", "OpenDelta")),
            ("soft_prompt", ("PEFT", "OpenDelta")),
        )
        for library in libraries
        for recipe in RECIPES
    }
    for row in rows:
        _is_summary(row["time"])
        assert row["memory"] == row["bytes"]["ours"] / row["bytes"][row["library"]]
        assert row["bytes"]["ours"] >= SIZES.batch * 2 * SIZES.config.vocab_size * 4, "the logits alone"


def test_the_peak_is_what_is_held_at_once():
    kept = torch.zeros(1000)  # of before

    def work():
        first = torch.zeros(100_000)
        del first
        second = torch.zeros(200_000)
        return second.sum() + kept.sum()

    assert 800_000 <= subjects.peak_allocated(work) < 900_000


def test_the_limit_is_below_the_step(results):
    for row in parts.read(results)["limit"]["rows"]:
        assert row["flops"] > 0 and row["products"] > 0
        for found in row["step_over_products"].values():
            _is_summary(found)
            assert found["median"] > 1


def test_growth_has_a_row_for_each_point(results):
    rows = parts.read(results)["growth"]["rows"]
    assert len(rows) == 2 * 3 + 2, "tokens for three methods, rank for LoRA alone"
    for row in rows:
        _is_summary(row["time"])


def test_table_and_figure_are_made_from_the_json_alone(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{page.START}\nold\n{page.END}\nafter\n")
    page.write(results, readme)
    table = results.with_suffix(".md").read_text()
    first = parts.read(results)["recipes"]["rows"][0]
    assert f"| {first['title']}" in table and f"{first['faster']['run']['median']:.2f}" in table
    assert parts.read(results)["steps"]["machine"]["name"] in table
    assert results.with_name("speed.png").read_bytes().startswith(b"\x89PNG")
    shown = readme.read_text()
    assert shown.startswith("before\n") and shown.endswith("\nafter\n") and "old" not in shown
    assert "The fast recipe against the reference recipe" in shown


def test_a_page_of_one_part_is_a_page(results, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"limit": parts.read(results)["limit"]}))
    readme = tmp_path / "README.md"
    readme.write_text("no markers")
    page.write(path, readme)
    assert readme.read_text() == "no markers"
    assert path.with_name("speed.png").exists()


# Agreement


def test_differences_are_taken_seed_by_seed():
    rows = [
        {"id": run_id, "seed": seed, "recipe": recipe, "last": value, "best": value}
        for run_id in agreement.FROM_SCRATCH
        for seed, course, fast in ((0, 0.5, 0.75), (1, 0.5, 0.25))
        for recipe, value in (("reference", course), ("fast", fast))
    ]
    found = agreement._differences(rows)["full"]["last"]
    assert found["mean"] == 0 and found["seeds"] == 2
    assert found["deviation"] == pytest.approx(0.125**0.5)
    assert found["standard_error"] == pytest.approx(0.25)


def test_the_time_announced_stands_beside_the_time_taken(tmp_path):
    path = tmp_path / "results.json"
    announced.estimates(path, "smoke", ["adapter_scratch_b8"])
    (row,) = json.loads(path.read_text())["estimates"]["rows"]
    assert row["id"] == "adapter_scratch_b8"
    assert 0 < row["announced"] < 120 and 0 < row["taken"] < 120
    (text,) = page.sections(parts.read(path))
    quotient = row["taken"] / row["announced"]
    assert f"{row['announced']:.0f} s | {row['taken']:.0f} s | {quotient:.2f}" in re.sub(r" +", " ", text)


def test_float16_is_compared_with_float32_from_the_same_start(tmp_path):
    path = tmp_path / "results.json"
    small = {"profile": "smoke", "steps": 2, "test_reviews": 6, "tokens": 16, "batch": 4}
    agreement.float16(path, ["lora_scratch_r8"], [0], **small)
    (row,) = json.loads(path.read_text())["float16"]["rows"]
    assert row["skipped"] == 0 and 0 < row["largest_loss_difference"] < 0.01
    assert 5 <= row["equal_predictions"] <= 6
    (text,) = page.sections(parts.read(path))
    assert f"{row['equal_predictions']} of 6" in text


def test_equal_predictions_and_accuracies_are_counted_review_by_review():
    def short(losses, said):
        said = np.array(said)
        return agreement.InType(losses, 0, said, said == np.array([0, 1, 1]))

    found = agreement._apart(short([2.0, 1.0], [0, 1, 0]), short([2.0, 1.25], [0, 1, 1]))
    assert found["equal_predictions"] == 2 and found["largest_loss_difference"] == 0.25
    assert found["accuracy"] == {"float32": pytest.approx(2 / 3), "float16": 1.0}


@pytest.fixture
def in_this_process(monkeypatch):
    """Whole runs one after another in this process: a new one takes ten seconds to start."""

    def side_by_side(jobs):
        try:
            return [whole_runs._whole_run(*job) for job in jobs]
        finally:  # the trainer's bfloat16 would stay otherwise
            AcceleratorState._reset_state(reset_partial_state=True)

    monkeypatch.setattr(whole_runs, "_side_by_side", side_by_side)


SMALL = {"train_reviews": 8, "test_reviews": 6, "epochs": 1}


def test_whole_runs_of_ours_and_of_the_trainer_stand_side_by_side(tmp_path, monkeypatch, in_this_process):
    monkeypatch.setattr(whole_runs, "OURS", {"ours": "fast"})
    monkeypatch.setattr(whole_runs, "PEERS", {"Seq2SeqTrainer, tuned": "tuned"})
    path = tmp_path / "results.json"
    whole_runs.peers(path, 1, SMALL, "smoke")
    ours, tuned = json.loads(path.read_text())["peers"]["rows"]
    assert ours["over_ours"]["median"] == 1 and tuned["over_ours"]["median"] > 0
    assert all(0 <= row["accuracies"][0] <= 1 for row in (ours, tuned))
    (text,) = page.sections(parts.read(path))
    assert "Seq2SeqTrainer, tuned" in text


def test_two_runs_at_once_are_compared_with_one_alone(tmp_path, in_this_process):
    path = tmp_path / "results.json"
    whole_runs.beside(path, 1, SMALL, "smoke")
    part = json.loads(path.read_text())["beside"]
    (row,) = part["rows"]
    assert part["over_alone"]["median"] == pytest.approx(row["slower_of_two"] / row["alone"])
    (text,) = page.sections(parts.read(path))
    assert f"{part['over_alone']['median']:.2f} (" in text
