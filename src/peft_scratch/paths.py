"""Where the kit's own files lie, and where a run writes."""

from __future__ import annotations

import os
from pathlib import Path

#: The checkout (or unpacked bundle) that this package is installed from.
ROOT = Path(__file__).resolve().parents[2]

#: The offline base model, which is part of the checkout.
OFFLINE_BASE = ROOT / "weights" / "base"

#: The notebooks as they are opened, and, after `make publish`, with the outputs of the offline run.
NOTEBOOKS = ROOT / "notebooks"

#: Files put here by hand replace those of the Hub, for example `hub/google-t5/t5-small/config.json`.
BY_HAND = ROOT / "hub"

#: Where Colab mounts Google Drive; a test sets another place.
DRIVE = Path(os.environ.get("PEFT_SCRATCH_DRIVE", "/content/drive"))

#: Unfinished work of the kit's own (pre-training, benchmarks), which git ignores.
BUILD = ROOT / "build"


def output_folder(profile: str) -> Path:
    """Where results, weights, executed notebooks and reports of `profile` go by default."""
    return ROOT / "out" / profile


def shown(path: str | Path) -> str:
    """A path as a reader needs it: relative to the project folder if it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_absolute() and path.is_relative_to(ROOT) else str(path)
