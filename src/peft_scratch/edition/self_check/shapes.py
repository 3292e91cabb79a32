"""Says which two shapes do not fit, and where: torch's own message names neither tensors nor product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = ("matmul", "__matmul__", "mm", "bmm")


class DoNotFit(Exception):
    """Two tensors whose shapes do not fit; the message says which, without a full stop."""


class Shapes(TorchFunctionMode):
    """Inside it, two shapes that do not fit raise `DoNotFit`.

    Args:
        names: the tensors that a student knows by name. A product of two of them is called `x @ a`, and a
            transposed one `a.T`.
    """

    def __init__(self, **names: Tensor) -> None:
        super().__init__()
        # The tensor is kept with its name, or another one could get its place in memory.
        self._known = {_place(tensor): (tensor, name) for name, tensor in names.items()}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        tensors = [value for value in args if isinstance(value, Tensor)]
        is_product = getattr(func, "__name__", "") in _PRODUCTS
        try:
            made = func(*args, **(kwargs or {}))
        except RuntimeError as problem:
            if len(tensors) < 2 or isinstance(problem, NotImplementedError):
                raise
            raise DoNotFit(self._said(tensors[:2], is_product)) from problem
        if isinstance(made, Tensor) and _place(made) not in self._known:
            if is_product and len(tensors) == 2:
                self._known[_place(made)] = (made, " @ ".join(map(self._name, tensors)))
            elif len(tensors) == 1 and made.shape == tensors[0].shape:  # scaled, or of another type
                self._known[_place(made)] = (made, self._name(tensors[0]))
        return made

    def _name(self, tensor: Tensor) -> str:
        known, name = self._known.get(_place(tensor), (tensor, "…"))
        turned = tensor.ndim == 2 and tensor.shape != known.shape and tensor.T.shape == known.shape
        return f"({name}).T" if turned and " " in name else f"{name}.T" if turned else name

    def _said(self, tensors: Sequence[Tensor], is_product: bool) -> str:
        first, second = (tuple(tensor.shape) for tensor in tensors)
        names = [self._name(tensor) for tensor in tensors]
        if not is_product or not first or len(second) < 2:
            return f"The shapes {first} of `{names[0]}` and {second} of `{names[1]}` do not fit together"
        return (
            f"In the product `{' @ '.join(names)}`, the shapes {first} and {second} do not fit: the last "
            f"axis of the first has length {first[-1]}, the last but one of the second {second[-2]}"
        )


def _place(tensor: Tensor) -> int:
    """What tensors that share memory have in common; on the device `meta` there is no memory."""
    return tensor.untyped_storage().data_ptr() or id(tensor)
