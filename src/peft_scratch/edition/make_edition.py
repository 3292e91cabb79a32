"""Write the student edition: the kit without its solution, the student's file, the notebooks with blanks."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from peft_scratch.assignment import NOTEBOOKS as NAMES
from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.course import Course, read
from peft_scratch.edition import handout
from peft_scratch.edition.notebooks import ZIP, notebook
from peft_scratch.edition.solutions import LEVELS, layers, sources, without_solution
from peft_scratch.errors import UserError
from peft_scratch.paths import NOTEBOOKS, OFFLINE_BASE, ROOT

#: The file that marks a folder as an edition, which may be replaced.
MARK = "EDITION"

# Not in the edition: what contains or shows an answer, and what only maintainers need.
_LEFT_OUT = re.compile(
    r"exactness/|pretraining/|reporting/|app/|publish\.py|libraries/catalogue\.py"
    r"|experiments/(ask|merged)\.py|edition/(?!(__init__|layers_file|student_seed|commands)\.py|self_check/)"
)
# Lines of cli.py for commands that are left out.
_COMMANDS = re.compile(
    r"from peft_scratch\.(exactness|app)\b.*"
    r"|    (cli_ask|exactness)\.\w+: .*|    edition\.student_edition: .*"
    r"|    (baselines|claims|tables|report|base|publish): .*"
)
# Where `run` makes tables and report at its end: the report is the student's own.
_REPORTS = re.compile(r"^( +)(?:tables|report)\(profile, output.*\)$")
_TOP = ("setup_notebook.py", "pyproject.toml", "constraints.txt", "LICENSE", "course.toml")

# The default marker. The kit's files use this name for nothing else, so it can be replaced everywhere.
_MARKER = "sharif_llm"


def make_edition(folder: Path, level: str = LEVELS[0], solved: bool = False) -> Path:
    """Write the edition into `folder` and, beside it, as a zip; return the zip.

    Args:
        folder: where to write it. It must be new or empty, or an edition, which is then replaced.
        level: how much is blank: `lines` for the lines that matter, `classes` for whole definitions.
        solved: put the solution into `layers.py` and the notebooks, to try the edition.

    Raises:
        UserError: the folder holds something else, or `level` or course.toml is wrong.
    """
    folder = folder.absolute()
    if level not in LEVELS:
        raise UserError(f"There is no level {level!r}; choose one of {', '.join(LEVELS)}.")
    if folder.exists() and not (folder / MARK).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something that is no student edition: choose another folder.")
    course = read(ROOT / "course.toml")
    for kind, found, known in (("runs", course.runs, RUNS), ("profiles", course.profiles, PROFILES)):
        if unknown := sorted(set(found) - set(known)):
            raise UserError(f"course.toml, {kind}: there is no {unknown[0]}; there are {', '.join(known)}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".edition-") as temporary:
        new = Path(temporary) / "peft-scratch"
        _package(new)
        _notebooks(new, solved, course)
        (new / "layers.py").write_text(layers(level, solved), encoding="utf-8")
        for name in (*_TOP, *(path.name for path in ROOT.glob("requirements*.txt"))):
            if (ROOT / name).is_file():
                shutil.copyfile(ROOT / name, new / name)
        shutil.copytree(
            OFFLINE_BASE,
            new / "weights" / "base",
            ignore=shutil.ignore_patterns("*.md", "*.png", "pretraining*"),
        )
        (new / "README.md").write_text(_README, encoding="utf-8")
        (new / MARK).write_text(f"{level}\n", encoding="utf-8")
        for language, data in handout.build(course).items():
            (new / f"handout{language}.pdf").write_bytes(data)
        _rename(new, course)
        archive = folder.with_name(ZIP)
        _zip(new, archive)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    return archive


def _package(new: Path) -> None:
    """The kit as a package, without the solution's code in it."""
    package, of_module = ROOT / "src" / "peft_scratch", sources()
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package).as_posix()
        if not path.is_file() or "__pycache__" in name or _LEFT_OUT.match(name):
            continue
        target = new / "src" / "peft_scratch" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        module = "peft_scratch." + name.removesuffix(".py").replace("/", ".")
        if module in of_module:
            target.write_text(without_solution(of_module[module]), encoding="utf-8")
        elif name == "cli.py":
            lines = path.read_text(encoding="utf-8").split("\n")
            kept = [_REPORTS.sub(r"\1pass", line) for line in lines if not _COMMANDS.fullmatch(line)]
            target.write_text("\n".join(kept), encoding="utf-8")
        else:
            shutil.copyfile(path, target)


def _notebooks(new: Path, solved: bool, course: Course) -> None:
    (new / "notebooks").mkdir(parents=True)
    for number, name in NAMES.items():
        document = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))
        made = notebook(document, number, solved=solved, seed_per_student=course.seed_per_student)
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        (new / "notebooks" / name).write_text(text, encoding="utf-8")


def _rename(new: Path, course: Course) -> None:
    """Put the course's own marker into the keys of the weight files."""
    if course.marker == _MARKER:
        return
    for path in new.rglob("*"):
        if path.suffix in (".py", ".ipynb", ".md", ".toml"):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(_MARKER, course.marker), encoding="utf-8")


def _zip(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                made.write(path, Path("peft-scratch") / path.relative_to(folder))


_README = f"""# Fine-tuning T5 on IMDB four ways: the assignment

`handout.pdf` is the assignment. Five notebooks lead through it. Your code goes into `layers.py`.

1. **In Colab**: open a notebook of the folder `notebooks`, upload `{ZIP}` beside it, and run the first cell.
   **Elsewhere**, with Python 3.11 or later: run `python -m pip install -r requirements.txt -e .`, then
   `python -m pip install --no-deps -r requirements-no-deps.txt`, and open the notebooks in Jupyter.
2. Write one piece of `layers.py`, save the file, and run the cell under its task. The cell says what is wrong
   and where to read. `peft-scratch self-check layers.py` checks everything; `--only NAME` checks one piece.
3. Train. What you train, count and hand in is your code, so after a change in it a run starts again.
4. Write the report. The last cell of each notebook packs what you hand in.

To try everything without a GPU, set `PROFILE = "offline"` or `"smoke"` in a notebook. Both use a small base
that comes with this folder. The self-check compares your code with recorded outputs. It changes nothing and
sends nothing anywhere.
"""
