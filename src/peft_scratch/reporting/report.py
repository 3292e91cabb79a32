"""The report as PDF, in English and in Persian, with its figures, from the JSON of the runs alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import typst

from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.reporting import figures
from peft_scratch.reporting.content import Student, content
from peft_scratch.reporting.figures.style import FONTS
from peft_scratch.reporting.inputs import Inputs, read
from peft_scratch.reporting.languages import LANGUAGES, Language
from peft_scratch.reporting.sections.blocks import Block


def write(output: Path, student: Student, language: str = "") -> list[Path]:
    """Write the report of the results in an output folder into its folder `report`.

    Args:
        language: the code of the one language to write. The report of the other is then removed, so that
            this one is packed. By default both are written, and the English one is packed.

    Returns:
        The PDFs.

    Raises:
        UserError: there is no result, a file is not what it should be, or there is no such language.
    """
    if language and language not in LANGUAGES:
        raise UserError(f"There is no report in {language!r}; choose one of {', '.join(LANGUAGES)}.")
    folder = output / "report"
    files = build(read(output), student, [LANGUAGES[language]] if language else LANGUAGES.values())
    for name, data in files.items():
        write_atomically(folder / name, data)
    for other in LANGUAGES.values():
        if language and other.code != language:
            (folder / file_name(other)).unlink(missing_ok=True)
    return [folder / name for name in files if name.endswith(".pdf")]


def file_name(language: Language) -> str:
    """The PDF's name: `report.pdf`, `report.fa.pdf`."""
    return f"report{language.suffix}.pdf"


def build(
    inputs: Inputs, student: Student, languages: Iterable[Language] = tuple(LANGUAGES.values())
) -> dict[str, bytes]:
    """Every file of the report by its name in the folder `report`: PDFs, figures, a picture of page one."""
    files: dict[str, bytes] = {}
    for language in languages:
        drawings = figures.draw(inputs, language)
        said = content(inputs, student, language, drawings)
        files[file_name(language)] = compile_pdf(said)
        files[f"figures/page1{language.suffix}.png"] = typeset(_TEMPLATE, said, "png", ppi=110)[0]
        for name, svg in drawings.items():
            files[f"figures/{name}{language.suffix}.svg"] = svg.encode()
            picture = typeset(_PICTURE, {"svg": svg}, "png", ppi=160)[0]
            files[f"figures/{name}{language.suffix}.png"] = picture
    return files


_TEMPLATE = resources.files("peft_scratch.reporting").joinpath("report.typ").read_bytes()
_PICTURE = (
    b"#set page(width: auto, height: auto, margin: 4pt)\n"
    b'#image(bytes(json(bytes(sys.inputs.said)).svg), format: "svg")\n'
)


def compile_pdf(said: Block) -> bytes:
    """The PDF of what `content` returned; the same bytes for the same content."""
    return typeset(_TEMPLATE, said)


def typeset(template: bytes, said: Mapping[str, Any], form: str = "pdf", ppi: float | None = None) -> Any:
    """The document that `template` makes of `said`, as bytes; as PNG, a list with a picture of each page."""
    made = typst.compile(
        template,
        format=form,
        ppi=ppi,
        font_paths=[Path(mpl.get_data_path()) / "fonts" / "ttf", FONTS],
        ignore_system_fonts=True,
        sys_inputs={"said": json.dumps(said, ensure_ascii=False)},
    )
    return [made] if form == "png" and isinstance(made, bytes) else made
