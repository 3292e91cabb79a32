"""What holds for every method and library alike: the nine parameter-efficient runs of the course."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from conftest import make_t5
from transformers import T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.methods import (
    Adapter,
    FullFineTuning,
    LoRA,
    SoftPrompt,
    apply,
    count_parameters,
    load_delta,
    read_delta,
    save_delta,
)

FROM_SCRATCH = [SoftPrompt(10), Adapter(8), LoRA(8)]
LIBRARIES = [
    OpenDeltaPrompt(1),
    OpenDeltaPrompt(10),
    AdapterHubAdapter(8),
    AdapterHubAdapter(1),
    PeftLoRA(1),
    PeftLoRA(8),
]
METHODS = [*FROM_SCRATCH, *LIBRARIES]

every_method = pytest.mark.parametrize("method", METHODS, ids=str)


def step(tuned, batch, optimiser):
    tuned.model.train()
    optimiser.zero_grad()
    tuned.model(**batch).loss.backward()
    optimiser.step()


def optimiser_for(tuned):
    # No weight decay: then a parameter that moves has had a gradient.
    return torch.optim.AdamW(
        [p for p in tuned.model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0
    )


def evaluate(tuned, batch):
    tuned.model.eval()
    with torch.no_grad():
        logits = tuned.model(**batch).logits
        tuned.model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_length=5
        )
    return logits


def values(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@every_method
def test_only_what_is_declared_trains_and_is_counted_by_hand(method, tiny_gated_t5):
    whole = count_parameters(tiny_gated_t5)
    tuned = apply(method, tiny_gated_t5)
    assert tuned.trainable and all(method.declares(name) for name in tuned.trainable)
    added = method.added_parameters(tiny_gated_t5.config)
    assert count_parameters(tuned.model, trainable_only=True) == added
    assert count_parameters(tuned.model) == whole + added


@every_method
def test_the_base_is_untouched_by_training(method, tiny_t5, batch):
    base = copy.deepcopy(tiny_t5.state_dict())
    tuned = apply(method, tiny_t5)
    before = values(tuned.model)
    optimiser = optimiser_for(tuned)
    for _ in range(2):
        step(tuned, batch, optimiser)
    after = dict(tuned.model.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in before.items() if not method.declares(name))
    # And the base's own tensors are all still there: each is found, to the bit, among the model's.
    kept = {(tuple(p.shape), p.double().sum().item()) for p in after.values()}
    assert all((tuple(p.shape), p.double().sum().item()) in kept for p in base.values())


@every_method
def test_every_trainable_tensor_gets_a_gradient_and_moves(method, tiny_t5, batch):
    tuned = apply(method, tiny_t5)
    optimiser = optimiser_for(tuned)
    # Where B is zero, A has no gradient in the first step, nor the down-projection where up is zero.
    step(tuned, batch, optimiser)
    for _ in range(2):  # the second time, after an evaluation pass
        before = values(tuned.model)
        step(tuned, batch, optimiser)
        for name in tuned.trainable:
            p = tuned.model.get_parameter(name)
            assert p.grad is not None and p.grad.abs().sum() > 0, name
            assert not torch.equal(p, before[name]), name
        names = tuned.trainable
        evaluate(tuned, batch)
        assert tuned.trainable == names


@every_method
def test_evaluation_changes_nothing(method, tiny_t5, batch):
    tuned = apply(method, tiny_t5)
    state, mine = copy.deepcopy(tuned.model.state_dict()), {k: v.clone() for k, v in batch.items()}
    first = evaluate(tuned, batch)
    assert torch.equal(evaluate(tuned, batch), first)
    assert all(torch.equal(batch[name], tensor) for name, tensor in mine.items())
    assert list(tuned.model.state_dict()) == list(state)
    assert all(torch.equal(tuned.model.state_dict()[name], tensor) for name, tensor in state.items())


@every_method
@pytest.mark.parametrize("training", [True, False], ids=["saved in train", "saved in eval"])
def test_reload_reproduces_the_logits(method, training, tiny_t5, batch, tmp_path):
    fresh = copy.deepcopy(tiny_t5)
    tuned = apply(method, tiny_t5)
    optimiser = optimiser_for(tuned)
    for _ in range(2):
        step(tuned, batch, optimiser)
    tuned.model.train(training)
    save_delta(tuned.model, tmp_path / "delta.pt", method.declares)
    expected = evaluate(tuned, batch)

    entries = read_delta(tmp_path / "delta.pt")
    assert list(entries) == tuned.trainable
    assert sum(entry.numel() for entry in entries.values()) == method.added_parameters(fresh.config)

    again = apply(method, fresh)
    assert not torch.equal(evaluate(again, batch), expected)
    load_delta(again.model, tmp_path / "delta.pt", method.declares)
    assert torch.equal(evaluate(again, batch), expected)


@every_method
def test_two_deltas_on_one_base_leave_no_trace_of_each_other(method, tiny_t5, batch, tmp_path):
    tuned = apply(method, tiny_t5)
    optimiser = optimiser_for(tuned)
    expected = []
    for task in range(2):
        for _ in range(2):
            step(tuned, batch, optimiser)
        save_delta(tuned.model, tmp_path / f"{task}.pt", method.declares)
        expected.append(evaluate(tuned, batch))
    assert not torch.equal(*expected)
    for task in (0, 1, 0):
        load_delta(tuned.model, tmp_path / f"{task}.pt", method.declares)
        assert torch.equal(evaluate(tuned, batch), expected[task])


IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path
import torch
from conftest import make_t5
from test_contract import METHODS, evaluate
from peft_scratch.methods import apply, load_delta

kept = torch.load(Path(sys.argv[1]) / "kept.pt")
for i, method in enumerate(METHODS):
    tuned = apply(method, make_t5())
    load_delta(tuned.model, Path(sys.argv[1]) / f"{i}.pt", method.declares)
    assert torch.equal(evaluate(tuned, kept["batch"]), kept["logits"][i]), method
print(len(METHODS), "reloaded")
"""


