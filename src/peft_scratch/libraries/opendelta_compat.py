"""Import OpenDelta 0.3.2 on today's transformers, without its web server and its cloud client.

The library was last released in 2022. Five of its imports now fail or do harm. Stand-ins replace them, but
only while `opendelta` is imported, so nothing else ever sees them.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType

from transformers.integrations.deepspeed import deepspeed_config, is_deepspeed_zero3_enabled

from peft_scratch.errors import UserError
from peft_scratch.libraries.stand_ins import modules_replaced, names_added


def _unavailable(what: str) -> Callable[..., None]:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"OpenDelta's {what} is left out of this kit")

    return refuse


def _stand_ins() -> dict[str, ModuleType]:
    """The modules that replace others, by name."""
    names: dict[str, dict[str, object]] = {
        # utils/saving_loading_utils.py and utils/delta_center.py: the cloud client. Its package is gone, and
        # only saving and downloading would use it.
        "DeltaCenter": {"OssClient": _unavailable("cloud client")},
        # utils/interactive/web.py builds a web application when imported, for `interactive_modify`.
        "opendelta.utils.interactive.web": {"interactive": _unavailable("web server")},
        # basemodel.py: an unused `from turtle import back`, which needs Tk.
        "turtle": {"back": None},
    }
    # basemodel.py: transformers has moved this module. If it still exists at the old place, that is used.
    if importlib.util.find_spec("transformers.deepspeed") is None:
        names["transformers.deepspeed"] = {
            "deepspeed_config": deepspeed_config,
            "is_deepspeed_zero3_enabled": is_deepspeed_zero3_enabled,
        }
    stand_ins = {name: ModuleType(name) for name in names}
    for name, module in stand_ins.items():
        vars(module).update(names[name])
    return stand_ins


@cache
def import_opendelta() -> ModuleType:
    """The package `opendelta`.

    Raises:
        UserError: it, or `rich`, which it prints with, is not installed.
    """
    from transformers.models.distilbert import modeling_distilbert  # only here: it takes its time

    # delta_models/prefix.py uses this class by its name in transformers 4; in 5 it has another name.
    renamed = getattr(modeling_distilbert, "DistilBertSelfAttention", None)
    path = list(sys.path)
    try:
        with (
            modules_replaced(_stand_ins()),
            names_added([(modeling_distilbert, "MultiHeadSelfAttention", renamed)]),
            warnings.catch_warnings(),
        ):
            # From Python 3.12 on, backslashes in formulas of its docstrings give a visible warning.
            warnings.filterwarnings("ignore", ".*invalid escape sequence")
            import opendelta
    except ImportError as error:
        raise UserError(
            f"The library OpenDelta cannot be imported ({error}): "
            "run `pip install rich` and `pip install --no-deps opendelta==0.3.2`."
        ) from None
    finally:
        # utils/common_structures/__init__.py puts its own folder, which has a t5.py and a bert.py, at the
        # beginning of the path of all later imports.
        sys.path[:] = path
    return opendelta
