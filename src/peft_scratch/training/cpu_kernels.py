"""T5's dropout, attention and layer norm with less work on a CPU, used by any T5 for a while.

They compute the same as T5's own, up to rounding, and draw from the same distribution (see `negative_with`).
On a GPU, attention goes through torch's fused kernels and dropout is left as it is.

Letters: B batch, H heads, T and S tokens of queries and keys, K width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, T5PreTrainedModel, __version__
from transformers.masking_utils import eager_mask
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from peft_scratch.training.gpu_attention import fused_attention

#: What the attention here is called in transformers' `AttentionInterface`.
ATTENTION = "peft_scratch"
_T5_ASKS_THE_INTERFACE = int(__version__.split(".")[0]) >= 5

# Bits of the number that decides about one element; a draw of 64 bits gives four such numbers.
BITS = 15
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def cpu_kernels(model: nn.Module) -> Iterator[None]:
    """Within it, `model`, with any method applied, uses the cheaper computation wherever there is one.

    Only calls are redirected: no module, parameter or hook is added, and afterwards `model` is as before.
    Within it already, as a block under gradient checkpointing is at first, it changes nothing.
    On transformers 4, whose T5 does not ask the `AttentionInterface`, attention stays T5's own.
    """
    if model in _within:
        yield
        return
    swapped, checkpointed = [], []
    whole = next((module for module in model.modules() if isinstance(module, T5PreTrainedModel)), None)
    attention_before = None
    _within.add(model)
    try:
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                checkpointed.append((module, module._gradient_checkpointing_func))
                module._gradient_checkpointing_func = partial(_checkpoint, model, checkpointed[-1][1])
            if "forward" in vars(module):  # someone else's, such as Accelerate's: leave it
                continue
            if type(module) is nn.Dropout:
                module.forward = partial(_dropout_forward, module)
            elif isinstance(module, T5LayerNorm):
                module.forward = partial(_norm_forward, module)
            else:
                continue
            swapped.append(module)
        if whole is not None and _T5_ASKS_THE_INTERFACE:
            attention_before = whole.config._attn_implementation
            whole.set_attn_implementation(ATTENTION)
        yield
    finally:
        _within.remove(model)
        for module in swapped:
            del module.forward
        for module, function in checkpointed:
            module._gradient_checkpointing_func = function
        if attention_before is not None:
            whole.set_attn_implementation(attention_before)
        _whole_bias.cache_clear()


#: The models that are within `cpu_kernels` at the moment.
_within: WeakSet[nn.Module] = WeakSet()


def _checkpoint(
    model: nn.Module, checkpoint: Callable[..., Any], block: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """`checkpoint(block, ...)` with the block run within `cpu_kernels` in the backward pass, too.

    It would draw other dropout than the first one otherwise, and so give the gradients of another pass. Of
    torch's two ways, it is always the one that is not reentrant: the other sums gradients in another order,
    which shows in bfloat16.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        with cpu_kernels(model):
            return block(*args, **kwargs)

    if "use_reentrant" in getattr(checkpoint, "keywords", {}):  # as transformers binds it
        kwargs["use_reentrant"] = False
    return checkpoint(run, *args, **kwargs)


# Dropout


def negative_with(p: float, size: int) -> Tensor:
    """`size` int16 numbers, each negative with probability `p` rounded to 2^-15, of independent draws.

    torch's own dropout spends a whole random number on every element, one after the other; here, four
    share one of NumPy's. Its generator is seeded by torch's, so torch's seed decides here as well.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    drawn = np.random.SFC64(seed).random_raw(-(-size // 4)).view(np.int16)[:size]
    return torch.from_numpy(drawn).bitwise_and_(2**BITS - 1).sub_(_threshold(p))


def _threshold(p: float) -> int:
    return round(p * 2**BITS)


def _scale(p: float) -> float:
    """The factor for kept elements, so that the expectation stays the same."""
    return 2**BITS / (2**BITS - _threshold(p))


class _Dropout(torch.autograd.Function):
    """Keeps an element's bits or clears them: `kept` (int16) is all ones or all zeros.

    int8 would do, and takes half of the memory, but then each use is a conversion.
    """

    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:
        kept = negative_with(p, x.numel()).bitwise_not_().bitwise_right_shift_(BITS).view(x.shape)
        ctx.save_for_backward(kept)
        ctx.scale = _scale(p)
        return _keep(x.contiguous(), kept, ctx.scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _keep(gradient.contiguous(), kept, ctx.scale), None


def _keep(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    scaled = x * scale
    scaled.view(_INTEGERS[x.element_size()]).bitwise_and_(kept)
    return scaled


def _dropout_forward(module: nn.Dropout, x: Tensor) -> Tensor:
    if not module.training or module.p == 0 or not x.is_cpu:
        return F.dropout(x, module.p, module.training)
    return _Dropout.apply(x, module.p)


# Layer norm


class _Norm(torch.autograd.Function):
    """`w x / sqrt(mean(x^2) + epsilon)` of x `(..., D)` with w `(D)`, computed in float32.

    Saved are x as it comes and one number a row, where autograd would keep several float32 tensors. Under
    autocast the result is in its type: it would be converted once for each projection that reads it.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)  # (..., 1)
        inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        # A copy unless x is float32, in which case it is x itself, which must stay.
        normed = wide * inverse if wide is x else wide.mul_(inverse)
        scaled = normed.to(weight.dtype).mul_(weight)
        device = x.device.type
        return scaled.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else scaled

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        normed = _product(x, inverse)  # float32, as inverse is
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = _product(gradient, normed).flatten(0, -2).sum(0).to(weight.dtype)
        of_normed = _product(gradient, weight).float()
        mean = (of_normed * normed).mean(-1, keepdim=True)
        return of_normed.sub_(normed.mul_(mean)).mul_(inverse).to(x.dtype), of_weight, None


