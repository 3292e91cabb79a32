"""peft-scratch: fine-tune T5 on IMDB four ways, from scratch and through the libraries.

The four methods work on any T5 and need only torch and transformers:

tuned = peft_scratch.apply(peft_scratch.LoRA(rank=8), model)
...                                     # train tuned.model
peft_scratch.save_delta(tuned.model, "lora.pt")

Each name is imported when it is first used, so `import peft_scratch` itself is quick.
"""

import warnings
from importlib import import_module

from peft_scratch.threads import let_idle_threads_sleep

# tqdm warns when Jupyter has no widgets; the kit uses text bars anyway.
warnings.filterwarnings("ignore", message="IProgress not found")
# What transformers will rename in its next version matters to the kit, not to a reader of its notebooks.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\..*")

# Set here, because everything that uses the kit imports this file before torch is loaded.
let_idle_threads_sleep()

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "FullFineTuning",
    "LoRA",
    "SoftPrompt",
    "UserError",
    "apply",
    "base_of",
    "load_delta",
    "merge",
    "read_delta",
    "save_delta",
    "unmerge",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("peft_scratch.methods"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
