"""What the top of a notebook says of the machine, and how long a run is said to take."""

import math
import time
from dataclasses import replace

import psutil
import pytest
import torch
from tiny_bench import made_up_reviews, tiny_workbench

from peft_scratch.experiments import estimate
from peft_scratch.experiments.session import Session
from peft_scratch.training import trainer as training
from peft_scratch.training.device import memory_of
from peft_scratch.training.trainer import Trainer
from peft_scratch.wording import counted, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (89 * 60, "89 min"), (91 * 60, "1.5 h"), (36_000, "10.0 h")],
)
def test_a_duration_is_said_in_the_unit_that_fits(seconds, words):
    assert duration(seconds) == words


def test_one_is_said_in_the_singular():
    assert [counted(n, "tensor") for n in (0, 1, 1_200)] == ["0 tensors", "1 tensor", "1,200 tensors"]
    assert counted(1, "entry", "entries") == "1 entry" and counted(2, "entry", "entries") == "2 entries"


def test_what_is_left_of_a_run_goes_by_the_epoch_before():
    assert training._pace(60, epoch=0, epochs=10) == "60 s, about 9 min to go"
    assert training._pace(60, epoch=9, epochs=10) == "60 s"


@pytest.mark.parametrize("there", [20, 96])
def test_a_run_is_as_long_as_its_steps_and_its_evaluations(monkeypatch, tmp_path, there):
    """With a clock that only steps (2 s) and evaluations (5 s) move on; the first of each is slow (100 s)."""
    now, trained, predicted = [0.0], [], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def train(trainer, collator, batches, title):
        steps = len(list(batches))
        now[0] += 2 * steps if trained else 100
        trained.append(steps)
        return [0.5] * steps

    def predict(model, collator, batch_size):
        assert len(collator.inputs) == 64
        now[0] += 5 if predicted else 100
        predicted.append(model)

    bench = tiny_workbench(tmp_path, made_up_reviews(there, 640))
    bench.choice = replace(bench.choice, profile=replace(bench.profile, epochs=10, batch_size=32))
    monkeypatch.setattr(Trainer, "train_batches", train)
    monkeypatch.setattr(bench, "predict", predict)
    seconds = estimate.seconds_of_a_run(bench)
    assert trained == ([1, 1] if there == 20 else [1, 2])
    assert seconds == pytest.approx(10 * (math.ceil(there / 32) * 2 + 640 / 64 * 5))


def test_the_top_of_a_notebook_says_memory_and_time(tmp_path):
    bench = Session.open("smoke", output=tmp_path)
    state = torch.get_rng_state()
    shown = str(bench)
    assert torch.equal(torch.get_rng_state(), state), "timing changed what is drawn after it"
    assert f"{memory_of(torch.device('cpu')) / 2**30:.0f} GiB of memory" in shown or torch.cuda.is_available()
    each, ten = duration(bench.seconds_of_a_run), duration(10 * bench.seconds_of_a_run)
    assert f"about {each} a run, {ten} for all ten" in shown
    assert 0 < bench.seconds_of_a_run < 600


def test_memory_is_the_machines_without_a_gpu():
    assert memory_of(torch.device("cpu")) == psutil.virtual_memory().total
