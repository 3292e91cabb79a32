"""The soft prompt: its oracle is T5 itself, given the rows as ordinary tokens or embeddings."""

from __future__ import annotations

import copy
import io
from functools import partial

import pytest
import torch
import transformers
from conftest import make_t5

from peft_scratch.errors import UserError
from peft_scratch.methods import (
    PromptRows,
    SoftPrompt,
    apply,
    first_rows,
    label_words,
    random_uniform,
    sampled_vocabulary,
)

KEY = "encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb"
TRANSFORMERS_5 = int(transformers.__version__.split(".")[0]) >= 5
N = 4


def random_rows(embedding, n, generator=None):
    return torch.randn(n, embedding.shape[1], generator=torch.Generator().manual_seed(6))


def inputs(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def with_tokens_in_front(batch):
    """The batch with the first N vocabulary entries as tokens before every text."""
    front = torch.arange(N).expand(3, N)
    return {
        **batch,
        "input_ids": torch.cat([front, batch["input_ids"]], dim=1),
        "attention_mask": torch.cat([torch.ones_like(front), batch["attention_mask"]], dim=1),
    }


def test_rows_by_hand():
    rows = PromptRows(torch.tensor([[1.0, 2.0]]))
    embedded = torch.tensor([[[3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, 0.0]]])
    assert rows(embedded).tolist() == [
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        [[1.0, 2.0], [7.0, 8.0], [9.0, 0.0]],
    ]


@pytest.mark.parametrize("gated", [False, True])
def test_first_rows_read_like_the_first_vocabulary_entries(gated, tiny_t5, tiny_gated_t5, batch):
    base = tiny_gated_t5 if gated else tiny_t5
    expected = base(**with_tokens_in_front(batch))
    written = base.generate(**inputs(with_tokens_in_front(batch)), max_length=6)
    by_beam = base.generate(**inputs(with_tokens_in_front(batch)), max_length=6, num_beams=3)
    model = apply(SoftPrompt(N), base).model
    got = model(**batch)
    assert torch.equal(got.logits, expected.logits) and torch.equal(got.loss, expected.loss)
    assert got.encoder_last_hidden_state.shape == (3, N + 7, 32)
    assert torch.equal(model.generate(**inputs(batch), max_length=6), written)
    assert torch.equal(model.generate(**inputs(batch), max_length=6, num_beams=3), by_beam)


def test_any_rows_are_read_as_embeddings_in_front(tiny_t5, batch):
    rows = random_rows(tiny_t5.shared.weight, N)
    embedded = torch.cat([rows.expand(3, N, 32), tiny_t5.shared(batch["input_ids"])], dim=1)
    mask = torch.cat([torch.ones(3, N, dtype=torch.long), batch["attention_mask"]], dim=1)
    expected = tiny_t5(inputs_embeds=embedded, attention_mask=mask, labels=batch["labels"]).logits
    model = apply(SoftPrompt(N, random_rows), tiny_t5).model
    assert torch.equal(model(**batch).logits, expected)
    # The rows matter, and so does the text behind them.
    with torch.no_grad():
        model.get_parameter(KEY)[-1] += 0.5
    assert not torch.equal(model(**batch).logits, expected)


def test_every_way_of_calling_agrees(tiny_t5, batch):
    model = apply(SoftPrompt(N, random_rows), tiny_t5).model
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    expected = model(**batch).logits
    embedded = model.shared(ids)
    assert torch.equal(model(inputs_embeds=embedded, attention_mask=mask, labels=labels).logits, expected)
    assert torch.equal(model(ids, mask, labels=labels).logits, expected)
    encoded = model.encoder(ids, mask)
    assert torch.equal(model(encoder_outputs=encoded, attention_mask=mask, labels=labels).logits, expected)
    assert torch.equal(
        model.generate(inputs_embeds=embedded, attention_mask=mask, max_length=6),
        model.generate(input_ids=ids, attention_mask=mask, max_length=6),
    )


def test_no_mask_is_a_mask_of_ones(tiny_t5, batch):
    model = apply(SoftPrompt(N, random_rows), tiny_t5).model
    ids, labels = batch["input_ids"], batch["labels"]
    ones = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).logits
    assert torch.equal(model(input_ids=ids, labels=labels).logits, ones)
    assert not torch.equal(model(**batch).logits, ones)


def test_padding_is_not_read(tiny_t5, batch):
    model = apply(SoftPrompt(N, random_rows), tiny_t5).model
    expected = model(**batch).logits
    batch["input_ids"][batch["attention_mask"] == 0] = 77
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)


def test_none_or_both_inputs_are_left_to_t5(tiny_t5, batch):
    model = apply(SoftPrompt(N), tiny_t5).model
    ids = batch["input_ids"]
    with pytest.raises(ValueError, match=r"both|exactly one"):
        model.encoder(input_ids=ids, inputs_embeds=model.shared(ids))
    with pytest.raises(ValueError, match=r"either|exactly one"):
        model.encoder(attention_mask=batch["attention_mask"])


@pytest.mark.parametrize("gated", [False, True])
def test_the_embedding_stays_tied(gated, tiny_t5, tiny_gated_t5):
    model = apply(SoftPrompt(N), tiny_gated_t5 if gated else tiny_t5).model
    model.tie_weights()
    assert model.encoder.embed_tokens.weight is model.shared.weight is model.decoder.embed_tokens.weight
    # transformers 5 ties the output layer of every T5.
    assert (model.lm_head.weight is model.shared.weight) == (not gated or TRANSFORMERS_5)
    assert KEY in dict(model.named_parameters())


