"""Runs killed at random moments: the suite kills six.

`PYTHONPATH=tests python tests/end_to_end/test_kills.py 30` kills thirty.

Each is killed once, while it trains, evaluates or saves, started again, and must end where a run that
was never killed did: weights and answers to the bit, the same JSON but for what was measured with a
clock (and the process' peak memory), the same files and no others. Between the two there is no half
file. Ctrl-C is tried likewise. One process imports everything and forks the runs.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

PHASES = ("training", "evaluation", "saving")
RUNS = ("full", "adapter_scratch_b8", "lora_peft_r8")
INTERRUPTED = "Interrupted: finished epochs are kept; run the same command again to continue."
MEASURED = {"seconds", "train_seconds", "evaluation_seconds", "peak"}


def test_a_killed_run_ends_as_if_it_had_not_been():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, __file__, "6"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 killed, 6 resumed, 6 equal" in done.stdout


@dataclass
class Progress:
    """How far a forked run is, in memory that it shares with the process that watches it.

    For each phase how often it was entered and how many seconds it took in all; and the phase it is in.
    """

    shared: memoryview = field(default_factory=lambda: memoryview(mmap.mmap(-1, 64)).cast("d"))

    def reset(self) -> None:
        for i in range(7):
            self.shared[i] = 0
        self.shared[6] = -1

    def watch(self, phase: int, function: Any) -> Any:
        """`function`, with its calls noted as `phase`."""

        @wraps(function)
        def noted(*arguments: Any, **options: Any) -> Any:
            around, started = self.shared[6], time.perf_counter()
            self.shared[phase] += 1
            self.shared[6] = phase
            try:
                return function(*arguments, **options)
            finally:
                self.shared[3 + phase] += time.perf_counter() - started
                self.shared[6] = around

        return noted

    def entered(self, phase: int) -> int:
        return int(self.shared[phase])

    def seconds(self, phase: int) -> float:
        return self.shared[3 + phase]

    @property
    def now(self) -> str:
        return PHASES[int(self.shared[6])] if self.shared[6] >= 0 else "between"


def fork(bench: Any, run_id: str, output: Path, log: Path) -> int:
    """The process number of a child that runs `peft-scratch run RUN_ID` on `bench`, into `output`."""
    from peft_scratch.cli import app
    from peft_scratch.experiments.session import Session

    if child := os.fork():
        return child
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        bench.output = output
        Session.open = lambda *_: bench
        app(["run", run_id, "--profile", "smoke"])
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def end_of(child: int) -> int:
    """Its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(folder: Path) -> dict[str, Any]:
    """What a run left: each file by its name, without what a clock or a meter says."""
    import torch

    def unmeasured(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), value.shape, value.numpy().tobytes()
        if isinstance(value, dict):
            return {key: unmeasured(part) for key, part in value.items() if key not in MEASURED}
        if isinstance(value, (list, tuple)):
            return [unmeasured(part) for part in value]
        return value

    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            found[name] = unmeasured(json.loads(path.read_text()))
        elif path.suffix == ".pt":
            found[name] = unmeasured(torch.load(path, weights_only=True))
        else:
            found[name] = None
    return found


def main(kills: int, seed: int) -> None:
    """Fork, kill, resume and compare; raises AssertionError with the log of the run that went wrong."""
    os.environ["OMP_NUM_THREADS"] = "1"  # a forked process has lost the threads of its parent
    import torch
    from tiny_bench import tiny_workbench

    from peft_scratch import files
    from peft_scratch.experiments import session as workbench
    from peft_scratch.training.trainer import Trainer

    torch.set_num_threads(1)
    progress, rng, hits = Progress(), random.Random(seed), Counter()
    Trainer.train_epoch = progress.watch(0, Trainer.train_epoch)
    workbench.predict = progress.watch(1, workbench.predict)
    files._write = progress.watch(2, files._write)

    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        log = place / "log"
        bench = tiny_workbench(place)
        _ = bench.tokenizer  # loaded once, for all children
        references = {}
        for run_id in RUNS:
            progress.reset()
            assert end_of(fork(bench, run_id, place / run_id, log)) == 0, log.read_text()
            references[run_id] = (
                outcome(place / run_id),
                [(progress.entered(p), progress.seconds(p) / progress.entered(p)) for p in range(3)],
            )

        def stop(n: int, sent: signal.Signals) -> None:
            """Send a run `sent` at a random moment of a random phase, resume it, compare."""
            run_id, folder = RUNS[n % len(RUNS)], place / f"{sent.name}-{n}"
            expected, phases = references[run_id]
            phase = (n + n // len(RUNS)) % 3  # in nine kills each run meets each phase
            while True:
                progress.reset()
                child = fork(bench, run_id, folder, log)
                times, mean = phases[phase]
                nth, pause = rng.randint(1, times), rng.random() * mean
                while progress.entered(phase) < nth:
                    assert not os.waitpid(child, os.WNOHANG)[0], log.read_text()
                    time.sleep(0.0005)
                time.sleep(pause)
                hit = progress.now
                os.kill(child, sent)
                status = end_of(child)
                if status != 0:
                    break
                # It had ended already: another run, another moment.
                folder = folder.with_name(folder.name + "+")
            if sent == signal.SIGINT:
                assert status == 130, log.read_text()
                assert log.read_text().rstrip().splitlines()[-1].endswith(INTERRUPTED), log.read_text()
            else:
                assert status == -signal.SIGKILL, log.read_text()
                hits[hit] += 1
            outcome(folder)  # every file with a name can be read
            assert end_of(fork(bench, run_id, folder, log)) == 0, log.read_text()
            ended = outcome(folder)
            assert ended.keys() == expected.keys(), (hit, ended.keys() ^ expected.keys())
            for name, content in expected.items():
                assert ended[name] == content, f"killed in {hit}: {name} differs\n{log.read_text()}"

        for n in range(1 + kills // 10):
            stop(n, signal.SIGINT)
        for n in range(kills):
            stop(n, signal.SIGKILL)
    print(f"{kills} killed, {kills} resumed, {kills} equal; killed in {dict(hits)}; seed {seed}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
