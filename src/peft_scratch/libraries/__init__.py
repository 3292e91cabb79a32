"""The methods through the libraries: one file a library, with every quirk of it mended there."""

from peft_scratch.libraries.adapterhub_adapter import AdapterHubAdapter
from peft_scratch.libraries.opendelta_prompt import OpenDeltaPrompt
from peft_scratch.libraries.peft_lora import PeftLoRA

__all__ = ["AdapterHubAdapter", "OpenDeltaPrompt", "PeftLoRA"]
