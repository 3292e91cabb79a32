"""float16, as on a GPU without bfloat16: here by the CPU's autocast, on the tiny T5.

What a GPU computes in float16 is not tested here: no test has run on one.
"""

import contextlib

import pytest
import torch
from accelerate import Accelerator
from conftest import make_t5
from enlarged import enlarge
from torch.nn import functional as F

from peft_scratch.assignment import RUNS
from peft_scratch.data.batches import Collator
from peft_scratch.libraries import method_of
from peft_scratch.methods import FullFineTuning, LoRA, apply
from peft_scratch.training import device, float16
from peft_scratch.training.checkpoints import trainable_state
from peft_scratch.training.float16 import Float16Failed, LossScale, exponent_of, scaled_linear, writers
from peft_scratch.training.recipe import RECIPES
from peft_scratch.training.trainer import Trainer

FAST = RECIPES["fast"]
CPU = torch.device("cpu")
REVIEWS = [[5 + i % 7, 20 + i % 11, 1] + [9] * (i % 3) for i in range(40)]
COLLATOR = Collator(REVIEWS, [i % 2 for i in range(40)], [[3, 1], [4, 1]], pad_id=0)
METHODS = pytest.mark.parametrize("run_id", RUNS)


@pytest.fixture
def in_float16(monkeypatch):
    monkeypatch.setattr(device, "precision_of", lambda: (torch.float16, "for a test"))


def _trainer(model, **options):
    FAST.cast_frozen(model)
    settings = {"accelerator": Accelerator(cpu=True), "recipe": FAST, "learning_rate": 0.01, "batch_size": 8}
    return Trainer(model, **{**settings, **options})


def _large(seed: int = 0, **changes):
    """A tiny T5 whose residual stream does not fit into float16."""
    return enlarge(make_t5(seed, **changes), 2.0**16)


# Which precision


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 0), torch.float32),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ],
)
def test_the_precision_of_a_gpu_follows_from_its_compute_capability(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # as it says on a T4
    chosen, reason = device.precision_of()
    assert chosen == dtype
    assert str(dtype).removeprefix("torch.") in reason
    assert ".".join(map(str, capability)) in reason


def test_the_recipe_says_so(in_float16):
    assert FAST.precision_name == "float16"
    assert RECIPES["reference"].precision_name == FAST.in_float32().precision_name == "float32"


# The products


def test_a_scaled_product_is_the_product_to_the_last_bit_where_nothing_is_rounded():
    """Small integers: every sum fits into float16, before and after."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-4, 5, (3, 8), generator=generator).to(torch.float16)
    weight = torch.randint(-4, 5, (5, 8), generator=generator).to(torch.float16)
    bias = torch.arange(5.0)
    for exponent in (-3, 0, 4):
        assert torch.equal(scaled_linear(x, weight, bias, exponent), x.float() @ weight.float().T + bias)


def test_a_scaled_product_holds_what_float16_cannot():
    x = torch.full((1, 64), 100.0, dtype=torch.float16)
    weight = torch.full((2, 64), 200.0, dtype=torch.float16)
    assert F.linear(x, weight).isinf().all()
    assert scaled_linear(x, weight, None, exponent_of(weight)).tolist() == [[1_280_000.0] * 2]


def test_rows_are_at_most_of_length_one():
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 37
    longest = (weight * 2.0 ** -exponent_of(weight)).norm(dim=1).max()
    assert 0.5 < longest <= 1
    assert exponent_of(torch.zeros(2, 2)) == 0


@METHODS
def test_the_writers_are_found_whatever_wraps_them(run_id):
    model = apply(method_of(RUNS[run_id]), make_t5()).model
    assert len(writers(model)) == 2 * 2 + 2 * 3, "an encoder's block has two, a decoder's three"


@METHODS
def test_the_residual_stream_is_float32_and_the_frozen_rest_is_not(run_id, in_float16, batch):
    model = FAST.cast_frozen(apply(method_of(RUNS[run_id]), make_t5()).model)
    t5 = next(module for module in model.modules() if hasattr(module, "block"))
    seen = []
    hook = t5.block[-1].register_forward_hook(lambda _, __, out: seen.append(out[0].dtype))
    with FAST.forward_context(model, CPU):
        model(**batch, use_cache=False)
    hook.remove()
    assert seen == [torch.float32]
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad and p is not model.shared.weight}
    assert frozen <= {torch.float16, torch.float32}
    assert run_id == "full" or torch.float16 in frozen
    assert model.shared.weight.dtype == torch.float32


# Against float32


@METHODS
def test_losses_and_gradients_are_those_of_float32(run_id, in_float16, batch):
    """To float16's rounding, which here and there turns a ReLU on or off. Without dropout."""
    model = apply(method_of(RUNS[run_id]), make_t5(dropout_rate=0.0)).model.train()
    for parameter in model.parameters():
        if parameter.requires_grad and run_id != "full":
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(3))
    trained = [p for p in model.parameters() if p.requires_grad]
    found = []
    for recipe in (FAST.in_float32(), FAST):
        recipe.cast_frozen(model)
        with recipe.forward_context(model, CPU):
            loss = model(**batch, use_cache=False).loss
        gradients = torch.autograd.grad(loss * 2**10, trained)
        found.append((loss.item(), [gradient / 2**10 for gradient in gradients]))
    (loss, gradients), (loss_16, gradients_16) = found
    assert loss_16 != loss, "the second was float32 as well"
    assert loss_16 == pytest.approx(loss, rel=3e-3)
    for one, other in zip(gradients, gradients_16, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).norm() <= 0.06 * max(one.norm(), 1e-3)


