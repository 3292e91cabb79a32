"""One notebook's part of a submission as one file, and how to put several parts together.

On a machine of its own (Colab without Drive, Kaggle), a notebook cannot read the files of the others. There
each notebook makes a `part-N.zip`. The five parts together are the whole submission.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_scratch.assignment import BASELINES, NOTEBOOKS, PROFILES, RUNS, WEIGHT_FILES
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.results import Result, RunResult, read_results
from peft_scratch.wording import counted

FORMAT = 1
#: The most bytes that a part may unpack to. A real one has at most 2 MB.
LARGEST = 64 * 2**20
_MANIFEST = "part.json"
#: The settings that the parts of one submission share.
_SHARED = (
    *("seed", "recipe", "base_sha256", "reviews", "max_tokens"),
    *("train_reviews", "test_reviews", "epochs", "batch_size"),
)


@dataclass(frozen=True)
class Part:
    """A part that was read: its name, notebook and settings, and its files by their path in the output."""

    name: str
    notebook: int
    settings: Mapping[str, Any]
    files: Mapping[str, bytes]


def settings_of(results: Iterable[Result]) -> dict[str, Any] | None:
    """The settings that `results` share with all of their submission; `None` if no run is among them."""
    for result in results:
        if isinstance(result, RunResult):
            return {"profile": result.profile} | {name: getattr(result.config, name) for name in _SHARED}
    return None


def write_part(output: Path, notebook: int) -> Path:
    """Write the files of notebook `notebook` in `output` to `part-N.zip` there; return its path.

    Raises:
        UserError: no run of it is finished.
    """
    results = {
        name: result
        for name, result in read_results(output / "report" / "results").items()
        if name in _ids(notebook)
    }
    settings = settings_of(results.values())
    if settings is None:
        raise UserError(f"No run of notebook {notebook} is finished: train first, then make its part.")
    manifest = {
        "format": FORMAT,
        "notebook": notebook,
        "settings": settings,
        "fingerprints": {n: r.fingerprint for n, r in results.items() if isinstance(r, RunResult)},
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        for name in _names(notebook):
            if (output / name).is_file():
                archive.writestr(name, (output / name).read_bytes())
    path = output / f"part-{notebook}.zip"
    write_atomically(path, data.getvalue())
    return path


def merge_parts(paths: Iterable[Path], output: Path | None = None) -> Path:
    """Put parts together in `output`, by default the folder of their profile; return the folder.

    Raises:
        UserError: a file is not a part, two different parts are of one notebook, or settings differ between
            the parts or from the results in the folder. Then nothing is written.
    """
    parts = [read_part(path) for path in paths]
    if not parts:
        raise UserError("There is no part to put together: give part-1.zip to part-5.zip.")
    first = parts[0]
    by_notebook: dict[int, Part] = {}
    for part in parts:
        _refuse_differences(first.settings, first.name, part.settings, part.name)
        before = by_notebook.setdefault(part.notebook, part)
        if before.files != part.files:
            raise UserError(
                f"{before.name} and {part.name} are both of notebook {part.notebook} and differ: give one."
            )
    output = output or PROFILES[first.settings["profile"]].output
    there = read_results(output / "report" / "results")
    others = [result for result in there.values() if result.notebook not in by_notebook]
    if settings := settings_of(others):
        _refuse_differences(settings, f"what is in {output}", first.settings, first.name)
    for part in by_notebook.values():
        for name, data in part.files.items():
            write_atomically(output / name, data)
    return output


def read_part(path: Path) -> Part:
    """The part at `path`. Only files that belong to its notebook are read; nothing is unpacked.

    Raises:
        UserError: it is not a part of this kit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError
            manifest = json.loads(archive.read(_MANIFEST))
            notebook, settings = manifest["notebook"], manifest["settings"]
            if (
                manifest["format"] != FORMAT
                or notebook not in NOTEBOOKS
                or settings["profile"] not in PROFILES
            ):
                raise ValueError
            there = set(archive.namelist())
            files = {name: archive.read(name) for name in _names(notebook) if name in there}
    except FileNotFoundError:
        raise UserError(f"There is no {path}.") from None
    except Exception:  # damaged bytes make zipfile raise many kinds
        raise UserError(
            f"{path} is not a part of this kit: take the part-N.zip that a notebook made."
        ) from None
    return Part(path.name, notebook, settings, files)


def _refuse_differences(first: Mapping[str, Any], where: str, second: Mapping[str, Any], other: str) -> None:
    for name in ("profile", *_SHARED):
        one, two = first.get(name), second.get(name)
        if one != two:
            raise UserError(
                f"{other} was made with {name} {two!r}, {where} with {one!r}: run one of them "
                "again with the settings of the other."
            )


def _ids(notebook: int) -> list[str]:
    own = [run.id for run in RUNS.values() if run.notebook == notebook]
    return [*own, *(BASELINES if notebook == 1 else ())]


def _names(notebook: int) -> list[str]:
    """The files of a notebook by their path in an output folder."""
    weights = [name for name, run in WEIGHT_FILES.items() if run.notebook == notebook]
    return [
        f"notebooks/{NOTEBOOKS[notebook]}",
        *(f"report/results/{name}.json" for name in _ids(notebook)),
        *(f"weights/{name}" for name in weights),
    ]


def missing_from(output: Path) -> list[str]:
    """What a submission in `output` still lacks, one phrase per notebook. Baselines are not required."""
    lacking = []
    for notebook in NOTEBOOKS:
        absent = [Path(name) for name in _names(notebook) if not (output / name).is_file()]
        results = sum(path.stem in RUNS for path in absent)
        what = [
            *([counted(results, "number")] if results else []),
            *(path.name for path in absent if path.parent.name == "weights"),
            *("the executed notebook" for path in absent if path.parent.name == "notebooks"),
        ]
        if what:
            lacking.append(f"notebook {notebook}: {', '.join(what)}")
    return lacking
