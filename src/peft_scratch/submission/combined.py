"""Several of the five notebooks in one file: where each of its methods begins."""

from __future__ import annotations

import re

from peft_scratch.submission.cells import Cell
from peft_scratch.submission.outputs import shows_any_number

#: What a cell is about, by words of code and headings.
ABOUT = {
    5: re.compile(r"(?<![a-z])lora", re.IGNORECASE),
    2: re.compile(r"soft_?\s?prompt|prompt_(?:emb|tuning)|soft_token", re.IGNORECASE),
    3: re.compile(r"adapter|bottleneck", re.IGNORECASE),
}
#: A method has a part of its own if the code of that part says its words this often, in this many cells, and
#: shows a number.
_FEWEST_WORDS, _FEWEST_CELLS = 4, 2


def split(cells: list[Cell]) -> list[list[Cell]]:
    """The cells by the method that they are about; one list if the file is about one.

    A cell that speaks of no method, or of several alike, goes with those before it. What comes before the
    first method is a part of its own if it trains something: full fine-tuning.
    """
    parts: list[tuple[int, list[Cell]]] = [(0, [])]
    for cell in cells:
        about = _about(cell)
        if about not in (0, parts[-1][0]):
            parts.append((about, []))
        parts[-1][1].append(cell)
    parts = _without_small(parts)
    if len({about for about, _ in parts if about}) < 2:
        return [cells]
    if len(parts) > 1 and parts[0][0] == 0 and not _trains(parts[0][1]):
        parts[1][1][:0] = parts.pop(0)[1]
    return [inside for _, inside in parts]


def _about(cell: Cell) -> int:
    text = cell.source
    if cell.kind != "code":
        text = "\n".join(line for line in text.splitlines() if line.lstrip().startswith("#"))
    said = {number: len(pattern.findall(text)) for number, pattern in ABOUT.items()}
    most = max(said, key=lambda number: said[number])
    return most if said[most] and list(said.values()).count(said[most]) == 1 else 0


def _without_small(parts: list[tuple[int, list[Cell]]]) -> list[tuple[int, list[Cell]]]:
    """Parts with little code go with what stands before them; neighbours of one method are one part."""
    kept: list[tuple[int, list[Cell]]] = []
    for about, inside in parts:
        code = [cell for cell in inside if cell.kind == "code"]
        words = sum(len(ABOUT[about].findall(cell.source)) for cell in code) if about else 0
        small = about and (words < _FEWEST_WORDS or len(code) < _FEWEST_CELLS or not shows_any_number(inside))
        if kept and (small or kept[-1][0] == about):
            kept[-1][1].extend(inside)
        elif small:
            kept.append((0, inside))
        elif inside:
            kept.append((about, inside))
    return kept


def _trains(cells: list[Cell]) -> bool:
    return any(re.search(r"\.backward\(|\.train\(|Trainer\(", cell.source) for cell in cells) and any(
        cell.outputs for cell in cells
    )
