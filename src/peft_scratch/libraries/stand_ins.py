"""Stand-ins for names and modules that are missing, or in the way, while a library is imported."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType


@contextlib.contextmanager
def names_added(stand_ins: Iterable[tuple[ModuleType, str, object]]) -> Iterator[None]:
    """Inside the `with`, each module has the given name and value, unless it has the name already."""
    added = [(module, name) for module, name, _ in stand_ins if not hasattr(module, name)]
    for module, name, value in stand_ins:
        if (module, name) in added:
            setattr(module, name, value)
    try:
        yield
    finally:
        for module, name in added:
            delattr(module, name)


@contextlib.contextmanager
def modules_replaced(stand_ins: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Inside the `with`, each module is the given one; a module given as `None` cannot be imported."""
    before = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(before)
