"""An executed notebook without what matters only on the machine that executed it."""

from __future__ import annotations

import re

import nbformat
from nbformat import NotebookNode

from peft_scratch.home import home
from peft_scratch.paths import ROOT

# A cell may print the path of a file on this machine, but the notebook is read on others.
_ELSEWHERE = [
    (re.compile(re.escape(f"{ROOT}/")), ""),
    *([(re.compile(re.escape(f"{home()}/")), "~/")] if home() else []),
    (re.compile(r"/tmp/ipykernel_\d+/\d+\.py"), "<cell>"),
]
# The rest of a bar that cleared itself: spaces, and a return to the start of the line.
_BLANK_BAR = re.compile(r"^ *\r", re.MULTILINE)
# Kept of a cell's metadata: the tag of the parameters, and that Colab shows the cell folded.
_KEPT = ("tags", "cellView")


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """`notebook` without the traces of its execution: timestamps, dead widgets, paths of this machine."""
    for name in ("papermill", "widgets"):
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        cell.metadata = {name: cell.metadata[name] for name in _KEPT if cell.metadata.get(name)}
        if cell.cell_type != "code":
            continue
        cell.source = _portable(cell.source).strip()
        for output in cell.outputs:
            if "text" in output:
                output.text = _portable(_BLANK_BAR.sub("", output.text))
            for kind, content in output.get("data", {}).items():
                if isinstance(content, str) and kind.startswith("text/"):
                    output.data[kind] = _portable(content)
        cell.outputs = [output for output in cell.outputs if output.get("text", "kept")]
    nbformat.validate(notebook)
    return notebook


def _portable(text: str) -> str:
    for path, name in _ELSEWHERE:
        text = path.sub(name, text)
    return text
