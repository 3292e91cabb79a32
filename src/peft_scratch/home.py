"""The user's home folder, which a machine may lack: `docker run --user 1234` sets HOME to `/` or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# What keeps files in the home folder while notebooks are executed and figures drawn.
_NEEDY = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "jupyter", "MPLCONFIGDIR": "matplotlib"}
# Without a home it would take the folder `~` in the working folder, literally.
_CACHE = {"HF_HOME": "huggingface"}


def home() -> Path | None:
    """The home folder; `None` where there is none, or only the root of the file system."""
    try:
        found = Path.home()
    except RuntimeError:  # no HOME, and nobody known by the user's number
        return None
    return found if found.is_absolute() and found != Path(found.anchor) else None


def do_without_home() -> None:
    """Have Jupyter, IPython and Matplotlib use a temporary folder where there is no home to write to.

    Where there is no home at all, the Hugging Face cache too. A cache that is there but cannot be written is
    refused by name before a run starts (`experiments/ready.py`).

    What the user has set is left alone.
    """
    found = home()
    if found is not None and os.access(found, os.W_OK):
        return
    for variable, name in (_NEEDY if found else {**_NEEDY, **_CACHE}).items():
        if variable not in os.environ:
            os.environ[variable] = os.path.join(tempfile.gettempdir(), f"peft-scratch-{os.getpid()}", name)