def _product(x: Tensor, y: Tensor) -> Tensor:
    """`x * y`, converted first: between two types, torch multiplies eight times slower than within one."""
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype) * y.to(dtype)


def _norm_forward(module: T5LayerNorm, x: Tensor) -> Tensor:
    return _Norm.apply(x, module.weight, module.variance_epsilon)


# Attention


class _Attention(torch.autograd.Function):
    """`dropout(softmax(q k^T + bias)) v` of q `(BH, T, K)`, k and v `(BH, S, K)`, bias `(BH, T, S)`.

    One (BH, T, S) tensor is saved: the weights, with a minus sign at those that dropout took.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, p: float) -> Tensor:
        # torch's softmax computes in float32 whatever it is given, so there is no need to convert first.
        weights = torch.baddbmm(bias, q, k.transpose(1, 2)).softmax(-1)  # (BH, T, S)
        integer = _INTEGERS[weights.element_size()]
        dropped = negative_with(p, weights.numel()).to(integer).view(weights.shape)
        weights.copysign_(dropped.view(weights.dtype))
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = _scale(p)
        return torch.bmm(weights.relu(), v).mul_(ctx.scale)  # (BH, T, K)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, signed = ctx.saved_tensors
        need_q, need_k, need_v, need_bias, _ = ctx.needs_input_grad
        gradient = gradient * ctx.scale
        of_q = of_k = of_v = of_scores = None
        if need_v:
            of_v = torch.bmm(signed.relu().transpose(1, 2), gradient)
        if need_q or need_k or need_bias:
            of_weights = torch.bmm(gradient, v.transpose(1, 2))
            of_weights = torch.ops.aten.threshold_backward(of_weights, signed, 0)  # zero where dropped
            of_scores = torch._softmax_backward_data(of_weights, signed.abs(), -1, signed.dtype)
            of_q = torch.bmm(of_scores, k) if need_q else None
            of_k = torch.bmm(of_scores.transpose(1, 2), q) if need_k else None
        return of_q, of_k, of_v, of_scores if need_bias else None, None


def _attention_forward(
    module: T5Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **others: object,
) -> tuple[Tensor, Tensor | None]:
    """`attention` as transformers' `AttentionInterface` calls it: q `(B, H, T, K)`, k and v `(B, H, S, K)`,
    mask `(B, 1, T, S)`, bias `(1, H, T, S)`. Returns `(B, T, H, K)` and, if asked for, the weights."""
    if torch.is_autocast_enabled(query.device.type):  # a library's update may have widened query or value
        lower = torch.get_autocast_dtype(query.device.type)
        query, key, value = (x.to(lower) for x in (query, key, value))
    bias = _whole_bias(position_bias, attention_mask, len(query), query.dtype)
    weights = None
    if others.get("output_attentions"):  # the whole way, which makes them
        weights = F.dropout((query @ key.transpose(2, 3) + bias).softmax(-1), dropout)
        mixed = weights @ value
    else:
        mixed = attention(query, key, value, bias, dropout)
    return mixed.transpose(1, 2).contiguous(), weights


@lru_cache(maxsize=2)  # one for self-attention, one for cross-attention
def _whole_bias(position_bias: Tensor, mask: Tensor | None, batch: int, dtype: torch.dtype) -> Tensor:
    """Relative positions and mask in one `(B, H, T, S)`, made once for all blocks of a stack.

    A tensor is its own key, and the blocks of a stack are handed the same ones.
    """
    # T5 permutes its positions from (T, S, H), and the sum of strided numbers takes 13 times as long.
    position_bias = position_bias.contiguous()
    whole = position_bias if mask is None else position_bias + mask
    return whole.to(dtype).expand(batch, -1, -1, -1).contiguous()


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, p: float) -> Tensor:
    """`dropout(softmax(q k^T + bias)) v`, unscaled as T5 has it.

    Args:
        q: `(B, H, T, K)`.
        k, v: `(B, H, S, K)`.
        bias: `(B, H, T, S)`: relative positions and mask.
        p: dropout's share.

    Returns:
        `(B, H, T, K)`.
    """
    if not q.is_cpu:
        return fused_attention(q, k, v, bias, p)
    flat_q, flat_k, flat_v, flat_bias = (x.flatten(0, 1) for x in (q, k, v, bias))
    if p:
        mixed = _Attention.apply(flat_q, flat_k, flat_v, flat_bias, p)
    else:
        mixed = torch.baddbmm(flat_bias, flat_q, flat_k.transpose(1, 2)).softmax(-1) @ flat_v
    return mixed.unflatten(0, q.shape[:2])


AttentionInterface.register(ATTENTION, _attention_forward)
AttentionMaskInterface.register(ATTENTION, eager_mask)  # zero and minus infinity, to be added
