"""What a process does in place of the check, by the name of its path. Light: each process imports it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from peft_scratch.submission.findings import Checked


def work(paths: list[str], deep: bool) -> Checked:
    name = Path(paths[0]).name
    if name == "hangs":
        time.sleep(600)
    if name == "swells":
        return Checked(str(len(bytearray(4 * 2**30))))
    if name == "dies":
        os._exit(9)
    if name == "fails":
        raise RuntimeError("a defect")
    return Checked(paths[0])
