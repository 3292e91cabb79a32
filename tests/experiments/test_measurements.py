"""The three claims: bytes that follow from the counts, a base that is found again to the bit, overfitting."""

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from conftest import make_t5
from torch.nn import functional as F
from transformers import AutoTokenizer
from typer.testing import CliRunner

from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.cli import app
from peft_scratch.data.batches import Collator, evenly_spaced
from peft_scratch.data.corruption import sentinel_ids
from peft_scratch.errors import UserError
from peft_scratch.experiments import measurements as claims
from peft_scratch.experiments import run as runs
from peft_scratch.experiments import session as workbench
from peft_scratch.experiments import small_data
from peft_scratch.experiments.measurements import (
    masked_reviews,
    peak_during,
    pretraining_loss,
    saved_for_backward,
    training_memory,
)
from peft_scratch.experiments.session import Session
from peft_scratch.libraries import method_of
from peft_scratch.methods import FullFineTuning, LoRA, apply, base_of, count_parameters, merge
from peft_scratch.paths import OFFLINE_BASE
from peft_scratch.training.checkpoints import trainable_state
from peft_scratch.training.evaluation import Predictions
from peft_scratch.training.recipe import RECIPES
from peft_scratch.training.trainer import Trainer

CPU = torch.device("cpu")
MB = 2**20
REVIEWS = [[5 + i % 7, 20 + i % 11, 1] + [9] * (i % 3) for i in range(20)]
COLLATOR = Collator(REVIEWS, [i % 2 for i in range(20)], [[3, 1], [4, 1]], pad_id=0)
PEFT_RUNS = [run_id for run_id in RUNS if run_id != "full"]


_OPTIONS = {
    "accelerator": Accelerator(cpu=True),
    "recipe": RECIPES["reference"],
    "learning_rate": 0.01,
    "batch_size": 8,
}


def _memory(model):
    return training_memory(Trainer(model, **_OPTIONS), COLLATOR)


