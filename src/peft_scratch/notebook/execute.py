"""Execute the five notebooks and keep what a reader needs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from peft_scratch.errors import UserError
from peft_scratch.experiments.profile_choice import choose_profile
from peft_scratch.files import write_atomically
from peft_scratch.notebook.cleaned import cleaned
from peft_scratch.notebook.front_end import EXECUTED
from peft_scratch.paths import ROOT
from peft_scratch.training.recipe import find_recipe

_INJECTED = "injected-parameters"


def execute_all(profile: str, seed: int, output: Path | None, recipe: str = "fast") -> list[Path]:
    """Execute the notebooks in order; return the executed copies, in `notebooks` of the output folder.

    The offline profile's output folder is the project itself: there the copies replace the notebooks.
    Nothing is written of a notebook that fails.

    Raises:
        UserError: a cell raised one; the notebook and the cell are named.
        RuntimeError: a cell failed otherwise.
    """
    # Only changed parameters are passed on, so that the notebooks of a default run have no extra cell.
    given = {"PROFILE": (profile, "auto"), "SEED": (seed, 0), "RECIPE": (find_recipe(recipe).name, "fast")}
    parameters: dict[str, Any] = {name: value for name, (value, usual) in given.items() if value != usual}
    if output is not None:
        parameters["OUTPUT"] = str(output.absolute())
    choice = choose_profile(profile)
    folder = (output or choice.profile.output) / "notebooks"
    sources = sorted((ROOT / "notebooks").glob("0*.ipynb"))
    written = []
    for number, source in enumerate(sources, start=1):
        print(f"\nNotebook {number} of {len(sources)}: {source.name}", file=sys.stderr, flush=True)
        executed = execute(source, parameters)
        write_atomically(folder / source.name, nbformat.writes(executed) + "\n")
        written.append(folder / source.name)
    return written


def execute(source: Path, parameters: dict[str, Any]) -> NotebookNode:
    """The notebook at `source`, executed with `parameters` and cleaned; nothing is written.

    A progress bar on standard error counts the cells. What the cells print to standard error, such as their
    own bars, is shown too.

    Raises:
        UserError: a cell raised one; the notebook and the cell are named.
        RuntimeError: a cell failed otherwise.
    """
    notebook = nbformat.read(source, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if _INJECTED not in cell.metadata.get("tags", [])]
    os.environ[EXECUTED] = "1"  # the kernel inherits it
    try:
        executed = papermill.execute_notebook(
            notebook,
            None,
            parameters,
            kernel_name="python3",
            kernel_manager_class=_OwnPython,
            language="python",
            # Cells show all that matters; the kernel's own log would only interrupt the bars.
            extra_arguments=["--log-level=CRITICAL"],
            cwd=source.parent,
            stdout_file=_BarsAlone(),
            stderr_file=_Terminal(),
            # Of a progress bar, only the last state is kept.
            coalesce_streams=True,
            record_timing=False,
        )
    except PapermillExecutionError as failure:
        # Papermill also counts the cell that it added.
        number = failure.cell_index + 1 - bool(parameters)
        place = f"{source.name}, cell {number} (`{failure.source.strip().splitlines()[0]}`)"
        if failure.ename == UserError.__name__:
            raise UserError(f"{place}: {failure.evalue}") from None
        raise RuntimeError(f"{place} failed with {failure.ename}: {failure.evalue}") from failure
    except DeadKernelError:
        raise UserError(
            f"{source.name}: the process that ran it died, most often because memory ran out: close other "
            "programs and run again; finished epochs are kept."
        ) from None
    except RuntimeError as problem:  # jupyter_client has no error class of its own for these
        if not re.match(r"Kernel (died before|didn't respond)", str(problem)):
            raise
        raise UserError(
            f"{source.name}: the process that runs it did not start ({problem}): close other programs and "
            "run again; if that does not help, install ipykernel again."
        ) from None
    finally:
        del os.environ[EXECUTED]
    return cleaned(executed)


class _OwnPython(AsyncKernelManager):
    """Runs a notebook in the Python that executes the kit.

    The user may have another kernel called python3, from an environment that lacks the kit or no longer
    exists. Jupyter would prefer that one.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


class _Terminal:
    """Standard error, where two bars write to one line: the kernel's, and papermill's own."""

    def write(self, text: str) -> None:
        # A shorter bar would leave the end of a longer one visible.
        sys.stderr.write(text.replace("\r", "\r\x1b[K") if sys.stderr.isatty() else text)

    def flush(self) -> None:
        sys.stderr.flush()


class _BarsAlone(_Terminal):
    """The terminal for what cells print to standard output, of which only the bars are shown."""

    def write(self, text: str) -> None:
        super().write("".join(line for line in text.split("\n") if "\r" in line))
