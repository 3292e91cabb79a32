"""Any T5-like model: it works and gives its base back to the bit, or is refused with nothing changed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from conftest import make_t5
from test_operations import METHODS
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LongT5Config,
    LongT5EncoderModel,
    LongT5ForConditionalGeneration,
    MT5Config,
    MT5EncoderModel,
    MT5ForConditionalGeneration,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5ForQuestionAnswering,
    T5ForSequenceClassification,
    T5ForTokenClassification,
    T5Model,
    UMT5Config,
    UMT5EncoderModel,
    UMT5ForConditionalGeneration,
)

from peft_scratch.errors import UserError
from peft_scratch.libraries.adapterhub_compat import AS_IT_IS
from peft_scratch.methods import (
    Adapter,
    FullFineTuning,
    LoRA,
    SoftPrompt,
    apply,
    base_of,
    load_delta,
    save_delta,
)
from peft_scratch.notebook.toy import take_steps, tiny_batch

SIZES = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def without_a_block(model):
    """As people cut layers off: the configuration knows nothing of it."""
    model.encoder.block = model.encoder.block[:1]
    return model


MODELS = {
    "T5": lambda: T5ForConditionalGeneration(T5Config(**SIZES)),
    "T5 v1.1, flan-T5": lambda: T5ForConditionalGeneration(T5Config(**SIZES, **GATED)),
    "ByT5": lambda: T5ForConditionalGeneration(
        T5Config(**{**SIZES, **GATED, "vocab_size": 384, "num_layers": 3}, num_decoder_layers=1)
    ),
    "mT5": lambda: MT5ForConditionalGeneration(MT5Config(**SIZES)),
    "umT5": lambda: UMT5ForConditionalGeneration(UMT5Config(**SIZES)),
    "LongT5": lambda: LongT5ForConditionalGeneration(LongT5Config(**SIZES, local_radius=3)),
    "LongT5, transient global": lambda: LongT5ForConditionalGeneration(
        LongT5Config(**SIZES, local_radius=3, global_block_size=2, encoder_attention_type="transient-global")
    ),
    "T5, a block cut off": lambda: without_a_block(T5ForConditionalGeneration(T5Config(**SIZES))),
    "T5 without its head": lambda: T5Model(T5Config(**SIZES)),
    "T5's encoder": lambda: T5EncoderModel(T5Config(**SIZES)),
    "mT5's encoder": lambda: MT5EncoderModel(MT5Config(**SIZES)),
    "umT5's encoder": lambda: UMT5EncoderModel(UMT5Config(**SIZES)),
    "LongT5's encoder": lambda: LongT5EncoderModel(LongT5Config(**SIZES, local_radius=3)),
}
NO_ADAPTERS = r"AdapterHub has no bottleneck adapters for a \w+: use Adapter\(\) from scratch"
NO_PROMPT = r"OpenDelta's prompt cannot be put into a \w+: use SoftPrompt\(\) from scratch"
REFUSED = {
    **{
        ("AdapterHubAdapter", model): NO_ADAPTERS
        for model in MODELS
        if "encoder" in model or "umT5" in model or "Long" in model or (model == "mT5" and not AS_IT_IS)
    },
    **{("OpenDeltaPrompt", model): NO_PROMPT for model in MODELS if "encoder" in model or "without" in model},
}


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def ask(model, base):
    """The logits; of a model without a head, the last hidden state."""
    batch = tiny_batch()
    labels = batch.pop("labels")
    if isinstance(base, T5Model):
        batch["decoder_input_ids"] = labels
    elif base.can_generate():
        return model(**batch, labels=labels).logits
    return model(**batch).last_hidden_state


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_it_trains_and_gives_its_base_back_to_the_bit_or_is_refused(name, method, tmp_path):
    base, method = made(name), METHODS[method]
    kept = {key: p.detach().clone() for key, p in base.named_parameters()}
    expected = ask(base, base)
    if words := REFUSED.get((type(method).__name__, name)):
        with pytest.raises(UserError, match=words):
            apply(method, base)
        assert list(dict(base.named_parameters())) == list(kept)
        assert all(p.requires_grad for p in base.parameters())
        assert torch.equal(ask(base, base), expected)
        return
    tuned = apply(method, base)
    ask(tuned.model.train(), base).square().sum().backward()
    with torch.no_grad():
        for key in tuned.trainable:
            p = tuned.model.get_parameter(key)
            assert p.grad is not None and p.grad.isfinite().all(), key
            p.add_(0.1)
    after = ask(tuned.model.eval(), base)
    assert after.shape != expected.shape or not torch.equal(after, expected)
    save_delta(tuned.model, tmp_path / "delta.pt", method.declares)
    again = apply(method, made(name))
    load_delta(again.model.eval(), tmp_path / "delta.pt", method.declares)
    assert torch.equal(ask(again.model, base), after)
    found = base_of(tuned)
    assert type(found) is type(made(name))
    assert {key: (p.dtype, p.shape) for key, p in found.named_parameters()} == {
        key: (p.dtype, p.shape) for key, p in kept.items()
    }
    assert all(torch.equal(p, kept[key]) for key, p in found.named_parameters())
    assert torch.equal(ask(found, found), expected)


def test_the_prompt_of_an_encoder_alone_stands_before_what_it_returns():
    base = made("T5's encoder")
    base.config._attn_implementation = "eager"  # of one kernel: torch's fused ones choose by the mask
    batch = {key: value for key, value in tiny_batch().items() if key != "labels"}
    ids = torch.cat([torch.arange(4).expand(2, 4), batch["input_ids"]], 1)  # the rows start as pieces 0 to 3
    mask = torch.cat([torch.ones(2, 4, dtype=torch.long), batch["attention_mask"]], 1)
    expected = base(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, N + T, D)
    model = apply(SoftPrompt(4), base).model
    found = model(**batch).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # embeddings take another kernel than ids


OTHERS = {
    "BART": (
        lambda: BartForConditionalGeneration(
            BartConfig(
                vocab_size=64,
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
            )
        ),
        "goes into a T5 .*; this is a BartForConditionalGeneration, made of lm_head, model",
    ),
    "GPT-2": (
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2)),
        "this is a GPT2LMHeadModel, made of lm_head, transformer",
    ),
    "Switch": (
        lambda: SwitchTransformersForConditionalGeneration(SwitchTransformersConfig(**SIZES, num_experts=2)),
        "this is a SwitchTransformersForConditionalGeneration",
    ),
    "a head for sequences": (
        lambda: T5ForSequenceClassification(T5Config(**SIZES)),
        "this is a T5ForSequenceClassification, made of classification_head, transformer",
    ),
    "a head for tokens": (
        lambda: T5ForTokenClassification(T5Config(**SIZES)),
        "this is a T5ForTokenClassification, made of classifier",
    ),
    "a head for answers": (
        lambda: T5ForQuestionAnswering(T5Config(**SIZES)),
        "has a part of its own, qa_outputs, that .* would freeze untrained",
    ),
    "a linear layer": (lambda: nn.Linear(2, 2), "this is a Linear, made of nothing"),
    "quantised": (lambda: quantised(make_t5()), "is quantised .*SelfAttention.q.weight is torch.int8"),
}


def quantised(model):
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.data.to(torch.int8), requires_grad=False)
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_t5_is_named_and_left_as_it_was(other, method):
    make, words = OTHERS[other]
    model = make()
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    modules = [type(module) for module in model.modules()]
    with pytest.raises(UserError, match=words) as caught:
        apply(METHODS[method], model)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
    assert [type(module) for module in model.modules()] == modules
    for name, p in model.named_parameters():
        assert p.requires_grad == before[name][0] and torch.equal(p, before[name][1])


@pytest.mark.parametrize(
    ("method", "model", "words"),
    [
        (LoRA(2), "google-t5/t5-small", "goes into a model, not into 'google-t5/t5-small'"),
        (LoRA, make_t5, r"apply takes a method, such as LoRA\(rank=8\)"),
    ],
    ids=["a name for a model", "a class for a method"],
)
def test_arguments_of_another_kind(method, model, words):
    with pytest.raises(UserError, match=words):
        apply(method, model() if callable(model) else model)


def test_full_fine_tuning_takes_any_model():
    model = OTHERS["BART"][0]()
    model.requires_grad_(False)
    assert all(p.requires_grad for p in apply(FullFineTuning(), model).model.parameters())


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numpy_s_whole_numbers_are_whole_numbers(kind):
    pairs = [(LoRA(kind(8)), LoRA(8)), (Adapter(kind(8)), Adapter(8)), (SoftPrompt(kind(8)), SoftPrompt(8))]
    for given, plain in pairs:
        assert given == plain and repr(given) == repr(plain)
        assert all(type(value) is not kind for value in given.hyperparameters().values())
    assert type(LoRA(8, alpha=np.float32(4)).alpha) is float
    assert LoRA(8, targets=["q", "v"]) == LoRA(8)
    for wrong in (np.float64(8), np.bool_(True), np.array(8.5), "8"):
        with pytest.raises(UserError, match="whole number"):
            LoRA(wrong)
    with pytest.raises(UserError, match="alpha has to be a positive number, not '4'"):
        LoRA(8, alpha="4")


def test_a_step_on_the_largest_relative_takes_a_bias_per_block():
    """umT5 has a table of relative positions in every block; the base has all of them, frozen."""
    tuned = apply(LoRA(2), made("umT5"))
    names = [name for name, _ in tuned.model.named_parameters() if "relative_attention_bias" in name]
    assert len(names) == 4
    before = {name: tuned.model.get_parameter(name).detach().clone() for name in names}
    take_steps(tuned.model, tiny_batch(), 2)
    assert all(torch.equal(tuned.model.get_parameter(name), p) for name, p in before.items())
