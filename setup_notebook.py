"""Add the kit and what it needs to the Python that runs a notebook. Nothing that is installed is changed.

The first cell of every notebook calls `install` if the kit is missing, as on a fresh Colab machine. Only the
standard library is used, because nothing else is sure to be there.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent


class SetupStopped(Exception):
    """Stops the notebook with one sentence instead of a stack trace."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stopped: {self}"]


def install() -> None:
    """Add what is missing with pip, and make the kit importable in this process.

    Installed packages keep their versions: each is a constraint for pip. If the kit asks for another version
    of one, it stays as it is, and a line says so.

    Raises:
        SetupStopped: pip failed.
    """
    started = time.monotonic()
    installed = _installed()
    missing = [line for line in _lines("requirements.txt") if _name(line) not in installed]
    apart = [line for line in _lines("requirements-no-deps.txt") if _name(line) not in installed]
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder) / "keep.txt"
        keep.write_text("".join(f"{name}=={version}\n" for name, version in installed.items()))
        if missing:
            _step(f"adding {', '.join(map(_name, missing))}")
            _pip(*missing, "-c", keep)
    if apart:
        _step(f"adding {', '.join(map(_name, apart))}, without what they ask for")
        _pip("--no-deps", *apart)
    _step("adding the kit")
    _pip("--no-deps", "-e", ROOT)
    # Only the next process would find an editable install.
    sys.path.insert(0, str(ROOT / "src"))
    importlib.invalidate_caches()
    for name, version, wanted in _others(installed):
        print(f"         {name} {version} stays, though the kit was made for {wanted}")
    print(f"  ready  after {time.monotonic() - started:.0f} s; nothing that was installed has changed")


def _step(what: str) -> None:
    print(f"  pip    {what}", flush=True)


def _lines(requirements: str) -> list[str]:
    """The requirements in a file, without comments."""
    lines = (line.partition(" #")[0].strip() for line in (ROOT / requirements).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _name(requirement: str) -> str:
    """The normalised name of the distribution that a requirement asks for."""
    return _normalised(re.match(r"[\w.-]+", requirement)[0])


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed() -> dict[str, str]:
    """Normalised names of the installed distributions, and their versions."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version
        if name and version:  # what a broken uninstall leaves behind has neither
            found.setdefault(_normalised(name), version)  # the first on the path is the one that is imported
    return found


def _others(installed: dict[str, str]) -> list[tuple[str, str, str]]:
    """Installed packages in a version that the requirements do not allow: name, version, allowed versions."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    wanted = [Requirement(line) for line in _lines("requirements.txt")]
    return [
        (r.name, installed[_normalised(r.name)], str(r.specifier))
        for r in wanted
        if _normalised(r.name) in installed
        and not r.specifier.contains(installed[_normalised(r.name)], prereleases=True)
    ]


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        raise SetupStopped(
            "pip could not add the packages above: fix what it reports and run this cell again."
        )