def _randomised(tuned):
    """`tuned` with trainable tensors that change what the model says."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in tuned.trainable:
            parameter = tuned.model.get_parameter(name)
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return tuned


# Memory


@pytest.mark.parametrize("run_id", RUNS)
def test_gradients_and_optimiser_hold_what_trains_and_nothing_else(run_id, tiny_t5):
    tuned = apply(method_of(RUNS[run_id]), tiny_t5)
    frozen = {n: p.detach().clone() for n, p in tuned.model.named_parameters() if not p.requires_grad}
    memory = _memory(tuned.model)
    trainable = count_parameters(tuned.model, trainable_only=True)
    assert memory.parameters == 4 * count_parameters(tuned.model)
    assert memory.gradients == 4 * trainable
    # AdamW: two moments of each number, and one float32 step count for each tensor.
    assert memory.optimizer == 8 * trainable + 4 * len(tuned.trainable)
    assert all(torch.equal(tuned.model.get_parameter(name), p) for name, p in frozen.items())


def test_measuring_memory_leaves_every_weight_and_the_learning_rate(tiny_t5):
    trainer = Trainer(apply(FullFineTuning(), tiny_t5).model, **_OPTIONS)
    before = trainable_state(tiny_t5)
    training_memory(trainer, COLLATOR)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainable_state(tiny_t5).items())
    trainer.train_epoch(COLLATOR, "a test", seed=0)
    assert not all(torch.equal(before[name], tensor) for name, tensor in trainable_state(tiny_t5).items())


def test_what_a_forward_pass_saves_is_counted_by_hand():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    x = torch.randn(3, 4)
    with saved_for_backward(net) as saved:
        net(x).sum()
    # The input, and ReLU's output once, though ReLU and the second layer both save it; no weight.
    assert sum(saved.values()) == 4 * (3 * 4 + 3 * 8)
    net[0].requires_grad_(False)  # then nothing is saved for it, and ReLU's output for the second layer alone
    with saved_for_backward(net) as saved:
        net(x).sum()
    assert sum(saved.values()) == 4 * 3 * 8


def test_a_frozen_prefix_saves_no_activations(tiny_t5):
    last = copy.deepcopy(tiny_t5).requires_grad_(False)
    last.decoder.block[-1].requires_grad_(True)
    full = _memory(apply(FullFineTuning(), tiny_t5).model).activations
    assert 0 < _memory(last).activations < full / 2


def test_the_longest_batch_is_the_one_measured(tiny_t5):
    long = Collator([*REVIEWS, [9] * 50], [*COLLATOR.labels, 0], COLLATOR.targets, pad_id=0)
    model = apply(FullFineTuning(), tiny_t5).model
    assert training_memory(Trainer(model, **_OPTIONS), long).activations > 5 * _memory(model).activations


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel offers it on Linux alone")
def test_the_peak_holds_what_was_freed_within_and_not_what_was_freed_before():
    torch.ones(32 * MB)  # float32: 128 MB, freed at once
    nothing, kind = peak_during(lambda: None, CPU)
    block, _ = peak_during(lambda: torch.ones(16 * MB), CPU)
    assert kind == "resident"
    assert 60 * MB < block - nothing < 80 * MB


def test_without_a_peak_there_is_none(monkeypatch):
    done = []

    def refuse(*_):
        raise PermissionError

    assert peak_during(lambda: done.append(1), torch.device("mps")) == (None, None)
    monkeypatch.setattr(claims.Path, "write_text", refuse)
    assert peak_during(lambda: done.append(2), CPU) == (None, None)
    assert done == [1, 2], "the work is done all the same"


# The hot swap


@pytest.mark.parametrize("tied", [True, False])
def test_one_base_serves_every_method_in_turn(tied, batch):
    base = make_t5(tie_word_embeddings=tied)
    expected, config = base(**batch).logits, base.config.to_dict()
    there = [p.data_ptr() for p in base.parameters()]
    for run_id in [*PEFT_RUNS, PEFT_RUNS[0]]:
        tuned = _randomised(apply(method_of(RUNS[run_id]), base))
        logits = tuned.model(**batch).logits
        assert not torch.equal(logits, expected)
        base = base_of(tuned)
        assert torch.equal(base(**batch).logits, expected), f"{run_id} left a trace"
        assert torch.equal(tuned.model(**batch).logits, logits), "the tuned model stays as it was"
        assert [p.data_ptr() for p in base.parameters()] == there, "no weight was copied"
        assert base.config.to_dict() == config
    assert type(base) is type(make_t5())


def test_what_cannot_be_taken_out_is_refused(tiny_t5):
    tuned = apply(LoRA(), tiny_t5)
    merge(tuned.model)
    with pytest.raises(UserError, match="unmerge"):
        base_of(tuned)
    with pytest.raises(UserError, match="is not frozen in the model; load a fresh base"):
        base_of(apply(FullFineTuning(), make_t5()))


# What the base still knows


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(OFFLINE_BASE)


def test_masking_hides_a_seventh_and_is_always_the_same(tokenizer):
    texts = ["a film that is better than it has any right to be " * 30, "short and bad"]
    masked = masked_reviews(texts, tokenizer, 256)
    assert masked == masked_reviews(texts, tokenizer, 256)
    sentinels = set(sentinel_ids(tokenizer))
    assert len(sentinels) == 100 and tokenizer.unk_token_id not in sentinels
    for text, inputs, targets in zip(texts, masked.inputs, masked.targets, strict=True):
        whole = tokenizer(text, truncation=True, max_length=256)["input_ids"]
        hidden = [token for token in targets[:-1] if token not in sentinels]
        assert len(hidden) == max(1, round(0.15 * (len(whole) - 1)))
        assert sorted([t for t in inputs if t not in sentinels] + hidden) == sorted(whole)
        assert inputs[-1] == targets[-1] == tokenizer.eos_token_id


def test_the_loss_is_the_mean_over_target_tokens(tiny_t5):
    masked = Collator([[5, 6, 7, 1], [8, 1], [9, 10, 1]], [0, 1, 2], [[20, 21, 22, 1], [30, 1], [40, 1]], 0)
    losses = []
    for inputs, target in zip(masked.inputs, masked.targets, strict=True):
        shifted = torch.tensor([[0, *target[:-1]]])
        logits = tiny_t5(input_ids=torch.tensor([inputs]), decoder_input_ids=shifted).logits[0]
        losses += F.cross_entropy(logits, torch.tensor(target), reduction="none").tolist()
    for batch_size in (1, 2, 3):
        session = SimpleNamespace(
            accelerator=Accelerator(cpu=True),
            recipe=RECIPES["reference"],
            profile=SimpleNamespace(batch_size=batch_size),
        )
        loss = pretraining_loss(tiny_t5, masked, session)
        assert loss == pytest.approx(sum(losses) / 8, rel=1e-5)


@pytest.mark.parametrize(
    ("there", "wanted", "rows"), [(5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (4, 4, [0, 1, 2, 3])]
)
def test_reviews_are_taken_evenly(there, wanted, rows):
    assert evenly_spaced(there, wanted) == rows


# In the runs themselves


@pytest.fixture(scope="module")
def smoke(tokenizer, tmp_path_factory):
    """The smoke profile on a tiny random base, with fewer reviews still."""
    folder = tmp_path_factory.mktemp("base")
    make_t5(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    profile = replace(PROFILES["smoke"], base=str(folder), train_reviews=32, test_reviews=20, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "smoke", profile)
        yield profile


@pytest.fixture(scope="module")
def bench(smoke, tmp_path_factory):
    return Session.open("smoke", seed=3, output=tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def finished(bench):
    """Each of the ten runs: what was prepared, and its result."""
    return {run_id: (p, p.train()) for run_id in RUNS for p in (bench.prepare(run_id),)}


@pytest.mark.parametrize("run_id", RUNS)
def test_a_run_has_its_claims_measured(run_id, bench, finished):
    _, result = finished[run_id]
    memory, knowledge, counted = result.memory, result.knowledge, result.parameters
    assert memory.optimizer == 8 * counted.trainable + 4 * counted.trainable_tensors
    assert memory.gradients == 4 * counted.trainable
    held = bench.recipe.precision[0].itemsize  # bytes of a frozen number
    whole = 4 * counted.trainable + held * (counted.whole - counted.trainable)
    assert memory.parameters == whole
    assert memory.activations > 0
    assert memory.peak_kind == peak_during(lambda: None, CPU)[1]
    assert memory.peak is None or memory.peak > whole

    (kept,) = (bench.output / "runs").glob(f"smoke-{run_id}-{result.fingerprint}/best.pt")
    assert dict(result.disk) == {
        "delta": kept.stat().st_size,
        "base": (Path(bench.profile.base) / "model.safetensors").stat().st_size,
    }

    assert knowledge.reviews == 20
    assert knowledge.base == finished["full"][1].knowledge.base
    assert knowledge.tuned != knowledge.base
    # To the last bit: the tensors found frozen in the tuned model are the base's.
    assert knowledge.off == (None if run_id == "full" else knowledge.base)

    assert result.training_accuracy.reviews == 10
    assert (10 * result.training_accuracy.accuracy).is_integer()


def test_training_accuracy_is_that_of_training_reviews_half_of_each_label(bench, finished, monkeypatch):
    prepared, _ = finished["lora_scratch_r8"]
    train = bench.reviews.train
    inputs = bench.collator(train, bench.profile.max_tokens).inputs

    def predict(model, collator, batch_size, *, scoring=None, title=""):
        if scoring is not None:  # the generation pass, on test reviews
            return Predictions([0] * len(collator.labels), collator.labels)
        assert all(row in inputs for row in collator.inputs)
        assert sum(collator.labels) == 5
        return Predictions([1] * 10, collator.labels)  # always positive

    monkeypatch.setattr(bench, "predict", predict)
    training = bench.collator(train, bench.profile.max_tokens)
    measured = prepared.measure(training, training)
    assert dict(measured["training_accuracy"]) == {"accuracy": 0.5, "reviews": 10}


def _knowledge_of(bench, prepared):
    return pretraining_loss(base_of(prepared.tuned), bench.masked, bench)


@pytest.mark.parametrize("run_id", ["adapter_adapterhub_b8", "lora_peft_r8", "prompt_scratch_n10"])
def test_a_frozen_weight_that_moved_would_show(run_id, bench, finished):
    prepared, result = finished[run_id]
    moved = next(p for p in prepared.tuned.model.parameters() if p.dim() == 2 and not p.requires_grad)
    before = moved.detach().clone()
    with torch.no_grad():
        moved[bench.tokenizer.eos_token_id] += 1  # a single row of the embedding
    assert _knowledge_of(bench, prepared) != result.knowledge.base
    with torch.no_grad():
        moved.copy_(before)
    assert _knowledge_of(bench, prepared) == result.knowledge.base


def test_a_finished_run_is_not_measured_again(bench, finished, monkeypatch):
    monkeypatch.setattr(runs, "training_memory", None)
    prepared = bench.prepare("lora_scratch_r8")
    assert prepared.train() == finished["lora_scratch_r8"][1]


def test_a_run_found_on_disk_is_measured(bench, finished, monkeypatch):
    _, expected = finished["lora_scratch_r8"]
    trains = []

    def loss(model, *arguments):
        trains.append(count_parameters(model, trainable_only=True))
        return pretraining_loss(model, *arguments)

    monkeypatch.setattr(claims, "pretraining_loss", loss)
    (path,) = (bench.output / "runs").glob(f"smoke-lora_scratch_r8-{expected.fingerprint}/result.json")
    path.write_text("{")  # cut short
    prepared = bench.prepare("lora_scratch_r8")
    best = {n: p.detach().clone() for n, p in finished["lora_scratch_r8"][0].tuned.model.named_parameters()}
    result = prepared.train()
    assert {**dict(result.memory), "peak": 0} == {**dict(expected.memory), "peak": 0}
    for name in ("knowledge", "training_accuracy", "disk", "epochs"):
        assert getattr(result, name) == getattr(expected, name)
    # Without the method, the base is as frozen as the untouched one.
    assert trains == [0, expected.parameters.trainable]
    # The steps that measuring takes move nothing.
    assert all(torch.equal(p, best[name]) for name, p in prepared.tuned.model.named_parameters())


# Overfitting

SMALL = {"train_reviews": 16, "test_reviews": 10, "epochs": 2}


def test_small_data_keeps_both_accuracies_of_every_epoch_and_seed(smoke, tmp_path, monkeypatch):
    overfit = functools.partial(
        small_data.small_data, "smoke", tmp_path, runs=["prompt_scratch_n10"], seeds=(0, 4), settings=SMALL
    )
    (result,) = overfit()
    written = json.loads((tmp_path / "report" / "small_data" / "prompt_scratch_n10.json").read_text())
    assert written == result.as_json()
    assert list(written) == [
        "id",
        "title",
        "profile",
        "reviews",
        "epochs",
        "environment",
        "origins",
        "config",
        "runs",
    ]
    assert (result.id, result.profile) == ("prompt_scratch_n10", "smoke")
    assert (result.reviews, result.epochs, result.config["test_reviews"]) == (16, 2, 10)
    assert "seed" not in result.config
    assert [run.seed for run in result.runs] == [0, 4]
    for run in result.runs:
        assert [epoch.epoch for epoch in run.epochs] == [1, 2]
        for epoch in run.epochs:
            assert set(dict(epoch)) == {"epoch", "loss", "training_accuracy", "test_accuracy"}
            assert (16 * epoch.training_accuracy).is_integer()
            assert (10 * epoch.test_accuracy).is_integer()
    assert result.runs[0].epochs[0].loss != result.runs[1].epochs[0].loss

    def fail(*_):
        raise AssertionError("a finished run is not repeated")

    monkeypatch.setattr(workbench, "predict", fail)
    assert list(overfit()) == [result]


def test_training_and_test_accuracy_are_not_mixed_up(smoke, tmp_path, monkeypatch):
    def predict(model, collator, *_):
        # Right about the sixteen reviews of the training part, wrong about the ten of the test part.
        said = collator.labels if len(collator.labels) == 16 else [1 - label for label in collator.labels]
        return Predictions(said, collator.labels)

    monkeypatch.setattr(workbench, "predict", predict)
    (result,) = small_data.small_data("smoke", tmp_path, runs=["full"], seeds=[0], settings=SMALL)
    for epoch in result.runs[0].epochs:
        assert (epoch.training_accuracy, epoch.test_accuracy) == (1, 0)


def test_the_command_prints_a_line_a_method(smoke, tmp_path, monkeypatch):
    few = functools.partial(small_data.small_data, runs=["lora_scratch_r8"], seeds=[0], settings=SMALL)
    monkeypatch.setattr(small_data, "small_data", few)
    done = CliRunner().invoke(app, ["claims", "--profile", "smoke", "--output", str(tmp_path)])
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads((tmp_path / "report" / "small_data" / "lora_scratch_r8.json").read_text())
    last = result["runs"][0]["epochs"][-1]
    assert (
        f"LoRA, from scratch, r = 8: after epoch 2, {100 * last['training_accuracy']:.1f} % training and "
        f"{100 * last['test_accuracy']:.1f} % test accuracy" in done.stdout
    )
