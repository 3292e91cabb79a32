"""The lean dropout, attention and layer norm against T5's own, and that nothing is left of them."""

import copy
from unittest.mock import patch

import pytest
import torch
import transformers
from conftest import make_t5
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5Stack

from peft_scratch.assignment import RUNS
from peft_scratch.libraries import method_of
from peft_scratch.methods import apply
from peft_scratch.training import cpu_kernels as kernels
from peft_scratch.training.cpu_kernels import attention, cpu_kernels, negative_with

P = 0.1


def _qkv(dtype=torch.float32):
    """Two texts, three heads, five queries and seven keys, of which the second text has four."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator, dtype=dtype) for n in (5, 7, 7))
    bias = torch.randn(2, 3, 5, 7, generator=generator, dtype=dtype)
    bias[1, :, :, 4:] = torch.finfo(dtype).min
    return [tensor.requires_grad_() for tensor in (q, k, v, bias)]


def _by_hand(q, k, v, bias, kept):
    return ((q @ k.transpose(2, 3) + bias).softmax(-1) * kept) @ v


# Dropout


def test_a_share_of_p_is_drawn_to_15_bits():
    drawn = negative_with(P, 2_000_001) < 0
    assert len(drawn) == 2_000_001
    # Six standard deviations of a binomial share.
    assert drawn.float().mean().item() == pytest.approx(P, abs=6 * (P * (1 - P) / len(drawn)) ** 0.5)
    assert not (negative_with(0.0, 10_000) < 0).any()


def test_elements_are_drawn_independently():
    """Four of them share a draw, so neighbours up to that distance are looked at, and beyond."""
    drawn = (negative_with(0.5, 400_000) < 0).float() - 0.5
    for distance in (1, 2, 3, 4, 5, 8, 64):
        correlation = 4 * (drawn[:-distance] * drawn[distance:]).mean().item()
        assert abs(correlation) < 6 / len(drawn) ** 0.5, distance
    again = (negative_with(0.5, 400_000) < 0).float() - 0.5
    assert abs(4 * (drawn * again).mean().item()) < 6 / len(drawn) ** 0.5, "of the next draw"


def test_torchs_seed_decides():
    def drawn(seed):
        torch.manual_seed(seed)
        return [negative_with(P, 1000), negative_with(P, 1000)]

    assert all(torch.equal(one, other) for one, other in zip(drawn(1), drawn(1), strict=True))
    assert not torch.equal(*drawn(1))
    assert not torch.equal(drawn(1)[0], drawn(2)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_keeps_the_mean_and_its_gradient_the_mask(dtype):
    layer = torch.nn.Dropout(P)
    x = torch.randn(300, 1000).to(dtype).requires_grad_()
    with cpu_kernels(layer):
        y = layer(x)
        # Not contiguous, and under a gradient that is not either.
        turned = layer(x.T)
        layer.eval()
        assert torch.equal(layer(x), x)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(1 - P, abs=0.005)
    torch.testing.assert_close(
        y[kept], (x / (1 - P))[kept], rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=0
    )
    torch.testing.assert_close(gradient * x, y, rtol=2e-2, atol=1e-6)
    assert turned.shape == x.T.shape
    assert ((turned != 0).float().mean(0) - (1 - P)).abs().max() < 0.1


# Attention


def test_attention_without_dropout_is_t5s():
    leaves = _qkv()
    q, k, v, bias = leaves
    out = attention(q, k, v, bias, 0.0)
    torch.testing.assert_close(out, _by_hand(q, k, v, bias, 1.0), rtol=0, atol=1e-5)


def test_attention_with_dropout_has_t5s_value_and_gradients():
    """With the mask it drew: read off by giving it values that show each weight on its own."""
    q, k, v, bias = leaves = _qkv()
    torch.manual_seed(7)
    shown = attention(q, k, torch.eye(7).expand(2, 3, 7, 7), bias, 0.3)
    scale = 2**15 / (2**15 - round(0.3 * 2**15))
    kept = (shown.detach() != 0) * scale
    assert 0.05 < (shown[0] == 0).float().mean() < 0.6
    torch.manual_seed(7)
    out = attention(q, k, v, bias, 0.3)
    expected = _by_hand(q, k, v, bias, kept)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    upstream = torch.randn(out.shape)
    for ours, theirs in zip(
        torch.autograd.grad(out, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_only_the_gradients_that_are_asked_for_are_made():
    q, k, v, bias = (tensor.detach() for tensor in _qkv())
    v.requires_grad_()
    attention(q, k, v, bias, P).sum().backward()
    assert v.grad.isfinite().all()
    assert q.grad is None


# Whole models

TRANSFORMERS_5 = int(transformers.__version__.split(".")[0]) >= 5


def _stacks(model):
    return [(name, module) for name, module in model.named_modules() if isinstance(module, T5Stack)]


def _attention_called(model, batch):
    """How often a forward pass goes through `attention`."""
    with patch.object(kernels, "attention", wraps=attention) as watched, torch.random.fork_rng():
        model(**batch)
    return watched.call_count


METHODS = pytest.mark.parametrize("run_id", RUNS)


def _gradients(model, batch):
    loss = model(**batch, use_cache=False).loss
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [p for _, p in named])
    return loss.detach(), dict(zip((name for name, _ in named), gradients, strict=True))


@METHODS
def test_losses_and_gradients_of_every_method_are_as_without(run_id, batch):
    """Without dropout, since its draws differ; in training mode, so that every lean road is taken."""
    model = apply(method_of(RUNS[run_id]), make_t5(dropout_rate=0.0)).model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
    loss, gradients = _gradients(model, batch)
    with cpu_kernels(model):
        lean_loss, lean_gradients = _gradients(model, batch)
        generated = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    torch.testing.assert_close(lean_loss, loss, rtol=0, atol=1e-5)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(lean_gradients[name], gradient, rtol=0, atol=1e-5 * max(1, largest.item()))
    plain = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert torch.equal(generated, plain)


@METHODS
def test_nothing_is_left_behind(run_id, batch):
    model = apply(method_of(RUNS[run_id]), make_t5()).model.train()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    configs = {name: module.config.to_dict() for name, module in _stacks(model)}
    theirs = _attention_called(model, batch)
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    loss = model(**batch).loss
    with pytest.raises(KeyError), cpu_kernels(model):
        swapped = [name for name, module in model.named_modules() if vars(module) != before[name]]
        ours = _attention_called(model, batch)
        raise KeyError  # on whatever way out
    if TRANSFORMERS_5:
        # In each self-attention of two blocks of encoder and decoder, and in each cross-attention.
        assert (ours, theirs) == (6, 0)
    assert any(name.endswith("dropout") for name in swapped)
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before
    assert {name: module.config.to_dict() for name, module in _stacks(model)} == configs
    assert _attention_called(model, batch) == 0
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    torch.manual_seed(5)
    assert torch.equal(model(**batch).loss, loss), "T5's own dropout is back"


def test_dropout_is_in_every_place_where_t5_has_it(batch, monkeypatch):
    """As many elements are drawn for as T5 itself draws for."""
    model = make_t5().train()
    if TRANSFORMERS_5:  # its own is in one with the product, out of sight
        model.set_attn_implementation("eager")
    model.requires_grad_(False)
    theirs, ours = [], []
    dropout = F.dropout
    monkeypatch.setattr(
        F, "dropout", lambda x, p, training, *_: (theirs.append(x.numel()), dropout(x, p, training))[1]
    )
    model(**batch, use_cache=False)
    monkeypatch.setattr(
        kernels, "negative_with", lambda p, size: (ours.append(size), negative_with(p, size))[1]
    )
    expected, theirs[:] = list(theirs), []
    with cpu_kernels(model):
        model(**batch, use_cache=False)
    if TRANSFORMERS_5:
        assert (ours, theirs) == (expected, [])
    else:  # attention stays its own there
        assert sorted(ours + theirs) == sorted(expected) and ours


def test_other_requests_go_the_whole_way(batch):
    model = make_t5()
    with cpu_kernels(model), torch.inference_mode():
        out = model(**batch, output_attentions=True)
    assert out.encoder_attentions[0].shape[-1] == 7
    if TRANSFORMERS_5:  # which has no head masks
        return
    with cpu_kernels(model), torch.inference_mode():
        masked = model(**batch, head_mask=torch.zeros(2, 2), decoder_head_mask=torch.ones(2, 2))
    assert not torch.allclose(masked.logits, out.logits)
