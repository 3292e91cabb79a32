"""Attention on a GPU: what is asked of torch can be seen on a CPU, what comes of it cannot."""

import pytest
import torch
from torch.nn import functional as F

from peft_scratch.training import gpu_attention
from peft_scratch.training.gpu_attention import fused_attention

B, H, T, S, K = 2, 3, 7, 5, 8
NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def _operands(dtype=torch.float32, device="cpu", batch=1):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(B, length, H, K, generator=generator).to(device, dtype).transpose(1, 2)
        for length in (T, S, S)
    )
    bias = torch.randn(batch, H, T, S, generator=generator).to(device)
    mask = torch.zeros(B, 1, 1, S, device=device)
    mask[1, ..., 3:] = torch.finfo(torch.float32).min
    return q, k, v, bias, mask


@pytest.fixture
def asked(monkeypatch):
    """What torch was asked for: operands, options, and the kernels that it might have chosen."""
    seen = {}
    real = F.scaled_dot_product_attention

    def record(q, k, v, **options):
        backends = torch.backends.cuda
        seen.update(
            q=q,
            k=k,
            v=v,
            **options,
            flash=backends.flash_sdp_enabled(),
            cudnn=backends.cudnn_sdp_enabled(),
            efficient=backends.mem_efficient_sdp_enabled(),
            plain=backends.math_sdp_enabled(),
            autocast=torch.is_autocast_enabled("cpu"),
        )
        return real(q, k, v, **options)

    monkeypatch.setattr(gpu_attention.F, "scaled_dot_product_attention", record)
    return seen


def test_only_the_kernels_without_a_known_fault_may_be_chosen(asked):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    q, k, v, bias, mask = _operands()
    fused_attention(q, k, v, bias + mask, 0.0)
    assert (asked["efficient"], asked["plain"]) == (True, True)
    assert (asked["flash"], asked["cudnn"]) == (False, False)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before, "others may choose as they like"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_mask_keys_and_values_have_the_type_of_the_queries(asked, dtype):
    q, k, v, bias, mask = _operands(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = fused_attention(q, k.float(), v.float(), bias + mask, 0.0)
    assert {asked[name].dtype for name in ("q", "k", "v", "attn_mask")} == {dtype}
    assert out.dtype == dtype
    assert not asked["autocast"]
    assert asked["scale"] == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_mask_lies_in_memory_in_full_and_is_finite(asked, dtype):
    q, k, v, bias, mask = _operands(dtype)
    for given in (bias, mask, bias + mask):
        fused_attention(q, k, v, given, 0.0)
        assert asked["attn_mask"].shape == (B, H, T, S)
        assert asked["attn_mask"].stride() == (H * T * S, T * S, S, 1)
        assert asked["attn_mask"].isfinite().all()


def test_dropout_is_handed_on(asked):
    q, k, v, bias, _ = _operands()
    fused_attention(q, k, v, bias, 0.1)
    assert asked["dropout_p"] == 0.1


def _plain(q, k, v, bias):
    return (q @ k.transpose(2, 3) + bias).softmax(-1) @ v


def _check_against_plain(device, dtype, tolerance, leaves=("q", "k", "v", "bias")):
    """Values and gradients, also where the bias alone wants one."""
    operands = dict(zip(("q", "k", "v", "bias", "mask"), _operands(dtype, device), strict=True))
    upstream = torch.randn(B, H, T, K, generator=torch.Generator().manual_seed(1)).to(device)
    results = []
    for plain in (True, False):
        given = {
            name: (tensor.double() if plain else tensor).detach().clone() for name, tensor in operands.items()
        }
        wanted = [given[name].requires_grad_() for name in leaves]
        q, k, v, bias = given["q"], given["k"], given["v"], given["bias"] + given["mask"]
        out = _plain(q, k, v, bias) if plain else fused_attention(q, k, v, bias, 0.0)
        gradients = torch.autograd.grad(out, wanted, upstream.to(out.dtype))
        results.append([out.detach(), *gradients])
    for name, expected, found in zip(("out", *leaves), *results, strict=True):
        assert expected.shape == found.shape
        assert found.isfinite().all(), name
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("leaves", [("q", "k", "v", "bias"), ("bias",), ("q",)], ids=str)
def test_values_and_gradients_are_those_of_plain_products(leaves):
    _check_against_plain("cpu", torch.float32, 1e-5, leaves)


@NEEDS_A_GPU
@pytest.mark.parametrize("leaves", [("q", "k", "v", "bias"), ("bias",), ("q",)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)], ids=str
)
def test_so_they_are_on_a_gpu(dtype, tolerance, leaves):
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no bfloat16")
    _check_against_plain("cuda", dtype, tolerance, leaves)
