"""The JSON of a run: the only road from a run to a table, a figure or the report."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from peft_scratch.files import write_atomically

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "peft", "adapters", "opendelta")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, atomically; NaN and infinity are refused, as JSON has neither."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """What a number depends on besides its configuration: versions, device, precision."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    return {
        "python": platform.python_version(),
        "versions": versions,
        "device": device.type,
        "device_name": name,
        "precision": precision,
    }
