"""Every figure of the accounting table, by formula and by count, on the real sizes (meta device)."""

from __future__ import annotations

import pytest
import torch
from conftest import t5_config, t5_of
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config

from peft_scratch.errors import UserError
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, SoftPrompt, apply, count_parameters

T5_SMALL = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_ff": 2048,
    "d_kv": 64,
    "num_heads": 8,
    "num_layers": 6,
    "num_decoder_layers": 6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
}
# google/flan-t5-small: gated, untied, six heads, eight layers. 76,961,152 parameters.
FLAN_T5_SMALL = {
    **T5_SMALL,
    "d_ff": 1024,
    "num_heads": 6,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
T5_11B = {
    **T5_SMALL,
    "d_model": 1024,
    "d_ff": 65536,
    "d_kv": 128,
    "num_heads": 128,
    "num_layers": 24,
    "num_decoder_layers": 24,
}


def tuned_on(method, config):
    with torch.device("meta"):
        model = t5_of(t5_config(**config))
    return apply(method, model)


@pytest.mark.parametrize(
    ("method", "trains", "whole", "tensors"),
    [
        (FullFineTuning(), 60_506_624, 60_506_624, None),
        (SoftPrompt(10), 5_120, 60_511_744, 1),
        (SoftPrompt(1), 512, 60_507_136, 1),
        (Adapter(8), 104_544, 60_611_168, 48),
        (Adapter(1), 18_444, 60_525_068, 48),
        (LoRA(8), 294_912, 60_801_536, 72),
        (LoRA(1), 36_864, 60_543_488, 72),
    ],
    ids=str,
)
def test_t5_small(method, trains, whole, tensors):
    tuned = tuned_on(method, T5_SMALL)
    assert count_parameters(tuned.model, trainable_only=True) == trains
    assert count_parameters(tuned.model) == whole
    if tensors is not None:
        assert method.added_parameters(T5Config(**T5_SMALL)) == trains
        assert len(tuned.trainable) == tensors


@pytest.mark.parametrize(
    ("method", "places", "added"),
    [
        (FullFineTuning(), 0, 0),
        (SoftPrompt(10), 1, 10 * 512),
        (Adapter(8), 16, 16 * (512 * 8 + 8 + 8 * 512 + 512)),
        # 24 attention blocks from 512 to 6 * 64 = 384
        (LoRA(8), 48, 24 * 2 * 8 * (512 + 384)),
        (LoRA(8, targets=("o",)), 24, 24 * 8 * (384 + 512)),
        (LoRA(8, targets=("wi_0", "wi_1", "wo")), 48, 16 * 3 * 8 * (512 + 1024)),
    ],
    ids=str,
)
def test_flan_t5_small(method, places, added):
    tuned = tuned_on(method, FLAN_T5_SMALL)
    assert len(tuned.module_names) == places
    assert count_parameters(tuned.model) == 76_961_152 + added
    assert method.added_parameters(t5_config(**FLAN_T5_SMALL)) == added


def test_unequal_depths():
    config = {**T5_SMALL, "num_layers": 3, "num_decoder_layers": 5, "vocab_size": 64}
    assert LoRA(2).added_parameters(T5Config(**config)) == 13 * 2 * 2 * 1024
    assert Adapter(2).added_parameters(T5Config(**config)) == 8 * (2 * 512 * 2 + 2 + 512)
    for method in (LoRA(2), Adapter(2), SoftPrompt(2)):
        tuned_on(method, config)  # apply compares the formula with the count


@pytest.mark.parametrize("method", [LoRA(), Adapter(), SoftPrompt()], ids=str)
def test_the_largest_t5_needs_no_memory(method):
    tuned = tuned_on(method, T5_11B)
    assert 11_000_000_000 < count_parameters(tuned.model) < 12_000_000_000
    assert all(p.is_meta for p in tuned.model.parameters())


@pytest.mark.parametrize("method", [LoRA(), Adapter(), SoftPrompt()], ids=str)
def test_mt5_is_a_t5_too(method):
    config = {**FLAN_T5_SMALL, "vocab_size": 250112}
    with torch.device("meta"):
        model = MT5ForConditionalGeneration(MT5Config(**config))
    apply(method, model)


@pytest.mark.parametrize(
    ("method", "symbols", "with_numbers", "value"),
    [
        (FullFineTuning(), "0", "0", 0),
        (SoftPrompt(10), "N·d", "10·512", 5_120),
        (
            Adapter(8),
            "(L_enc + L_dec)·(d·b + b + b·d + d)",
            "(6 + 6)·(512·8 + 8 + 8·512 + 512)",
            104_544,
        ),
        (LoRA(8), "(L_enc + 2·L_dec)·2·(d·r + r·d')", "(6 + 2·6)·2·(512·8 + 8·512)", 294_912),
        (LoRA(1, targets=("o",)), "(L_enc + 2·L_dec)·(d·r + r·d')", "(6 + 2·6)·(512·1 + 1·512)", 18_432),
        (
            LoRA(1, targets=("q", "wi", "v", "wo", "q")),
            "(L_enc + 2·L_dec)·2·(d·r + r·d') + (L_enc + L_dec)·2·(d·r + r·f)",
            "(6 + 2·6)·2·(512·1 + 1·512) + (6 + 6)·2·(512·1 + 1·2048)",
            36_864 + 61_440,
        ),
    ],
    ids=str,
)
def test_the_derivation_says_its_value_to_anyones_arithmetic(method, symbols, with_numbers, value):
    derivation = method.derivation(T5Config(**T5_SMALL))
    assert (derivation.symbols, derivation.with_numbers, derivation.value) == (symbols, with_numbers, value)
    for step in derivation.steps:
        assert eval(step.numbers.replace("·", "*")) == step.value
    assert method.added_parameters(T5Config(**T5_SMALL)) == value


@pytest.mark.parametrize(
    ("library", "scratch"),
    [
        (PeftLoRA(3), LoRA(3)),
        (AdapterHubAdapter(3), Adapter(3)),
        (OpenDeltaPrompt(3), SoftPrompt(3)),
    ],
    ids=str,
)
def test_a_library_counts_as_from_scratch(library, scratch):
    config = t5_config(**FLAN_T5_SMALL)
    assert library.derivation(config) == scratch.derivation(config)


def test_what_is_no_layer_of_t5_cannot_be_derived():
    with pytest.raises(UserError, match="called 'query'; its layers are q, k, v, o, wi"):
        LoRA(targets=("query", "v")).derivation(T5Config(**T5_SMALL))


def test_an_encoder_alone_has_no_decoder_layer():
    config = T5Config(**T5_SMALL, is_encoder_decoder=False)
    assert LoRA(8).derivation(config).with_numbers == "(6 + 2·0)·2·(512·8 + 8·512)"
