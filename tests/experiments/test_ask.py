"""What trained models say of a text: the same as the evaluation, over one base, with honest remarks."""

import csv
import html
import re
import shutil

import pytest
import torch
from tiny_bench import made_up_reviews, tiny_workbench
from transformers import AutoTokenizer, T5ForConditionalGeneration
from typer.testing import CliRunner

from peft_scratch.app import drawings
from peft_scratch.assignment import LABEL_WORDS, SST2_PREFIX
from peft_scratch.cli import app
from peft_scratch.data.tokens import label_ids
from peft_scratch.errors import UserError
from peft_scratch.exactness.convert import convert
from peft_scratch.experiments import session as sessions
from peft_scratch.experiments.ask import (
    BASE,
    NEITHER,
    Opinion,
    Panel,
    label_probabilities,
    member_of_file,
    panel_of,
    remarks,
)
from peft_scratch.paths import OFFLINE_BASE, ROOT
from peft_scratch.training.float16 import Float16Failed

IDS = ("full", "prompt_scratch_n10", "adapter_scratch_b8", "lora_scratch_r8", "lora_peft_r8")
TEXTS = ["dull slow dull", "Warm, WARM fine", "loud", "deep long fine slow warm dull loud"]
HOSTILE = "<script>alert(1)</script> \x00 \u202e مرحبا & 'quoted' \"both\""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    session = tiny_workbench(tmp_path_factory.mktemp("ask"), made_up_reviews(48, 20))
    for run_id in IDS:
        session.prepare(run_id).train()
    return session


@pytest.fixture(scope="module")
def panel(bench):
    return panel_of(bench)


def test_every_trained_run_and_the_base_are_asked(panel, bench):
    titles = [bench.results()[run_id].title for run_id in IDS]
    assert list(panel.models) == [BASE, *titles]
    for opinions in panel.ask(TEXTS):
        assert [opinion.model for opinion in opinions] == [BASE, *titles]


def test_one_base_is_in_memory(panel, bench):
    base = {p.data_ptr() for p in panel.models[BASE].parameters()}
    for run_id in IDS[1:]:
        model = panel.models[bench.results()[run_id].title]
        frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
        assert frozen == base, f"{run_id} has a base of its own"


@pytest.mark.parametrize("run_id", IDS)
def test_the_verdicts_are_those_of_the_evaluation(run_id, panel, bench):
    prepared = bench.prepare(run_id)
    result = prepared.train()  # found on disk
    test = bench.reviews.test
    title = result.title
    said = [
        next(opinion for opinion in opinions if opinion.model == title)
        for opinions in panel.ask(test["text"], batch_size=7)
    ]
    wrong = [row for row, opinion in enumerate(said) if opinion.verdict != LABEL_WORDS[test["label"][row]]]
    assert wrong == result.mistakes
    for opinion in said:
        assert all(0 <= share <= 1 for share in opinion.probabilities.values())
        assert sum(opinion.probabilities.values()) <= 1 + 1e-5
        assert (opinion.generated is not None) == (opinion.verdict == NEITHER)


def test_a_probability_is_that_of_the_word_and_the_end_token(panel, bench):
    title = bench.results()["lora_scratch_r8"].title
    (opinions,) = panel.ask([TEXTS[1]])
    opinion = next(one for one in opinions if one.model == title)
    prepared = bench.prepare("lora_scratch_r8")
    prepared.train()
    inputs = bench.tokenizer("warm, warm fine", return_tensors="pt")
    for word in LABEL_WORDS:
        labels = bench.tokenizer(word, return_tensors="pt").input_ids
        with torch.inference_mode():
            loss = prepared.tuned.model(**inputs, labels=labels).loss  # mean over the target's tokens
        expected = torch.exp(-loss * labels.shape[1]).item()
        assert opinion.probabilities[word] == pytest.approx(expected, rel=1e-3)


