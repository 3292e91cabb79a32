"""The optimizer of the pre-training: AdamW with steps scaled by the size of each tensor."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class RMSScaledAdamW(torch.optim.Optimizer):
    """AdamW, but each tensor's step is multiplied by the tensor's root mean square.

    This is Adafactor's relative step size (Shazeer and Stern 2018, section 8) in AdamW, as in nanoT5
    (Nawrot 2023, section 3). The scales of T5's tensors differ a hundredfold at the start. With one step size
    for all of them, a small T5 does not get below the unigram loss.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step. A tensor with a root mean square below 1e-3 moves as if it were 1e-3."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
                state["step"] += 1
                state["mean"].lerp_(parameter.grad, 1 - first)
                state["square"].lerp_(parameter.grad.square(), 1 - second)
                mean = state["mean"] / (1 - first ** state["step"])
                root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
                scale = parameter.square().mean().sqrt().clamp_min(1e-3).item()
                parameter.addcdiv_(mean, root, value=-group["lr"] * scale)
