"""The matrix products of a step, recorded while it runs, and repeated without anything else.

Their time alone is the limit of a step: with these products it cannot be faster. Autograd computes only what
is needed. So there are no gradients of frozen weights, but there are gradients through the frozen layers,
because otherwise no gradient would reach the method's own weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Operand:
    """A tensor's shape, strides and type, in place of the tensor."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        """A tensor like it, of random numbers."""
        size = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return torch.randn(size).to(self.dtype).as_strided(self.shape, self.stride)


class Products(TorchDispatchMode):
    """Within it, every operation that torch's own `FlopCounterMode` counts is recorded.

    Attributes:
        calls: (operation, its arguments with an `Operand` for each tensor), in order.
        flops: floating-point operations of all of them; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
            self.calls.append((func, tuple(_described(arg) for arg in args)))
        return out

    def again(self, dtype: torch.dtype) -> Callable[[], None]:
        """Work that repeats the products, with operands of type `dtype` in the same layout in memory."""
        tensors: dict[Operand, Tensor] = {}

        def given(arg: Any) -> Any:
            if not isinstance(arg, Operand):
                return arg
            wanted = Operand(arg.shape, arg.stride, dtype)
            if wanted not in tensors:
                tensors[wanted] = wanted.tensor()
            return tensors[wanted]

        ready = [(func, tuple(map(given, args))) for func, args in self.calls]

        def work() -> None:
            for func, args in ready:
                func(*args)

        return work


def _described(arg: Any) -> Any:
    return Operand(tuple(arg.shape), arg.stride(), arg.dtype) if isinstance(arg, Tensor) else arg
