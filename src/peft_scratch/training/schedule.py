"""How the learning rate changes while a run trains. The assignment's own is constant."""

from __future__ import annotations

from typing import Any

import torch

#: Names that the setting `schedule` takes.
SCHEDULES = ("constant", "linear")


def decay_linearly(optimizer: torch.optim.Optimizer, learning_rate: float, steps: int) -> None:
    """Have `optimizer` take its first step at `learning_rate`, and fall in a line to 0 after `steps` steps.

    The optimizer counts its steps itself, and a checkpoint keeps the count. So a resumed run goes on with the
    rate that it would have had.
    """

    def set_rate(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        taken = next((int(state["step"]) for state in optimizer.state.values() if "step" in state), 0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * max(0.0, 1 - taken / steps)

    optimizer.register_step_pre_hook(set_rate)
