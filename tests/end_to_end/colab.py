"""The student's way through Colab: five machines, each with one notebook, and at the end three files.

`make colab` runs it. There is no Colab here, so a machine is an environment with the versions of its image
(`colab_versions.txt`, on Python 3.13 where that is found), an empty folder with one notebook and
peft-scratch.zip in it, and a stand-in for `google.colab`. Every cell is run as Colab would, in the profile
`smoke`. Notebooks 4 and 5 use Drive, which is a folder here; notebooks 1 to 3 do without and offer their
parts. These are then uploaded to the machine of notebook 5, whose last cell, run again, offers three files.
`peft-scratch submit --parts` packs the same from five parts. What is proved besides: the set-up only adds
packages, and takes less than two minutes; all ten numbers come out.

`make colab NOTEBOOKS=student` runs the student edition instead, with the solution put in and without handing
in, because the report there is the student's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from by_hand import OpenNotebook, results_output

from peft_scratch.assignment import NOTEBOOKS, RUNS
from peft_scratch.edition.make_edition import make_edition
from peft_scratch.notebook.parts import write_part
from peft_scratch.paths import BUILD, ROOT

HERE = Path(__file__).parent
VERSIONS = HERE / "colab_versions.txt"
COLABS_PYTHON = (3, 13)
SETUP_SECONDS = 120
PROFILE = "smoke"
ON_DRIVE = (4, 5)
LAST = 5
IMAGES = BUILD / "colab"
UV = "uv==0.13.9"
BUNDLE = "peft-scratch.zip"
#: What every notebook imports.
IMPORTED = "import accelerate, datasets, matplotlib.pyplot, peft, scipy.stats, sklearn, torch, transformers"
STUDENT = {"name": "Ada Lovelace", "number": "400123456"}
ANSWERS = {"Your name": STUDENT["name"], "student number": STUDENT["number"]}


def pythons() -> Iterator[tuple[tuple[int, int], str]]:
    """The Pythons of this machine, each with its version: on the path, of pyenv, and this one."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(10, 20)]
    candidates += sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python")))
    for command in (*candidates, sys.executable):
        if command:
            code = "import sys, venv, ssl; print(*sys.version_info[:2])"
            done = subprocess.run([command, "-c", code], capture_output=True, text=True, check=False)
            if done.returncode == 0:  # pyenv has commands for versions that it does not let run
                major, minor = map(int, done.stdout.split())
                yield (major, minor), command


def choose_python() -> tuple[tuple[int, int], str]:
    """Colab's version if it is here, else the newest that is."""
    found = dict(pythons())
    version = COLABS_PYTHON if COLABS_PYTHON in found else max(found)
    return version, found[version]


def make_image() -> Path:
    """The environment that every machine begins with; made once for each list of versions.

    By uv, which takes a minute where pip takes several.
    """
    version, python = choose_python()
    torch = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]
    key = hashlib.sha256((VERSIONS.read_text() + torch).encode()).hexdigest()[:8]
    image = IMAGES / f"image-{version[0]}.{version[1]}-{key}"
    print(f"image: Python {version[0]}.{version[1]}, {image.relative_to(ROOT)}", flush=True)
    if not (image / "made").exists():
        shutil.rmtree(image, ignore_errors=True)
        _run([python, "-m", "venv", image])
        own, tool = image / "bin" / "python", IMAGES / UV
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--upgrade", "--target", tool, UV])
        install = [tool / "bin" / "uv", "pip", "install", "--quiet", "--python", own]
        install += ["--cache-dir", IMAGES / "cache"]
        _run([*install, torch])
        _run([*install, "--no-deps", "-r", VERSIONS])
        _run([own, "-c", IMPORTED])  # so that what is used is compiled once, and not on each machine
        (image / "made").touch()
    return image


