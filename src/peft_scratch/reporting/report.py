"""The report as PDF, in English and in Persian, with its figures, from the JSON of the runs alone."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import typst

from peft_scratch.reporting import figures
from peft_scratch.reporting.content import Block, Student, content
from peft_scratch.reporting.inputs import Inputs
from peft_scratch.reporting.words import LANGUAGES


def build(inputs: Inputs, student: Student) -> dict[str, bytes]:
    """Every file of the report by its name in the folder `report`: PDFs, figures, a picture of page one."""
    files: dict[str, bytes] = {}
    for language in LANGUAGES.values():
        suffix = "" if language.code == "en" else f".{language.code}"
        drawings = figures.draw(inputs.results, inputs.small_data, language)
        said = content(inputs, student, language, drawings)
        files[f"report{suffix}.pdf"] = compile_pdf(said)
        files[f"figures/page1{suffix}.png"] = _compile(_TEMPLATE, said, "png", ppi=110)[0]
        for name, svg in drawings.items():
            files[f"figures/{name}{suffix}.svg"] = svg.encode()
            files[f"figures/{name}{suffix}.png"] = _compile(_PICTURE, {"svg": svg}, "png", ppi=160)[0]
    return files


_TEMPLATE = resources.files("peft_scratch.reporting").joinpath("report.typ").read_bytes()
_PICTURE = (
    b"#set page(width: auto, height: auto, margin: 4pt)\n"
    b'#image(bytes(json(bytes(sys.inputs.report)).svg), format: "svg")\n'
)


def compile_pdf(said: Block) -> bytes:
    """The PDF of what `content` returned; the same bytes for the same content."""
    return _compile(_TEMPLATE, said, "pdf")


def _compile(template: bytes, data: Block, form: str, ppi: float | None = None) -> Any:
    """One document as bytes; as a PNG, a list with a picture of each page."""
    made = typst.compile(
        template,
        format=form,
        ppi=ppi,
        font_paths=[Path(mpl.get_data_path()) / "fonts" / "ttf"],
        ignore_system_fonts=True,
        sys_inputs={"report": json.dumps(data, ensure_ascii=False)},
    )
    return [made] if form == "png" and isinstance(made, bytes) else made
