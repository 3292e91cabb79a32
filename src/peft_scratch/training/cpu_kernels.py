"""T5's dropout, attention and layer norm with less work on a CPU, put into any T5 for a while.

They compute what T5's own do, to rounding, and draw from the same distribution (see `negative_with`).
On a GPU, attention goes through torch's fused kernels and dropout is left as it is.

Letters: B batch, H heads, T and S tokens of queries and keys, K width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from peft_scratch.training.gpu_attention import fused_attention

# Bits of a number that decides on one element; four such numbers come of one draw of 64 bits.
BITS = 15
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def cpu_kernels(model: nn.Module) -> Iterator[None]:
    """Within it, `model`, with whatever method in it, uses the cheaper computation wherever there is one.

    Only calls are redirected: no module, parameter or hook is added, and afterwards `model` is as before.
    Within it already, as a block under gradient checkpointing is at first, it changes nothing.
    """
    if model in _within:
        yield
        return
    swapped, checkpointed = [], []
    _within.add(model)
    try:
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                checkpointed.append((module, module._gradient_checkpointing_func))
                module._gradient_checkpointing_func = partial(_checkpoint, model, checkpointed[-1][1])
            if "forward" in vars(module):  # someone else's, as of Accelerate: leave it
                continue
            if type(module) is nn.Dropout:
                module.forward = partial(_dropout_forward, module)
            elif isinstance(module, T5Attention):
                module.forward = partial(_attention_forward, module, module.forward)
            elif isinstance(module, T5LayerNorm):
                module.forward = partial(_norm_forward, module)
            else:
                continue
            swapped.append(module)
        yield
    finally:
        _within.remove(model)
        for module in swapped:
            del module.forward
        for module, function in checkpointed:
            module._gradient_checkpointing_func = function


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
    """What the elements that are kept are multiplied by, so that the expectation stays."""
    return 2**BITS / (2**BITS - _threshold(p))


class _Dropout(torch.autograd.Function):
    """Keeps an element's bits or clears them: `kept` (int8) is all ones or all zeros."""

    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:
        kept = negative_with(p, x.numel()).bitwise_not_().bitwise_right_shift_(BITS).to(torch.int8)
        kept = kept.view(x.shape)
        ctx.save_for_backward(kept)
        ctx.scale = _scale(p)
        return _keep(x.contiguous(), kept, ctx.scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _keep(gradient.contiguous(), kept, ctx.scale), None


def _keep(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    integer = _INTEGERS[x.element_size()]
    return (x.view(integer) & kept.to(integer)).view(x.dtype).mul_(scale)


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
        normed = x * inverse  # float32, as inverse is
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normed).flatten(0, -2).sum(0).to(weight.dtype)
        of_normed = (gradient * weight).float()
        mean = (of_normed * normed).mean(-1, keepdim=True)
        return (of_normed - normed.mul_(mean)).mul_(inverse).to(x.dtype), of_weight, None


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
        weights.view(integer).bitwise_or_(dropped.bitwise_and_(torch.iinfo(integer).min))
        ctx.save_for_backward(q, k, v, weights)
        ctx.integer, ctx.scale = integer, _scale(p)
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
            kept = signed.view(ctx.integer).bitwise_right_shift(torch.iinfo(ctx.integer).bits - 1)
            of_weights.view(ctx.integer).bitwise_and_(kept.bitwise_not_())
            of_scores = torch._softmax_backward_data(of_weights, signed.abs(), -1, signed.dtype)
            of_q = torch.bmm(of_scores, k) if need_q else None
            of_k = torch.bmm(of_scores.transpose(1, 2), q) if need_k else None
        return of_q, of_k, of_v, of_scores if need_bias else None, None


def _attention_forward(
    module: T5Attention,
    whole: Callable[..., tuple],
    hidden_states: Tensor,
    mask: Tensor | None = None,
    key_value_states: Tensor | None = None,
    position_bias: Tensor | None = None,
    cache_position: Tensor | None = None,
    query_length: int | None = None,
    **others: object,
) -> tuple:
    """As `T5Attention.forward`, which is called (`whole`) for all that training and encoding do not need:
    a cache, masked or pruned heads, the weights as an output, AdapterHub's prefixes."""
    asked = [others.get(name) for name in ("past_key_values", "layer_head_mask")]
    prefixes = getattr(getattr(module, "prefix_tuning", None), "prefixes", ())
    if (
        any(value is not None for value in asked)
        or others.get("output_attentions")
        or module.pruned_heads
        or len(prefixes)
    ):
        return whole(
            hidden_states,
            mask=mask,
            key_value_states=key_value_states,
            position_bias=position_bias,
            cache_position=cache_position,
            query_length=query_length,
            **others,
        )
    read = hidden_states if key_value_states is None else key_value_states
    batch, length, heads = len(hidden_states), hidden_states.shape[1], module.n_heads
    q, k, v = (
        layer(x).view(batch, -1, heads, module.key_value_proj_dim).transpose(1, 2)  # (B, H, T or S, K)
        for layer, x in ((module.q, hidden_states), (module.k, read), (module.v, read))
    )
    if position_bias is None:  # in a stack's first block; the others are handed it
        keys = k.shape[2]
        if module.has_relative_attention_bias:
            queries = query_length if query_length is not None else cache_position[-1] + 1
            bias = module.compute_bias(queries, keys, device=k.device, cache_position=cache_position)
            position_bias = bias[:, :, -length:]  # (1, H, T, S)
        else:
            position_bias = k.new_zeros(1, heads, length, keys)
        if mask is not None:
            position_bias = position_bias + mask[..., :keys]  # (B, H, T, S)
        position_bias = position_bias.to(q.dtype).expand(batch, -1, -1, -1).contiguous()
    mixed = attention(q, k, v, position_bias, module.dropout if module.training else 0.0)
    mixed = mixed.transpose(1, 2).reshape(batch, length, module.inner_dim)  # (B, T, H K)
    return module.o(mixed), position_bias


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
    if torch.is_autocast_enabled(q.device.type):  # a library's update may have widened q or v
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    if not q.is_cpu:
        return fused_attention(q, k, v, bias, p)
    bias = bias.to(q.dtype)
    flat_q, flat_k, flat_v, flat_bias = (x.flatten(0, 1) for x in (q, k, v, bias))
    if p:
        mixed = _Attention.apply(flat_q, flat_k, flat_v, flat_bias, p)
    else:
        mixed = torch.baddbmm(flat_bias, flat_q, flat_k.transpose(1, 2)).softmax(-1) @ flat_v
    return mixed.unflatten(0, q.shape[:2])
