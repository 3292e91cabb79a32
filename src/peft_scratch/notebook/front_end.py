"""Where a notebook is open (Colab, JupyterLab, VS Code, or executed by the kit), and how its file is read."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import nbformat
from IPython import get_ipython
from IPython.display import FileLink, display
from nbformat import NotebookNode

from peft_scratch.errors import UserError
from peft_scratch.paths import DRIVE

#: Set by `peft-scratch notebooks`, which keeps the notebooks itself.
EXECUTED = "PEFT_SCRATCH_EXECUTES"

# When the previous cell ended.
_ended = 0.0


def in_colab() -> bool:
    """Whether this is a machine of Google Colab."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # there is not even a package `google`
        return False


def on_kaggle() -> bool:
    """Whether this is a machine of Kaggle."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def executed_by_the_kit() -> bool:
    """Whether `peft-scratch notebooks` (so also `make run`) executes this notebook."""
    return EXECUTED in os.environ


def mount_drive() -> None:
    """Mount Google Drive, for which Colab asks the user's permission.

    Raises:
        UserError: it was not mounted.
    """
    if DRIVE.is_mount():
        return
    from google.colab import drive

    print("Mounting Google Drive: Colab asks for your permission.", flush=True)
    try:
        drive.mount(str(DRIVE))
    except Exception as problem:  # Colab raises a ValueError or an error of its own
        raise UserError(
            f"Google Drive was not mounted ({problem}): run this cell again and allow it, or set "
            "DRIVE = False in the parameters and download this notebook's part at its end."
        ) from None


def watch() -> None:
    """Note when each cell ends, so that `document` can recognise a file that is older than the run."""
    shell = get_ipython()
    if shell is not None and _note not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", _note)


def _note(*_: object) -> None:
    global _ended
    _ended = time.time()


def document() -> NotebookNode:
    """This notebook as it is now, with the outputs of the cells before.

    Raises:
        UserError: it cannot be read, or its file is older than the run; the message says what to do.
    """
    if in_colab():
        return _from_colab()
    path = _path()
    if path is None:
        raise UserError("This front end does not say where the notebook's file is.")
    if not path.is_file():
        raise UserError(f"{path.name} is not there; after renaming a notebook, restart its kernel.")
    if path.stat().st_mtime < _ended:
        raise UserError(
            f"{path.name} on the disk is older than this run: save the notebook (Ctrl+S, on a Mac Cmd+S), "
            "then run this cell again."
        )
    return nbformat.read(path, as_version=4)


def _path() -> Path | None:
    shell = get_ipython()
    # VS Code gives the path of the notebook in a variable, jupyter_server in the kernel's environment.
    named = (shell.user_ns if shell else {}).get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    return Path(named) if named and str(named).endswith(".ipynb") else None


def _from_colab() -> NotebookNode:
    try:
        # Private, so it may disappear; there is no other way to Colab's document.
        from google.colab import _message

        answer = _message.blocking_request("get_ipynb", request="", timeout_sec=30)
        return nbformat.reads(json.dumps(answer["ipynb"]), as_version=4)
    except Exception as problem:  # a private function can fail in any way
        raise UserError(f"Colab did not give this notebook's document ({type(problem).__name__}).") from None


def ask(question: str) -> str | None:
    """What the user types, or `None` if nobody can be asked."""
    from IPython.core.error import StdinNotImplementedError

    if executed_by_the_kit() or get_ipython() is None:
        return None
    with suppress(StdinNotImplementedError, EOFError):
        return input(question).strip()
    return None


def offer(paths: list[Path]) -> None:
    """Offer files to the user: as downloads in Colab, as links elsewhere."""
    if in_colab():
        from google.colab import files

        for path in paths:
            print(f"Downloading {path.name}; it is also in {path.parent}.")
            files.download(str(path))
        return
    for path in paths:
        link = os.path.relpath(path)
        if get_ipython() is None:
            print(link)
        else:
            display(FileLink(link))
