"""The class as an HTML page to read: a line per student that opens to the findings, numbers and curves."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from peft_scratch.assignment import ALL_POINTS, PARTS, RUNS, SEED_SPREAD, points_outside
from peft_scratch.submission.findings import ERROR, LOOK, OK, printable, shown
from peft_scratch.submission.marking import MISSING, Student, proposed, total

_WIDTH, _HEIGHT = 120, 34


def page(rows: list[Student]) -> str:
    """The page. All that submissions hold is escaped; it asks for nothing from outside."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        resources.files(__package__).joinpath("page.html.j2").read_text("utf-8")
    )
    return template.render(students=[_student(row) for row in rows], all_points=ALL_POINTS, parts=_parts())


def _parts() -> list[str]:
    return [item.title for item in PARTS.values() if item.points]


def _student(row: Student) -> dict[str, Any]:
    checked = row.checked
    if checked is None:
        return {"title": row.title, "verdict": MISSING, "remarks": row.remarks, "copies": [], "missing": True}
    parts = []
    for key, item in PARTS.items():
        found = [
            {
                "mark": one.mark,
                "kind": {ERROR: "error", LOOK: "look", OK: "right"}[one.mark],
                "text": printable(one.text),
                "fix": printable(one.fix),
            }
            for one in shown(checked.of(key))
        ]
        parts.append(
            {
                "title": item.title,
                "short": item.title.partition(",")[0],
                "all": item.points,
                "points": _points(proposed(checked, key)),
                "findings": found,
            }
        )
    return {
        "title": row.title,
        "submission": printable(checked.name),
        "verdict": checked.verdict,
        "points": _points(total(checked)),
        "errors": len(checked.marked(ERROR)),
        "looks": len(checked.marked(LOOK)),
        "remarks": [printable(one) for one in row.remarks],
        "copies": [printable(one) for one in row.copies],
        "parts": parts,
        "numbers": [
            _number(run.id, checked.numbers.get(run.id), checked.curves.get(run.id)) for run in RUNS.values()
        ],
    }


def _points(points: float | None) -> str | None:
    """Halves as people write them: 25, 16.5."""
    return None if points is None else f"{points:g}"


def _number(run: str, percent: float | None, curve: list[float] | None) -> dict[str, Any]:
    low, high = RUNS[run].published
    far = percent is not None and points_outside(run, percent) > SEED_SPREAD
    return {
        "title": RUNS[run].title,
        "percent": None if percent is None else f"{percent:.1f}",
        "published": f"{low:.1f} to {high:.1f}",
        "far": far,
        "curve": _curve(curve[:100]) if curve and len(curve) > 1 else "",
    }


def _curve(values: Iterable[float]) -> Markup:
    """The accuracy after each epoch as a small line."""
    values = list(values)
    low, high = min(values), max(values)
    step = (_WIDTH - 4) / (len(values) - 1)
    scale = (_HEIGHT - 6) / ((high - low) or 1)
    points = " ".join(
        f"{2 + n * step:.1f},{_HEIGHT - 3 - (value - low) * scale:.1f}" for n, value in enumerate(values)
    )
    label = f"{len(values)} epochs, {low:.1f} to {high:.1f} %"
    return Markup(
        '<svg width="{w}" height="{h}" role="img" aria-label="{l}"><title>{l}</title>'
        '<polyline fill="none" stroke="currentColor" stroke-width="1.5" points="{p}"/></svg>'
    ).format(w=_WIDTH, h=_HEIGHT, l=label, p=points)
