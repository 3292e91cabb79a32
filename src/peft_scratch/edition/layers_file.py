"""The student's file, `layers.py`: loaded, and reloaded when it is saved.

In the student edition, the kit takes from here what the student writes, so that runs, counts and weight
files come from the student's code. In the whole kit, nothing calls `of_student`.
"""

from __future__ import annotations

import ast
import hashlib
import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from peft_scratch.errors import UserError
from peft_scratch.paths import ROOT

#: The file; the variable is for checking one that lies elsewhere.
PATH = Path(os.environ.get("PEFT_SCRATCH_LAYERS", ROOT / "layers.py")).absolute()

_NAME = "layers"
_state: dict[str, Any] = {"module": None, "stamp": None, "asked": set()}


def of_student(name: str) -> Any:
    """What `layers.py` defines as `name`.

    A function is looked up at each call, so the latest saved version is called. A class is replaced wherever
    it is used when the file is saved again.

    Raises:
        UserError: the file is not there, is no Python, or does not define `name`.
    """
    _state["asked"].add(name)
    return getattr(current(), name) if name[0].isupper() else _Late(name)


def current() -> ModuleType:
    """The module of `layers.py`, loaded again if the file was saved since.

    Raises:
        UserError: the file is not there, is no Python, or lacks a name that the kit needs.
    """
    try:
        stamp = (PATH.stat().st_mtime_ns, PATH.stat().st_size)
    except OSError:
        raise UserError(f"{PATH.name} is not in {PATH.parent}: put the file of the edition back.") from None
    if stamp != _state["stamp"]:
        before, module = _state["module"], _load()
        if missing := sorted(name for name in _state["asked"] if not hasattr(module, name)):
            raise UserError(f"{PATH.name} defines no {', no '.join(missing)}: the kit calls it by that name.")
        _state.update(module=module, stamp=stamp)
        if before is not None:
            _replace(before, module)
    return _state["module"]


def in_use() -> bool:
    """Whether the kit runs on a student's layers."""
    return bool(_state["asked"])


def use(path: Path) -> None:
    """Take `path` for `layers.py` from now on."""
    global PATH
    PATH = path.absolute()
    _state["stamp"] = None


def fingerprint(names: set[str]) -> str:
    """Eight characters that change with the code of `layers.py`, except for the definitions `names`.

    Comments and spaces do not matter.
    """
    tree = ast.parse(PATH.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "name", None) not in names]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:8]


def without_markers(code: str) -> str:
    """`code` without the comments that mark what the student edition leaves out."""
    marker = re.compile(r" *# (BEGIN|END) SOLUTION")
    return "\n".join(line for line in code.split("\n") if not marker.fullmatch(line))


class _FreshLoader(SourceFileLoader):
    """Reads the source each time: Python's cache notices a newer source only after a whole second."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load() -> ModuleType:
    file = str(PATH)
    linecache.checkcache(file)
    loader = _FreshLoader(_NAME, file)
    module, before = module_from_spec(spec_from_loader(_NAME, loader)), sys.modules.get(_NAME)
    sys.modules[_NAME] = module  # dataclasses and pickle look a class's module up
    try:
        loader.exec_module(module)
    except Exception as problem:
        if before is not None:
            sys.modules[_NAME] = before
        frames = traceback.extract_tb(problem.__traceback__)
        lines = ["?", *(frame.lineno for frame in frames if frame.filename == file)]
        line = getattr(problem, "lineno", None) or lines[-1]
        said = " ".join(str(problem).split())
        raise UserError(
            f"{PATH.name}, line {line}: {type(problem).__name__}, {said}; correct it and save the file."
        ) from problem
    return module


class _Late:
    """A function of `layers.py` that is looked up when it is called, as the file may have changed by then."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name
        self.__module__ = _NAME

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return getattr(current(), self.__name__)

    def __repr__(self) -> str:
        return f"<function {self.__name__} of {PATH.name}>"


def _replace(before: ModuleType, after: ModuleType) -> None:
    """Replace the classes of `before` by those of `after` in the kit's modules and in the notebook."""
    old = {
        id(thing): name
        for name, thing in vars(before).items()
        if isinstance(thing, type) and thing.__module__ == _NAME and hasattr(after, name)
    }
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("peft_scratch") or module_name == "__main__":
            for name, thing in list(vars(module).items()):
                if id(thing) in old:
                    setattr(module, name, getattr(after, old[id(thing)]))


def _watch() -> None:
    """In a notebook, check before each cell whether the file was saved again."""
    from IPython import get_ipython

    def look(*_: object) -> None:
        if in_use():
            try:
                current()
            except UserError as mistake:
                print(mistake)

    if (shell := get_ipython()) is not None:
        shell.events.register("pre_run_cell", look)


if "IPython" in sys.modules:
    _watch()
