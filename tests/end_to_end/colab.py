"""The student's way through Colab: five machines, each with one notebook, and at the end three files.

`make colab` runs it. There is no Colab here, so a machine is an environment with the versions of its image
(`colab_versions.txt`, on Python 3.13 where that is found), an empty folder with one notebook and
peft-scratch.zip in it, and a stand-in for `google.colab`. The machines share one Drive, a folder. Every cell
is run as Colab would, in the profile `smoke`. What is proved: the set-up only adds packages, and takes
less than two minutes; all ten numbers come out; the last cell of the last notebook offers three files.
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
from pathlib import Path

from by_hand import OpenNotebook, results_output

from peft_scratch.assignment import NOTEBOOKS, RUNS
from peft_scratch.paths import BUILD, ROOT

HERE = Path(__file__).parent
VERSIONS = HERE / "colab_versions.txt"
COLABS_PYTHON = (3, 13)
SETUP_SECONDS = 120
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
    """The environment that every machine begins with; made once for each list of versions."""
    version, python = choose_python()
    torch = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]
    key = hashlib.sha256((VERSIONS.read_text() + torch).encode()).hexdigest()[:8]
    image = BUILD / "colab" / f"image-{version[0]}.{version[1]}-{key}"
    print(f"image: Python {version[0]}.{version[1]}, {image.relative_to(ROOT)}", flush=True)
    if not (image / "made").exists():
        shutil.rmtree(image, ignore_errors=True)
        _run([python, "-m", "venv", image])
        pip = [image / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, torch])
        _run([*pip, "--no-deps", "-r", VERSIONS])
        (image / "made").touch()
    return image


def make_machine(folder: Path, image: Path) -> str:
    """A fresh machine in `folder`, with all that the image has; its Python.

    The files are the image's own, under further names, which takes seconds; pip never writes into a file, it
    puts another in its place.
    """
    _run([image / "bin" / "python", "-m", "venv", "--without-pip", folder])
    (site,) = folder.glob("lib/python*/site-packages")
    (installed,) = image.glob("lib/python*/site-packages")
    ignored = shutil.ignore_patterns("__pycache__")  # Python does write into those
    shutil.copytree(installed, site, copy_function=os.link, ignore=ignored, dirs_exist_ok=True)
    return str(folder / "bin" / "python")


def freeze(python: str, env: dict[str, str]) -> dict[str, str]:
    """What is installed, by name."""
    command = [python, "-m", "pip", "freeze", "--all", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **env})
    lines = re.findall(r"^(?:-e )?([\w.-]+)\s*(?:==|@)\s*(\S+)|^-e (\S+)", done.stdout, re.MULTILINE)
    return {name or "editable": version or editable for name, version, editable in lines}


def run_notebook(number: int, place: Path, machines: Path, image: Path, bundle: Path) -> str:
    """Run notebook `number` on a machine of its own; what there is to say about it.

    Args:
        place: outside the checkout, or the set-up would find the checkout and not the bundle.
        machines: where files of the image can have further names.
    """
    folder = place / f"machine {number}"
    content = folder / "content"
    content.mkdir(parents=True)
    shutil.copy(bundle, content)
    path = Path(shutil.copy(ROOT / "notebooks" / NOTEBOOKS[number], content))
    downloads = place / "downloads"
    downloads.mkdir(exist_ok=True)
    python = make_machine(machines / str(number), image)
    env = {
        "PYTHONPATH": str(HERE / "colab_stand_in"),
        "PEFT_SCRATCH_DRIVE": str(place / "drive"),
        "STAND_IN_DOWNLOADS": str(downloads),
        "STAND_IN_DOCUMENT": str(folder / "document.ipynb"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    before = freeze(python, env)
    started = time.monotonic()
    notebook = OpenNotebook(path, python, env, ANSWERS, folder / "document.ipynb")
    try:
        notebook.set_parameter("PROFILE", "smoke")
        said = notebook.run(notebook.code[0])
        added = float(re.search(r"ready +after (\d+) s", said)[1])
        notebook.run_all()
    finally:
        notebook.save()
        notebook.close()
    after = freeze(python, env)
    changed = {name: after.get(name) for name, version in before.items() if after.get(name) != version}
    assert not changed, f"notebook {number}: the set-up changed {changed}"
    assert added < SETUP_SECONDS, f"notebook {number}: the set-up took {added:.0f} s"
    said = "".join(out.get("text", "") for cell in notebook.code for out in cell.outputs)
    assert "Kept this notebook as" in said, f"notebook {number} was not kept"
    own = {run.id for run in RUNS.values() if run.notebook == number}
    assert {result["id"] for result in results_output(notebook.document)["results"]} == own
    return (
        f"notebook {number}: {len(own)} of ten numbers, set-up {added:.0f} s, "
        f"{len(after) - len(before)} packages added, none changed, {time.monotonic() - started:.0f} s in all"
    )


def main() -> None:
    started = time.monotonic()
    image = make_image()
    with (
        tempfile.TemporaryDirectory(prefix="colab-") as name,
        tempfile.TemporaryDirectory(prefix="machines-", dir=image.parent) as machines_name,
    ):
        place, machines = Path(name), Path(machines_name)
        bundle = place / "peft-scratch.zip"
        archive = ["git", "archive", "--format=zip", "--prefix=peft-scratch/", f"--output={bundle}", "HEAD"]
        _run(archive, cwd=ROOT)
        *first, last = NOTEBOOKS
        with ThreadPoolExecutor(2) as pool:
            for line in pool.map(lambda n: run_notebook(n, place, machines, image, bundle), first):
                print(line, flush=True)
        print(run_notebook(last, place, machines, image, bundle), flush=True)
        output = place / "drive" / "MyDrive" / "peft-scratch" / "smoke"
        found = {path.stem for path in (output / "report" / "results").glob("*.json")}
        assert found >= RUNS.keys(), f"numbers are missing: {RUNS.keys() - found}"
        assert json.loads((output / "student.json").read_text()) == STUDENT
        stem = f"REHEARSAL_{STUDENT['number']}_{STUDENT['name'].replace(' ', '_')}"
        wanted = [f"{stem}.pdf", f"{stem}_notebooks.zip", f"{stem}_weights.zip"]
        handed_in = sorted(path.name for path in (place / "downloads").iterdir())
        assert handed_in == wanted, f"handed in: {handed_in}"
    print(f"handed in: {', '.join(wanted)}; {(time.monotonic() - started) / 60:.1f} minutes")


def _run(command: list[object], **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, **options)


if __name__ == "__main__":
    main()
