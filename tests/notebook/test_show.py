"""What the notebooks show: phrases of reviews, published ranges, names of changed runs, honest axes."""

import inspect
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from peft_scratch.assignment import LABEL_WORDS, PROFILES, RUNS
from peft_scratch.errors import UserError
from peft_scratch.experiments.ask import BASE, NEITHER, Opinion
from peft_scratch.experiments.settings import change
from peft_scratch.methods import LoRALinear
from peft_scratch.notebook import show
from peft_scratch.paths import ROOT
from peft_scratch.results import read_results

REVIEW = (
    "i went to see it with my sister, who had read the book. the theatre was full and somebody talked "
    "through all of the first half hour of it without a break or a pause or any mercy at all. it is the "
    "dullest film of the year! we left."
)


def test_phrases_cover_the_review_and_are_short():
    pieces = show.phrases(REVIEW)
    assert all(25 <= len(piece.strip("… ")) <= show.PHRASE for piece in pieces)
    assert all(piece.strip("… ") in REVIEW for piece in pieces)
    assert pieces[0].startswith("i went") and not pieces[1].startswith("i ")
    assert any("dullest film" in piece for piece in pieces)
    assert show.phrases("good.") == ["good."] and show.phrases("") == [""]
    assert max(map(len, show.phrases("x" * 1000))) <= show.PHRASE + 4


@pytest.mark.parametrize(("label", "found"), [(0, "dullest"), (1, "my sister")])
def test_the_phrase_that_is_shown_is_where_the_opinion_is(label, found):
    def leanings(texts):
        return torch.tensor([1.0 * ("sister" in text) - 2.0 * ("dullest" in text) for text in texts])

    assert found in show.opinion(SimpleNamespace(leanings=leanings), REVIEW, label)


@pytest.fixture
def results():
    return read_results(ROOT / "report" / "results")


@pytest.fixture
def displayed(monkeypatch):
    said = []
    monkeypatch.setattr(show, "_display", said.append)
    return said


def test_the_published_range_stands_beside_the_assignments_numbers_only(results, displayed):
    result = results["lora_peft_r1"]
    show.numbers(result)
    assert "published" not in displayed[0]
    assert "These are not the assignment's numbers" in displayed[-1]
    displayed.clear()
    result.profile = "course"
    show.numbers(result, results["bag_of_words"])
    assert "| published runs, % |" in displayed[0]
    assert "| 88.5 to 88.8 |" in displayed[0]
    assert "not the assignment's" in displayed[-1], "the baseline is of another profile"
    displayed.clear()
    show.numbers(result)
    assert len(displayed) == 2


def test_a_quick_run_is_marked(results, tmp_path):
    session = SimpleNamespace(profile=PROFILES["quick"], output=tmp_path)
    said = show.contribution(session, 5, results)
    assert "the quick profile trains `t5-small` on 2,000 reviews" in said
    session.profile = PROFILES["course"]
    assert "| LoRA, PEFT, r = 1 | " in said
    assert "published" in show.contribution(session, 5, results)


@pytest.mark.parametrize(
    ("best", "best_epoch", "last", "said"),
    [
        (0.80, 2, 0.80, "best after epoch 2 of 2, which is the last: no fall to see here"),
        (0.80, 1, 0.789, "best after epoch 1 of 2, and the last is 1.1 points lower"),
        (0.80, 1, 0.7998, "best after epoch 1 of 2, and the last is as good"),
    ],
)
def test_a_fall_after_the_best_epoch_is_said_only_where_there_is_one(
    results, capsys, best, best_epoch, last, said
):
    accuracy = results["full"].accuracy.model_copy(
        update={"best": best, "best_epoch": best_epoch, "last": last}
    )
    show.after_the_best(results["full"].model_copy(update={"accuracy": accuracy}))
    assert capsys.readouterr().out == said + "\n"


def test_an_axis_does_not_make_noise_look_like_a_trend(results, monkeypatch):
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    result = results["lora_scratch_r8"]
    for epoch in result.epochs:
        epoch.accuracy = 0.82
    result.epochs[-1].accuracy = 0.8201
    result.reviews = {"test": 25_000}
    show.curves(result)
    low, high = plt.gcf().axes[1].get_ylim()
    assert high - low >= 4
    assert plt.gcf().axes[1].containers, "there are no error bars"
    plt.close("all")


@pytest.mark.parametrize(
    ("run_id", "settings", "name", "title"),
    [
        ("lora_scratch_r8", {"rank": 4}, "lora_scratch_r4", "LoRA, from scratch, r = 4"),
        ("lora_peft_r1", {"alpha": 8.0}, "lora_peft_r1", "LoRA, PEFT, r = 1, alpha = 8.0"),
        (
            "prompt_scratch_n10",
            {"virtual_tokens": 3},
            "prompt_scratch_n3",
            "Soft prompt, from scratch, N = 3",
        ),
        (
            "full",
            {"learning_rate": 0.1, "epochs": 1},
            "full",
            "Full fine-tuning, learning_rate = 0.1, epochs = 1",
        ),
        ("adapter_scratch_b8", {"bottleneck": 8}, "adapter_scratch_b8", "Adapter, from scratch, b = 8"),
    ],
)
def test_a_changed_run_is_called_by_what_was_changed(run_id, settings, name, title):
    run, _ = change(RUNS[run_id], replace(PROFILES["smoke"]), settings)
    assert (run.id, run.title) == (name, title)


def test_an_unchanged_run_keeps_its_name_and_an_impossible_one_is_refused():
    assert change(RUNS["full"], PROFILES["smoke"], {})[0] == RUNS["full"]
    with pytest.raises(UserError):
        change(RUNS["lora_scratch_r8"], PROFILES["smoke"], {"rank": 0})


def test_the_source_that_is_shown_has_no_markers_of_the_student_edition(capsys):
    show.source(LoRALinear.forward)
    shown = capsys.readouterr().out
    assert "F.linear(x, self.weight, self.bias)" in shown and "SOLUTION" not in shown
    assert "# BEGIN SOLUTION" in inspect.getsource(LoRALinear.forward)


def test_a_comparison_says_which_reviews_are_wrong_and_that_p_stands_alone(results, capsys):
    first, second = results["full"], results["zero_shot_prefix"]
    both, either = set(first.mistakes) & set(second.mistakes), set(first.mistakes) ^ set(second.mistakes)
    session = SimpleNamespace(reviews=SimpleNamespace(test=range(1000)))
    show.compare(session, first, second)
    said = capsys.readouterr().out
    assert f"Of 1,000 reviews, {len(both)} are wrong in both, and {len(either)} are wrong in exactly" in said
    assert "This p is for one comparison, without the report's correction" in said
    show.compare(session, first, first)
    assert "This p" not in capsys.readouterr().out


def test_an_answer_that_is_no_label_word_is_called_malformed(displayed, capsys):
    shares = dict.fromkeys(LABEL_WORDS, 0.0)
    show.opinions([Opinion(BASE, NEITHER, shares, "the movie is a"), Opinion("LoRA", "positive", shares)])
    said = "The untuned base writes 'the movie is a', which is neither label word: a malformed output.\n"
    assert capsys.readouterr().out == said
