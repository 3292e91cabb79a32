"""The machine and the versions that a number depends on."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from peft_scratch.results import Environment

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "peft", "adapters", "opendelta")


def environment(device: torch.device, precision: str) -> Environment:
    """What a number depends on besides its configuration: versions, device, precision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    return Environment(
        python=platform.python_version(),
        versions={library: _version(library) for library in LIBRARIES},
        device=device.type,
        device_name=name,
        precision=precision,
        threads=torch.get_num_threads() if device.type == "cpu" else None,
    )


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
