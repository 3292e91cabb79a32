"""The ten runs and the profiles, held against the contract; changed settings and their fingerprints."""

import pytest
import torch

from peft_scratch.assignment import PROFILES, RUNS, find_run
from peft_scratch.errors import UserError
from peft_scratch.experiments import profile_choice as profiles
from peft_scratch.experiments.profile_choice import choose_profile
from peft_scratch.experiments.settings import change, configuration, fingerprint
from peft_scratch.libraries import method_of

COURSE, OFFLINE = PROFILES["course"], PROFILES["offline"]

# id: notebook, library, size, learning rate, weight file; copied from the contract by hand.
CONTRACT = {
    "full": (1, "none", {}, 1e-5, None),
    "prompt_scratch_n10": (2, "scratch", {"virtual_tokens": 10}, 0.1, "prompts.pt"),
    "prompt_opendelta_n1": (2, "opendelta", {"virtual_tokens": 1}, 0.1, None),
    "prompt_opendelta_n10": (2, "opendelta", {"virtual_tokens": 10}, 0.1, None),
    "adapter_scratch_b8": (3, "scratch", {"bottleneck": 8}, 1e-3, "adapter.pt"),
    "adapter_adapterhub_b8": (4, "adapterhub", {"bottleneck": 8}, 1e-4, None),
    "adapter_adapterhub_b1": (4, "adapterhub", {"bottleneck": 1}, 1e-4, None),
    "lora_scratch_r8": (5, "scratch", {"rank": 8, "alpha": 4.0}, 1e-4, "lora.pt"),
    "lora_peft_r1": (5, "peft", {"rank": 1, "alpha": 4.0}, 1e-4, None),
    "lora_peft_r8": (5, "peft", {"rank": 8, "alpha": 4.0}, 1e-4, None),
}


def test_there_are_ten_runs_in_the_order_of_the_notebooks():
    assert list(RUNS) == list(CONTRACT)


@pytest.mark.parametrize("run_id", CONTRACT)
def test_a_run_has_the_contracts_constants(run_id):
    notebook, library, size, learning_rate, weight_file = CONTRACT[run_id]
    run = RUNS[run_id]
    assert (run.notebook, run.library, run.weight_file) == (notebook, library, weight_file)
    assert run.learning_rate_in(PROFILES["course"]) == learning_rate
    hyperparameters = method_of(run).hyperparameters()
    assert {name: hyperparameters[name] for name in size} == size


def test_the_course_profile_has_the_contracts_constants():
    assert (COURSE.max_tokens, COURSE.batch_size, COURSE.epochs) == (256, 32, 10)
    assert (COURSE.train_reviews, COURSE.test_reviews) == (None, None)


def test_runs_of_one_method_share_a_learning_rate_offline():
    for kind in ("soft_prompt", "adapter", "lora"):
        rates = {run.learning_rate_in(OFFLINE) for run in RUNS.values() if run.kind == kind}
        assert len(rates) == 1


@pytest.mark.parametrize(
    ("gpu", "hub", "profile", "reason"),
    [
        (False, True, "offline", "no GPU was found"),
        (True, False, "offline", "cannot be reached"),
        (True, True, "course", "the Hugging Face Hub can be reached"),
    ],
)
def test_the_profile_follows_from_the_machine(monkeypatch, gpu, hub, profile, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(profiles, "_hub_answers", lambda: hub)
    choice = choose_profile("auto")
    assert choice.profile.name == profile
    assert reason in choice.reason


def test_one_setting_overrides_the_choice(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_profile("course").profile is COURSE


def test_without_an_answer_from_the_hub_there_is_no_exception():
    # Tests run with HF_HUB_OFFLINE=1, under which the client refuses to ask.
    assert profiles._hub_answers() is False


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (
            lambda: choose_profile("colab"),
            "no profile 'colab'; choose one of course, quick, offline, smoke",
        ),
        (lambda: find_run("lora"), "no run 'lora'; the ten runs are full, prompt_scratch_n10"),
        (lambda: change(RUNS["lora_peft_r1"], OFFLINE, {"bottleneck": 4}), "has no setting 'bottleneck'"),
        (lambda: change(RUNS["lora_scratch_r8"], OFFLINE, {"rank": 0}), "rank"),
        (lambda: change(RUNS["adapter_scratch_b8"], OFFLINE, {"bottleneck": -1}), "bottleneck"),
        (lambda: change(RUNS["full"], OFFLINE, {"epochs": 0}), "epochs must be a whole number of at least 1"),
        (lambda: change(RUNS["full"], OFFLINE, {"learning_rate": -1.0}), "must be a number above 0"),
        (
            lambda: change(RUNS["prompt_scratch_n10"], OFFLINE, {"virtual_tokens": OFFLINE.max_tokens}),
            "leave no room for a review",
        ),
    ],
)
def test_an_impossible_wish_gets_one_sentence(attempt, sentence):
    with pytest.raises(UserError) as raised:
        attempt()
    message = str(raised.value)
    assert sentence in message
    assert "\n" not in message


def test_a_setting_reaches_the_method_or_the_profile():
    run, profile = change(RUNS["lora_scratch_r8"], OFFLINE, {"rank": 4, "epochs": 7})
    assert (method_of(run).rank, method_of(run).alpha, profile.epochs) == (4, 4.0, 7)
    assert method_of(RUNS["lora_scratch_r8"]).rank == 8


def test_every_constant_changes_the_fingerprint():
    def of(run="lora_scratch_r8", settings=None, learning_rate=1e-4, seed=0, base="abc", recipe="fast"):
        return fingerprint(
            configuration(*change(RUNS[run], OFFLINE, settings or {}), learning_rate, seed, base, recipe)
        )

    changed = [
        of(run="lora_peft_r8"),
        of(settings={"rank": 4}),
        of(settings={"alpha": 8.0}),
        of(settings={"max_tokens": 64}),
        of(settings={"train_reviews": 10}),
        of(settings={"test_reviews": 10}),
        of(settings={"batch_size": 16}),
        of(settings={"epochs": 3}),
        of(learning_rate=2e-4),
        of(seed=1),
        of(base="abd"),
        of(recipe="course"),
    ]
    assert of() == of()
    assert len({of(), *changed}) == 1 + len(changed)
