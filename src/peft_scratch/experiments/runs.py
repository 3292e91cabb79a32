"""The ten runs, as the assignment's five notebooks list them."""

from __future__ import annotations

from dataclasses import dataclass

from peft_scratch.errors import UserError
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, Method, SoftPrompt

# What the contract fixes for t5-small is far too small a step for the offline base, which has a tenth of
# its parameters and learns from a sixteenth of the reviews in a fifth of the epochs: these were chosen on
# the offline split's validation part, one for each method, library or not.
OFFLINE_LEARNING_RATE = {"full": 5e-5, "soft_prompt": 0.3, "adapter": 1e-3, "lora": 3e-3}


@dataclass(frozen=True)
class Run:
    """One of the ten numbers: a method with its size, and how the course trains it.

    Attributes:
        id: name of the run's files and of the command that repeats it.
        notebook: number of the notebook that holds it.
        title: as tables print it.
        learning_rate: the contract's, for the `course` profile.
        weight_file: the hand-in file that the run's best epoch goes to, if any.
    """

    id: str
    notebook: int
    title: str
    method: Method
    learning_rate: float
    weight_file: str | None = None

    def learning_rate_in(self, profile: str) -> float:
        """The learning rate in the profile of that name."""
        return self.learning_rate if profile == "course" else OFFLINE_LEARNING_RATE[self.method.kind]


RUNS = {
    run.id: run
    for run in (
        Run("full", 1, "Full fine-tuning", FullFineTuning(), 1e-5),
        Run(
            "prompt_scratch_n10",
            2,
            "Soft prompt, from scratch, N = 10",
            SoftPrompt(virtual_tokens=10),
            0.1,
            "prompts.pt",
        ),
        Run(
            "prompt_opendelta_n1", 2, "Soft prompt, OpenDelta, N = 1", OpenDeltaPrompt(virtual_tokens=1), 0.1
        ),
        Run(
            "prompt_opendelta_n10",
            2,
            "Soft prompt, OpenDelta, N = 10",
            OpenDeltaPrompt(virtual_tokens=10),
            0.1,
        ),
        Run(
            "adapter_scratch_b8", 3, "Adapter, from scratch, b = 8", Adapter(bottleneck=8), 1e-3, "adapter.pt"
        ),
        Run("adapter_adapterhub_b8", 4, "Adapter, AdapterHub, b = 8", AdapterHubAdapter(bottleneck=8), 1e-4),
        Run("adapter_adapterhub_b1", 4, "Adapter, AdapterHub, b = 1", AdapterHubAdapter(bottleneck=1), 1e-4),
        Run("lora_scratch_r8", 5, "LoRA, from scratch, r = 8", LoRA(rank=8, alpha=4.0), 1e-4, "lora.pt"),
        Run("lora_peft_r1", 5, "LoRA, PEFT, r = 1", PeftLoRA(rank=1, alpha=4.0), 1e-4),
        Run("lora_peft_r8", 5, "LoRA, PEFT, r = 8", PeftLoRA(rank=8, alpha=4.0), 1e-4),
    )
}


#: Each method once, without a library.
FROM_SCRATCH = tuple(run.id for run in RUNS.values() if run.method.library in ("none", "scratch"))


def find_run(run_id: str) -> Run:
    """The run called `run_id`.

    Raises:
        UserError: there is none of that name.
    """
    if run_id not in RUNS:
        raise UserError(f"There is no run {run_id!r}; the ten runs are {', '.join(RUNS)}.")
    return RUNS[run_id]