def test_reload_in_a_fresh_process(batch, tmp_path):
    logits = []
    for i, method in enumerate(METHODS):
        tuned = apply(method, make_t5())
        optimiser = optimiser_for(tuned)
        for _ in range(2):
            step(tuned, batch, optimiser)
        save_delta(tuned.model, tmp_path / f"{i}.pt", method.declares)
        logits.append(evaluate(tuned, batch))
    torch.save({"batch": batch, "logits": logits}, tmp_path / "kept.pt")
    child = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert child.stdout == f"{len(METHODS)} reloaded\n", child.stderr


@every_method
def test_the_initial_state_is_the_base_s_where_the_method_says_so(method, tiny_t5, batch):
    base = tiny_t5(**batch).logits
    logits = evaluate(apply(method, tiny_t5), batch)
    if method.kind == "soft_prompt":  # rows in front are read
        assert not torch.allclose(logits, base, atol=1e-2)
    elif method.library == "adapterhub":  # starts near the identity, not at it
        torch.testing.assert_close(logits, base, rtol=0, atol=0.5)
    else:
        assert torch.equal(logits, base)


@pytest.mark.parametrize("second", [LoRA(), Adapter(), SoftPrompt(), FullFineTuning(), PeftLoRA()], ids=str)
@every_method
def test_a_second_method_is_refused(method, second, tiny_t5):
    tuned = apply(method, tiny_t5)
    names = [name for name, _ in tuned.model.named_parameters()]
    for model in (tiny_t5, tuned.model):
        with pytest.raises(UserError, match="fresh base"):
            apply(second, model)
    assert [name for name, _ in tuned.model.named_parameters()] == names


@pytest.mark.parametrize("method", FROM_SCRATCH, ids=str)
def test_save_pretrained_keeps_the_base(method, tiny_t5, batch, tmp_path):
    expected = tiny_t5(**batch).logits
    tuned = apply(method, tiny_t5)
    optimiser = optimiser_for(tuned)
    for _ in range(2):
        step(tuned, batch, optimiser)
    tuned.model.save_pretrained(tmp_path)
    base = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert torch.equal(base(**batch).logits, expected)


@pytest.mark.parametrize("method", FROM_SCRATCH, ids=str)
def test_a_deep_copy_trains_on_its_own(method, tiny_t5, batch):
    tuned = apply(method, tiny_t5)
    expected = evaluate(tuned, batch)
    twin = copy.deepcopy(tuned)
    assert torch.equal(evaluate(twin, batch), expected)
    optimiser = optimiser_for(twin)
    for _ in range(2):
        step(twin, batch, optimiser)
    assert not torch.equal(evaluate(twin, batch), expected)
    assert torch.equal(evaluate(tuned, batch), expected)


def test_full_fine_tuning_trains_everything(batch):
    model = make_t5()
    model.shared.weight.requires_grad_(False)
    tuned = apply(FullFineTuning(), model)
    assert count_parameters(tuned.model, trainable_only=True) == count_parameters(tuned.model)
    before = values(tuned.model)
    step(tuned, batch, optimiser_for(tuned))
    for name, p in tuned.model.named_parameters():
        assert not torch.equal(p, before[name]), name


def test_full_fine_tuning_is_saved_whole(batch, tmp_path):
    method = FullFineTuning()
    save_delta(apply(method, make_t5(seed=4)).model, tmp_path / "full.pt", method.declares)
    again = apply(method, make_t5(seed=5)).model
    load_delta(again, tmp_path / "full.pt", method.declares)
    assert torch.equal(again(**batch).logits, make_t5(seed=4)(**batch).logits)
