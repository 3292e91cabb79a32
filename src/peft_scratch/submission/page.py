"""The class as an HTML page: a line per student, which opens to show the findings, numbers and curves."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment
from markupsafe import Markup

from peft_scratch.assignment import ALL_POINTS, PARTS, RUNS, SEED_SPREAD, points_outside
from peft_scratch.submission.findings import printable, shown
from peft_scratch.submission.marking import MISSING, Student, proposed, total

_WIDTH, _HEIGHT = 120, 34


def page(rows: list[Student]) -> str:
    """The page. Everything from a submission is escaped, and nothing is loaded from outside."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"printable": printable, "shown": shown, "curve": _curve, "points": _points}
    environment.globals |= {
        **{"proposed": proposed, "total": total, "outside": points_outside, "missing": MISSING},
        **{"parts": PARTS, "runs": RUNS, "all_points": ALL_POINTS, "seed_spread": SEED_SPREAD},
    }
    template = resources.files(__package__).joinpath("page.html.j2").read_text("utf-8")
    return environment.from_string(template).render(students=rows)


def _points(points: float | None) -> str:
    """Halves as people write them: 25, 16.5; a dash where nothing was read."""
    return "–" if points is None else f"{points:g}"


def _curve(values: list[float]) -> Markup:
    """The accuracy after each epoch, at least two of them, as a small line."""
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
