"""`make publish`: put a finished offline run where the repository shows it.

A run itself writes only to `out/<profile>`. This maintainer's command copies its results, weights, executed
notebooks and report to where a reader of the repository looks, and its ten numbers into the README.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from peft_scratch.assignment import BASELINES, FROM_SCRATCH, PROFILES, RUNS, TEN, WEIGHT_FILES, Run
from peft_scratch.comparison import SeedSummary
from peft_scratch.errors import UserError
from peft_scratch.experiments.settings import configuration, fingerprint
from peft_scratch.files import write_atomically
from peft_scratch.paths import NOTEBOOKS, ROOT, shown
from peft_scratch.reporting.facts import summaries
from peft_scratch.results import Result, RunResult, read_result
from peft_scratch.seeds import FILE as SEEDS
from peft_scratch.seeds import FOLDER as SEEDS_FOLDER
from peft_scratch.seeds import Seeds, packed, read_seeds, with_further

START, END = "<!-- numbers: written by `make publish` -->", "<!-- /numbers -->"

#: Which files of a run's folder are published. Other files in the repository that match are removed.
PUBLISHED = (
    "report/results/*.json",
    f"report/{SEEDS}",
    "report/small_data/*.json",
    "report/tables/*",
    "report/figures/*",
    "report/report*.pdf",
    "weights/*.pt",
    "notebooks/*.ipynb",
    "report/sweeps/*",
)
#: Files that a run need not have: if it has none of them, those of the repository stay.
_KEPT = ("report/sweeps/*",)
# Folders of the machine that executed a notebook, which a published notebook must not name.
_MACHINE = re.compile(r"/(home|root|Users|tmp|content|usr|opt)/\w")


def publish(output: Path, make_report: Callable[[Path], object], repository: Path = ROOT) -> list[Path]:
    """Copy the files of the offline run in `output` into `repository`; return the files that changed.

    Further seeds go into one small file. After a run of one seed, the repository keeps its further seeds if
    they have the same base and constants. Tables, figures and PDFs are made again from the results, so that
    they match them and name nobody. Everything is checked before the first file is written.

    Args:
        output: the output folder of the offline profile.
        make_report: makes tables and report in an output folder, without a student's name.

    Raises:
        UserError: the run is not complete, or is not the one that the repository shows.
    """
    results = _results(output)
    seeds = _seeds(output, repository, results)
    if absent := [name for name in WEIGHT_FILES if not (output / "weights" / name).is_file()]:
        raise _unfinished(output, f"weights lacks {', '.join(absent)}")
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        _check_notebook(output / "notebooks" / source.name)
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        for pattern in PUBLISHED:
            for path in output.glob(pattern):
                if path.parent.name not in ("tables", "figures") and path.suffix != ".pdf":
                    _copy(path, stage / path.relative_to(output))
        for path in (path for pattern in _KEPT for path in repository.glob(pattern)):
            if not (target := stage / path.relative_to(repository)).exists():
                _copy(path, target)
        if seeds:
            write_atomically(stage / "report" / SEEDS, packed(seeds))
        make_report(stage)
        changed = [path for pattern in PUBLISHED for path in _put(stage, repository, pattern)]
    readme = repository / "README.md"
    before = readme.read_text(encoding="utf-8")
    if (after := with_numbers(before, results, seeds)) != before:
        write_atomically(readme, after)
        changed.append(readme)
    return changed


def with_numbers(page: str, results: dict[str, Result], seeds: Seeds | None = None) -> str:
    """`page` with the table of the ten numbers between its two markers.

    Args:
        seeds: the further seeds.

    Raises:
        UserError: a marker is missing.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise UserError(f"The README lacks its markers: put the lines {START} and {END} back.")
    return f"{before}{START}\n{numbers(results, seeds)}\n{END}{after}"


def numbers(results: dict[str, Result], seeds: Seeds | None = None) -> str:
    """The README's table: each of the ten with its published range beside the offline run's number.

    With several seeds, it also shows their mean and half the width of its interval.
    """
    found = summaries(with_further(results, seeds or {}))
    many = f" ours, mean of {max(of.seeds for of in found.values())} seeds, % |" if found else ""
    lines = [
        f"| run | published, `t5-small`, % | ours, seed 0, % |{many} trainable parameters |",
        f"|:--|--:|--:|{'--:|' if found else ''}--:|",
    ]
    for run in RUNS.values():
        result = results[run.id]
        low, high = run.published
        trained = result.parameters.trainable if isinstance(result, RunResult) else 0
        mean = f" {_mean(found.get(run.id))} |" if found else ""
        lines.append(f"| {run.title} | {low} to {high} | {result.percent:.1f} |{mean} {trained:,} |")
    for name, title in BASELINES.items():
        lines.append(f"| {title} | | {results[name].percent:.1f} |{' |' if found else ''} |")
    return "\n".join(lines)


