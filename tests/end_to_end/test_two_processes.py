"""Two processes on a CPU, started by `accelerate launch`, against one: the same losses, everything once."""

import gc
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import __file__ as LAUNCHER
from conftest import make_t5
from tiny_bench import made_up_reviews, profile_on, tiny_profile
from transformers import AutoTokenizer

from peft_scratch.data.batches import Collator
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.errors import UserError
from peft_scratch.files import alone_in

# One that trains every weight, and two whose library changes the model's class or wraps it.
RUNS = ("full", "adapter_adapterhub_b8", "lora_peft_r8")
# With batches of 8, each epoch has one batch of a single review, fewer than there are processes.
TRAIN, TEST = 25, 11


def _base(folder: Path) -> Path:
    """A tiny T5 without dropout, which each process would draw for itself, that has learnt to answer."""
    base = Path(tiny_profile(folder).base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = make_t5(vocab_size=len(tokenizer), dropout_rate=0.0)
    reviews = made_up_reviews(TRAIN).train
    texts = tokenise(reviews["text"], tokenizer, 24)
    batch = Collator(texts, list(reviews["label"]), label_ids(tokenizer), 0)(list(range(TRAIN)))
    del batch["index"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(40):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(base)
    return base


def _work(base: Path, folder: Path) -> None:
    """`peft-scratch run` on a tiny profile, as one process of one or two; each notes what it writes.

    Before it, the folder `base` is asked for, which the test holds.
    """
    from peft_scratch import cli, files
    from peft_scratch.experiments import profile_choice as profiles
    from peft_scratch.experiments import session as workbench
    from peft_scratch.training import device

    profile = profile_on(base, folder)
    profiles.PROFILES["smoke"] = profile
    workbench.load_reviews = lambda _: made_up_reviews(TRAIN, TEST)
    device.precision_of = lambda: (torch.float32, "as in the test")
    write = files._write

    def noting(path: Path, data: bytes) -> None:
        with (folder / f"writes-{os.getpid()}.txt").open("a") as notes:
            print(path.relative_to(profile.output), file=notes)
        write(path, data)

    files._write = noting
    gc.freeze()  # Accelerate collects garbage before every evaluation; what is imported need not be looked at
    bench = workbench.Session.open("smoke")
    with pytest.raises(UserError, match="is in use by process"), bench.alone_in(base):
        pass
    (folder / f"refused-{os.getpid()}").touch()
    cli.app(["run", *RUNS, RUNS[-1], "--profile", "smoke"], standalone_mode=False)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Folder and standard output of one process, and of two."""
    # Without `--multi_gpu`, Accelerate would start one process, whatever the number; the variable makes it
    # processes on CPUs.
    launcher = [LAUNCHER, "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    base = _base(tmp_path_factory.mktemp("base"))
    with ExitStack() as stack:
        stack.enter_context(alone_in(base))
        started = []
        for options in ([], launcher):
            folder = tmp_path_factory.mktemp("processes")
            process = subprocess.Popen(
                [sys.executable, *options, __file__, str(base), str(folder)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            stack.callback(process.kill)
            started.append((folder, process))
        said = [process.communicate(timeout=300) for _, process in started]
    for (_, process), (_, err) in zip(started, said, strict=True):
        assert process.returncode == 0, err[-3000:]
    return [(folder, out) for (folder, _), (out, _) in zip(started, said, strict=True)]


def _results(folder: Path) -> dict[str, dict]:
    paths = (folder / "output" / "report" / "results").glob("*.json")
    return {path.stem: json.loads(path.read_text()) for path in paths}


def _writes(folder: Path) -> list[list[str]]:
    return [path.read_text().split("\n") for path in folder.glob("writes-*.txt")]


@pytest.mark.parametrize("run", RUNS)
def test_the_losses_are_those_of_one_process_with_the_same_batch(outcomes, run):
    one, two = (_results(folder)[run] for folder, _ in outcomes)
    assert len(one["curve"]) == len(two["curve"]) == 3 * 4, "three epochs of four steps"
    assert [loss for _, loss in two["curve"]] == pytest.approx([loss for _, loss in one["curve"]], abs=1e-4)


@pytest.mark.parametrize("run", RUNS)
def test_every_review_is_judged_once(outcomes, run):
    one, two = (_results(folder)[run] for folder, _ in outcomes)
    assert one["accuracy"]["best"] > 0, "a base that answers nothing would make this an empty comparison"
    for what in ("accuracy", "malformed", "mistakes", "training_accuracy"):
        assert two[what] == one[what]
    assert len(two["mistakes"]) == round((1 - two["accuracy"]["best"]) * TEST)


def test_one_process_writes_what_one_alone_would(outcomes):
    (one,), (two,) = (_writes(folder) for folder, _ in outcomes)
    assert two == one


def test_a_folder_in_use_is_refused_to_every_process(outcomes):
    assert [len(list(folder.glob("refused-*"))) for folder, _ in outcomes] == [1, 2]


def test_one_process_speaks(outcomes):
    for _, out in outcomes:
        for epoch in (1, 2, 3):
            assert out.count(f"epoch {epoch}/3: loss") == len(RUNS), out
        assert out.count("found on disk: 3 of 3 epochs") == 1, "the run that was asked for twice"


if __name__ == "__main__":
    _work(Path(sys.argv[1]), Path(sys.argv[2]))
