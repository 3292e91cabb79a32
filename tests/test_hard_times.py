"""Hard times: memory, disk and data that fail, and a run that neither loses nor mixes anything for it."""

import errno
import functools
import itertools
import os
import pickle
import re
import resource
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from accelerate import Accelerator
from conftest import make_t5
from datasets import Dataset
from tiny_bench import made_up_reviews, tiny_workbench

from peft_scratch.data.batches import Collator
from peft_scratch.data.reviews import Reviews
from peft_scratch.data.text import clean
from peft_scratch.data.tokens import tokenise
from peft_scratch.errors import UserError
from peft_scratch.experiments import session as workbench
from peft_scratch.experiments.session import Session
from peft_scratch.files import alone_in, write_atomically
from peft_scratch.methods import LoRA, apply
from peft_scratch.training.checkpoints import Checkpoints, trainable_state
from peft_scratch.training.evaluation import predict
from peft_scratch.training.recipe import RECIPES
from peft_scratch.training.trainer import Trainer, _backward

REVIEWS = [[5 + i % 7, 20 + i % 11, 1] + [9] * (i % 3) for i in range(40)]
# Targets of two and of three tokens: a part of a batch must count by its tokens, not by its reviews.
COLLATOR = Collator(REVIEWS, [i % 2 for i in range(40)], [[3, 1], [4, 7, 1]], pad_id=0)


def _tuned():
    return apply(LoRA(rank=2), make_t5(dropout_rate=0.0))


