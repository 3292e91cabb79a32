"""The progress bar of a loop: one line of text that disappears when the loop ends."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from accelerate import PartialState
from tqdm import tqdm


def progress(items: Iterable, title: str, unit: str) -> tqdm:
    """`items`, with a bar that counts them in `unit`s; of several processes, the first shows it.

    The bar goes to standard error, but in a notebook to standard output, like what the cell prints: there
    standard error is a red band, which would stay, empty, after the bar is gone.
    """
    in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
    file = sys.stdout if in_notebook else sys.stderr
    return tqdm(
        items,
        title,
        leave=False,
        file=file,
        mininterval=1,
        unit=unit,
        disable=not PartialState().is_main_process,
    )
