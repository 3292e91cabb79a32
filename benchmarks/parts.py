"""The parts of the results' JSON, written as soon as a row is measured; and summaries of samples."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from peft_scratch.experiments.environment import environment
from peft_scratch.results import write_json
from peft_scratch.training.recipe import RECIPES

Row = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """All parts in the file, by name."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class Part:
    """One part of the JSON at `path`; the others are left as they are.

    Each row is on the disk when `add` returns, so an interruption loses the row that was being measured.
    """

    def __init__(self, path: Path, name: str, settings: dict[str, Any], resume: bool = False) -> None:
        """Start the part again; or, with `resume`, keep its rows if they were made with the same settings."""
        self._path, self._name = path, name
        self._settings = json.loads(json.dumps(settings))
        before = read(path).get(name, {})
        keep = resume and before.get("settings") == self._settings
        self.rows: list[Row] = before["rows"] if keep else []
        self._more: dict[str, Any] = {}

    def add(self, row: Row) -> None:
        """Add `row`, write it, and print it."""
        self.rows.append(row)
        self._write()
        print(
            f"{self._name}:", *(value for value in row.values() if isinstance(value, str | int)), flush=True
        )

    def close(self, **more: Any) -> None:
        """Write `more`, made from all rows, beside them."""
        self._more = more
        self._write()

    def _write(self) -> None:
        content = {"machine": machine(), "settings": self._settings, "rows": self.rows, **self._more}
        write_json(self._path, {**read(self._path), self._name: content})


def machine() -> dict[str, Any]:
    """What the figures depend on apart from the code."""
    precision = RECIPES["fast"].precision_name
    found = environment(torch.device("cpu"), precision)
    return {
        "name": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": os.cpu_count(),
        "threads": found.threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "fast_precision": precision,
        "python": found.python,
        "versions": found.versions,
        "date": date.today().isoformat(),
        # More than `threads` would mean that something else was running.
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of `samples`, and the samples themselves."""
    low, middle, high = (float(value) for value in np.percentile(samples, (25, 50, 75)))
    return {"median": middle, "q1": low, "q3": high, "samples": [float(value) for value in samples]}


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, Any]:
    """`summary` of the quotients, round by round, of two things that were measured side by side."""
    return summary([one / other for one, other in zip(numerator, denominator, strict=True)])
