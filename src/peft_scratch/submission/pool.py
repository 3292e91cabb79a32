"""Checks each submission in its own process, with limits on time and memory.

The processes come from a fork server that has imported what they need. A process that takes too long or too
much memory is ended, and the row of its submission says so. The others continue.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError, as_completed
from pathlib import Path

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from peft_scratch.assignment import FILES
from peft_scratch.submission.findings import Checked, look
from peft_scratch.submission.students import Group

#: Limits for one submission: seconds, and bytes of memory.
SECONDS, MEMORY = 25.0, 1000 * 2**20
#: With `--deep`, which loads torch and predicts all reviews.
_SECONDS_DEEP = 4 * 3600.0
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PRELOADED = ["peft_scratch.submission.check", "huggingface_hub"]


def check_all(
    groups: list[Group],
    deep: bool = False,
    processes: int | None = None,
    work: Callable[..., Checked] | None = None,
) -> Iterator[tuple[int, Checked]]:
    """The checklists of all submissions, each with its index in `groups`, in the order of being finished.

    Args:
        deep: also measure the accuracies again from the weights.
        processes: how many at a time; by default one per core, but at most four.
        work: what each process runs; `check` by default.
    """
    processes = processes or min(os.cpu_count() or 1, 4)
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        context.set_forkserver_preload(_PRELOADED)
    seconds = _SECONDS_DEEP if deep else SECONDS
    before = {name: os.environ[name] for name in _THREADS if name in os.environ}
    os.environ |= dict.fromkeys(_THREADS, "1")  # otherwise each process reserves memory for many
    try:
        pool = ProcessPool(
            processes, max_tasks=1, context=context, initializer=_limit, initargs=[None if deep else MEMORY]
        )
        with pool:
            futures: dict[ProcessFuture, int] = {
                pool.schedule(work or _check, args=[list(map(str, group.paths)), deep], timeout=seconds): n
                for n, group in enumerate(groups)
            }
            yield from _finished(futures, groups, seconds)
    finally:
        for name in _THREADS:
            os.environ.pop(name, None)
        os.environ |= before


def _finished(
    futures: dict[ProcessFuture, int], groups: list[Group], seconds: float
) -> Iterator[tuple[int, Checked]]:
    for future in as_completed(futures):
        n = futures[future]
        if problem := future.exception():
            # Nothing is known about this submission, so nothing is called an error.
            finding = look(FILES, *_why(problem, seconds), "look by hand")
            checked = Checked(str(groups[n].paths[0]), findings=[finding], unread=True)
        else:
            checked = future.result()
        checked.student = (checked.student[0] or groups[n].number, checked.student[1])
        yield n, checked


def _why(problem: BaseException, seconds: float) -> tuple[str, str]:
    """Why a process gave no checklist: the code and the text of the finding."""
    if isinstance(problem, TimeoutError):
        return "took-too-long", f"the check was stopped after {seconds:.0f} seconds"
    if isinstance(problem, MemoryError):
        return "too-much", f"the check needs more than {MEMORY // 2**20:,} MB of memory"
    if isinstance(problem, ProcessExpired):
        return "check-died", "the process of the check ended before it was done"
    return "check-failed", f"the check itself failed ({type(problem).__name__})"


def _limit(memory: int | None) -> None:
    """Limit this process's memory on Linux. Other systems have only the limits on files and pages."""
    if memory is None or not sys.platform.startswith("linux"):
        return
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _check(paths: list[str], deep: bool) -> Checked:
    from peft_scratch.submission.check import check

    return check([Path(path) for path in paths], deep, traces=True)