def _train(tuned, accuracies=(0.5, 0.7, 0.6), epochs=None, checkpoints=None, **options):
    """Train for as many epochs as there are `accuracies`, which the evaluations report in turn."""
    epochs = len(accuracies) if epochs is None else epochs
    reported = iter(accuracies)
    settings = {
        "accelerator": Accelerator(cpu=True),
        "recipe": RECIPES["reference"],
        "learning_rate": 1e-3,
        "batch_size": 8,
        **options,
    }
    trainer = Trainer(tuned.model, seed=0, **settings)
    return trainer.fit(COLLATOR, lambda _: {"accuracy": next(reported)}, epochs, checkpoints)


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _files(folder):
    """Every file in `folder` with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _sentence(raised):
    (sentence,) = str(raised.value).splitlines()
    assert sentence.endswith(".")
    return sentence


# Checkpoints


class Owned:
    """Unpickled, it makes a file called `owned`."""

    def __reduce__(self):
        return (open, ("owned", "w"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps(Owned())),
        lambda path: torch.save({"state": Owned()}, path),
        lambda path: torch.save({"state": {}, "optimizer": {}}, path),
        lambda path: torch.save(
            torch.load(path, weights_only=True) | {"state": {"shared.weight": torch.ones(1)}}, path
        ),
    ],
    ids=["cut short", "empty", "pickled code", "code in a .pt", "foreign", "other names"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_checkpoint_costs_its_epoch_and_no_more(tmp_path, monkeypatch, capsys, damage):
    _resume_after(damage, 1, tmp_path, monkeypatch, capsys)


def test_with_no_checkpoint_left_a_run_starts_over(tmp_path, monkeypatch, capsys):
    _resume_after(lambda path: path.write_bytes(b"?"), 2, tmp_path, monkeypatch, capsys)


@functools.cache
def _uninterrupted():
    tuned = _tuned()
    return _train(tuned), trainable_state(tuned.model)


def _resume_after(damage, how_many, tmp_path, monkeypatch, capsys):
    """Interrupt a run in its third epoch, damage so many of its checkpoints, and resume it."""
    monkeypatch.chdir(tmp_path)
    expected, weights = _uninterrupted()
    with pytest.raises(StopIteration):  # the third evaluation has nothing to report
        _train(_tuned(), accuracies=(0.5, 0.7), epochs=3, checkpoints=tmp_path / "run")
    newest = sorted((tmp_path / "run").iterdir(), reverse=True)
    assert [path.name for path in newest] == ["epoch-0002.pt", "epoch-0001.pt"]
    for path in newest[:how_many]:
        damage(path)
    resumed = _tuned()
    history = _train(resumed, (0.5, 0.7, 0.6)[2 - how_many :], epochs=3, checkpoints=tmp_path / "run")
    said = capsys.readouterr().out
    for path in newest[:how_many]:
        assert f"{path} is damaged and skipped" in said
    assert ("found on disk: 1 of 3" in said) == (how_many == 1)
    assert history.curve == expected.curve
    assert _equal(trainable_state(resumed.model), weights)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["epoch-0003.pt"]
    assert not (tmp_path / "owned").exists()


def test_a_run_killed_after_its_last_save_leaves_the_files_of_a_whole_one(tmp_path, monkeypatch):
    def killed(folder, *epochs):
        if 3 in epochs:
            raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "remove_all_but", killed)
        with pytest.raises(SystemExit):
            _train(_tuned(), checkpoints=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"epoch-000{n}.pt" for n in (1, 2, 3)]
    tuned = _tuned()
    _train(tuned, checkpoints=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0003.pt"]
    assert _equal(trainable_state(tuned.model), _uninterrupted()[1])


# A loss that is no number


def test_a_weight_that_is_no_number_gets_into_no_checkpoint(tmp_path):
    # One step an epoch: the loss before it is fine, the weights after it are not.
    tuned = _tuned()
    tuned.model.get_parameter(tuned.trainable[0]).register_hook(lambda gradient: gradient + torch.inf)
    with pytest.raises(UserError, match="A weight stopped being a number in the last step of epoch 1/3"):
        _train(tuned, batch_size=40, checkpoints=tmp_path)
    assert not _files(tmp_path)


def test_after_a_diverged_run_a_lower_learning_rate_is_a_run_of_its_own(tmp_path):
    bench = tiny_workbench(tmp_path)
    fine = bench.prepare("full").train()
    before = _files(bench.output)
    with pytest.raises(UserError, match=r"lower the learning rate \(`learning_rate`, now 1e\+30\)") as raised:
        bench.prepare("lora_scratch_r8", {"learning_rate": 1e30}).train()
    assert "the finished epochs of this run are kept" in _sentence(raised)
    assert _files(bench.output) == before
    lower = bench.prepare("lora_scratch_r8", {"learning_rate": 1e-3}).train()
    assert [epoch.epoch for epoch in lower.epochs] == [1, 2, 3]
    assert bench.results() == {"full": fine}


# Memory


def _with_room_for(model, reviews):
    """Let `model` run out of memory on more than so many reviews at once."""
    forward = model.forward

    def limited(*arguments, **inputs):
        if len(inputs["input_ids"]) > reviews:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(*arguments, **inputs)

    model.forward = limited


def test_the_parts_of_a_batch_have_its_loss_and_gradients():
    batch = COLLATOR([0, 2, 4, 6, 1, 3, 5, 7])  # first the short targets, then the long ones
    losses, gradients = [], []
    for micro_batch in (8, 4, 3, 1):
        model = make_t5(dropout_rate=0.0)
        trainer = Trainer(
            model,
            accelerator=Accelerator(cpu=True),
            recipe=RECIPES["reference"],
            learning_rate=1e-3,
            batch_size=micro_batch,
        )
        losses.append(_backward(trainer, batch))
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for loss, gradient in zip(losses[1:], gradients[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-4, atol=1e-6)
    # The comparison is worth something only where a plain mean of the parts would be another number.
    with torch.no_grad():
        halves = [
            model(**{name: batch[name][rows] for name in ("input_ids", "attention_mask", "labels")}).loss
            for rows in (slice(4), slice(4, 8))
        ]
    assert abs(sum(halves) / 2 - losses[0]) > 1e-3


@pytest.mark.parametrize(("room", "parts"), [(5, 4), (1, 1)])
def test_a_batch_that_does_not_fit_goes_through_in_parts(tmp_path, capsys, room, parts):
    expected, weights = _uninterrupted()
    split = _tuned()
    _with_room_for(split.model, room)
    history = _train(split, accuracies=(0.5,), epochs=1)
    assert f"each batch of 8 now goes through in parts of {parts}, with the same gradients" in (
        capsys.readouterr().out
    )
    assert history.micro_batch == parts

    # Interrupted and resumed it knows its parts, and does not run out of memory again.
    split = _tuned()
    _with_room_for(split.model, room)
    with pytest.raises(StopIteration):
        _train(split, accuracies=(0.5,), epochs=3, checkpoints=tmp_path)
    capsys.readouterr()
    resumed = _tuned()
    _with_room_for(resumed.model, room)
    history = _train(resumed, accuracies=(0.7, 0.6), epochs=3, checkpoints=tmp_path)
    assert "memory ran out" not in capsys.readouterr().out
    assert [p[1] for p in history.curve] == pytest.approx([p[1] for p in expected.curve], abs=1e-5)
    torch.testing.assert_close(trainable_state(resumed.model), weights, rtol=0, atol=1e-5)


def test_a_review_that_does_not_fit_alone_stops_the_run(tmp_path):
    tuned = _tuned()
    _train(tuned, accuracies=(0.5,), checkpoints=tmp_path)
    before = _files(tmp_path)
    _with_room_for(tuned.model, 0)
    with pytest.raises(
        UserError, match=r"Memory ran out in epoch 2/2, step 1, with a single review"
    ) as raised:
        _train(tuned, accuracies=(0.7,), epochs=2, checkpoints=tmp_path)
    assert "set a smaller max_tokens" in _sentence(raised)
    assert _files(tmp_path) == before


def test_another_failure_of_the_model_stays_one():
    tuned = _tuned()
    tuned.model.forward = lambda **_: torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        _train(tuned)


def test_an_evaluation_that_does_not_fit_takes_smaller_batches(tmp_path, monkeypatch):
    sizes = []

    def limited(model, collator, tokenizer, accelerator, batch_size, recipe, title):
        sizes.append(batch_size)
        if batch_size > 6:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return predict(model, collator, tokenizer, accelerator, batch_size, recipe)

    bench = tiny_workbench(tmp_path)
    expected = bench.zero_shot()
    monkeypatch.setattr(workbench, "predict", limited)
    assert bench.zero_shot() == expected
    assert sizes[0] == 16
    assert sizes[-1] <= 6
    assert sorted(set(sizes), reverse=True) == sizes


# Disks


@pytest.fixture
def no_waiting(monkeypatch):
    """Seconds between attempts, collected instead of waited for."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@contextmanager
