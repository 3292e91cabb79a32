"""Remarks in the run: every review predicted the same, and a soft prompt worse than none."""

import pytest
import torch
from tiny_bench import made_up_reviews, tiny_workbench

from peft_scratch.experiments.run_remarks import remark_on_epoch, remark_on_prompt
from peft_scratch.training.checkpoints import History
from peft_scratch.training.evaluation import Predictions

LABELS = [0, 1, 0, 1, 1]


def _epoch(predictions, labels=LABELS):
    said = Predictions(predictions, labels)
    return {"epoch": 2, "mistakes": said.mistakes, **said.score()}


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        ([1] * 5, "predicted positive"),
        ([0] * 5, "predicted negative"),
        ([-1] * 5, "predicted as neither label word"),
    ],
)
def test_one_prediction_for_all_is_remarked_on(predictions, words):
    remark = remark_on_epoch(_epoch(predictions), LABELS, rate=1e-4, usual=1e-4)
    assert f"after epoch 2 all 5 test reviews are {words}" in remark
    assert "the usual cause is too little training" in remark and "\n" not in remark


@pytest.mark.parametrize("predictions", [LABELS, [1, 1, 1, 1, 0], [1, 1, 1, 1, -1], [0, -1, -1, -1, -1]])
def test_different_predictions_are_not(predictions):
    assert remark_on_epoch(_epoch(predictions), LABELS, rate=1e-4, usual=1e-4) is None


def test_reviews_of_one_label_are_rightly_predicted_the_same():
    assert remark_on_epoch(_epoch([1] * 3, [1] * 3), [1] * 3, rate=1e-4, usual=1e-4) is None


@pytest.mark.parametrize(
    ("rate", "cause"), [(1.0, "too high: it is 1 here"), (1e-6, "too low: it is 1e-06 here")]
)
def test_a_learning_rate_far_from_the_usual_one_is_the_cause(rate, cause):
    remark = remark_on_epoch(_epoch([1] * 5), LABELS, rate=rate, usual=1e-3)
    assert f"a learning rate that is {cause}, and 0.001 is usual" in remark


def test_the_run_says_it_after_each_such_epoch(tmp_path, capsys):
    tiny_workbench(tmp_path).prepare("lora_scratch_r8").train()  # a random base says neither label word
    lines = capsys.readouterr().out.splitlines()
    at = [number for number, line in enumerate(lines) if line.startswith("remark: ")]
    assert len(at) == 3
    for epoch, number in enumerate(at, start=1):
        assert lines[number - 1].startswith(f"epoch {epoch}/3: ")
        assert f"after epoch {epoch} all 10 test reviews are predicted as neither label word" in lines[number]


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    session = tiny_workbench(tmp_path_factory.mktemp("prompt"), made_up_reviews(16, 20))
    return session.prepare("prompt_scratch_n10", {"learning_rate": 30.0})


def _history(right):
    """A run whose best epoch predicts the first `right` of 20 reviews correctly."""
    return History(epochs=[{"epoch": 1, "accuracy": right / 20, "mistakes": list(range(right, 20))}])


def _base_predicts(monkeypatch, session, plain, prefixed):
    """Have the base alone predict that many of 20 reviews correctly, without and with the prefix."""
    asked = iter([plain, prefixed])

    def predict(model, collator, batch_size, *, title):
        assert not any("sharif_llm" in name for name, _ in model.named_parameters())
        right = next(asked)
        return Predictions([y if i < right else -1 for i, y in enumerate(collator.labels)], collator.labels)

    monkeypatch.setattr(session, "predict", predict)


def test_a_prompt_worse_than_none_is_remarked_on(prompted, monkeypatch):
    _base_predicts(monkeypatch, prompted.session, plain=0, prefixed=16)
    remark = remark_on_prompt(prompted, _history(right=10))
    assert "the soft prompt is worse than none: of 20 test reviews it predicts 50.0 % correctly" in remark
    assert 'and the base without a prompt, asked with the prefix "sst2 sentence:", 80.0 %' in remark
    assert "a learning rate that is too high: it is 30 here, and 0.3 is usual" in remark


@pytest.mark.parametrize(("right", "base"), [(16, 16), (18, 16), (15, 16)])
def test_a_prompt_as_good_as_none_is_not(right, base, prompted, monkeypatch):
    _base_predicts(monkeypatch, prompted.session, plain=base, prefixed=0)
    assert remark_on_prompt(prompted, _history(right)) is None


def test_the_run_says_it_of_its_prompt(prompted, monkeypatch, capsys):
    monkeypatch.setattr("peft_scratch.experiments.run.remark_on_prompt", lambda *_: "remark: a worse one")
    prompted.train()
    assert "remark: a worse one" in capsys.readouterr().out.splitlines()


def test_asking_the_base_draws_no_random_numbers(prompted):
    before = torch.random.get_rng_state()
    remark_on_prompt(prompted, _history(right=10))
    assert torch.equal(torch.random.get_rng_state(), before)
