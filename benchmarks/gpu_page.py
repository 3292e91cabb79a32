"""The page of one GPU, from its JSON alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd


def page(parts: dict[str, Any]) -> str:
    """The page as Markdown. For a missing part it says why it is missing."""
    machine = parts["machine"]["found"]
    text = [
        f"# {machine['card']}",
        f"torch {machine['versions'].get('torch')}, transformers {machine['versions'].get('transformers')}, "
        f"Python {machine['python']}; the fast recipe works in {machine['precision']} here.",
    ]
    for name, (title, show) in _SECTIONS.items():
        part = parts.get(name, {"left_out": "it was not reached"})
        text.append(f"## {title}")
        text.append(show(part["found"]) if "found" in part else _why(part))
    return "\n\n".join(text) + "\n"


def _why(part: dict[str, Any]) -> str:
    return f"Not measured: {part.get('failed') or part.get('left_out')}."


def _table(rows: list[dict[str, Any]], digits: str = ".2g") -> str:
    frame = pd.DataFrame(rows).fillna("")
    return frame.to_markdown(index=False, floatfmt=digits)


def _speed(rows: list[dict[str, Any]]) -> str:
    shown = [
        {
            "method": row["method"],
            "by": row["by"],
            "a step, ms": row.get("failed")
            or "{median:.1f} ({q1:.1f}-{q3:.1f})".format(
                **{key: 1000 * row["step_seconds"][key] for key in ("median", "q1", "q3")}
            ),
            "peak memory, MiB": round(row["peak_bytes"] / 2**20) if row.get("peak_bytes") else "",
        }
        for row in rows
    ]
    return _table(shown)


def _projection(found: dict[str, Any]) -> str:
    lines = [
        f"The products of the ten runs are {found['operations']['all'] / 1e15:.0f} PFLOP, counted.",
        *(f"By measured steps, recipe `{name}`: {hours:.1f} h." for name, hours in found["hours"].items()),
    ]
    for card, limits in found["limits"].items():
        for kind, hours in limits.items():
            told = ", ".join(f"{float(share):.0%}: {value:.1f} h" for share, value in hours.items())
            lines.append(f"Limit of a {card}, {kind} precision, by share of its data sheet's speed: {told}.")
    return "\n\n".join(lines)


def _numbers(rows: list[dict[str, Any]]) -> str:
    shown = [
        {
            "run": row["run"],
            "best, %": f"{100 * row['accuracy']:.1f}" if "accuracy" in row else row["failed"],
            "seconds": round(row["seconds"]) if "seconds" in row else "",
            "differ from generation": row["generation"]["differ"] if "generation" in row else "",
            "skipped steps": sum(row.get("skipped_steps", [])),
        }
        for row in rows
    ]
    return _table(shown)


_SECTIONS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "correctness": ("Against float64: relative errors", _table),
    "attention": ("The fused attention against plain products: relative errors", _table),
    "speed": ("A training step", _speed),
    "projection": ("Hours for the assignment", _projection),
    "ten_numbers": ("The ten runs of the offline profile", _numbers),
}