def _no_file_above(size):
    """Let the system refuse to make a file larger than `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _failing(function, *errors):
    """`function`, which first raises `errors` in turn."""
    left = list(errors)

    def call(*arguments):
        if left:
            raise OSError(left[0], os.strerror(left.pop(0)))
        return function(*arguments)

    return call


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EAGAIN])
def test_an_error_that_passes_is_waited_out(tmp_path, monkeypatch, no_waiting, error):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", _failing(os.fsync, error, error, error))
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert no_waiting == sorted(no_waiting)
    assert len(no_waiting) == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("error", "attempts"), [(errno.EIO, 4), (errno.ENOSPC, 1), (errno.EROFS, 1)])
def test_an_error_that_stays_gets_a_sentence_and_leaves_the_old_file(
    tmp_path, monkeypatch, no_waiting, error, attempts
):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", _failing(os.fsync, *[error] * 9))
    with pytest.raises(UserError, match=f"Could not write {path}: {os.strerror(error)}; free some") as raised:
        write_atomically(path, "new")
    assert _sentence(raised).endswith("choose another output folder, then run again.")
    assert len(no_waiting) == attempts - 1
    assert _files(tmp_path) == {path: b"old"}


def test_drafts_of_killed_processes_are_swept_and_a_living_ones_is_written_again(
    tmp_path, monkeypatch, no_waiting
):
    path = tmp_path / "a[1].pt"
    (tmp_path / ".a[1].pt.7.part").write_text("of a process that was killed")
    (tmp_path / ".b.pt.7.part").write_text("of another file")
    fsync, swept = os.fsync, []

    def sweep_once(descriptor):
        if not swept:  # another process writes the same file in this moment
            swept.extend(tmp_path.glob(f".*.{os.getpid()}.part"))
            swept[0].unlink()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sweep_once)
    write_atomically(path, b"whole")
    assert len(no_waiting) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"a[1].pt", ".b.pt.7.part"}
    assert path.read_bytes() == b"whole"


def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(tmp_path):
    bench = tiny_workbench(tmp_path)
    lora = bench.prepare("lora_scratch_r8").train()
    before = _files(bench.output)
    with (
        _no_file_above(1_000_000),
        pytest.raises(UserError, match=r"Could not write .*epoch-0001\.pt: File too large") as raised,
    ):
        bench.prepare("full").train()
    assert "choose another output folder" in _sentence(raised)
    assert _files(bench.output) == before
    full = bench.prepare("full").train()
    assert bench.results() == {"full": full, "lora_scratch_r8": lora}


def test_a_read_only_output_is_refused_before_anything_is_loaded(tmp_path):
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(UserError, match="Permission denied; free some space or choose another") as raised:
            Session.open("smoke", output=tmp_path / "output")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    _sentence(raised)
    assert not list(tmp_path.iterdir())


def test_a_drive_that_is_not_mounted_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(workbench, "DRIVE", tmp_path / "drive")
    output = tmp_path / "drive" / "MyDrive" / "peft-scratch"
    with pytest.raises(UserError, match=f"Google Drive is not mounted, and {output} would be lost") as raised:
        Session.open("smoke", output=output)
    _sentence(raised)
    assert not list(tmp_path.iterdir())


def test_a_result_cut_short_is_named(tmp_path):
    bench = tiny_workbench(tmp_path)
    bench.zero_shot()
    (path,) = (bench.output / "report" / "results").iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"zero_shot\.json is not the JSON of a result: delete it") as raised:
        bench.results()
    _sentence(raised)
    bench.zero_shot()
    assert set(bench.results()) == {"zero_shot"}


# Two at once

HOLD = """
import pathlib, sys, time
from peft_scratch.files import alone_in
with alone_in(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_in_a_folder_is_told_which_one_is_at_work(tmp_path):
    bench = tiny_workbench(tmp_path)
    finished = bench.prepare("lora_scratch_r8").train()
    (folder,) = (bench.output / "runs").iterdir()
    before = _files(folder)
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UserError) as raised:
                bench.prepare("lora_scratch_r8").train()
            who = rf"{folder} is in use by process {holder.pid}, since \d\d:\d\d: wait, or stop"
            assert re.match(who, _sentence(raised))
            with alone_in(folder.with_name("another-run")):
                pass  # of another run there can be one beside it
        finally:
            holder.kill()
    assert (folder / "running.txt").exists(), "the killed process could not tidy up"
    assert bench.prepare("lora_scratch_r8").train() == finished
    assert _files(folder).keys() == before.keys()


# Clocks


def test_a_clock_that_runs_backwards_makes_no_negative_seconds(tmp_path, monkeypatch):
    hours = itertools.count(start=10**9, step=-3600)
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    bench = tiny_workbench(tmp_path)
    result = bench.prepare("lora_scratch_r8").train()
    assert 0 < result.seconds.training < 3600
    assert 0 < result.seconds.evaluation < 3600


# Reviews


def test_an_empty_review_and_one_of_100_000_words_are_reviews_like_others(tmp_path):
    reviews = made_up_reviews()
    odd = ["", clean("Fine <br />" * 100_000)]
    train, test = (
        Dataset.from_dict({**split.to_dict(), "text": odd + list(split["text"])[2:]})
        for split in (reviews.train, reviews.test)
    )
    bench = tiny_workbench(tmp_path, Reviews(train, test))
    empty, long = tokenise(odd, bench.tokenizer, 24)
    assert empty == [bench.tokenizer.eos_token_id]
    assert len(long) == 24
    result = bench.prepare("prompt_scratch_n10").train()
    assert len(result.epochs) == 3
    assert all(epoch.loss > 0 for epoch in result.epochs)
