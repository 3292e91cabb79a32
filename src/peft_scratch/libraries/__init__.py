"""The methods through the libraries: one file per library, which alone handles its peculiarities."""

from peft_scratch.assignment import Run
from peft_scratch.libraries.adapterhub_adapter import AdapterHubAdapter
from peft_scratch.libraries.opendelta_prompt import OpenDeltaPrompt
from peft_scratch.libraries.peft_lora import PeftLoRA
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, Method, SoftPrompt

__all__ = ["METHODS", "AdapterHubAdapter", "OpenDeltaPrompt", "PeftLoRA", "method_of"]

#: Every method of the ten runs, by kind and library.
METHODS: dict[tuple[str, str], type[Method]] = {
    (method.kind, method.library): method
    for method in (FullFineTuning, SoftPrompt, OpenDeltaPrompt, Adapter, AdapterHubAdapter, LoRA, PeftLoRA)
}


def method_of(run: Run) -> Method:
    """The method that `run` trains.

    Raises:
        UserError: a hyperparameter has an impossible value.
    """
    return METHODS[run.kind, run.library](**run.hyperparameters)