# A base that overflows


def test_the_enlarged_base_is_the_same_function(batch):
    base, large = make_t5(), _large()
    torch.testing.assert_close(large(**batch).logits, base(**batch).logits, rtol=1e-5, atol=1e-5)


def _naive_loss(model, batch):
    """float16 as one would do it at first: autocast, nothing else."""
    with torch.autocast("cpu", torch.float16):
        return model(**batch, use_cache=False).loss


def test_naive_float16_overflows_on_it_and_ours_does_not(in_float16, batch):
    expected = make_t5()(**batch).loss
    assert _naive_loss(make_t5(), batch).isfinite(), "it is the size of the stream that matters"
    assert not _naive_loss(_large(), batch).isfinite()
    model = FAST.cast_frozen(_large().requires_grad_(False))
    with FAST.forward_context(model, CPU):
        loss = model(**batch, use_cache=False).loss
    assert loss.item() == pytest.approx(expected.item(), rel=3e-3)


@METHODS
def test_no_step_is_skipped_on_it(run_id, in_float16, tmp_path):
    model = apply(method_of(RUNS[run_id]), _large()).model
    before = trainable_state(model)
    history = _trainer(model).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 2)
    assert [epoch["skipped_steps"] for epoch in history.epochs] == [0, 0]
    assert [epoch["precision"] for epoch in history.epochs] == ["float16"] * 2
    assert any(not torch.equal(before[name], after) for name, after in trainable_state(model).items())


# Steps that are not finite


@contextlib.contextmanager
def _broken(model, steps):
    """Within it, the forward passes of a training step numbered in `steps` overflow in float16 alone."""
    count = iter(range(10**6))

    def spoil(module, args, out):
        low = out.logits.dtype == torch.float16
        if module.training and low and next(count) in steps:
            out.loss = out.loss * float("inf")
        return out

    hook = model.register_forward_hook(spoil)
    yield
    hook.remove()


def test_a_step_that_is_not_finite_is_skipped_and_counted(in_float16):
    model = apply(LoRA(rank=2), make_t5()).model
    with _broken(model, {2, 6}):
        history = _trainer(model).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 2)
    assert [epoch["skipped_steps"] for epoch in history.epochs] == [1, 1]
    assert all(torch.isfinite(tensor).all() for tensor in history.best_state.values())
    assert torch.tensor([loss for _, loss in history.curve]).isfinite().all()