def test_half_precision_does_not_round_the_probabilities_to_a_grid():
    model = T5ForConditionalGeneration.from_pretrained(OFFLINE_BASE, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(OFFLINE_BASE)
    films = ["a fine film.", "a dull film.", "the plot drags, the ending is a joy.", "i left early."]
    inputs = tokenizer([SST2_PREFIX + film for film in films], return_tensors="pt", padding=True)
    odds = []
    for half in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            probabilities, _ = label_probabilities(model, dict(inputs), label_ids(tokenizer))
        negative, positive = probabilities.log().T
        odds.append(positive - negative)
    torch.testing.assert_close(odds[1], odds[0], rtol=0, atol=0.015)  # bfloat16 logits alone are 0.05 off


def test_occlusion_is_the_change_when_a_word_is_left_out(panel, bench):
    title = bench.results()["full"].title
    found = panel.occlusion(title, "dull warm fine")
    assert [word for word, _ in found] == ["dull", "warm", "fine"]

    def lean(text):
        (opinions,) = panel.ask([text])
        return next(one for one in opinions if one.model == title).lean

    expected = [lean("dull warm fine") - lean(text) for text in ("warm fine", "dull fine", "dull warm")]
    assert [weight for _, weight in found] == pytest.approx(expected, abs=1e-4)
    assert panel.occlusion(title, "  ") == []
    assert len(panel.occlusion(title, "warm " * 5_000)) <= 48


def test_remarks_say_what_a_reader_should_know(panel):
    assert remarks("fine", 2, 10) == []
    assert "empty" in remarks(" \n", 1, 10)[0]
    assert remarks("fine " * 20, 21, 10) == [
        "The text has 21 tokens and the models read 10: the rest is cut off."
    ]
    assert "not Latin" in remarks("فیلم بسیار خوبی بود", 5, 10)[0]
    assert remarks("Très émouvant, déjà vu", 5, 10) == []
    # The room is what the longest prompt leaves of an input.
    assert "the models read 14" in panel.remarks("warm " * 40)[0]


def test_a_file_of_another_student_is_asked_too(bench, panel, tmp_path):
    path = bench.output / "weights" / "lora.pt"
    member = member_of_file(path)
    both = Panel(bench, [member])
    (ours,), (theirs,) = panel.ask([TEXTS[0]]), both.ask([TEXTS[0]])
    title = bench.results()["lora_scratch_r8"].title
    expected = next(one for one in ours if one.model == title)
    assert theirs[1].probabilities == expected.probabilities
    (tmp_path / "no.pt").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"no\.pt is not a tensor file"):
        member_of_file(tmp_path / "no.pt")


def _opinions_of(panel, title, text):
    (opinions,) = panel.ask([text])
    return next(one for one in opinions if one.model == title)


@pytest.mark.parametrize(
    ("run_id", "file"),
    [
        ("lora_scratch_r8", "lora.pt"),
        ("adapter_scratch_b8", "adapter.pt"),
        ("prompt_scratch_n10", "prompts.pt"),
    ],
)
def test_a_folder_of_peft_or_adapterhub_is_asked_like_its_file(run_id, file, bench, panel, tmp_path):
    convert(bench.output / "weights" / file, tmp_path / "folder")
    member = member_of_file(tmp_path / "folder")
    theirs = _opinions_of(Panel(bench, [member]), member.title, TEXTS[0])
    ours = _opinions_of(panel, bench.results()[run_id].title, TEXTS[0])
    assert (theirs.verdict, theirs.probabilities) == (ours.verdict, ours.probabilities)


def test_a_folder_is_asked_with_its_own_alpha(bench, tmp_path):
    path = bench.output / "weights" / "lora.pt"
    convert(path, tmp_path / "folder", alpha=16.0)
    folder, file, default = (
        member_of_file(tmp_path / "folder"),
        member_of_file(path, 16.0),
        member_of_file(path),
    )
    assert (folder.method.alpha, file.method.alpha, default.method.alpha) == (16.0, 16.0, 4.0)
    panel = Panel(bench, [folder, file, default])
    said = [_opinions_of(panel, title, TEXTS[0]).probabilities for title in panel.titles[1:]]
    assert said[0] == said[1] != said[2]


def test_two_files_of_one_name_are_both_asked(bench, tmp_path):
    path = bench.output / "weights" / "lora.pt"
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name)
    files = [tmp_path / "mine" / "lora.pt", tmp_path / "theirs" / "lora.pt", tmp_path / "theirs" / "lora.pt"]
    titles = Panel(bench, map(member_of_file, files)).titles
    assert titles[1] == "LoRA, r = 8, lora.pt" and str(files[1]) in titles[2]
    assert len(titles) == 4


def test_a_file_of_another_size_of_base_gets_one_sentence(bench):
    with pytest.raises(UserError) as caught:
        Panel(bench, [member_of_file(ROOT / "weights" / "lora.pt")])
    said = str(caught.value)
    assert "lora.pt does not fit the model" in said and "in the file" in said and "\n" not in said


def test_long_and_broken_texts_are_answered(panel):
    texts = ["warm " * 200_000, "a" * 1_000_000, "half a pair \ud800", "good\x00bad", "", "فیلم " * 50_000]
    assert [len(opinions) for opinions in panel.ask(texts)] == [len(panel.titles)] * len(texts)
    assert "more than" in panel.remarks(texts[0])[0]
    # What is not read changes nothing.
    title = panel.titles[-1]
    read = _opinions_of(panel, title, "warm " * 500)
    assert _opinions_of(panel, title, texts[0]).probabilities == pytest.approx(read.probabilities, rel=1e-4)


