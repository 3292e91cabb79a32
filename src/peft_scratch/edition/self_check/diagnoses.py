"""What each mistake is called, what a student is told of it, and where to read: `diagnoses.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Diagnosis:
    """A mistake by name: the sentence for the student, and where to read."""

    sentence: str
    read: str

    def __str__(self) -> str:
        return f"{self.sentence} Read {self.read}."


_SAID = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

DIAGNOSES: dict[str, Diagnosis] = {
    name: Diagnosis(sentence, read) for read, said in _SAID.items() for name, sentence in said.items()
}