def test_a_skipped_step_moves_nothing():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    scale = LossScale(CPU)
    scale.scaled((weight * float("inf")).sum()).backward()
    assert not scale.step(optimizer, "a test")
    assert torch.equal(weight, torch.ones(3))
    optimizer.zero_grad()
    scale.scaled((weight * 3).sum()).backward()
    assert scale.step(optimizer, "a test")
    torch.testing.assert_close(weight.detach(), torch.full((3,), 1 - 0.1 - 0.001), rtol=0, atol=1e-3)
    assert (scale.take_skipped(), scale.take_skipped()) == (1, 0)


def test_when_it_happens_again_and_again_the_run_goes_on_in_float32(in_float16, tmp_path, capsys):
    """From its last finished epoch, and it ends as one that was started there in float32."""
    first = apply(LoRA(rank=2), make_t5()).model
    history = _trainer(first).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 1, tmp_path)
    assert history.epochs[0]["precision"] == "float16"

    again = apply(LoRA(rank=2), make_t5()).model
    trainer = _trainer(again)
    with _broken(again, set(range(10**6))):
        history = trainer.fit(COLLATOR, lambda _: {"accuracy": 0.5}, 3, tmp_path)
    assert [epoch["precision"] for epoch in history.epochs] == ["float16", "float32", "float32"]
    assert [epoch["skipped_steps"] for epoch in history.epochs] == [0, 0, 0]
    said = capsys.readouterr().out
    assert "goes on in float32, from its last finished epoch (1 of 3)" in said
    assert trainer.recipe.precision_name == "float32"
    assert {p.dtype for p in again.parameters()} == {torch.float32}

    other = apply(LoRA(rank=2), make_t5()).model
    resumed = _trainer(other).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 4, tmp_path)
    assert resumed.epochs[-1]["precision"] == "float32", "a run that is found again stays there"


def test_without_a_whole_epoch_it_starts_again(in_float16, tmp_path):
    expected = apply(FullFineTuning(), make_t5()).model
    FAST.in_float32().cast_frozen(expected)
    trainer = Trainer(
        expected,
        accelerator=Accelerator(cpu=True),
        recipe=FAST.in_float32(),
        learning_rate=0.01,
        batch_size=8,
    )
    trainer.fit(COLLATOR, lambda _: {"accuracy": 0.5}, 1)
    model = apply(FullFineTuning(), make_t5()).model
    with _broken(model, set(range(2, 10**6))):
        _trainer(model).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 1, tmp_path / "one")
    # An epoch of five steps is too short to give up in: its first two were taken.
    assert trainable_state(model).keys() == trainable_state(expected).keys()
    model = apply(FullFineTuning(), make_t5()).model
    with _broken(model, set(range(10**6))):
        _trainer(model).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 1, tmp_path / "two")
    states = trainable_state(model), trainable_state(expected)
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_outside_a_run_it_stops_with_a_sentence(monkeypatch):
    monkeypatch.setattr(float16, "MOST_SKIPPED", 2)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer, scale = torch.optim.AdamW([weight], lr=0.1), LossScale(CPU)

    def step():
        optimizer.zero_grad()
        scale.scaled((weight * float("nan")).sum()).backward()
        return scale.step(optimizer, "epoch 1/2, step 3")

    assert [step(), step()] == [False, False]
    with pytest.raises(
        Float16Failed, match=r"3 of the last 3 steps, up to epoch 1/2, step 3: use the recipe"
    ):
        step()


def test_an_interrupted_run_in_float16_ends_as_if_it_had_not_been(in_float16, tmp_path):
    whole = apply(LoRA(rank=2), make_t5()).model
    expected = _trainer(whole).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 2)
    _trainer(apply(LoRA(rank=2), make_t5()).model).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 1, tmp_path)
    resumed = apply(LoRA(rank=2), make_t5()).model
    history = _trainer(resumed).fit(COLLATOR, lambda _: {"accuracy": 0.5}, 2, tmp_path)
    states = trainable_state(whole), trainable_state(resumed)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert history.loss_scale == expected.loss_scale
    assert history.curve == expected.curve
