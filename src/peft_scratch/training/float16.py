"""T5 in float16 without overflow, for GPUs that have no bfloat16. The largest float16 number is 65,504.

It is known what overflows in a T5: the output of the layers that write on the residual stream (`o` of an
attention, `wo` of a feed-forward layer) and, in larger ones, the stream itself. So:

- the stream is float32: embeddings are, and what is added to it is converted to float32;
- a layer that writes on the stream computes `x (W / 2^e)^T` in float16, with e so that no row of `W / 2^e`
  is longer than 1, and multiplies by 2^e in float32. Both are exact. Then no number exceeds the length of
  x, however large the model's stream is;
- a product that reads the stream directly, such as an adapter's, is computed in float32: it is small;
- the loss is scaled, and every step is watched (`LossScale`).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from peft_scratch.errors import UserError

#: Names of the layers that write on the residual stream, in attention and in the feed-forward layer.
WRITERS = ("o", "wo")
# How many of the last `WINDOW` steps may be skipped. A loss scale that starts too high costs a few.
WINDOW, MOST_SKIPPED = 20, 10

#: What to do if float16 fails.
IN_FLOAT32 = "use the recipe `reference`, which works in float32"
# Lower than GradScaler's own start of 2^16, where T5's gradients may overflow. It grows by itself.
FIRST_SCALE, STEPS_BEFORE_GROWTH = 2.0**12, 500

# The exponent of each writer's weight when it was first computed.
_EXPONENTS: WeakIdKeyDictionary = WeakIdKeyDictionary()


class Float16Failed(UserError):
    """float16 repeatedly gives numbers that are not finite."""


class SafeProducts(TorchFunctionMode):
    """Within it and float16's autocast, the linear layers of a model do not overflow.

    It redirects `F.linear`, which the layers of every library call.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._exponents = WeakIdKeyDictionary()
        for weight in writers(model):
            self._exponents[weight] = exponent_of(weight)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.linear:
            return self._linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        exponent = self._exponents.get(weight)
        if exponent is not None:
            return scaled_linear(input, weight, bias, exponent)
        if input.dtype == torch.float32:
            with torch.autocast(input.device.type, enabled=False):
                return F.linear(input, weight.float(), None if bias is None else bias.float())
        return F.linear(input, weight, bias)


def writers(model: nn.Module) -> list[Tensor]:
    """The weights `(D, E)` of the layers that write on the residual stream, whatever wraps them."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _is_writer(name)
    ]


def _is_writer(name: str) -> bool:
    """`...o`, or `...o.base_layer` where a library has wrapped it; not what the wrapper adds."""
    return name.removesuffix(".base_layer").rpartition(".")[2] in WRITERS


def exponent_of(weight: Tensor) -> int:
    """The least e so that no row of `weight / 2^e` is longer than 1. It waits for the GPU, so only once."""
    if weight not in _EXPONENTS:
        longest = torch.linalg.vector_norm(weight.detach().float(), dim=1).max().item()
        _EXPONENTS[weight] = math.ceil(math.log2(longest)) if longest > 0 else 0
    return _EXPONENTS[weight]


def scaled_linear(x: Tensor, weight: Tensor, bias: Tensor | None, exponent: int) -> Tensor:
    """`x W^T + bias` in float32; the product itself is in float16, scaled down by `2^exponent`.

    Shapes: x `(..., E)`, weight `(D, E)`, bias `(D)`; result `(..., D)`.
    """
    with torch.autocast(x.device.type, enabled=False):
        small = (weight * 2.0**-exponent).to(torch.float16)
        y = F.linear(x.to(torch.float16), small).float() * 2.0**exponent
        return y if bias is None else y + bias.float()


def hold_in_float16(model: nn.Module) -> None:
    """Cast the frozen parameters of `model` to float16, except embeddings, where the stream starts."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for parameter in model.parameters():
        if not parameter.requires_grad and id(parameter) not in embeddings:
            # Within the same parameter, so that tied tensors stay tied.
            parameter.data = parameter.data.to(torch.float16)


class LossScale:
    """Scales the loss by a power of two while gradients are float16, and watches the steps.

    A step whose gradients are not finite is skipped, and the scale is halved (`torch.amp.GradScaler`).
    """

    def __init__(self, device: torch.device) -> None:
        self._scaler = GradScaler(device.type, init_scale=FIRST_SCALE, growth_interval=STEPS_BEFORE_GROWTH)
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._skipped = 0

    def scaled(self, loss: Tensor) -> Tensor:
        return self._scaler.scale(loss)

    def step(self, optimizer: torch.optim.Optimizer, where: str) -> bool:
        """Take the step of `optimizer` if every gradient is finite; return whether it was taken.

        Raises:
            Float16Failed: more than `MOST_SKIPPED` of the last `WINDOW` steps were skipped.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        taken = self._scaler.get_scale() >= before
        self._skipped += not taken
        self._recent.append(not taken)
        if sum(self._recent) > MOST_SKIPPED:
            raise Float16Failed(
                f"float16 gave numbers that are not finite in {sum(self._recent)} of the last "
                f"{len(self._recent)} steps, up to {where}: {IN_FLOAT32}."
            )
        return taken

    def take_skipped(self) -> int:
        """How many steps were skipped since the last call."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, and `resume` takes."""
        return {**self._scaler.state_dict(), "recent": list(self._recent)}

    def resume(self, state: dict[str, Any]) -> None:
        if state:
            state = dict(state)
            self._recent = deque(state.pop("recent"), maxlen=WINDOW)
            self._scaler.load_state_dict(state)