def test_only_words_that_are_read_are_left_out(panel, bench):
    title = bench.results()["prompt_scratch_n10"].title  # of the 24 tokens, a prompt takes ten
    words = " ".join(word for word, _ in panel.occlusion(title, "warm dull " * 40)).split()
    assert words == ["warm", "dull"] * (len(words) // 2) + ["warm"] * (len(words) % 2)
    assert 0 < len(words) <= 13


def test_where_float16_fails_a_model_is_asked_in_float32(panel, bench, monkeypatch):
    expected = _opinions_of(panel, BASE, TEXTS[0])
    asked = []

    def fails_once(*arguments):
        asked.append(arguments)
        if len(asked) == 1:
            raise Float16Failed("not finite")
        return label_probabilities(*arguments)

    monkeypatch.setattr("peft_scratch.experiments.ask.label_probabilities", fails_once)
    alone = Panel(bench, [])
    assert _opinions_of(alone, BASE, TEXTS[0]) == expected and len(asked) == 2
    assert alone._recipes[BASE].precision_name == "float32"


def test_nothing_trained_is_said(tmp_path):
    with pytest.raises(UserError, match="Nothing is trained yet"):
        panel_of(tiny_workbench(tmp_path))


def test_a_session_is_asked_and_knows_what_was_trained_since(bench, capsys):
    first = bench.ask(TEXTS[0])
    assert first[0].model == BASE
    panel = bench.panel
    bench.ask(" ")
    assert "note: The text is empty" in capsys.readouterr().out
    assert bench.panel is panel, "put together once"
    bench.prepare("prompt_opendelta_n1").train()
    assert len(bench.ask(TEXTS[0])) == len(first) + 1
    (bench.results_folder / "prompt_opendelta_n1.json").unlink()


@pytest.fixture
def opened(bench, monkeypatch):
    monkeypatch.setattr(sessions.Session, "open", lambda *_, **__: bench)
    return CliRunner()


def test_the_command_answers_a_line_per_model(opened):
    done = opened.invoke(app, ["ask", TEXTS[0], "--profile", "smoke"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1 + len(IDS)
    assert all(
        re.search(r"(negative|positive|neither) +negative +\d+\.\d %, positive", line) for line in lines
    )


def test_the_command_answers_a_file_with_a_file(opened, tmp_path):
    source = tmp_path / "reviews.csv"
    source.write_text('text\n"dull, slow"\nwarm\n\n', encoding="utf-8")
    done = opened.invoke(app, ["ask", "--file", str(source), "--profile", "smoke"])
    assert done.exit_code == 0, done.output
    target = tmp_path / "reviews.opinions.csv"
    with target.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["dull, slow", "warm"]
    assert rows[0][f"{BASE}: verdict"] in (*LABEL_WORDS, NEITHER)
    assert 0 <= float(rows[0]["LoRA, from scratch, r = 8: positive"]) <= 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give either a text"),
        (["fine", "--file", "a.csv"], "Give either a text"),
        (["--file", "missing.csv"], r"missing\.csv cannot be read as a CSV file"),
        (["--file", "columns.csv", "--to", "columns.csv"], r"columns\.csv itself, whose texts would be lost"),
        (["fine", "--to", "a.csv"], "--to needs --file"),
        (["--file", "columns.csv"], r"columns\.csv has the columns a, b, but text is needed"),
    ],
)
def test_a_mistaken_call_gets_one_sentence(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    done = CliRunner().invoke(app, ["ask", *arguments, "--profile", "smoke"])
    assert done.exit_code == 2
    assert re.search(sentence, done.output) and "Traceback" not in done.output


# The page's drawings


def test_no_text_reaches_the_page_unescaped():
    opinions = [Opinion(HOSTILE, NEITHER, dict.fromkeys(LABEL_WORDS, 0.1), HOSTILE)]
    for drawn in (
        drawings.bars(opinions),
        drawings.marked([(HOSTILE, 0.3), ("fine", -0.2)]),
        drawings.history([(HOSTILE, HOSTILE)]),
    ):
        assert "<script" not in drawn and "\x00" not in drawn and "\u202e" not in drawn
        assert html.escape("<script>alert(1)</script>") in drawn


def test_the_words_are_marked_by_what_they_carry():
    drawn = drawings.marked([("bad", -0.5), ("good", 0.25), ("a", 0.0)])
    assert "#D55E00a0" in drawn and "#0072B250" in drawn  # half as strong
    assert drawings.marked([]) == ""


def test_every_run_is_a_point_that_can_be_clicked(bench):
    results = [bench.results()[run_id] for run_id in IDS]
    svg = drawings.accuracy_plot(results)
    assert all(f'id="run-{run_id}"' in svg for run_id in IDS)
    assert f"{results[0].parameters.trainable:,} trainable parameters" in drawings.run_facts(results[0])
