"""The first cells of each notebook: do the slow imports and open the session."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

from peft_scratch.paths import DRIVE


def import_libraries() -> None:
    """Import what every notebook needs, and say so, because it takes a while on a fresh machine.

    Every later cell then answers at once.
    """
    print("Importing torch and transformers: some seconds, up to a minute on a fresh machine.", flush=True)
    started = time.perf_counter()
    for name in ("torch", "transformers", "datasets", "accelerate", "peft_scratch.experiments.session"):
        importlib.import_module(name)
    print(f"Imported in {time.perf_counter() - started:.0f} s.")


def open_session(
    profile: str = "auto",
    seed: int = 0,
    output: str | Path | None = None,
    recipe: str = "fast",
    drive: bool = True,
    notebook: int | None = None,
):
    """Open a session, in Colab on Google Drive, and print what it will do and how long that takes.

    Args:
        profile, seed, output, recipe: as `Session.open` takes them.
        drive: whether Colab's files go to Google Drive, into one folder for all five notebooks.
        notebook: the number of the notebook, for the time that its runs take.

    Raises:
        UserError: as `Session.open`, or Drive was not mounted.
    """
    from peft_scratch.experiments.profile_choice import choose_profile
    from peft_scratch.experiments.session import Session
    from peft_scratch.notebook import front_end

    front_end.watch()
    if front_end.in_colab():
        if drive and output is None:
            output = DRIVE / "MyDrive" / "peft-scratch" / choose_profile(profile).profile.name
        if output is not None and DRIVE in Path(output).parents:
            front_end.mount_drive()
        else:
            print(
                "Without Drive: when Colab takes this machine back, after some hours or when it is idle, "
                "unfinished runs and results are lost. The last cell offers this notebook's part as a file."
            )
    session = Session.open(profile, seed, output, recipe)
    print("Please wait: timing a few steps of each method ...", flush=True)
    print(session.summary(notebook))
    return session