def test_a_checkpoint_of_the_base_still_fits(tiny_t5):
    checkpoint = make_t5(seed=9).state_dict()
    model = apply(SoftPrompt(N), tiny_t5).model
    found = model.load_state_dict(checkpoint, strict=False)
    assert not found.unexpected_keys and found.missing_keys == [KEY]
    assert all(torch.equal(model.state_dict()[key], value) for key, value in checkpoint.items())


def test_a_copy_goes_its_own_way(tiny_t5, batch):
    model = apply(SoftPrompt(N), tiny_t5).model
    expected = model(**batch).logits
    twin = copy.deepcopy(model)
    assert torch.equal(twin(**batch).logits, expected)
    with torch.no_grad():
        twin.get_parameter(KEY).add_(1.0)
    assert torch.equal(model(**batch).logits, expected)
    assert not torch.equal(twin(**batch).logits, expected)


def test_the_whole_model_can_be_pickled(tiny_t5, batch):
    model = apply(SoftPrompt(N, partial(label_words, words=[[5], [6, 7]])), tiny_t5).model
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_gradients_reach_the_rows_alone(tiny_t5, batch):
    model = apply(SoftPrompt(N), tiny_t5.train()).model
    model(**batch).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [KEY]
    assert (model.get_parameter(KEY).grad.abs().sum(dim=1) > 0).all()


def test_a_base_in_bfloat16(tiny_t5, batch):
    model = apply(SoftPrompt(N), tiny_t5.bfloat16()).model
    output = model(**batch)
    output.loss.backward()
    rows = model.get_parameter(KEY)
    assert output.logits.dtype == torch.bfloat16
    assert rows.dtype == rows.grad.dtype == torch.float32 and rows.grad.abs().sum() > 0


# How the rows start


TABLE = torch.arange(12.0).reshape(6, 2)  # V = 6, D = 2; row i is [2i, 2i + 1]


def test_first_rows():
    assert first_rows(TABLE, 2).tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_the_rows_are_a_copy(tiny_t5):
    model = apply(SoftPrompt(N), tiny_t5).model
    before = model.shared.weight.clone()
    with torch.no_grad():
        model.get_parameter(KEY).zero_()
    assert torch.equal(model.shared.weight, before) and before[:N].any()


def test_sampled_vocabulary_draws_different_frequent_rows():
    rows = sampled_vocabulary(TABLE, 6, torch.Generator().manual_seed(0))
    assert sorted(rows.tolist()) == TABLE.tolist()
    large = torch.arange(6000.0).unsqueeze(1)
    assert sampled_vocabulary(large, 5000, torch.Generator().manual_seed(0)).max() == 4999


def test_random_uniform_spreads_over_half():
    rows = random_uniform(torch.zeros(3, 500), 20, torch.Generator().manual_seed(0))
    assert rows.shape == (20, 500)
    assert -0.5 <= rows.min() < -0.49 and 0.49 < rows.max() <= 0.5


@pytest.mark.parametrize("initialiser", [sampled_vocabulary, random_uniform])
def test_a_generator_decides(initialiser):
    def draw(seed):
        return initialiser(torch.randn(100, 8, generator=torch.Generator().manual_seed(1)), 5, seed)

    first = draw(torch.Generator().manual_seed(1))
    assert torch.equal(first, draw(torch.Generator().manual_seed(1)))
    assert not torch.equal(first, draw(torch.Generator().manual_seed(2)))


def test_label_words_are_means_of_their_pieces_then_sampled():
    rows = label_words(TABLE, 4, torch.Generator().manual_seed(0), words=[[1], [2, 4]])
    assert rows[:2].tolist() == [[2.0, 3.0], [6.0, 7.0]]  # [4 5] and [8 9] halved
    assert all(row in TABLE.tolist() for row in rows[2:].tolist())
    assert label_words(TABLE, 1, words=[[1], [2, 4]]).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("initialiser", [first_rows, sampled_vocabulary])
def test_more_rows_than_the_vocabulary_are_refused(initialiser, tiny_t5):
    with pytest.raises(UserError, match=r"129 rows.*128"):
        apply(SoftPrompt(129, initialiser), tiny_t5)
    apply(SoftPrompt(128, initialiser), tiny_t5)  # and the refusal left the model as it was


def test_an_initialiser_of_the_wrong_shape_is_refused(tiny_t5):
    with pytest.raises(UserError, match=r"\(4, 32\)"):
        apply(SoftPrompt(4, lambda embedding, n, generator: embedding[: n - 1]), tiny_t5)


@pytest.mark.parametrize("rows", [0, -1, 2.5, True])
def test_hyperparameters_out_of_range_are_refused(rows):
    with pytest.raises(UserError, match="rows"):
        SoftPrompt(rows)


def test_hyperparameters_name_the_initialiser():
    assert SoftPrompt(3).hyperparameters() == {"virtual_tokens": 3, "initialiser": "first_rows"}
    bound = SoftPrompt(3, partial(label_words, words=[[5]]))
    assert bound.hyperparameters()["initialiser"] == "label_words"


def test_injecting_twice_is_refused_without_apply_too(tiny_t5):
    SoftPrompt().inject(tiny_t5)
    with pytest.raises(UserError, match="already carries"):
        SoftPrompt().inject(tiny_t5)
