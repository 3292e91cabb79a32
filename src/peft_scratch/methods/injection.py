"""Where a method is applied: modules are found by the last part of their name and replaced in place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from peft_scratch.errors import UserError
from peft_scratch.methods.parameters import is_own


def find_in_blocks(model: nn.Module, targets: Sequence[str], kind: type[nn.Module]) -> list[str]:
    """Dotted names of the modules inside the model's blocks whose last name part is one of `targets`.

    The last part must equal the target: as substrings, `"o"` and `"k"` would match every Linear of a T5
    block, because each name contains `block`. Modules outside the blocks are ignored, because T5's
    `lm_head` may share its weight with the embedding.

    Args:
        model: any T5 (t5, flan-t5, mT5: the same names).
        targets: last name parts, such as `("q", "v")`.
        kind: the class that the targets must be of.

    Returns:
        The names in model order.

    Raises:
        UserError: one of the targets matches nothing; the message lists the names there are.
    """
    found = [
        name for name, module in model.named_modules() if ".block." in f".{name}" and isinstance(module, kind)
    ]
    there = {last_part(name) for name in found if not last_part(name).isdigit()}
    if missing := [target for target in targets if target not in there]:
        raise UserError(
            f"No {kind.__name__} in the model's blocks is called {' or '.join(map(repr, missing))}; "
            f"the names there are {', '.join(sorted(there)) or '(none)'}."
        )
    # BEGIN SOLUTION
    return [name for name in found if last_part(name) in targets]
    # END SOLUTION


def last_part(name: str) -> str:
    """`q` of `encoder.block.0.layer.0.SelfAttention.q`."""
    return name.rpartition(".")[2]


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module of `model` called `name` by `module`, in the same training mode."""
    parent, _, last = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), last, module)


def refuse_second_injection(model: nn.Module) -> None:
    """Raise a UserError if `model` already has parameters of a method."""
    for name, _ in model.named_parameters():
        if is_own(name):
            raise UserError(
                f"This model already carries a method, for it has the parameter {name}; "
                "load a fresh base model before injecting another."
            )