def _mean(of: SeedSummary | None) -> str:
    return f"{100 * of.mean:.1f} ± {50 * (of.high - of.low):.1f}" if of else ""


def _results(output: Path) -> dict[str, Result]:
    """The results of the ten runs and the baselines, after checking them."""
    folder = output / "report" / "results"
    found = {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}
    if absent := [name for name in (*TEN, *BASELINES) if name not in found]:
        raise _unfinished(output, f"{folder.name} lacks {', '.join(absent)}")
    profile = PROFILES["offline"]
    for name, result in found.items():
        if result.profile != profile.name:
            raise _unfinished(output, f"{name} is of the profile {result.profile}")
    for name, run in RUNS.items():
        config = found[name].config if isinstance(found[name], RunResult) else None
        wanted = _fingerprint(run, 0, getattr(config, "base_sha256", ""))
        if wanted != getattr(found[name], "fingerprint", None):
            raise _unfinished(output, f"{name} is not of seed 0, the fast recipe and the assignment's sizes")
    small = {path.stem for path in (output / "report" / "small_data").glob("*.json")}
    if absent := [name for name in FROM_SCRATCH if name not in small]:
        raise _unfinished(output, f"small_data lacks {', '.join(absent)}", "make claims")
    return found


def _fingerprint(run: Run, seed: int, base: str) -> str:
    """The fingerprint of `run` as it is published, with `seed`, on the base that has the hash `base`."""
    profile = PROFILES["offline"]
    rate = run.learning_rate_in(profile)
    return fingerprint(configuration(run, profile, rate, seed=seed, base=base, recipe="fast"))


def _seeds(output: Path, repository: Path, results: dict[str, Result]) -> Seeds:
    """The further seeds to publish: those of `output`, or else those of `repository` that still fit.

    Raises:
        UserError: a seed of `output` is incomplete, or has another base or other constants than the first.
    """
    own = read_seeds(output / "report")
    for seed in sorted({of.seed for runs in own.values() for of in runs}):
        there = {name for name, runs in own.items() if seed in {of.seed for of in runs}}
        if absent := [name for name in TEN if name not in there]:
            command = f"peft-scratch run all --seeds 0,{seed} --profile offline"
            raise _unfinished(output, f"seed {seed} lacks {', '.join(absent)}", command)
    seeds = own or read_seeds(repository / "report")
    fitting = {
        name: [of for of in seeds.get(name, ()) if of.fingerprint == _fingerprint(run, of.seed, base)]
        for name, run in RUNS.items()
        if isinstance(results[name], RunResult) and (base := results[name].config.base_sha256)
    }
    if own and any(len(fitting.get(name, ())) != len(runs) for name, runs in own.items()):
        problem = (
            f"{SEEDS_FOLDER} holds results of another base or other hyperparameters than the first seed's"
        )
        raise _unfinished(output, problem, f"rm -r {output / 'report' / SEEDS_FOLDER}; make run")
    return {name: runs for name, runs in fitting.items() if runs}


def _check_notebook(path: Path) -> None:
    """Refuse a notebook that was not executed from top to bottom unchanged, or that names a local folder."""
    if not path.is_file():
        raise _unfinished(path.parents[1], f"{path.name} was not executed", "make notebooks")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    if any("injected-parameters" in cell["metadata"].get("tags", ()) for cell in cells):
        problem = "was executed with parameters, but the repository shows it without"
    elif [cell["execution_count"] for cell in cells] != list(range(1, len(cells) + 1)):
        problem = "was not executed from top to bottom"
    elif any(output["output_type"] == "error" for output in outputs):
        problem = "ended in an error"
    elif found := _MACHINE.search(json.dumps(outputs)):
        problem = f"names a folder of this machine ({found[0]}…)"
    else:
        return
    raise _unfinished(path.parents[1], f"{path.name} {problem}", "make notebooks")


def _unfinished(output: Path, problem: str, command: str = "make run") -> UserError:
    return UserError(
        f"The run in {shown(output)} cannot be published: {problem}; run `{command}` on a machine "
        "without a GPU (the offline profile) and with no options, then publish again."
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _put(stage: Path, repository: Path, pattern: str) -> list[Path]:
    """Replace the files of `pattern` in `repository` by those in `stage`; return the files that changed."""
    new = {path.relative_to(stage): path for path in sorted(stage.glob(pattern))}
    changed = []
    for path in sorted(repository.glob(pattern)):
        if path.relative_to(repository) not in new:
            path.unlink()
            changed.append(path)
    for name, path in new.items():
        target, content = repository / name, path.read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            write_atomically(target, content)
            changed.append(target)
    return changed
