"""Inputs that nobody thought of: text, batches and verdicts for whatever hypothesis comes up with."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from peft_scratch.assignment import LABEL_WORDS, MAX_LENGTH
from peft_scratch.data.batches import Collator, length_grouped_batches, sorted_batches
from peft_scratch.data.text import clean
from peft_scratch.data.tokens import tokenise
from peft_scratch.paths import OFFLINE_BASE
from peft_scratch.training.evaluation import MALFORMED, Predictions, scored_predictions

fuzz = settings(max_examples=50, deadline=None, derandomize=True, database=None)
# Any text at all, and text in which what cleaning looks for is frequent.
pieces = st.sampled_from(["<br />", "<BR />", "<br ", " />", "\n", "\u00a0", "Fine"])
texts = st.one_of(st.text(), st.lists(pieces).map("".join))


@fuzz
@given(texts)
def test_a_cleaned_review_is_lower_case_with_single_spaces(review):
    cleaned = clean(review)
    assert cleaned == cleaned.lower()
    assert cleaned == " ".join(cleaned.split())
    assert cleaned.replace(" ", "") == "".join(review.lower().replace("<br />", "").split())


@cache
def _tokenizer():
    return AutoTokenizer.from_pretrained(OFFLINE_BASE)


@fuzz
@given(st.lists(texts.map(clean), min_size=1, max_size=4), st.integers(2, 40))
def test_any_review_becomes_tokens_that_end(reviews, max_tokens):
    for ids in tokenise(reviews, _tokenizer(), max_tokens):
        assert 1 <= len(ids) <= max_tokens
        assert ids[-1] == _tokenizer().eos_token_id
        assert all(0 <= token < len(_tokenizer()) for token in ids)


rows = st.lists(st.integers(1, 99), min_size=1, max_size=9)


@fuzz
@given(st.lists(st.tuples(rows, st.booleans()), min_size=1, max_size=9), rows, rows, st.data())
def test_a_batch_holds_its_reviews_and_padding_alone(reviews, negative, positive, data):
    inputs, labels = [row for row, _ in reviews], [int(label) for _, label in reviews]
    collator = Collator(inputs, labels, [negative, positive], pad_id=0)
    indices = data.draw(st.permutations(range(len(inputs))))[: data.draw(st.integers(1, len(inputs)))]
    batch = collator(indices)
    for n, i in enumerate(indices):
        kept = batch["attention_mask"][n].bool()
        assert batch["input_ids"][n][kept].tolist() == inputs[i]
        assert not batch["input_ids"][n][~kept].any()
        target = batch["labels"][n]
        assert target[target != -100].tolist() == collator.targets[labels[i]]
    assert batch["index"].tolist() == list(indices)
    assert batch["input_ids"].shape[1] == max(len(inputs[i]) for i in indices)


@fuzz
@given(st.lists(st.integers(1, 300), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 2**40))
def test_batches_hold_every_review_once(lengths, batch_size, seed):
    for batches in (length_grouped_batches(lengths, batch_size, seed), sorted_batches(lengths, batch_size)):
        drawn = list(batches)
        assert sorted(i for batch in drawn for i in batch) == list(range(len(lengths)))
        assert len(drawn) == len(batches)
        assert sorted(map(len, drawn), reverse=True)[:-1] == [batch_size] * (len(drawn) - 1)
        assert list(batches) == drawn


# Predictions: a model that says what it is told to, against the definition.

WORDS = ("<pad>", "</s>", "<unk>", *LABEL_WORDS, "film")
PAD, END, UNKNOWN = range(3)


@cache
def _words_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


class _Output(dict):
    """As a model's output: its parts by key and by attribute."""

    __getattr__ = dict.__getitem__


class Told:
    """As a T5: of the review whose only token is i it says `sayings[i]`, whatever comes after the end."""

    config = SimpleNamespace(decoder_start_token_id=PAD)

    def __init__(self, sayings):
        self.sayings = torch.tensor(sayings)  # (B, MAX_LENGTH - 1)

    def __call__(self, decoder_input_ids, input_ids=None, encoder_outputs=None, past_key_values=None, **_):
        hidden = input_ids if encoder_outputs is None else encoder_outputs[0]
        step = past_key_values or 0  # its cache: how many tokens it has been given
        said = self.sayings[hidden[:, 0]]
        assert step == 0 or torch.equal(decoder_input_ids[:, 0], said[:, step - 1]), "led to say another"
        logits = torch.nn.functional.one_hot(said[:, step : step + 1], len(WORDS)).float()
        return _Output(logits=logits, encoder_last_hidden_state=hidden, past_key_values=step + 1)

    def generate(self, max_length, input_ids=None, encoder_outputs=None, **_):
        hidden = input_ids if encoder_outputs is None else encoder_outputs[0]
        said = self.sayings[hidden[:, 0]][:, : max_length - 1].clone()
        ended = (said == END).long().cumsum(1) - (said == END).long() > 0
        said[ended] = PAD
        return torch.cat([torch.full_like(said[:, :1], PAD), said], 1)


sayings = st.lists(st.lists(st.integers(0, len(WORDS) - 1), min_size=4, max_size=4), min_size=1, max_size=12)


@fuzz
@given(sayings, st.lists(st.integers(0, 1), min_size=12, max_size=12))
def test_a_verdict_is_what_generation_says_to_the_end(said, labels):
    assert MAX_LENGTH == 5
    labels = labels[: len(said)]
    batch = {"input_ids": torch.arange(len(said))[:, None], "attention_mask": torch.ones(len(said), 1)}
    targets = [[WORDS.index(word), END] for word in LABEL_WORDS]
    verdicts = scored_predictions(Told(said), batch, targets, _words_tokenizer()).tolist()
    expected = []
    for tokens in said:
        spoken = tokens[: tokens.index(END)] if END in tokens else tokens
        # The tokenizer leaves its own three tokens out of what it decodes.
        word = " ".join(WORDS[token] for token in spoken if token not in (PAD, END, UNKNOWN))
        expected.append(LABEL_WORDS.index(word) if word in LABEL_WORDS else MALFORMED)
    assert verdicts == expected

    judged = Predictions(verdicts, labels)
    wrong = [i for i, label in enumerate(labels) if expected[i] != label]
    assert judged.mistakes == wrong


@settings(fuzz, max_examples=10)
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_scores_are_shares_of_the_reviews(pairs):
    judged = Predictions(*map(list, zip(*pairs, strict=True)))
    score = judged.score()
    malformed = sum(said == MALFORMED for said, _ in pairs)
    assert score["accuracy"] == pytest.approx(1 - len(judged.mistakes) / len(pairs))
    assert score["malformed"] == pytest.approx(malformed / len(pairs))
