"""Names that a library imports but that no longer exist, provided while it is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import ModuleType


@contextlib.contextmanager
def names_added(stand_ins: Iterable[tuple[ModuleType, str, object]]) -> Iterator[None]:
    """Within it, each module has the given name and value; a module that has the name keeps it."""
    added = [(module, name) for module, name, _ in stand_ins if not hasattr(module, name)]
    for module, name, value in stand_ins:
        if (module, name) in added:
            setattr(module, name, value)
    try:
        yield
    finally:
        for module, name in added:
            delattr(module, name)
