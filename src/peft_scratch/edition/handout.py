"""The handout: the assignment as a PDF, in English and in Persian, with the constants that the code uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import typst

from peft_scratch.assignment import (
    ALL_POINTS,
    LABEL_WORDS,
    MAX_LENGTH,
    PARTS,
    PRINT_A_COUNT,
    PROFILES,
    REPORT,
    RUNS,
    WEIGHT_FILES,
)
from peft_scratch.course import Course
from peft_scratch.edition.blanks import BLANKS
from peft_scratch.edition.handout_texts import TEXTS
from peft_scratch.errors import UserError
from peft_scratch.reporting.figures.style import FONTS
from peft_scratch.reporting.languages import LANGUAGES, Language

_TEMPLATE = resources.files("peft_scratch.edition").joinpath("handout.typ").read_bytes()

#: Ends of the keys and shapes of each weight file, in the letters of the handout.
_ENTRIES = {
    "prompts.pt": (("{marker}_soft_prompts.prompt_emb", "(N, d)"),),
    "adapter.pt": (
        ("{marker}_adapter.0.weight", "(b, d)"),
        ("{marker}_adapter.0.bias", "(b)"),
        ("{marker}_adapter.2.weight", "(d, b)"),
        ("{marker}_adapter.2.bias", "(d)"),
    ),
    "lora.pt": (("{marker}_A", "(d, r)"), ("{marker}_B", "(r, d')")),
}


def build(course: Course) -> dict[str, bytes]:
    """The PDFs by the end of their name: empty for English, `.fa` for Persian."""
    return {language.suffix: pdf(content(course, language)) for language in LANGUAGES.values()}


def pdf(said: Mapping[str, Any], form: str = "pdf") -> Any:
    """What `content` returned as a PDF; the same bytes for the same content. As PNG, a list of pages."""
    made = typst.compile(
        _TEMPLATE,
        format=form,
        ppi=90 if form == "png" else None,
        font_paths=[Path(mpl.get_data_path()) / "fonts" / "ttf", FONTS],
        ignore_system_fonts=True,
        sys_inputs={"handout": json.dumps(said, ensure_ascii=False)},
    )
    return [made] if form == "png" and isinstance(made, bytes) else made


def content(course: Course, language: Language) -> dict[str, Any]:
    """All that the handout says, as data: sections of texts, lists and tables."""
    words = TEXTS[language.code]
    facts = _facts(course, language)

    def text(name: str) -> dict[str, Any]:
        return {"kind": "text", "text": words[name].format(**facts)}

    def items(name: str) -> dict[str, Any]:
        return {"kind": "list", "items": [item.format(**facts) for item in words[name]]}

    own = [{"kind": "text", "text": course.text[language.code]}] if course.text.get(language.code) else []
    sections = {
        "task": [text("task"), items("task_items"), *own],
        "yours": [text("yours"), _tasks(words, language), text("check")],
        "constants": [_constants(words, language), _runs(words, language), items("traps")],
        "files": [text("files"), _entries(words, course), text("zips")],
        "parameters": [text("parameters")],
        "report": [text("report"), items("report_items")],
        "points": [text("points"), _points(words, language), text("honesty")],
    }
    return {
        "language": language.code,
        "title": course.title.get(language.code) or words["title"],
        "author": course.lecturer,
        "head": _head(course, words, language),
        "sections": [{"heading": words[f"h_{name}"], "blocks": blocks} for name, blocks in sections.items()],
    }


def _head(course: Course, words: Mapping[str, Any], language: Language) -> list[str]:
    deadline = course.deadline and words["deadline"].format(
        day=language.numeral(course.deadline.isoformat().replace("-", "/"))
    )
    return [part for part in (course.lecturer, course.term, deadline) if part]


def _facts(course: Course, language: Language) -> dict[str, Any]:
    profile = PROFILES["course"]
    number = language.number
    return {
        "negative": f"`{LABEL_WORDS[0]}`",
        "positive": f"`{LABEL_WORDS[1]}`",
        "epochs": number(profile.epochs),
        "batch": number(profile.batch_size),
        "tokens": number(profile.max_tokens),
        "generated": number(MAX_LENGTH),
        "runs": number(len(RUNS)),
        "notebooks": number(len(PARTS) - 2),
        "marker": f"`{course.marker}`",
        "counting": language.join(number(n) for n in PRINT_A_COUNT),
        "all_points": number(ALL_POINTS),
        "bonus": number(max(ALL_POINTS - 100, 0)),
        "seed": TEXTS[language.code]["seed_own" if course.seed_per_student else "seed_zero"],
    }


def _table(head: list[str], rows: list[list[str]], text_columns: int) -> dict[str, Any]:
    return {"kind": "table", "head": head, "rows": rows, "text_columns": text_columns}


def _tasks(words: Mapping[str, Any], language: Language) -> dict[str, Any]:
    rows = []
    for notebook in sorted({blank.notebook for blank in BLANKS}):
        here = [blank for blank in BLANKS if blank.notebook == notebook]
        names = "، " if language.code == "fa" else ", "
        rows.append(
            [
                language.number(notebook),
                names.join(f"`{blank.name}`" for blank in here),
            ]
        )
    return _table(words["tasks_head"], rows, 2)


def _constants(words: Mapping[str, Any], language: Language) -> dict[str, Any]:
    profile, number = PROFILES["course"], language.number
    values = {
        "text": words["v_text"].format(tokens=number(profile.max_tokens)),
        "training": words["v_training"].format(
            epochs=number(profile.epochs), batch=number(profile.batch_size)
        ),
        "evaluation": words["v_evaluation"].format(generated=number(MAX_LENGTH)),
        "number": words["v_number"],
        "prompt": words["v_prompt"],
        "adapter": words["v_adapter"],
        "lora": words["v_lora"].format(alpha=number(RUNS["lora_scratch_r8"].hyperparameters["alpha"])),
    }
    return _table(["", ""], [[words[f"c_{name}"], value] for name, value in values.items()], 2)


def _runs(words: Mapping[str, Any], language: Language) -> dict[str, Any]:
    rows = [
        [
            language.run(run.id),
            language.number(run.notebook),
            language.rate(run.learning_rate),
            words["range"].format(*(language.number(end, 1) for end in run.published)),
        ]
        for run in RUNS.values()
    ]
    return _table(words["runs_head"], rows, 1)


def _entries(words: Mapping[str, Any], course: Course) -> dict[str, Any]:
    rows = [
        [f"`{file}`" if first else "", f"`{end.format(marker=course.marker)}`", f"`{shape}`"]
        for file in WEIGHT_FILES
        for first, (end, shape) in ((i == 0, entry) for i, entry in enumerate(_ENTRIES[file]))
    ]
    return _table(words["entries_head"], rows, 3)


def _points(words: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """The points of each part: for code in `layers.py`, for the rest, and in all.

    Raises:
        UserError: course.toml gives a notebook fewer points than its code.
    """
    rows, number = [], language.number
    for part, points in ((part, PARTS[part].points) for part in PARTS if PARTS[part].points):
        code = sum(blank.points for blank in BLANKS if blank.notebook == part)
        if code > points:
            raise UserError(f"course.toml, points: notebook {part} has {code} points for its code alone.")
        name = words["report_part"] if part == REPORT else words["notebook_part"].format(number(part))
        rows.append([name, number(code) if code else "", number(points - code), number(points)])
    return _table(words["points_head"], [*rows, [words["sum"], "", "", number(ALL_POINTS)]], 1)