def make_machine(folder: Path, image: Path) -> str:
    """A fresh machine in `folder`, with all that the image has; its Python.

    The files are the image's own, under further names, which takes seconds: neither pip nor Python writes
    into a file that is there, they put another in its place.
    """
    _run([image / "bin" / "python", "-m", "venv", "--without-pip", folder])
    (site,) = folder.glob("lib/python*/site-packages")
    (installed,) = image.glob("lib/python*/site-packages")
    shutil.copytree(installed, site, copy_function=os.link, dirs_exist_ok=True)
    return str(folder / "bin" / "python")


def freeze(python: str, env: dict[str, str]) -> dict[str, str]:
    """What is installed, by name."""
    command = [python, "-m", "pip", "freeze", "--all", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **env})
    lines = re.findall(r"^(?:-e )?([\w.-]+)\s*(?:==|@)\s*(\S+)|^-e (\S+)", done.stdout, re.MULTILINE)
    return {name or "editable": version or editable for name, version, editable in lines}


@dataclass
class Machine:
    """A machine of Colab with one notebook, opened in an empty folder beside the bundle.

    Attributes:
        place: where its files lie: outside the checkout, or the set-up would find the checkout and no bundle.
        packages: where files of the image can have further names.
        bundle, notebooks: what is uploaded, and the folder that the notebook comes from.
    """

    number: int
    place: Path
    packages: Path
    image: Path
    bundle: Path
    notebooks: Path

    def __post_init__(self) -> None:
        self.content = self.place / f"machine {self.number}" / "content"
        self.downloads = self.place / "downloads" / str(self.number)
        self.notebook: OpenNotebook | None = None

    def run(self) -> str:
        """Run every cell; what there is to say about it. The last notebook stays open."""
        for folder in (self.content, self.downloads):
            folder.mkdir(parents=True)
        shutil.copy(self.bundle, self.content)
        path = Path(shutil.copy(self.notebooks / NOTEBOOKS[self.number], self.content))
        document = self.content.with_name("document.ipynb")
        python = make_machine(self.packages / str(self.number), self.image)
        env = {
            "PYTHONPATH": str(HERE / "colab_stand_in"),
            "PEFT_SCRATCH_DRIVE": str(self.place / "drive"),
            "STAND_IN_DOWNLOADS": str(self.downloads),
            "STAND_IN_DOCUMENT": str(document),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # debugpy of the image warns of it at every start
        }
        before = freeze(python, env)
        started = time.monotonic()
        self.notebook = notebook = OpenNotebook(path, python, env, ANSWERS, document)
        notebook.set_parameter("PROFILE", PROFILE)
        if self.number not in ON_DRIVE:
            notebook.set_parameter("DRIVE", False)
        notebook.run_all()
        seconds = time.monotonic() - started
        said = "".join(out.get("text", "") for cell in notebook.code for out in cell.outputs)
        added = float(re.search(r"ready +after (\d+) s", said)[1])
        if self.number != LAST:
            self.close()
        after = freeze(python, env)
        changed = {name: after.get(name) for name, version in before.items() if after.get(name) != version}
        assert not changed, f"notebook {self.number}: the set-up changed {changed}"
        assert added < SETUP_SECONDS, f"notebook {self.number}: the set-up took {added:.0f} s"
        assert "Kept this notebook as" in said, f"notebook {self.number} was not kept"
        own = {run.id for run in RUNS.values() if run.notebook == self.number}
        assert {result["id"] for result in results_output(notebook.document)["results"]} == own
        return (
            f"notebook {self.number}: {len(own)} of ten numbers, set-up {added:.0f} s, "
            f"{len(after) - len(before)} packages added, none changed, {seconds:.0f} s in all"
        )

    def hand_in_with(self, parts: list[Path]) -> str:
        """Upload `parts` beside the notebook and run its last cell again; what it then says."""
        for part in parts:
            shutil.copy(part, self.content)
        return self.notebook.run(self.notebook.code[-1])

    def close(self) -> None:
        """End the kernel, if it was started."""
        if self.notebook:
            self.notebook.close()
            self.notebook = None


