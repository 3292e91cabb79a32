"""Install the kit into the Python that runs a notebook, and leave its torch and its kernel alone.

The first cell of every notebook calls `install` where the kit is missing, as in a fresh Colab
runtime. Standard library only: at that point nothing else can be relied upon.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# Stay in the version that is there: torch, which is built for the GPU, and what runs the notebook itself,
# without which, in another version, a Colab runtime may not come back after a restart.
KEPT = ("torch", "ipykernel", "ipython", "jupyter-client", "prompt-toolkit", "pyzmq", "tornado")


class SetupStopped(Exception):
    """Stops the notebook with one sentence in place of a stack trace."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stopped: {self}"]


def install() -> None:
    """Install requirements and kit with pip, and make the kit importable in this very process.

    Raises:
        SetupStopped: pip failed, or it replaced something that this process has imported already,
            so that the runtime must be restarted.
    """
    before = _imported()
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder) / "keep.txt"
        keep.write_text(_pins())
        print("Installing what the notebook needs; this takes a few minutes.", flush=True)
        _pip("-r", ROOT / "requirements.txt", "-c", keep)
    _pip("--no-deps", "-r", ROOT / "requirements-no-deps.txt")
    _pip("--no-deps", "-e", ROOT)
    # An editable install is seen by the next process only.
    sys.path.insert(0, str(ROOT / "src"))
    importlib.invalidate_caches()
    replaced = sorted(name for name, version in before.items() if _version(name) != version)
    if replaced:
        raise SetupStopped(
            f"{', '.join(replaced)} had been imported in another version: restart the runtime (in Colab: "
            "Runtime > Restart session; in Jupyter: Kernel > Restart Kernel) and run the notebook again "
            "from its first cell."
        )
    print("Ready.")


def _pins() -> str:
    """Constraints that keep what is installed of `KEPT`."""
    versions = {name: _version(name) for name in KEPT}
    return "".join(f"{name}=={version}\n" for name, version in versions.items() if version)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _imported() -> dict[str, str | None]:
    """Installed versions of the distributions of which this process has imported something."""
    owners = metadata.packages_distributions()
    return {owner: _version(owner) for module in list(sys.modules) for owner in owners.get(module, ())}


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        raise SetupStopped(
            "pip could not install the packages above: fix what it reports and run this cell again."
        )
