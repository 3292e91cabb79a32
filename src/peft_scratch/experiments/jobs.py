"""Many runs: one job per run, seed and setting. Jobs are independent, so they may go to many machines.

The engine `here` trains them one after the other in this process. The engine `ray` hands them to Ray, which
gives each a GPU or some cores, on this machine or on a cluster. If a worker dies, Ray starts its job again,
and the job continues after its last finished epoch. Both write the same files with the same code.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from peft_scratch.assignment import find_run
from peft_scratch.errors import UserError
from peft_scratch.experiments.profile_choice import choose_profile
from peft_scratch.experiments.session import Session
from peft_scratch.experiments.settings import change
from peft_scratch.results import RunResult

ENGINES = ("here", "ray")

# How often Ray restarts a job whose worker died.
_RETRIES = 3


@dataclass(frozen=True)
class Job:
    """One run with one seed and some changed settings.

    Attributes:
        extra_seed: whether its results are kept apart from those of the first seed, the assignment's.
    """

    run_id: str
    seed: int
    profile: str
    output: Path | None
    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    extra_seed: bool = False

    def __str__(self) -> str:
        changed = "".join(f" {name}={value}" for name, value in self.settings.items())
        return f"{self.run_id}{changed} seed {self.seed}"


@dataclass(frozen=True)
class Engine:
    """Where jobs are trained.

    Attributes:
        name: `here` or `ray`.
        address: of a Ray cluster; without it, Ray starts on this machine.
        gpus_per_run: GPUs for each job, or a share of one such as 0.5.
        cpus_per_run: cores for each job.
    """

    name: str = "here"
    address: str | None = None
    gpus_per_run: float = 0.0
    cpus_per_run: int = 1

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UserError(f"There is no engine {self.name!r}; choose one of {', '.join(ENGINES)}.")
        if self.gpus_per_run < 0 or self.cpus_per_run < 1:
            raise UserError("A run needs at least one core and at least 0 GPUs.")

    def train(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, RunResult]]:
        """Train `jobs`; yield each with its result as soon as it is there.

        A finished job is read from disk, not repeated.

        Raises:
            UserError: a job's settings are impossible, which is found before the first starts; or a job
                failed for a reason that the user can fix, after the other jobs have ended.
        """
        profiles = {name: choose_profile(name).profile for name in {job.profile for job in jobs}}
        for job in jobs:
            change(find_run(job.run_id), profiles[job.profile], job.settings)
        yield from _on_ray(jobs, self) if self.name == "ray" else ((job, train_job(job)) for job in jobs)


def seeds_of(text: str) -> list[int]:
    """The seeds that `text` names: `3`, `0-4`, or `0,2,5`.

    Raises:
        UserError: it names no seed, or one of them twice.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            seeds += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"Seeds are whole numbers such as 3, 0-4 or 0,2,5, each once, not {text!r}.")
    return seeds


def jobs_of(
    plan: Sequence[tuple[str, dict[str, Any]]],
    seeds: Sequence[int],
    profile: str,
    output: Path | None,
    recipe: str,
) -> list[Job]:
    """A job for each seed and each run of `plan`, which has its own settings; the first seed's come first."""
    return [
        Job(run_id, seed, profile, output, recipe, settings, extra_seed=seed != seeds[0])
        for seed in seeds
        for run_id, settings in plan
    ]


def train_job(job: Job) -> RunResult:
    """Train one job in this process."""
    session = _open(job.profile, job.seed, job.output, job.recipe, job.extra_seed)
    return session.prepare(job.run_id, job.settings).train()


# Jobs come seed by seed, so all runs of a seed share one session and its tokenised reviews.
@functools.lru_cache(maxsize=2)
def _open(profile: str, seed: int, output: Path | None, recipe: str, extra_seed: bool) -> Session:
    return Session.open(profile, seed, output, recipe, extra_seed=extra_seed)


def _on_ray(jobs: Sequence[Job], engine: Engine) -> Iterator[tuple[Job, RunResult]]:
    ray = _import_ray()
    started = not ray.is_initialized()
    if started:
        ray.init(address=engine.address, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(_in_a_worker).options(
            num_cpus=engine.cpus_per_run,
            num_gpus=engine.gpus_per_run,
            max_retries=_RETRIES,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(engine.cpus_per_run)}},
        )
        waiting = {remote.remote(job): job for job in jobs}
        failed: list[str] = []
        with tqdm(total=len(jobs), unit="run", desc="runs") as bar:
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(ready)
                problem, content = _outcome(ray, ready)
                bar.update()
                if problem is None:
                    yield job, RunResult.model_validate(content)
                else:
                    failed.append(f"{job}: {problem}")
        if failed:
            raise UserError(" ".join(failed))
    finally:
        if started:
            ray.shutdown()


def _in_a_worker(job: Job) -> tuple[str | None, dict[str, Any] | None]:
    """The result as JSON, or a sentence that says what went wrong: plain data travels safely."""
    try:
        return None, train_job(job).as_json()
    except UserError as mistake:
        return str(mistake), None


def _outcome(ray: ModuleType, ready: Any) -> tuple[str | None, dict[str, Any] | None]:
    try:
        return ray.get(ready)
    except ray.exceptions.WorkerCrashedError:
        return f"its worker died {_RETRIES + 1} times, most often because memory ran out.", None


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would hide the GPUs from a job that asks for none, but a run looks for one itself.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed: run `pip install ray`, or leave `--engine ray` out.") from None
    return ray
