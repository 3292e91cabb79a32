"""A notebook opened and run by hand, cell by cell, in a kernel of its own, as JupyterLab or Colab do it."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from nbformat.v4 import output_from_msg


class CellFailed(Exception):
    """A cell raised; the message has its first line, what was raised, and what was printed before."""


class OpenNotebook:
    """The notebook at `path`, open in a front end.

    Attributes:
        document: the notebook as the front end shows it, with the outputs so far; `save` writes it to `path`.
        answers: by a part of the question, what is typed when a cell asks for input.
        live: where the page's document is written before each cell, for a stand-in of Colab.
    """

    def __init__(
        self,
        path: Path,
        python: str,
        env: dict[str, str],
        answers: dict[str, str] | None = None,
        live: Path | None = None,
    ) -> None:
        self.path, self.python, self.env = path, python, env
        self.answers, self.live = answers or {}, live
        self.document = nbformat.read(path, as_version=4)
        for cell in self.code:
            cell.outputs, cell.execution_count = [], None
        self._start()

    @property
    def code(self) -> list[nbformat.NotebookNode]:
        """The code cells."""
        return [cell for cell in self.document.cells if cell.cell_type == "code"]

    def set_parameter(self, name: str, value: object) -> None:
        """Type another value into the parameters cell."""
        (cell,) = [cell for cell in self.code if "parameters" in cell.metadata.get("tags", [])]
        lines = [
            f"{name} = {value!r}" if line.startswith(f"{name} = ") else line
            for line in cell.source.split("\n")
        ]
        assert cell.source.split("\n") != lines
        cell.source = "\n".join(lines)

    def run_all(self, until: str = "") -> None:
        """Run the cells in order, up to the first that contains `until` if it is given, without that one."""
        for cell in self.code:
            if until and until in cell.source:
                return
            self.run(cell)

    def find(self, text: str) -> nbformat.NotebookNode:
        """The last code cell that contains `text`."""
        return [cell for cell in self.code if text in cell.source][-1]

    def run(self, cell: nbformat.NotebookNode, watch: Callable[[str], None] = lambda text: None) -> str:
        """Run a cell; return the text that it prints.

        Args:
            watch: gets each piece of text as it comes, and may interrupt.

        Raises:
            CellFailed: the cell raised.
        """
        cell.outputs, cell.execution_count = [], None
        if self.live:
            nbformat.write(self.document, self.live)

        def hear(message: dict) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind == "execute_input":
                cell.execution_count = content["execution_count"]
            elif kind == "stream" and cell.outputs and cell.outputs[-1].get("name") == content["name"]:
                cell.outputs[-1].text += content["text"]
                watch(content["text"])
            elif kind in ("stream", "display_data", "execute_result", "error"):
                cell.outputs.append(output_from_msg(message))
                watch(content.get("text", ""))

        def answer(message: dict) -> None:
            question = message["content"]["prompt"]
            self.client.input(next(text for part, text in self.answers.items() if part in question))

        reply = self.client.execute_interactive(
            cell.source, allow_stdin=True, output_hook=hear, stdin_hook=answer, timeout=900
        )["content"]
        if reply["status"] != "ok":
            text = f"{cell.source.splitlines()[0]}: {reply.get('ename')}: {reply.get('evalue')}"
            printed = "".join(output.get("text", "") for output in cell.outputs)
            raise CellFailed(f"{self.path.name}: {text}\n{printed[-2000:]}")
        return "".join(output.get("text", "") for output in cell.outputs)

    def save(self) -> None:
        """Save the document, as Ctrl+S does."""
        nbformat.write(self.document, self.path)

    def interrupt(self) -> None:
        """Press the button that stops the cell."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        """Restart the kernel; the outputs stay."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def _start(self) -> None:
        self.manager = KernelManager()
        self.manager.kernel_spec.argv = [
            *(self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
            "--log-level=CRITICAL",
        ]
        self.manager.start_kernel(cwd=str(self.path.parent), env={**os.environ, **self.env})
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=120)
        except (RuntimeError, queue.Empty):
            self.close()
            raise


def results_output(notebook: nbformat.NotebookNode) -> dict:
    """The results for programs that a notebook displays."""
    name = "application/vnd.peft-scratch.results+json"
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    (found,) = [out.data[name] for out in outputs if name in out.get("data", {})]
    return found
