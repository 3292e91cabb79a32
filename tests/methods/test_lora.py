"""LoRA: hand-worked values, its start, where it goes, merging, and PEFT as an independent oracle."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_t5
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_scratch.errors import UserError
from peft_scratch.methods import LoRA, LoRALinear, apply, load_delta, merge, save_delta, unmerge
from peft_scratch.methods.lora import kaiming_uniform_down


def with_values(base, rank=4, scale=0.1):
    """A copy of `base` with LoRA in it, neither A nor B zero."""
    tuned = apply(LoRA(rank=rank), copy.deepcopy(base))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in tuned.trainable:
            p = tuned.model.get_parameter(name)
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return tuned


def by_hand():
    """A layer from D = 3 to E = 2 with rank 2 and alpha 3, so a scaling of 1.5."""
    base = nn.Linear(3, 2, bias=False)
    layer = LoRALinear(base, rank=2, alpha=3.0)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]))
        layer.sharif_llm_A.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        layer.sharif_llm_B.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
    return layer


def test_forward_by_hand():
    # x       = [1 2 3]
    # x W^T   = [1 + 6, 2 + 3]     = [7 5]
    # x A     = [1 + 3, 2 + 3]     = [4 5]
    # x A B   = [4, 8 - 5]         = [4 3],  times 1.5 = [6 4.5]
    y = by_hand()(torch.tensor([[[1.0, 2.0, 3.0]]]))
    assert y.tolist() == [[[13.0, 9.5]]]


def test_merge_by_hand():
    # A B = [[1 2] [0 -1] [1 1]];  1.5 (A B)^T = [[1.5 0 1.5] [3 -1.5 1.5]];  plus W:
    layer = by_hand()
    layer.merge()
    assert layer.weight.tolist() == [[2.5, 0.0, 3.5], [3.0, -0.5, 2.5]]
    assert layer(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[13.0, 9.5]]


def test_the_bias_is_kept():
    base = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    assert torch.equal(LoRALinear(base, rank=1, alpha=1.0)(x), base(x))


@pytest.mark.parametrize(("features", "rank"), [(512, 8), (512, 1), (32, 4)])
def test_a_starts_as_in_a_linear_layer_of_its_shape(features, rank):
    # torch draws an nn.Linear(D, R) just so: an oracle for the bound and for the fan-in.
    torch.manual_seed(5)
    a = kaiming_uniform_down(features, rank)
    torch.manual_seed(5)
    assert torch.equal(a, nn.Linear(features, rank, bias=False).weight.T)
    assert 0.9 / features**0.5 < a.abs().max() <= 1 / features**0.5


def test_the_trap_is_twenty_times_larger():
    torch.manual_seed(5)
    naive = nn.init.kaiming_uniform_(torch.empty(512, 8))
    assert 19 < naive.std() / kaiming_uniform_down(512, 8).std() < 20.5


@pytest.mark.parametrize("gated", [False, True])
def test_identity_at_the_start(gated, tiny_t5, tiny_gated_t5, batch):
    base = tiny_gated_t5 if gated else tiny_t5
    expected = base(**batch).logits
    model = apply(LoRA(), base).model
    assert torch.equal(model(**batch).logits, expected)
    assert any(p.abs().sum() > 0 for n, p in model.named_parameters() if n.endswith("sharif_llm_A"))


@pytest.mark.parametrize(
    ("targets", "places"),
    [(("q", "v"), 12), (("k",), 6), (("o",), 6), (("wi", "wo"), 8), (("q", "k", "v", "o", "wi", "wo"), 32)],
)
def test_targets_go_by_the_last_name_part(targets, places, tiny_t5):
    tuned = apply(LoRA(targets=targets), tiny_t5)  # apply also checks the count against the formula
    assert len(tuned.module_names) == places
    assert {name.rpartition(".")[2] for name in tuned.module_names} == set(targets)
    assert all(isinstance(tuned.model.get_submodule(name), LoRALinear) for name in tuned.module_names)


def test_gated_targets(tiny_gated_t5):
    assert len(apply(LoRA(targets=("wi_0", "wi_1", "wo")), tiny_gated_t5).module_names) == 12


@pytest.mark.parametrize(
    "targets", [("query",), ("q", "wi_0"), ("lm_head",), ("SelfAttention",), ("layer.0",)]
)
def test_a_target_that_matches_nothing_is_refused(targets, tiny_t5):
    with pytest.raises(UserError, match="the names there are k, o, q, v, wi, wo") as caught:
        apply(LoRA(targets=targets), tiny_t5)
    assert repr(targets[-1]) in str(caught.value)
    assert not any("sharif_llm" in name for name, _ in tiny_t5.named_parameters())


@pytest.mark.parametrize(
    "bad",
    [
        {"rank": 0},
        {"rank": -1},
        {"rank": 1.5},
        {"rank": True},
        {"alpha": 0.0},
        {"alpha": -4.0},
        {"alpha": float("nan")},
        {"alpha": float("inf")},
        {"targets": ()},
        {"targets": "q"},
    ],
)
def test_hyperparameters_out_of_range_are_refused(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        LoRA(**bad)


def test_injecting_twice_is_refused_without_apply_too(tiny_t5):
    LoRA().inject(tiny_t5)
    with pytest.raises(UserError, match="already carries"):
        LoRA(targets=("k",)).inject(tiny_t5)


def test_merge_is_exact_and_undone_to_the_bit(tiny_t5, batch):
    tuned = with_values(tiny_t5)
    model, keys = tuned.model, list(tuned.model.state_dict())
    unmerged = model(**batch).logits
    merge(model)
    once = copy.deepcopy(model.state_dict())
    assert torch.allclose(model(**batch).logits, unmerged, atol=1e-5)
    for name in tuned.module_names:
        layer, before = model.get_submodule(name), tiny_t5.get_submodule(name).weight
        update = (4.0 / 4 * layer.sharif_llm_A @ layer.sharif_llm_B).T
        assert torch.equal(layer.weight, before + update) and not torch.equal(layer.weight, before)
    merge(model)
    merge(model)
    assert list(model.state_dict()) == keys
    assert all(torch.equal(model.state_dict()[name], once[name]) for name in keys)
    unmerge(model)
    unmerge(model)
    assert all(torch.equal(p, model.get_parameter(n)) for n, p in tiny_t5.named_parameters())
    assert torch.equal(model(**batch).logits, unmerged)
    assert list(model.state_dict()) == keys


def test_eval_and_train_do_not_merge(tiny_t5):
    tuned = with_values(tiny_t5)
    before = {name: p.clone() for name, p in tuned.model.named_parameters()}
    tuned.model.train().eval().train()
    assert all(torch.equal(p, before[name]) for name, p in tuned.model.named_parameters())
    assert not any(tuned.model.get_submodule(name).merged for name in tuned.module_names)


def test_merged_is_saved_as_unmerged_and_refuses_to_load(tiny_t5, tmp_path):
    model = with_values(tiny_t5).model
    save_delta(model, tmp_path / "unmerged.pt")
    merge(model)
    save_delta(model, tmp_path / "merged.pt")
    assert (tmp_path / "merged.pt").read_bytes() == (tmp_path / "unmerged.pt").read_bytes()
    with pytest.raises(UserError, match="unmerge"):
        load_delta(model, tmp_path / "merged.pt")


def test_a_merged_model_can_be_copied_and_cast(tiny_t5, batch):
    model = with_values(tiny_t5).model
    merge(model)
    twin = copy.deepcopy(model).double()
    unmerge(twin)
    for name, p in tiny_t5.named_parameters():
        assert torch.equal(twin.get_parameter(name), p.double())
    assert model.encoder.block[0].layer[0].SelfAttention.q.merged  # the copy went its own way


@pytest.mark.parametrize("call", [merge, unmerge])
def test_nothing_to_merge_is_refused(call, tiny_t5):
    with pytest.raises(UserError, match="no LoRA"):
        call(tiny_t5)


def test_a_checkpoint_of_the_base_still_fits(tiny_t5):
    checkpoint = make_t5(seed=9).state_dict()
    model = apply(LoRA(), tiny_t5).model
    found = model.load_state_dict(checkpoint, strict=False)
    assert not found.unexpected_keys
    assert len(found.missing_keys) == 24 and all("sharif_llm_" in key for key in found.missing_keys)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in checkpoint.items())


def test_a_base_in_bfloat16(tiny_t5, batch):
    base = copy.deepcopy(tiny_t5).bfloat16()
    tuned = with_values(base)
    assert {tuned.model.get_parameter(name).dtype for name in tuned.trainable} == {torch.float32}
    output = tuned.model(**batch)
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    for name in tuned.trainable:
        gradient = tuned.model.get_parameter(name).grad
        assert gradient.dtype == torch.float32 and gradient.isfinite().all() and gradient.abs().sum() > 0
    reference = with_values(base.float()).model(**batch).logits
    error = (output.logits.float() - reference).norm() / reference.norm()
    assert error < 0.05  # of the precision of bfloat16, 2^-8, after four blocks
    merge(tuned.model)
    assert (tuned.model(**batch).logits.float() - reference).norm() / reference.norm() < 0.05
    unmerge(tuned.model)
    assert all(torch.equal(tuned.model.get_parameter(n), p.bfloat16()) for n, p in base.named_parameters())


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("gated", [False, True])
def test_equal_to_peft_to_the_last_bit(rank, gated, tiny_t5, tiny_gated_t5, batch):
    base = tiny_gated_t5 if gated else tiny_t5
    ours = with_values(base, rank=rank)
    config = LoraConfig(r=rank, lora_alpha=4, target_modules=["q", "v"], lora_dropout=0.0)
    theirs = get_peft_model(copy.deepcopy(base), config).eval()

    def twin(name):
        layer, letter = name[:-1].removesuffix(".sharif_llm_"), name[-1]
        return theirs.get_parameter(f"base_model.model.{layer}.lora_{letter}.default.weight")

    with torch.no_grad():
        for name in ours.trainable:
            twin(name).copy_(ours.model.get_parameter(name).T)
    mine, other = ours.model(**batch), theirs(**batch)
    mine.loss.backward()
    other.loss.backward()
    assert torch.equal(mine.logits, other.logits)
    for name in ours.trainable:
        gradient = ours.model.get_parameter(name).grad
        assert gradient.abs().sum() > 0 and torch.equal(gradient, twin(name).grad.T), name
    # The comparison must be able to fail: one weight nudged, and it does.
    with torch.no_grad():
        twin(ours.trainable[0])[0, 0] += 0.01
    assert not torch.equal(mine.logits, theirs(**batch).logits)
