"""Which of the five notebooks a file holds: by its name, its code and its headings. It may hold several."""

from __future__ import annotations

import re

from peft_scratch.submission import own_notebooks
from peft_scratch.submission.cells import Cell
from peft_scratch.submission.outputs import shows_any_number

#: The words that code and headings about a method use, by the number of its notebook.
_ABOUT = {
    5: re.compile(r"(?<![a-z])lora", re.IGNORECASE),
    2: re.compile(r"soft_?\s?prompt|prompt_(?:emb|tuning)|soft_token", re.IGNORECASE),
    3: re.compile(r"adapter|bottleneck", re.IGNORECASE),
}
#: A method has a part of its own if that part shows a number and has at least this many words of the method
#: and this many cells of code.
_FEWEST_WORDS, _FEWEST_CELLS = 4, 2
#: Calls of AdapterHub, and an adapter of one's own.
ADAPTER_HUB = re.compile(
    r"SeqBn|PfeifferConfig|HoulsbyConfig|AdapterTrainer|AdapterConfig|\badapters\.init|train_adapter|add_adapter"
)
_OWN_ADAPTER = re.compile(r"class \w*(?:adapter|bottleneck)\w*\s*\(\s*(?:\w+\.)*Module", re.IGNORECASE)
#: Every notebook of the assignment contains one of these, whatever the file is called.
_OF_THE_ASSIGNMENT = re.compile(
    rf"t5|imdb|sharif_llm|peft|{'|'.join(about.pattern for about in _ABOUT.values())}", re.IGNORECASE
)
#: Words in a file's name and the notebook that they mean, the surest first. None: the digit is the number.
_NAMED = [
    (re.compile(words, re.IGNORECASE), number)
    for words, number in (
        (r"adapter[\s_-]*(?:hub|lib)", 4),
        (r"(?:^|\D)0?([1-5])(?=\D|$)", None),
        *(("lora", 5), ("prompt", 2), ("hub|lib", 4), ("adapter", 3), ("full|fine", 1)),
    )
]


def named_number(name: str) -> int | None:
    """The number of the notebook that a file's name names.

    >>> named_number("04_AdapterHub (1).ipynb"), named_number("02_Soft Prompt.ipynb")
    (4, 2)
    """
    stem = re.sub(r"\(\d+\)|\d{5,}|(?i:hw|homework|part|تمرین)[\s_-]*\d+", "", name.rpartition(".")[0])
    for pattern, number in _NAMED:
        if found := pattern.search(stem):
            return number or int(found[1])
    return None


def parts_of(cells: list[Cell], name: str) -> list[tuple[int, list[Cell]]]:
    """The notebooks of the assignment in a file, each with its number; none if it is about something else."""
    parts = [cells] if own_notebooks.number_of(cells) is not None else _split(cells)
    named = named_number(name) if len(parts) == 1 else None
    if named is None and not _OF_THE_ASSIGNMENT.search(" ".join(cell.source for cell in cells)):
        return []
    return [(_number(named, part), part) for part in parts]


def _number(named: int | None, cells: list[Cell]) -> int:
    """Which of the five it is: by the kit's results, or else by name and content together."""
    if (own := own_notebooks.number_of(cells)) is not None:
        return own
    code = "\n".join(cell.source for cell in cells if cell.kind == "code")
    if named is None and max(_words(code).values()) < 2:
        return 1  # its text may mention the other methods, but its code does not use them
    said = _words(code + "\n".join(cell.source for cell in cells if cell.kind == "markdown"))
    most = max(said, key=lambda number: said[number])
    if said[most] < 2:
        return named or 1
    hub, own_class = bool(ADAPTER_HUB.search(code)), bool(_OWN_ADAPTER.search(code))
    if most == 3 and hub != own_class:
        most = 4 if hub else 3
    elif most == 3:
        most = named if named in (3, 4) else 3
    if named in (None, most) or {named, most} == {3, 4}:
        return most
    # A name is believed unless the content speaks much more of another method.
    return named if said.get(3 if named == 4 else named, 4) * 2 >= said[most] else most


def _words(text: str) -> dict[int, int]:
    """How often a text names each method."""
    return {number: len(about.findall(text)) for number, about in _ABOUT.items()}


def _split(cells: list[Cell]) -> list[list[Cell]]:
    """The cells in parts, one part for each method that the file is about.

    A cell that names no method, or several equally often, goes with those before it. The cells before the
    first method are a part of their own if they train something, which is then full fine-tuning.
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
    if parts[0][0] == 0 and not _trains(parts[0][1]):
        parts[1][1][:0] = parts.pop(0)[1]
    return [inside for _, inside in parts]


def _about(cell: Cell) -> int:
    text = cell.source
    if cell.kind != "code":
        text = "\n".join(line for line in text.splitlines() if line.lstrip().startswith("#"))
    said = _words(text)
    most = max(said, key=lambda number: said[number])
    return most if said[most] and list(said.values()).count(said[most]) == 1 else 0


def _without_small(parts: list[tuple[int, list[Cell]]]) -> list[tuple[int, list[Cell]]]:
    """Parts with little code join the part before them; neighbours about the same method become one part."""
    kept: list[tuple[int, list[Cell]]] = []
    for about, inside in parts:
        code = [cell for cell in inside if cell.kind == "code"]
        words = sum(_words(cell.source)[about] for cell in code) if about else 0
        small = about and (words < _FEWEST_WORDS or len(code) < _FEWEST_CELLS or not shows_any_number(inside))
        if kept and (small or kept[-1][0] == about):
            kept[-1][1].extend(inside)
        elif inside:
            kept.append((0 if small else about, inside))
    return kept


def _trains(cells: list[Cell]) -> bool:
    code = "\n".join(cell.source for cell in cells)
    return bool(re.search(r"\.backward\(|\.train\(|Trainer\(", code)) and any(cell.outputs for cell in cells)
