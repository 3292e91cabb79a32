"""The adapter: hand-worked values, its start, where it goes, and AdapterHub as an independent oracle."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_t5

from peft_scratch.errors import UserError
from peft_scratch.libraries.adapterhub_compat import import_adapters
from peft_scratch.methods import AdaptedLayerFF, Adapter, Bottleneck, apply

PLACES = [
    "encoder.block.0.layer.1",
    "encoder.block.1.layer.1",
    "decoder.block.0.layer.2",
    "decoder.block.1.layer.2",
]


def fill(parameters):
    """Random values in `parameters`, so that nothing is zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)


def test_bottleneck_by_hand():
    layer = Bottleneck(width=2, bottleneck=1)
    down, _, up = layer.sharif_llm_adapter
    with torch.no_grad():
        down.weight.copy_(torch.tensor([[2.0, -1.0]]))
        down.bias.fill_(1.0)
        up.weight.copy_(torch.tensor([[3.0], [-1.0]]))
        up.bias.copy_(torch.tensor([0.5, 0.0]))
    # first token:   2 * 1 - 2 + 1 =  1, relu 1; up [3 -1] + [0.5 0] = [3.5 -1], not clamped again
    # second token: 2 * -1 - 1 + 1 = -2, relu 0; up [0  0] + [0.5 0] = [0.5  0]
    assert layer(torch.tensor([[[1.0, 2.0], [-1.0, 1.0]]])).tolist() == [[[3.5, -1.0], [0.5, 0.0]]]


def test_it_stands_after_the_whole_feed_forward_layer_with_a_residual(tiny_t5):
    base = tiny_t5.encoder.block[0].layer[1]
    layer = AdaptedLayerFF(base, bottleneck=3)
    fill(layer.adapter.parameters())
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(4))
    h = base(x)  # with T5's own residual
    down, _, up = layer.adapter.sharif_llm_adapter
    expected = h + torch.clamp(h @ down.weight.T + down.bias, min=0) @ up.weight.T + up.bias
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    assert (expected - h).abs().max() > 0.1


@pytest.mark.parametrize("gated", [False, True])
def test_identity_at_the_start(gated, tiny_t5, tiny_gated_t5, batch):
    base = tiny_gated_t5 if gated else tiny_t5
    expected = base(**batch).logits
    tuned = apply(Adapter(), base)
    assert torch.equal(tuned.model(**batch).logits, expected)
    assert tuned.module_names == PLACES


def test_dropout_is_where_it_was(tiny_t5, batch):
    tiny_t5.train()
    torch.manual_seed(7)
    expected = tiny_t5(**batch).logits
    model = apply(Adapter(), tiny_t5).model
    torch.manual_seed(7)
    assert torch.equal(model(**batch).logits, expected)
    assert not torch.equal(model(**batch).logits, expected)


def test_how_the_weights_start():
    down, _, up = Bottleneck(width=64, bottleneck=16).sharif_llm_adapter
    assert not any(p.any() for p in (down.bias, up.weight, up.bias))
    assert 0.9 / 8 < down.weight.abs().max() <= 1 / 8


def test_keys(tiny_t5):
    expected = {
        f"{place}.adapter.sharif_llm_adapter.{i}.{what}"
        for place in PLACES
        for i in (0, 2)
        for what in ("weight", "bias")
    }
    assert set(apply(Adapter(), tiny_t5).trainable) == expected


@pytest.mark.parametrize("bottleneck", [0, -8, 2.0, True, None])
def test_hyperparameters_out_of_range_are_refused(bottleneck):
    with pytest.raises(UserError, match="bottleneck"):
        Adapter(bottleneck)


def test_injecting_twice_is_refused_without_apply_too(tiny_t5):
    Adapter().inject(tiny_t5)
    with pytest.raises(UserError, match="already carries"):
        Adapter().inject(tiny_t5)


def test_a_model_without_t5_layers_is_refused():
    with pytest.raises(UserError, match="DenseReluDense"):
        Adapter().inject(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_a_checkpoint_of_the_base_still_fits(tiny_t5):
    checkpoint = make_t5(seed=9).state_dict()
    model = apply(Adapter(), tiny_t5).model
    found = model.load_state_dict(checkpoint, strict=False)
    assert not found.unexpected_keys
    assert len(found.missing_keys) == 16 and all("sharif_llm_" in key for key in found.missing_keys)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in checkpoint.items())


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_kept(training, tiny_t5):
    model = apply(Adapter(), tiny_t5.train(training)).model
    assert {module.training for module in model.modules()} == {training}


def test_a_base_in_bfloat16(tiny_t5, batch):
    tuned = apply(Adapter(), tiny_t5.bfloat16())
    parameters = [tuned.model.get_parameter(name) for name in tuned.trainable]
    fill(parameters)
    output = tuned.model(**batch)
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    for p in parameters:
        assert p.dtype == p.grad.dtype == torch.float32
        assert p.grad.isfinite().all() and p.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.past_key_value. is deprecated:FutureWarning")
@pytest.mark.parametrize("bottleneck", [1, 8])
@pytest.mark.parametrize("gated", [False, True])
def test_equal_to_adapterhub_to_the_last_bit(bottleneck, gated, tiny_t5, tiny_gated_t5, batch):
    theirs = tiny_gated_t5 if gated else tiny_t5
    # Ours goes into AdapterHub's T5 too: its attention copies keys and values before it multiplies them, so
    # that its T5 without any adapter differs from transformers' in the last bits already.
    adapters = import_adapters()
    adapters.init(theirs)
    ours = apply(Adapter(bottleneck), copy.deepcopy(theirs))
    theirs.add_adapter("a", config=adapters.SeqBnConfig(reduction_factor=32 / bottleneck))
    theirs.train_adapter("a")
    theirs.eval()
    mine = [ours.model.get_parameter(name) for name in ours.trainable]
    other = [p for p in theirs.parameters() if p.requires_grad]
    fill(mine)
    with torch.no_grad():
        for p, q in zip(mine, other, strict=True):
            q.copy_(p)
    a, b = ours.model(**batch), theirs(**batch)
    a.loss.backward()
    b.loss.backward()
    assert torch.equal(a.logits, b.logits)
    for name, p, q in zip(ours.trainable, mine, other, strict=True):
        assert torch.equal(p.grad, q.grad), name
    # Not of each: with one unit and so few tokens, a ReLU may be shut on all of them.
    assert sum(p.grad.abs().sum() for p in mine[::4]) > 0
    # The comparison must be able to fail: one weight nudged, and it does.
    with torch.no_grad():
        other[0][0, 0] += 0.01
    assert not torch.equal(a.logits, theirs(**batch).logits)
