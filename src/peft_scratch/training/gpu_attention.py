"""Attention on a GPU by torch's fused kernel, called so that its known traps cannot be met.

Each rule answers a fault that was reported against torch:

1. Only the memory-efficient kernel and plain products may be chosen. cuDNN's kernel gave NaN for the
   gradient of q with a mask on Hopper (pytorch#196678), and crashed where the mask alone wants a gradient
   (pytorch#148476); the flash kernel takes no mask.
2. Mask, keys and values have the type of the queries: a mask of another type gave wrong numbers without a
   word (pytorch#191612).
3. The bias lies in memory in full, `(B, H, T, S)`: a gradient to a bias of stride 0 would have to be summed
   by the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

#: What torch may choose from.
BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, p: float) -> Tensor:
    """`dropout(softmax(q k^T + bias)) v`, unscaled as T5 has it.

    Args:
        q: `(B, H, T, K)`; its type is that of the computation.
        k, v: `(B, H, S, K)`.
        bias: broadcasts to `(B, H, T, S)`: relative positions and mask.
        p: dropout's share.

    Returns:
        `(B, H, T, K)`.
    """
    if q.dtype == torch.float16:  # in which the mask's float32 minimum would become minus infinity
        bias = bias.clamp(min=torch.finfo(torch.float16).min)
    bias = bias.to(q.dtype).expand(*q.shape[:3], k.shape[2]).contiguous()  # (B, H, T, S)
    # Autocast is off: it would convert operands, and there is nothing left to convert.
    with sdpa_kernel(BACKENDS), torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(
            q, k.to(q.dtype), v.to(q.dtype), attn_mask=bias, dropout_p=p, scale=1.0
        )
