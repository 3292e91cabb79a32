"""Seeds, sweeps and engines: what is trained, where results go, and that a lost worker changes nothing."""

import json
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from peft_scratch.assignment import RUNS, find_profile
from peft_scratch.data.tokens import label_ids
from peft_scratch.errors import UserError
from peft_scratch.experiments import jobs
from peft_scratch.experiments.jobs import Engine, Job, jobs_of, seeds_of
from peft_scratch.experiments.planned import ALL, BETTER, TUNED, planned
from peft_scratch.experiments.session import Session
from peft_scratch.experiments.settings import change
from peft_scratch.experiments.sweep import combinations, sweep
from peft_scratch.reporting.sweeps import advice, finding, read_sweep, sweep_markdown, sweep_plot

QUICK = {"epochs": 1, "train_reviews": 32, "test_reviews": 20}


@pytest.fixture(autouse=True)
def fresh_sessions():
    jobs._open.cache_clear()
    yield
    jobs._open.cache_clear()


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-4", [0, 1, 2, 3, 4]), ("0,2,5", [0, 2, 5]), ("1-2,7", [1, 2, 7])]
)
def test_seeds_are_ranges_and_lists(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-", "-", "3-1", "1,1", "1.5"])
def test_what_names_no_seeds_is_refused(text):
    with pytest.raises(UserError, match="Seeds are whole numbers"):
        seeds_of(text)


def test_the_first_seeds_jobs_come_first_and_the_others_are_extra(tmp_path):
    made = jobs_of([("full", {}), ("lora_peft_r1", {})], [3, 5], "smoke", tmp_path, "fast")
    assert [(job.run_id, job.seed, job.extra_seed) for job in made] == [
        ("full", 3, False),
        ("lora_peft_r1", 3, False),
        ("full", 5, True),
        ("lora_peft_r1", 5, True),
    ]


def test_another_seeds_results_lie_apart_and_leave_the_weights_alone(tmp_path):
    made = jobs_of([("lora_scratch_r8", {})], [0, 1], "smoke", tmp_path, "fast")
    first, second = [result for _, result in Engine().train(made)]
    report = tmp_path / "report"
    assert json.loads((report / "results" / "lora_scratch_r8.json").read_text()) == first.as_json()
    assert json.loads((report / "seeds" / "1" / "lora_scratch_r8.json").read_text()) == second.as_json()
    assert (first.config.seed, second.config.seed) == (0, 1)
    assert first.curve != second.curve
    weights = torch.load(tmp_path / "weights" / "lora.pt", weights_only=True)
    (best,) = (tmp_path / "runs").glob(f"smoke-lora_scratch_r8-{first.fingerprint}/best.pt")
    kept = torch.load(best, weights_only=True)
    assert all(torch.equal(weights[name], kept[name]) for name in kept), "the first seed's are handed in"
    # Again: found on disk.
    again = [result for _, result in Engine().train(made)]
    assert [result.seconds for result in again] == [first.seconds, second.seconds]


def test_an_impossible_setting_is_found_before_the_first_run(tmp_path):
    made = jobs_of([("lora_scratch_r8", {"rank": rank}) for rank in (1, 0)], [0], "smoke", tmp_path, "fast")
    with pytest.raises(UserError, match="rank has to be a whole number"):
        next(Engine().train(made))
    assert not list((tmp_path / "runs").glob("smoke-*"))


def test_an_unknown_engine_is_refused():
    with pytest.raises(UserError, match="no engine 'slurm'; choose one of here, ray"):
        Engine("slurm")


def test_every_combination_is_swept():
    assert list(combinations({"rank": [1, 2], "scaling": [0.5, 1]})) == [
        {"rank": 1, "scaling": 0.5},
        {"rank": 1, "scaling": 1},
        {"rank": 2, "scaling": 0.5},
        {"rank": 2, "scaling": 1},
    ]


def test_a_scaling_fixes_alpha_by_the_rank(tmp_path):
    session = Session.open("smoke", output=tmp_path)
    prepared = session.prepare("lora_scratch_r8", {"rank": 4, "scaling": 0.5})
    assert prepared.tuned.method.alpha == 2.0
    start = session.prepare("prompt_scratch_n10", {"initialiser": "random_uniform"})
    assert start.configuration["hyperparameters"]["initialiser"] == "random_uniform"
    with pytest.raises(UserError, match="no initialiser 'zeros'; choose one of first_rows"):
        session.prepare("prompt_scratch_n10", {"initialiser": "zeros"})


def test_a_prompt_can_start_from_the_label_words(tmp_path):
    session = Session.open("smoke", output=tmp_path)
    prepared = session.prepare("prompt_scratch_n10", {"initialiser": "label_words"})
    table = session.base().get_input_embeddings().weight
    rows = prepared.tuned.model.encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb
    for row, ids in zip(rows, label_ids(session.tokenizer), strict=False):
        assert torch.equal(row, table[ids[:-1]].mean(0)), "each word, without the end token"
    assert prepared.configuration["hyperparameters"]["initialiser"] == "label_words"


def test_other_seeds_and_sweeps_measure_nothing_after_the_last_epoch(tmp_path):
    made = [
        Job("lora_scratch_r8", seed, "smoke", tmp_path, "fast", QUICK, extra_seed=seed > 0) for seed in (0, 1)
    ]
    first, other = [result for _, result in Engine().train(made)]
    assert None not in (first.memory, first.knowledge, first.training_accuracy, first.generation)
    assert (other.memory, other.knowledge, other.training_accuracy, other.generation) == (None,) * 4
    assert other.mistakes


def test_a_sweep_leaves_a_table_and_a_plot(tmp_path):
    settings = {"rank": [1, 2], **{name: [value] for name, value in QUICK.items()}}
    path = sweep("lora_scratch_r8", settings, profile="smoke", seeds=[0, 1], output=tmp_path, name="ranks")
    assert path == tmp_path / "report" / "sweeps" / "ranks.json"
    run, table = read_sweep(path)
    assert run == "lora_scratch_r8"
    assert list(table["rank"]) == [1, 2]
    assert list(table["seeds"]) == [2, 2]
    assert table["trainable"][1] == 2 * table["trainable"][0]
    rows = json.loads(path.read_text())["rows"]
    first = [100 * row["best"] for row in rows if row["settings"]["rank"] == 1]
    assert table["mean"][0] == pytest.approx(sum(first) / 2)
    assert bool(table["front"][0]), "nothing has fewer parameters than the smallest"
    page = sweep_markdown(path)
    assert "Pareto front" in page and f"{table['trainable'][0]:,}" in page
    sweep_plot(path, tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size > 10_000


def test_a_sweep_compares_each_combination_with_the_runs_own_constants(tmp_path):
    path = sweep("lora_scratch_r8", {"rank": [8, 1]}, profile="smoke", seeds=[0, 1], output=tmp_path)
    content = json.loads(path.read_text())
    constants, own = content["constants"], [row for row in content["rows"] if row["settings"]["rank"] == 8]
    assert [row["fingerprint"] for row in constants] == [row["fingerprint"] for row in own]
    _, table = read_sweep(path)
    assert list(table.loc[table["rank"] == 8, ["difference", "low", "high"]].iloc[0]) == [0, 0, 0]
    gap = 100 * sum(row["best"] for row in content["rows"] if row["settings"]["rank"] == 1) / 2
    gap -= 100 * sum(row["best"] for row in constants) / 2
    assert table.loc[table["rank"] == 1, "difference"].item() == pytest.approx(gap)
    page = sweep_markdown(path)
    assert "rank = 8: these are the run's own hyperparameters." in page
    assert f"rank = 1: {gap:+.1f} points" in page
    text = advice([path])
    place = text.index({"better": "## Better", "worse": "## Worse", "open": "## Cannot"}[kind_of(table)])
    assert text.index(f"- `lora_scratch_r8`, rank = 1: {gap:+.1f} points (") > place
    assert "rank = 8" not in text
    assert not (tmp_path / "report" / "seeds").exists(), "a sweep's runs are not among the ten"
    assert not (tmp_path / "report" / "results").exists()


def kind_of(table):
    """The finding about rank 1."""
    return finding(*table.loc[table["rank"] == 1, ["difference", "low", "high"]].iloc[0])


@pytest.mark.parametrize(
    ("gap", "low", "high", "kind"),
    [(0, 0, 0, "same"), (2, 1, 3, "better"), (-2, -3, -1, "worse"), (1, -1, 3, "open"), (0, -1, 1, "open")],
)
def test_an_interval_chooses_the_sentence(gap, low, high, kind):
    assert finding(gap, low, high) == kind


def test_a_sweep_without_settings_or_with_an_odd_name_is_refused(tmp_path):
    with pytest.raises(UserError, match="A sweep needs settings"):
        sweep("full", {}, profile="smoke", output=tmp_path)
    with pytest.raises(UserError, match="A sweep's name is made of letters"):
        sweep("full", {"epochs": [1]}, profile="smoke", output=tmp_path, name="../x")


def test_a_file_that_is_no_sweep_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json is not the JSON of a sweep"):
        read_sweep(tmp_path / "a.json")


# Ray


@pytest.fixture
def as_others(monkeypatch):
    """Ray's workers give way to every other process by default, and on a busy machine hardly get on."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


def _kill_a_worker_after_its_first_epoch(output: Path, killed: list[int]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not killed:
        if list((output / "runs").glob("*/epoch-0001.pt")):
            for process in psutil.process_iter(["cmdline"]):
                if any("ray::_in_a_worker" in part for part in process.info["cmdline"] or ()):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.02)


def test_two_workers_one_of_them_killed_leave_what_one_process_does(tmp_path, as_others):
    ray = pytest.importorskip("ray")
    settings = {"epochs": 4, "train_reviews": 64, "test_reviews": 20}
    plan = [("lora_scratch_r8", settings), ("adapter_scratch_b8", settings)]
    killed: list[int] = []
    made = jobs_of(plan, [0], "smoke", tmp_path / "ray", "fast")
    watcher = threading.Thread(
        target=_kill_a_worker_after_its_first_epoch, args=(tmp_path / "ray", killed), daemon=True
    )
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        watcher.start()
        by_ray = {job.run_id: result for job, result in Engine("ray").train(made)}
    finally:
        ray.shutdown()
    watcher.join(10)
    assert killed, "no worker was killed: the test shows nothing"
    alone = jobs_of(plan, [0], "smoke", tmp_path / "alone", "fast")
    undisturbed = {job.run_id: result for job, result in Engine().train(alone)}
    assert by_ray.keys() == undisturbed.keys() == dict(plan).keys()
    for run_id, result in undisturbed.items():
        assert by_ray[run_id].curve == result.curve
        assert by_ray[run_id].mistakes == result.mistakes
        files = [
            next((tmp_path / where / "runs").glob(f"*{run_id}*/best.pt")).read_bytes()
            for where in ("ray", "alone")
        ]
        assert files[0] == files[1]


def test_a_job_that_fails_for_a_users_reason_does_not_stop_the_others(tmp_path, as_others):
    ray = pytest.importorskip("ray")
    made = [
        Job("full", 0, "smoke", tmp_path, "fast", {**QUICK, "learning_rate": 1e30}),
        Job("lora_scratch_r8", 0, "smoke", tmp_path, "fast", QUICK),
    ]
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    finished = []
    try:
        with pytest.raises(UserError, match=r"full .*lower the learning rate"):
            for job, _ in Engine("ray").train(made):
                finished.append(job.run_id)
    finally:
        ray.shutdown()
    assert finished == ["lora_scratch_r8"]


# Which runs are asked for


def test_all_and_tuned_stand_for_runs():
    assert planned([ALL], {}, "course") == [(run_id, {}) for run_id in RUNS]
    *plan, last = planned([TUNED, "full"], {"epochs": 3}, "offline")
    assert last == ("full", {"epochs": 3})  # named by itself, so as it is
    assert plan and all(settings == {**BETTER[RUNS[name].kind], "epochs": 3} for name, settings in plan)


def test_every_tuned_constant_is_one_that_its_runs_have():
    for run_id, settings in planned([TUNED], {}, "smoke"):
        run, _ = change(RUNS[run_id], find_profile("smoke"), settings)
        assert run.changes == tuple(settings.items())


def test_tuned_is_refused_on_another_base():
    with pytest.raises(UserError, match="add --profile offline"):
        planned([TUNED], {}, "course")
