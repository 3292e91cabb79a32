"""A learning rate that falls: at which step it is what, and that an interruption leaves no trace."""

import copy

import pytest
import torch
from accelerate import Accelerator

from peft_scratch.data.batches import Collator
from peft_scratch.errors import UserError
from peft_scratch.experiments.session import Session
from peft_scratch.methods import LoRA, apply
from peft_scratch.training.checkpoints import trainable_state
from peft_scratch.training.recipe import RECIPES
from peft_scratch.training.schedule import decay_linearly
from peft_scratch.training.trainer import Trainer

REVIEWS = [[5 + i % 7, 20 + i % 11, 1] for i in range(40)]
COLLATOR = Collator(REVIEWS, [i % 2 for i in range(40)], [[3, 1], [4, 1]], pad_id=0)


def _train(model, epochs, steps, folder=None):
    """Train in batches of 8, five steps an epoch; return the rate of every step taken."""
    torch.manual_seed(0)
    trainer = Trainer(
        apply(LoRA(rank=2), model).model,
        accelerator=Accelerator(cpu=True),
        recipe=RECIPES["fast"],
        learning_rate=0.1,
        batch_size=8,
    )
    decay_linearly(trainer.optimizer, 0.1, steps)
    rates = []
    trainer.optimizer.register_step_post_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    trainer.fit(COLLATOR, lambda _: {"accuracy": 0.5}, epochs, folder)
    return rates, trainable_state(trainer.model)


def test_the_rate_falls_in_a_line_from_the_first_step_on(tiny_t5):
    rates, _ = _train(tiny_t5, epochs=2, steps=10)
    assert rates == pytest.approx([0.1 * (10 - step) / 10 for step in range(10)])


def test_an_interrupted_run_goes_on_at_the_rate_it_would_have_had(tiny_t5, tmp_path):
    whole, again = copy.deepcopy(tiny_t5), copy.deepcopy(tiny_t5)
    rates, expected = _train(whole, 2, 10)
    before, _ = _train(tiny_t5, 1, 10, tmp_path)
    after, resumed = _train(again, 2, 10, tmp_path)
    assert before + after == rates
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_the_setting_reaches_the_optimizer_and_makes_another_run(tmp_path):
    session = Session.open("smoke", output=tmp_path)
    constant = session.prepare("prompt_scratch_n10")
    assert (
        constant.configuration
        == session.prepare("prompt_scratch_n10", {"schedule": "constant"}).configuration
    )
    linear = session.prepare("prompt_scratch_n10", {"schedule": "linear", "epochs": 3})
    assert linear.folder != constant.folder
    optimizer = linear.trainer.optimizer
    rows = linear.tuned.model.encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb
    rates = []
    for _ in range(7):
        rows.grad = torch.ones_like(rows)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
    # 64 reviews in batches of 32 are two steps an epoch.
    assert rates == pytest.approx([linear.learning_rate * max(0, 6 - step) / 6 for step in range(7)])


def test_an_unknown_schedule_is_refused(tmp_path):
    session = Session.open("smoke", output=tmp_path)
    with pytest.raises(UserError, match="schedule must be one of constant, linear, not 'cosine'"):
        session.prepare("full", {"schedule": "cosine"})
