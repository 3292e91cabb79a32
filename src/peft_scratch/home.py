"""The user's home folder, which may be missing: `docker run --user 1234` sets HOME to `/` or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Where programs keep files in the home folder while notebooks are executed and figures are drawn.
_NEEDY = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "jupyter", "MPLCONFIGDIR": "matplotlib"}
# Without a home, Hugging Face would create a folder called `~` in the working folder.
_CACHE = {"HF_HOME": "huggingface"}


def home() -> Path | None:
    """The home folder; `None` if there is none, or if it is the root of the file system."""
    try:
        found = Path.home()
    except RuntimeError:  # no HOME, and the system does not know the user's number
        return None
    return found if found.is_absolute() and found != Path(found.anchor) else None


def do_without_home() -> None:
    """Make Jupyter, IPython and Matplotlib use a temporary folder if there is no writable home.

    If there is no home at all, the Hugging Face cache goes there too. If the cache exists but cannot be
    written, that is reported before a run starts (`experiments/ready.py`). Variables that the user has set
    stay as they are.
    """
    found = home()
    if found is not None and os.access(found, os.W_OK):
        return
    for variable, name in (_NEEDY if found else {**_NEEDY, **_CACHE}).items():
        if variable not in os.environ:
            os.environ[variable] = os.path.join(tempfile.gettempdir(), f"peft-scratch-{os.getpid()}", name)
