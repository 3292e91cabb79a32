"""The training loop: what it changes, what it leaves, and that an interruption leaves no trace."""

import copy
import os

import pytest
import torch
from accelerate import Accelerator

from peft_scratch.data.batches import Collator
from peft_scratch.errors import UserError
from peft_scratch.methods import FullFineTuning, LoRA, apply
from peft_scratch.training.checkpoints import CURVE_POINTS, trainable_state
from peft_scratch.training.recipe import RECIPES
from peft_scratch.training.trainer import Trainer

REVIEWS = [[5 + i % 7, 20 + i % 11, 1] + [9] * (i % 3) for i in range(40)]
COLLATOR = Collator(REVIEWS, [i % 2 for i in range(40)], [[3, 1], [4, 1]], pad_id=0)


def _train(tuned, accuracies=(0.5, 0.7, 0.6), seed=0, epochs=None, checkpoints=None, **options):
    """Train for as many epochs as there are `accuracies`, which the evaluations report in turn."""
    epochs = len(accuracies) if epochs is None else epochs
    reported = iter(accuracies)
    settings = {
        "accelerator": Accelerator(cpu=True),
        "recipe": RECIPES["fast"],
        "learning_rate": 0.01,
        "batch_size": 8,
        **options,
    }
    trainer = Trainer(tuned.model, seed=seed, **settings)
    return trainer.fit(COLLATOR, lambda _: {"accuracy": next(reported)}, epochs, checkpoints)


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_only_what_the_method_declares_moves(tiny_t5):
    before = copy.deepcopy(tiny_t5.state_dict())
    tuned = apply(LoRA(rank=2), tiny_t5)
    start = trainable_state(tuned.model)
    _train(tuned)
    after = tuned.model.state_dict()
    assert _equal(before, {name: after[name] for name in before})
    end = trainable_state(tuned.model)
    assert not any(torch.equal(start[name], end[name]) for name in start)


def test_the_loss_falls(tiny_t5):
    history = _train(apply(FullFineTuning(), tiny_t5), accuracies=[0.5] * 8)
    losses = [epoch["loss"] for epoch in history.epochs]
    assert losses[-1] < 0.7 * losses[0]


def test_the_history_has_the_best_epoch_and_its_weights(tiny_t5):
    tuned = apply(LoRA(rank=2), tiny_t5)
    history = _train(tuned, accuracies=(0.5, 0.7, 0.7, 0.6))
    assert history.best == 1, "of equal epochs the earliest is the best"
    assert not _equal(history.best_state, trainable_state(tuned.model))
    assert [epoch["epoch"] for epoch in history.epochs] == [1, 2, 3, 4]
    assert len(history.curve) == 4 * min(CURVE_POINTS, 5)
    assert history.curve[-1][0] == pytest.approx(4)


@pytest.mark.parametrize("method", [LoRA(rank=2), FullFineTuning()], ids=["lora", "full"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tiny_t5, tmp_path, method):
    fresh, again = copy.deepcopy(tiny_t5), copy.deepcopy(tiny_t5)
    torch.manual_seed(0)
    whole = apply(method, tiny_t5)
    expected = _train(whole)

    torch.manual_seed(0)
    _train(apply(method, fresh), accuracies=(0.5,), checkpoints=tmp_path)
    torch.manual_seed(99)  # another process starts from another state
    resumed = apply(method, again)
    history = _train(resumed, accuracies=(0.7, 0.6), epochs=3, checkpoints=tmp_path)

    assert _equal(trainable_state(whole.model), trainable_state(resumed.model))
    assert _equal(expected.best_state, history.best_state)
    assert expected.curve == history.curve
    assert [e["loss"] for e in expected.epochs] == [e["loss"] for e in history.epochs]


@pytest.mark.parametrize("epochs_before", [0, 1])
def test_a_run_interrupted_in_a_notebook_is_trained_again_as_if_it_had_not_been(
    tiny_t5, tmp_path, epochs_before
):
    """The cell is stopped within an epoch and run again, on the same model with the same trainer."""
    settings = {"recipe": RECIPES["fast"], "learning_rate": 0.01, "batch_size": 8}
    whole, stopped = (
        Trainer(apply(FullFineTuning(), base).model, accelerator=Accelerator(cpu=True), **settings)
        for base in (copy.deepcopy(tiny_t5), copy.deepcopy(tiny_t5))
    )
    expected = whole.fit(COLLATOR, lambda _: {"accuracy": 0.5}, 2)

    seen = []

    class Stopping(Collator):
        def __call__(self, rows):
            seen.append(rows)
            if len(seen) == 5 * epochs_before + 3:
                raise KeyboardInterrupt
            return super().__call__(rows)

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(Stopping(**vars(COLLATOR)), lambda _: {"accuracy": 0.5}, 2, tmp_path)
    history = stopped.fit(COLLATOR, lambda _: {"accuracy": 0.5}, 2, tmp_path)
    assert history.curve == expected.curve
    assert _equal(trainable_state(whole.model), trainable_state(stopped.model))


def test_a_finished_run_is_not_repeated(tiny_t5, tmp_path):
    tuned = apply(LoRA(rank=2), tiny_t5)
    history = _train(tuned, checkpoints=tmp_path)
    again = _train(tuned, accuracies=(), epochs=3, checkpoints=tmp_path)
    assert again.epochs == history.epochs


def test_the_last_two_epochs_are_kept_and_of_a_finished_run_the_last(tiny_t5, tmp_path):
    tuned = apply(LoRA(rank=2), tiny_t5)
    with pytest.raises(StopIteration):  # the fourth evaluation has nothing to report
        _train(tuned, accuracies=(0.5, 0.7, 0.6), epochs=4, checkpoints=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002.pt", "epoch-0003.pt"]
    _train(tuned, accuracies=(0.5,), epochs=4, checkpoints=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0004.pt"]


def test_a_kill_while_saving_leaves_the_last_whole_epoch(tiny_t5, tmp_path, monkeypatch):
    tuned = apply(LoRA(rank=2), tiny_t5)
    _train(tuned, accuracies=(0.5,), checkpoints=tmp_path)
    (checkpoint,) = tmp_path.iterdir()
    saved = checkpoint.read_bytes()

    def die(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        _train(tuned, accuracies=(0.6,), epochs=2, checkpoints=tmp_path)
    assert checkpoint.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_another_seed_is_another_run(tiny_t5):
    other = copy.deepcopy(tiny_t5)
    losses = []
    for seed, model in enumerate((tiny_t5, other)):
        torch.manual_seed(0)
        losses.append(_train(apply(LoRA(rank=2), model), seed=seed).curve)
    assert losses[0] != losses[1]


def test_a_loss_that_is_no_number_stops_the_run(tiny_t5, tmp_path):
    tuned = apply(LoRA(rank=2), tiny_t5)
    _train(tuned, accuracies=(0.5,), checkpoints=tmp_path)
    (checkpoint,) = tmp_path.iterdir()
    saved = checkpoint.read_bytes()
    with torch.no_grad():
        tiny_t5.shared.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"loss became nan in epoch 2/2, step 1: lower the learning rate"):
        _train(tuned, accuracies=(0.6,), epochs=2, checkpoints=tmp_path)
    assert checkpoint.read_bytes() == saved
