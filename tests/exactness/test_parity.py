"""Every method from scratch equals every library that has it, to the last bit, on a tiny random T5."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import t5_config
from transformers import T5ForConditionalGeneration

from peft_scratch.assignment import PROFILES
from peft_scratch.data import base_model
from peft_scratch.errors import UserError
from peft_scratch.exactness import differences, parity
from peft_scratch.exactness.differences import DIFFERENCES
from peft_scratch.exactness.page import page
from peft_scratch.exactness.pairs import PAIRS, as_it_is

STEPS = 3


@pytest.fixture(scope="module")
def base() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2, "num_layers": 1}
    return T5ForConditionalGeneration(t5_config(**sizes, decoder_start_token_id=0)).eval()


@pytest.fixture(scope="module")
def batches() -> list[parity.Batch]:
    _, encode = parity.BASES["tiny"].load()
    return parity.review_batches(encode, STEPS)


def test_the_batches_have_both_labels_and_padding(batches):
    assert len(batches) == STEPS
    for batch in batches:
        lengths = batch["attention_mask"].sum(1).tolist()
        assert lengths == [parity.TOKENS, parity.TOKENS // 2]
        assert not batch["input_ids"][batch["attention_mask"] == 0].any()
        assert len(batch["labels"].unique(dim=0)) == 2
    assert not torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)
def test_ours_equals_the_library(pair, base, batches):
    found = parity.compare(pair, base, batches, STEPS)
    assert (found.logits, found.loss, found.gradients, found.weights_after_steps) == (0, 0, 0, 0)
    assert found.equal and found.moved > pair.learning_rate
    control = parity.negative_control(pair, base, batches[0])
    assert not control.equal and control.logits > 10 * parity.LIMIT


def test_the_base_is_left_alone(base, batches):
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    for pair in PAIRS[:2]:
        parity.compare(pair, base, batches, 1)
    after = base.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_the_order_of_a_sum_is_all_that_opendeltas_adapter_differs_by(base, batches):
    reordered = [pair for pair in PAIRS if pair.reorder is not as_it_is]
    assert [(pair.name, pair.library) for pair in reordered] == [
        ("adapter b = 1", "OpenDelta"),
        ("adapter b = 8", "OpenDelta"),
    ]
    for pair in reordered:
        assert parity.logits_in_our_order(pair, base, batches[0]) < 1e-5
    assert parity.logits_in_our_order(PAIRS[0], base, batches[0]) is None


def test_a_library_that_trains_more_than_the_map_covers_is_noticed(base):
    # OpenDelta's LoRA on every attention, mapped as if it were on self-attention only.
    everywhere, self_attention = PAIRS[2:4]
    with pytest.raises(AssertionError, match="the library adds"):
        parity.build(replace(everywhere, shares=self_attention.shares), base)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda d: f"{d.kind}-{d.library}-{d.about}")
def test_each_difference_points_to_its_line(difference):
    record = difference.record()
    assert record["line"] > 1 and record["version"]


def test_a_line_that_is_gone_is_said(monkeypatch):
    with pytest.raises(UserError, match="no line `nonesuch`"):
        replace(DIFFERENCES[0], code="nonesuch").line()
    monkeypatch.setitem(differences._PACKAGES, DIFFERENCES[0].library, "nonesuch")
    with pytest.raises(UserError, match="nonesuch is not installed"):
        DIFFERENCES[0].line()


def test_the_results_are_written_and_bases_measured_before_are_kept(tmp_path, monkeypatch, base):
    monkeypatch.setattr(parity, "STEPS", 2)
    monkeypatch.setattr(parity, "PAIRS", PAIRS[-2:])
    kinds = {
        name: parity.Base(name, name.title(), "", lambda: (base, lambda text: [5, 6, 7])) for name in "ab"
    }
    monkeypatch.setattr(parity, "BASES", kinds)
    parity.run(tmp_path, ["b"])
    results = parity.run(tmp_path, ["a"])
    assert json.loads((tmp_path / "exactness.json").read_text()) == results
    assert [one["name"] for one in results["bases"]] == ["a", "b"]
    assert (tmp_path / "exactness.md").read_text() == page(results)
    assert "4 comparisons on 2 bases. 4 are equal to the last bit" in page(results)
    results["bases"][0]["rows"][0]["equal"] = False
    assert page(results).count("**FAILED**") == 1


def test_a_base_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no base 'nonesuch'; there are tiny, offline, t5-small"):
        parity.run(tmp_path, ["nonesuch"])
    nowhere = tmp_path / "nothing"
    monkeypatch.setattr(base_model, "OFFLINE_BASE", nowhere)
    monkeypatch.setitem(PROFILES, "offline", replace(PROFILES["offline"], base=str(nowhere)))
    with pytest.raises(UserError, match="missing or damaged"):
        parity.run(tmp_path, ["offline"])
