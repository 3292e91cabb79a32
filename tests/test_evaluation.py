"""Predictions: the shortcut against generation, review by review, and the score made of them."""

import copy

import pytest
import torch
from accelerate import Accelerator
from conftest import t5_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5ForConditionalGeneration

from peft_scratch.data.batches import Collator, pad
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, SoftPrompt, apply
from peft_scratch.paths import OFFLINE_BASE
from peft_scratch.training import evaluation
from peft_scratch.training.evaluation import (
    MALFORMED,
    LabelWordAccuracy,
    Predictions,
    generated_predictions,
    may_begin,
    predict,
    scored_predictions,
)
from peft_scratch.training.recipe import RECIPES

WORDS = ["<pad>", "</s>", "<unk>", "negative", "positive", "good", "bad", "film"]
TARGETS = [[3, 1], [4, 1]]


@pytest.fixture
def words_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


# What the model below is taught to say of a review, by the word it repeats.
SAYINGS = {3: [3, 1], 4: [4, 1], 5: [5, 1], 6: [3, 4, 1], 7: [1]}


@pytest.fixture(scope="module")
def talkative_t5():
    """A T5 that says all sorts of things: label words, two of them, none, another word."""
    torch.manual_seed(2)
    config = t5_config(
        vocab_size=len(WORDS),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    model = T5ForConditionalGeneration(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    labels = torch.tensor([([*saying, -100, -100])[:3] for saying in SAYINGS.values()])
    for step in range(200):
        ids = torch.tensor([[word] * (1 + step % 8) + [1] for word in SAYINGS])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture
def batch():
    rows = [[word] * (1 + n % 8) + [1] for n in range(40) for word in SAYINGS]
    return {"input_ids": pad(rows, 0), "attention_mask": pad([[1] * len(row) for row in rows], 0)}


METHODS = [
    FullFineTuning(),
    SoftPrompt(2),
    OpenDeltaPrompt(2),
    Adapter(2),
    AdapterHubAdapter(2),
    LoRA(2),
    PeftLoRA(2),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_the_shortcut_says_what_generation_says(method, talkative_t5, words_tokenizer, batch, monkeypatch):
    model = apply(method, copy.deepcopy(talkative_t5)).model
    with torch.inference_mode():
        expected = generated_predictions(model, batch, words_tokenizer)
        left = []

        def generate(model, inputs, tokenizer):
            left.extend(inputs["input_ids"])
            return generated_predictions(model, inputs, tokenizer)

        monkeypatch.setattr(evaluation, "generated_predictions", generate)
        said = scored_predictions(model, batch, TARGETS, words_tokenizer)
    # The comparison is worth something only where every kind of output occurs.
    assert {MALFORMED, 0, 1} == set(expected.tolist())
    assert left, "no review was left to generate for"
    assert said.tolist() == expected.tolist()


def test_only_unsettled_reviews_are_generated_for(talkative_t5, words_tokenizer, batch, monkeypatch):
    generated = []

    def count(model, inputs, tokenizer):
        generated.append(len(inputs["attention_mask"]))
        return generated_predictions(model, inputs, tokenizer)

    monkeypatch.setattr(evaluation, "generated_predictions", count)
    with torch.inference_mode():
        verdicts = scored_predictions(talkative_t5, batch, TARGETS, words_tokenizer)
    # Not for the two words that are no label's beginning, nor for the end: those are malformed at once.
    assert generated == [40], "only for the label word that another follows"
    assert (verdicts == MALFORMED).sum() == 120


def test_targets_of_several_tokens_are_generated_for(talkative_t5, words_tokenizer, batch):
    targets = [[3, 4, 1], [4, 1]]
    with torch.inference_mode():
        said = scored_predictions(talkative_t5, batch, targets, words_tokenizer)
        assert said.tolist() == generated_predictions(talkative_t5, batch, words_tokenizer).tolist()


@pytest.mark.parametrize("recipe", ["reference", "fast"])
def test_judge_keeps_the_order_and_the_mode(recipe, talkative_t5, words_tokenizer, batch):
    rows = [
        ids[mask == 1].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    collator = Collator(rows, [0, 1] * 100, TARGETS, pad_id=0)
    talkative_t5.train()
    judged = predict(talkative_t5, collator, words_tokenizer, Accelerator(cpu=True), 16, RECIPES[recipe])
    assert talkative_t5.training
    talkative_t5.eval()
    with torch.inference_mode():
        assert judged.predictions == generated_predictions(talkative_t5, batch, words_tokenizer).tolist()
    assert judged.labels == [0, 1] * 100


def test_a_malformed_output_counts_as_wrong():
    score = LabelWordAccuracy(keep_in_memory=True).compute(predictions=[0, 1, -1, 1], references=[0, 0, 0, 1])
    assert score == {"accuracy": 0.5, "malformed": 0.25}
    verdicts = Predictions([0, 1, -1, 1], [0, 0, 0, 1])
    assert verdicts.mistakes == [1, 2]
    assert verdicts.score() == score
    assert verdicts.score([True, False, False, True]) == {"accuracy": 1.0, "malformed": 0.0}


@pytest.fixture(scope="module")
def offline_tokenizer():
    return AutoTokenizer.from_pretrained(OFFLINE_BASE)


def test_what_may_begin_a_label_word(offline_tokenizer):
    """For the whole vocabulary: where no word may follow a token, none does when one is made to."""
    tokens = range(len(offline_tokenizer))
    leads = {token for token in tokens if may_begin(token, offline_tokenizer)}
    words = [offline_tokenizer(word).input_ids for word in ("negative", "positive")]
    assert leads >= {word[0] for word in words} | {offline_tokenizer.pad_token_id}
    assert offline_tokenizer.eos_token_id not in leads
    assert set(offline_tokenizer.all_special_ids) - {offline_tokenizer.eos_token_id} <= leads
    rests = [*words, *(word[1:] for word in words), [offline_tokenizer.pad_token_id, *words[0]]]
    rests += offline_tokenizer(["ative", "itive", "egative", "e", "gative"]).input_ids
    for rest in rests:
        followed = [
            [token, *rest] for token in tokens if token not in leads | {offline_tokenizer.eos_token_id}
        ]
        said = offline_tokenizer.batch_decode(followed, skip_special_tokens=True)
        assert not {text.strip() for text in said} & {"negative", "positive"}