def packed(folder: Path) -> dict[str, bytes]:
    """The files in `folder` that are handed in, by name; exactly the three are there."""
    stem = f"REHEARSAL_{STUDENT['number']}_{STUDENT['name'].replace(' ', '_')}"
    wanted = [f"{stem}.pdf", f"{stem}_notebooks.zip", f"{stem}_weights.zip"]
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("part-"))
    assert [path.name for path in found] == wanted, f"handed in: {found}"
    return {path.name: path.read_bytes() for path in found}


def submit_parts(parts: list[Path], output: Path) -> dict[str, bytes]:
    """The three files that the command line makes of five parts."""
    command = [Path(sys.executable).with_name("peft-scratch"), "submit", "--parts", *parts]
    _run([*command, "--output", output, "--name", STUDENT["name"], "--number", STUDENT["number"]])
    return packed(output / "submission")


def run_all(machines: list[Machine]) -> None:
    """Run their notebooks, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(Machine.run, machines):
            print(line, flush=True)


def hand_in(machines: dict[int, Machine], place: Path) -> list[str]:
    """Put together what the five machines left, on the last one and on the command line; the files' names."""
    downloads = place / "downloads"
    parts = [downloads / str(n) / f"part-{n}.zip" for n in NOTEBOOKS if n not in ON_DRIVE]
    said = machines[LAST].hand_in_with(parts)
    assert "Added part-1.zip, part-2.zip, part-3.zip." in said, said
    handed_in = packed(downloads / str(LAST))
    output = place / "drive" / "MyDrive" / "peft-scratch" / PROFILE
    found = {path.stem for path in (output / "report" / "results").glob("*.json")}
    assert found >= RUNS.keys(), f"numbers are missing: {RUNS.keys() - found}"
    assert json.loads((output / "student.json").read_text()) == STUDENT
    parts += [write_part(output, number) for number in ON_DRIVE]
    again = submit_parts(parts, place / "put together")
    for name, content in handed_in.items():
        if name.endswith(".zip"):  # another matplotlib draws the report's figures otherwise
            assert again[name] == content, f"{name} differs between Colab and the command line"
    return list(handed_in)


def whole_kit(place: Path) -> tuple[Path, Path]:
    """The kit as a zip, and its notebooks."""
    archive = ["git", "archive", "--format=zip", "--prefix=peft-scratch/", f"--output={place / BUNDLE}"]
    _run([*archive, "HEAD"], cwd=ROOT)
    return place / BUNDLE, ROOT / "notebooks"


def student_edition(place: Path) -> tuple[Path, Path]:
    """The student edition with the solution put in, as a zip, and its notebooks."""
    return make_edition(place / "edition", solved=True), place / "edition" / "notebooks"


def main(*numbers: str) -> None:
    """Run the notebooks with these numbers; without any, all five, and hand in. `student`: of the edition."""
    started = time.monotonic()
    image = make_image()
    print(f"image ready after {time.monotonic() - started:.0f} s", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="colab-") as name,
        tempfile.TemporaryDirectory(prefix="machines-", dir=IMAGES) as packages,
    ):
        place = Path(name)
        edition = "student" in numbers
        bundle, notebooks = student_edition(place) if edition else whole_kit(place)
        chosen = sorted((int(n) for n in numbers if n != "student"), reverse=True) or sorted(NOTEBOOKS)[::-1]
        packages_in = Path(packages)
        machines = {n: Machine(n, place, packages_in, image, bundle, notebooks) for n in chosen}
        try:
            run_all(list(machines.values()))
            if set(machines) == set(NOTEBOOKS) and not edition:
                print(f"handed in: {', '.join(hand_in(machines, place))}")
        finally:
            for machine in machines.values():
                machine.close()
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


def _run(command: list[object], **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
