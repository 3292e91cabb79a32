"""What the top of a notebook says of the machine, and how long a run is said to take."""

import time
from dataclasses import replace

import psutil
import pytest
import torch
from tiny_bench import made_up_reviews, tiny_workbench

from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.experiments import estimate
from peft_scratch.experiments.estimate import Rates
from peft_scratch.experiments.profile_choice import ProfileChoice
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


RATES = Rates(dict.fromkeys(("full", "soft_prompt", "adapter", "lora"), 2.0), 0.1, 0.2, 0.01, 0.0)


def test_a_run_is_as_long_as_its_epochs_and_what_is_measured_after_them():
    profile = replace(PROFILES["smoke"], epochs=10, batch_size=32)
    seconds = RATES.seconds_of(RUNS["lora_scratch_r8"], profile, 96, 640)
    epochs = 10 * (3 * 2 + 640 * 0.1)
    afterwards = 2 * 2 + 3 * 128 * 0.01 + 96 * 0.1 + 200 * (0.1 + 0.2)
    assert seconds == pytest.approx(epochs + afterwards)
    full = RATES.seconds_of(RUNS["full"], profile, 96, 640)
    assert full == pytest.approx(seconds - 128 * 0.01), (
        "with the method off, full fine-tuning is not measured"
    )
    assert RATES.seconds_of_all(RUNS.values(), profile, 96, 640) == pytest.approx(9 * seconds + full)


@pytest.mark.parametrize("there", [20, 160])
def test_steps_are_timed_for_each_method_without_the_first(monkeypatch, tmp_path, there):
    """With a clock that only steps move on: the first of each method is slow (100 s), the others take 1 s."""
    now, begun = [0.0], set()
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def train(trainer, collator, batches, title):
        steps = len(list(batches))
        now[0] += 100 if id(trainer) not in begun else {"timing Full fine-tuning": 2}.get(title, 0.5) * steps
        begun.add(id(trainer))
        kept.append(trainer)  # so that no other gets its id
        return [0.5] * steps

    kept = []
    bench = tiny_workbench(tmp_path, made_up_reviews(there, 70))
    bench.choice = replace(bench.choice, profile=replace(bench.profile, batch_size=32))
    monkeypatch.setattr(Trainer, "train_batches", train)
    rates = estimate.measure_rates(bench)
    assert rates.step == {"full": 2, "soft_prompt": 0.5, "adapter": 0.5, "lora": 0.5}
    assert bench.base_knowledge is not None, "what was measured is not used"


def test_the_top_of_a_notebook_says_memory_and_time(tmp_path):
    bench = Session.open("smoke", output=tmp_path)
    state = torch.get_rng_state()
    shown = bench.summary(notebook=3)
    assert torch.equal(torch.get_rng_state(), state), "timing changed what is drawn after it"
    assert f"{memory_of(torch.device('cpu')) / 2**30:.0f} GiB of memory" in shown or torch.cuda.is_available()
    own = duration(bench.seconds_of([RUNS["adapter_scratch_b8"]]))
    ten = duration(bench.seconds_of(RUNS.values()))
    assert f"about {own} for this notebook's runs, about {ten} for all ten" in shown
    assert 0 < bench.seconds_of(RUNS.values()) < 6000
    assert "quick" not in shown


def test_where_the_kit_chose_the_course_profile_quick_is_named(tmp_path):
    bench = tiny_workbench(tmp_path)
    bench.rates = RATES
    profile = replace(bench.profile, is_assignment=True)
    bench.choice = ProfileChoice(profile, "a test wants it", automatic=True)
    quick = duration(RATES.seconds_of_all(RUNS.values(), PROFILES["quick"], 2000, 1000))
    assert f'PROFILE = "quick" shows that everything works: about {quick} for all ten' in str(bench)
    bench.choice = ProfileChoice(profile, "it was asked for")
    assert "quick" not in str(bench)


def test_memory_is_the_machines_without_a_gpu():
    assert memory_of(torch.device("cpu")) == psutil.virtual_memory().total
