"""Import AdapterHub's `adapters` 1.3.0, which was made for transformers 4.57, on transformers 5.

Two things have changed since. First, four small helpers are gone from transformers and huggingface_hub;
stand-ins replace them while `adapters` is imported. Second, the library has copies of T5's `forward` methods
of 4.57 with calls of its own, and transformers 5 calls them with other arguments. T5's own methods of the
installed version take their place here, with the library's call of a bottleneck where there is one.
SeqBnConfig, DoubleSeqBnConfig and LoRAConfig need no more than that; anything else is refused.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import huggingface_hub
import transformers
import transformers.utils.generic
from torch import Tensor, nn

from peft_scratch.errors import UserError
from peft_scratch.libraries.stand_ins import names_added

#: Whether the installed transformers is a version that the library was made for.
AS_IT_IS = int(transformers.__version__.split(".")[0]) < 5


def _unavailable(*args: object, **kwargs: object) -> None:
    raise UserError("This kit leaves out AdapterHub's calls to a Hub: load an adapter from a folder.")


#: What is gone from transformers 5 and huggingface_hub 1; the comments say where the library uses it.
_STAND_INS = [
    # utils.py: for what is downloaded with a token.
    (huggingface_hub, "HfFolder", _unavailable),
    # utils.py, resolve_adapter_path: asked of every name or path that an adapter is loaded from.
    (transformers.utils, "is_remote_url", lambda name: name.startswith(("http://", "https://"))),
    # hub_mixin.py, push_adapter_to_hub.
    (transformers.utils.generic, "working_or_temp_dir", _unavailable),
    # wrappers/model.py, _reregister_can_record_outputs: transformers 5 keeps no such list.
    (transformers.utils.generic, "_CAN_RECORD_REGISTRY", {}),
]


def import_adapters() -> ModuleType:
    """The package `adapters`.

    Raises:
        UserError: it is not installed.
    """
    try:
        with names_added(_STAND_INS):
            import adapters
            import adapters.wrappers.model  # now, because otherwise it is imported only when it is first used
            from adapters.models.t5 import modeling_t5
    except ImportError as error:
        raise UserError(
            f"The library `adapters` cannot be imported ({error}): "
            "run `pip install --no-deps adapters==1.3.0`."
        ) from None
    if not AS_IT_IS:
        _take_t5s_own_forward(modeling_t5)
    return adapters


@functools.cache
def _take_t5s_own_forward(modeling_t5: ModuleType) -> None:
    """Replace four `forward` methods of models/t5/modeling_t5.py, which are made for 4.57.

    The fifth, of the feed-forward layer, stays: it calls nothing that has changed.
    """
    modeling_t5.T5StackWithAdapters.forward = _unless_there(
        "invertible_adapters", "invertible adapters", modeling_t5.T5Stack.forward
    )
    modeling_t5.T5AttentionWithAdapters.forward = _unless_there(
        "prefix_tuning.prefixes", "prefix tuning", modeling_t5.T5Attention.forward
    )
    modeling_t5.T5LayerSelfAttentionWithAdapters.forward = _with_bottleneck("SelfAttention")
    modeling_t5.T5LayerCrossAttentionWithAdapters.forward = _with_bottleneck("EncDecAttention")


def _unless_there(part: str, what: str, own: Callable[..., Any]) -> Callable[..., Any]:
    """T5's `own` forward, which ignores `part`, so it is refused if there is something in `part`."""
    find = operator.attrgetter(part)

    @functools.wraps(own)
    def forward(self: nn.Module, *args: object, **kwargs: object) -> Any:
        if hasattr(self, part.partition(".")[0]) and len(find(self)):
            raise UserError(
                f"AdapterHub's {what} cannot be used on transformers 5: install transformers==4.57.6."
            )
        return own(self, *args, **kwargs)

    return forward


def _with_bottleneck(attention: str) -> Callable[..., tuple]:
    """The `forward` of a layer around `attention`: the bottleneck takes the place of the residual sum."""

    def forward(
        self: nn.Module,
        hidden_states: Tensor,  # (B, T, d)
        key_value_states: Tensor | None = None,  # (B, S, d), in cross-attention
        attention_mask: Tensor | None = None,
        **others: object,
    ) -> tuple:
        if key_value_states is not None:
            others["key_value_states"] = key_value_states
        mixed, *rest = getattr(self, attention)(self.layer_norm(hidden_states), mask=attention_mask, **others)
        hidden_states = self.bottleneck_layer_forward(
            hidden_states=self.dropout(mixed), residual_input=hidden_states, layer_norm=None
        )
        return hidden_states, *rest

    return forward
