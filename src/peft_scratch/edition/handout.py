"""The handout: the assignment as a PDF, in English and in Persian, with the constants that the code uses."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

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
from peft_scratch.reporting.languages import LANGUAGES, Language
from peft_scratch.reporting.report import typeset

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
    return typeset(_TEMPLATE, said, form, ppi=90 if form == "png" else None)


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
        "constants": [_constants(words, facts), _runs(words, language), items("traps")],
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
        "alpha": number(RUNS["lora_scratch_r8"].hyperparameters["alpha"]),
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
    names: dict[int, list[str]] = {}
    for blank in BLANKS:
        names.setdefault(blank.notebook, []).append(f"`{blank.name}`")
    rows = [[language.number(notebook), language.join(names[notebook])] for notebook in sorted(names)]
    return _table(words["tasks_head"], rows, 2)


def _constants(words: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("text", "training", "evaluation", "number", "prompt", "adapter", "lora")
    return _table(["", ""], [[words[f"c_{name}"], words[f"v_{name}"].format(**facts)] for name in names], 2)


def _runs(words: Mapping[str, Any], language: Language) -> dict[str, Any]:
    rows = [
        [
            language.run(run.id),
            language.number(run.notebook),
            language.rate(run.learning_rate),
            language.range(*(language.number(end, 1) for end in run.published)),
        ]
        for run in RUNS.values()
    ]
    return _table(words["runs_head"], rows, 1)


def _entries(words: Mapping[str, Any], course: Course) -> dict[str, Any]:
    rows = [
        ["" if place else f"`{file}`", f"`{end.format(marker=course.marker)}`", f"`{shape}`"]
        for file in WEIGHT_FILES
        for place, (end, shape) in enumerate(_ENTRIES[file])
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
