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

from peft_scratch.assignment import BASELINES, FROM_SCRATCH, PROFILES, RUNS, TEN, WEIGHT_FILES
from peft_scratch.errors import UserError
from peft_scratch.experiments.settings import configuration, fingerprint
from peft_scratch.files import write_atomically
from peft_scratch.paths import NOTEBOOKS, ROOT, shown
from peft_scratch.results import Result, RunResult, read_result

START, END = "<!-- numbers: written by `make publish` -->", "<!-- /numbers -->"

#: Which files of a run's folder are published. Other files in the repository that match are removed.
PUBLISHED = (
    "report/results/*.json",
    "report/seeds/*/*.json",
    "report/small_data/*.json",
    "report/tables/*",
    "report/figures/*",
    "report/report*.pdf",
    "weights/*.pt",
    "notebooks/*.ipynb",
)
# A published notebook must not name a folder of the machine that executed it.
_MACHINE = re.compile(r"/(home|root|Users|tmp|content|usr|opt)/\w")


def publish(output: Path, make_report: Callable[[Path], object], repository: Path = ROOT) -> list[Path]:
    """Copy the files of the offline run in `output` into `repository`; return the files that changed.

    Tables, figures and PDFs are made again from the results, so that they fit and name nobody. Everything is
    checked before the first file is written.

    Args:
        output: the output folder of the offline profile.
        make_report: writes tables and report of an output folder into it, without a student's name.

    Raises:
        UserError: the run is not complete, or is not the one that the repository shows.
    """
    results = _results(output)
    _check_weights(output)
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        _check_notebook(output / "notebooks" / source.name)
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        for pattern in PUBLISHED:
            for path in output.glob(pattern):
                if path.parent.name not in ("tables", "figures") and path.suffix != ".pdf":
                    _copy(path, stage / path.relative_to(output))
        make_report(stage)
        changed = [path for pattern in PUBLISHED for path in _put(stage, repository, pattern)]
    readme = repository / "README.md"
    before = readme.read_text(encoding="utf-8")
    if (after := with_numbers(before, results)) != before:
        write_atomically(readme, after)
        changed.append(readme)
    return changed


def with_numbers(page: str, results: dict[str, Result]) -> str:
    """`page` with the table of the ten numbers put between its two markers.

    Raises:
        UserError: the markers are not there.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise UserError(f"The README lacks its markers: put the lines {START} and {END} back.")
    return f"{before}{START}\n{numbers(results)}\n{END}{after}"


def numbers(results: dict[str, Result]) -> str:
    """The README's table: each of the ten with its published range beside the offline run's number."""
    lines = [
        "| run | published, `t5-small`, % | ours, offline base, % | trained parameters, offline base |",
        "|:--|--:|--:|--:|",
    ]
    for run in RUNS.values():
        result = results[run.id]
        low, high = run.published
        trained = result.parameters.trainable if isinstance(result, RunResult) else 0
        lines.append(f"| {run.title} | {low} to {high} | {result.percent:.1f} | {trained:,} |")
    for name, title in BASELINES.items():
        lines.append(f"| *{title}* | | *{results[name].percent:.1f}* | |")
    return "\n".join(lines)


def _results(output: Path) -> dict[str, Result]:
    """The results of the ten runs and the baselines, as they have to be."""
    folder = output / "report" / "results"
    found = {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}
    absent = [name for name in (*TEN, *BASELINES) if name not in found]
    if absent:
        raise _unfinished(output, f"{folder.name} lacks {', '.join(absent)}", "make run")
    profile = PROFILES["offline"]
    for name, result in found.items():
        if result.profile != profile.name:
            raise _unfinished(output, f"{name} is of the profile {result.profile}", "make run")
    for name, run in RUNS.items():
        config = found[name].config if isinstance(found[name], RunResult) else None
        wanted = configuration(
            run,
            profile,
            run.learning_rate_in(profile),
            seed=0,
            base=getattr(config, "base_sha256", ""),
            recipe="fast",
        )
        if fingerprint(wanted) != getattr(found[name], "fingerprint", None):
            raise _unfinished(output, f"{name} is not of seed 0, the fast recipe and the assignment's sizes")
    small = {path.stem for path in (output / "report" / "small_data").glob("*.json")}
    if absent := [name for name in FROM_SCRATCH if name not in small]:
        raise _unfinished(output, f"small_data lacks {', '.join(absent)}", "make claims")
    return found


def _check_weights(output: Path) -> None:
    if absent := [name for name in WEIGHT_FILES if not (output / "weights" / name).is_file()]:
        raise _unfinished(output, f"weights lacks {', '.join(absent)}", "make run")


def _check_notebook(path: Path) -> None:
    """Refuse a notebook that was not executed from top to bottom as it stands, or names a local folder."""
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
    """Make the files of `pattern` in `repository` those of `stage`; return the files that changed."""
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
