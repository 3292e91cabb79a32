"""The report: every number from a JSON, every sentence chosen by the data, both languages set whole."""

# ruff: noqa: RUF001 - the minus sign is meant.

import copy
import io
import json
import random
import re
import string
from dataclasses import replace

import pytest
from pypdf import PdfReader
from report_documents import ADDED, BASE, SIZES, Documents, documents
from typer.testing import CliRunner

from peft_scratch.assignment import RUNS, TEN
from peft_scratch.cli import app
from peft_scratch.errors import UserError
from peft_scratch.reporting import figures, report
from peft_scratch.reporting.content import Student, content
from peft_scratch.reporting.figures import draw
from peft_scratch.reporting.inputs import read
from peft_scratch.reporting.languages import LANGUAGES, Language
from peft_scratch.reporting.report import compile_pdf

BOTH = pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
STUDENT = Student("Ada Lovelace", "98765432")


@pytest.fixture
def inputs() -> Documents:
    return documents()


ENGLISH, PERSIAN = LANGUAGES["en"], LANGUAGES["fa"]


def _said(inputs: Documents, language: Language = ENGLISH) -> dict:
    return content(inputs.read(), STUDENT, language, {})


def _text(pdf: bytes) -> str:
    pages = PdfReader(io.BytesIO(pdf)).pages
    return "\n".join(page.extract_text() for page in pages)


def _laid_out(pdf: bytes) -> str:
    """By the places of the signs: in their own order, right-to-left digits may come in any."""
    pages = PdfReader(io.BytesIO(pdf)).pages
    return "\n".join(page.extract_text(extraction_mode="layout") for page in pages)


def _numerals(text: str) -> set[str]:
    """Numbers with the digits and marks of English, whatever the text has."""
    plain = re.sub("[\u2060\u2066-\u2069]", "", text).translate(_ENGLISH_DIGITS)
    return set(re.findall(r"\d+(?:[.,]\d+)*", plain))


_ENGLISH_DIGITS = str.maketrans("۰۱۲۳۴۵۶۷۸۹٫٬", "0123456789.,")


def _numbers(said: dict) -> set[str]:
    return _numerals(json.dumps(said, ensure_ascii=False))


# Every number is from a JSON


@BOTH
def test_the_pdf_has_the_numerals_of_what_was_said_and_no_other(inputs, language):
    said = _said(inputs, language)
    pages = {str(number) for number in range(1, 7)}
    in_text = _numerals(_laid_out(compile_pdf(said)))
    assert in_text - _numbers(said) <= pages
    # Where a rule stands, and how far a cell reaches, are the only numbers that are no text.
    assert {number for number in _numbers(said) - in_text if len(number) > 1} <= {str(len(TEN))}


@BOTH
def test_a_numeral_of_the_templates_own_would_be_found(inputs, language, monkeypatch):
    monkeypatch.setattr(report, "_TEMPLATE", report._TEMPLATE + b"\n12.34 %\n")
    said = _said(inputs, language)
    assert "12.34" in _numerals(_laid_out(compile_pdf(said))) - _numbers(said)


def _typed(language: Language) -> set[str]:
    """The numerals of more than a small count that stay when every measured number is another."""
    reports = (_numbers(_said(documents(seed), language)) for seed in range(20))  # a few agree by chance
    return {number for number in set.intersection(*reports) if re.search("[.,]", number)} - _MAY_STAY


_COUNTS = {
    f"{ADDED[kind](size) + base:,}"
    for kind in SIZES
    for size in (1, 8, 10)
    for base in (0, BASE["parameters"])
}
# What two reports may share: constants of the configuration, what follows from these alone, versions.
_PUBLISHED = {f"{bound:.1f}" for run in RUNS.values() for bound in run.published}
_MAY_STAY = (
    _COUNTS
    | _PUBLISHED
    | {
        *("2,000", "0.003", "2.13.0", "3.11.7", "5,902,080", "0.0"),
        *("0.5", "13.9"),  # alpha / r = 4 / 8, and sqrt(6 d / r)
        *("23.6", "23.7", "23.8", "11.8"),  # MB of all the parameters, and of the base
        "2.0",  # bytes of each parameter in the base's file
    }
)


@BOTH
def test_no_number_is_typed(language):
    assert _typed(language) == set()


@BOTH
def test_a_typed_number_would_be_found(language):
    words = {**language.words, "numbers_note": "Others reached 91.7 % and 61,234."}
    typing = replace(language, words=words)
    assert _typed(typing) == {"91.7", "61,234"}


def test_the_words_hold_no_numeral_but_in_names():
    names = r"T5|t5-small|float32|SHA-256|sst2|exactness\.md|\{[a-z_]*\}|L_enc \+ 2·L_dec"
    for language in LANGUAGES.values():
        for key, words in language.words.items():
            assert not re.search(r"\d", re.sub(names, "", words)), (language.code, key)


CHANGES = {
    "best": lambda i: i.results["lora_peft_r8"]["accuracy"].update(best=0.95123),
    "last": lambda i: i.results["full"]["accuracy"].update(last=0.4321),
    "validation": lambda i: i.results["full"]["accuracy"].update(validation_chosen=0.4321),
    "malformed": lambda i: i.results["bag_of_words"].update(malformed=0.4321),
    "rate": lambda i: i.results["full"]["config"].update(learning_rate=0.0123),
    "seconds": lambda i: i.results["full"]["seconds"].update(training=98765.4),
    "device": lambda i: [run["environment"].update(device_name="77 cores") for run in i.runs.values()],
    "optimizer": lambda i: i.results["full"]["memory"].update(optimizer=123_456_789),
    "peak": lambda i: i.results["full"]["memory"].update(peak=9_123_456_789),
    "disk": lambda i: i.results["lora_peft_r1"]["disk"].update(delta=777_777),
    "tuned": lambda i: i.results["lora_peft_r1"]["knowledge"].update(tuned=9.8765),
    "training": lambda i: i.results["full"]["training_accuracy"].update(accuracy=0.12345),
    "small": lambda i: i.small_data["full"]["runs"][0]["epochs"][-1].update(test_accuracy=0.01),
    "exactness": lambda i: i.exactness["bases"][0]["rows"][0].update(gradients=0.123),
    "pretraining": lambda i: i.pretraining.update(tokens=7_654_321),
    "count": lambda i: i.results["lora_peft_r1"]["parameters"].update(whole=5_900_001),
}


@BOTH
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_number_changes_the_text(inputs, language, change):
    before = _said(inputs, language)
    change(inputs)
    assert _numbers(_said(inputs, language)) != _numbers(before)


def test_every_figure_changes_with_its_numbers(inputs):
    before = draw(inputs.read(), ENGLISH)
    assert before == draw(inputs.read(), ENGLISH), "the same bytes for the same numbers"
    inputs.results["full"]["epochs"][0]["accuracy"] = 0.95  # curves
    for name in ("best", "peak", "seconds", "tuned", "small"):
        CHANGES[name](inputs)
    after = draw(inputs.read(), ENGLISH)
    assert (
        before.keys() == after.keys() == {"accuracy", "curves", "memory", "knowledge", "small_data", "time"}
    )
    assert [name for name in after if before[name] == after[name]] == []


# Sentences are chosen by the data


def _sentences(inputs: Documents) -> str:
    return json.dumps(_said(inputs), ensure_ascii=False)


def test_the_bag_of_words_is_above_or_below(inputs):
    inputs.results["bag_of_words"]["accuracy"]["best"] = 0.99
    assert "None of the 10 measured runs is above the bag of words (99.0 %)" in _sentences(inputs)
    inputs.results["bag_of_words"]["accuracy"]["best"] = 0.01
    assert "10 of the 10 measured runs did better than the bag of words (1.0 %)." in _sentences(inputs)


def test_the_optimiser_grows_in_proportion_or_not(inputs):
    for run in inputs.runs.values():
        run["memory"]["optimizer"] = 8 * run["parameters"]["trainable"]
    said = _sentences(inputs)
    assert "Yes: the optimizer keeps 8.0 bytes for each trainable parameter" in said
    share = 100 * ADDED["lora"](8) / BASE["parameters"]
    assert "the optimizer's state takes from 0.004 % (soft prompt, OpenDelta, N\u00a0=\u00a01) to " in said
    assert (
        f" to {share:.2f} % (LoRA, from scratch, r\u00a0=\u00a08) of the 47.2 MB that full fine-tuning needs"
        in said
    )
    inputs.results["lora_peft_r8"]["memory"]["optimizer"] *= 2
    assert "Not in proportion" in _sentences(inputs)


def test_one_method_says_nothing_of_the_others(inputs):
    for name in [name for name in inputs.runs if not name.startswith("adapter")]:
        del inputs.results[name]
    for run in inputs.runs.values():
        run["memory"]["optimizer"] = 8 * run["parameters"]["trainable"]
    said = _sentences(inputs)
    assert "8.0 bytes for each trainable parameter of the one method that was run." in said
    assert "whatever the method" not in said


def test_the_peak_is_lower_or_not(inputs):
    inputs.results["full"]["memory"]["peak"] = 10**12
    assert "lower than full fine-tuning's 1,000 GB in 9 of 9 other runs" in _sentences(inputs)
    inputs.results["full"]["memory"]["peak"] = 1
    assert "lower than full fine-tuning's 1 B in none of 9 other runs" in _sentences(inputs)


def test_one_base_serves_all_or_not(inputs):
    assert "to the last bit in all 9 runs" in _sentences(inputs)
    inputs.results["lora_peft_r8"]["knowledge"]["off"] += 0.25
    assert "differs from the untouched base's in 1 of 9 runs, by up to 2.5e-01" in _sentences(inputs)


def test_full_fine_tuning_forgets_most_or_not(inputs):
    inputs.results["full"]["knowledge"].update(base=2.0, tuned=7.5)
    assert "Full fine-tuning moves it most, by 5.500" in _sentences(inputs)
    inputs.results["full"]["knowledge"].update(base=2.0, tuned=2.001)
    assert "Full fine-tuning moves it by 0.001. The largest change is " in _sentences(inputs)


def test_full_fine_tuning_overfits_most_or_not(inputs):
    inputs.results["full"]["training_accuracy"]["accuracy"] = 2
    del inputs.small_data["full"]
    assert "Full fine-tuning has the widest gap" in _sentences(inputs)
    inputs.results["full"]["training_accuracy"]["accuracy"] = 0
    assert "not the widest" in _sentences(inputs)


def _on_one_line(inputs: Documents) -> str:
    """Formulas as they were before they were kept from breaking."""
    return _sentences(inputs).replace("\u00a0", " ").replace("\u2060", "")


def test_the_constants_confound_or_not(inputs):
    said = _on_one_line(inputs)
    assert "scaled by 4/1 = 4 in one and 4/8 = 0.5 in the other" in said
    assert "Both adapters of b = 8 train at 0.003 here" in said
    inputs.results["adapter_scratch_b8"]["config"]["learning_rate"] = 0.03
    inputs.results["lora_peft_r1"]["config"]["hyperparameters"]["alpha"] = 0.5
    prompt = inputs.results["prompt_opendelta_n1"]["accuracy"]
    prompt.update(best=0.8, best_epoch=2, last=0.7)
    said = _on_one_line(inputs)
    assert "0.03 from scratch, 0.003 through AdapterHub, a factor of 10" in said
    assert "have the same scaling (0.5/1 = 0.5)" in said
    assert "best after epoch 2 (80.0 %) and ends at 70.0 %: the rate" in said
    prompt["last"] = 0.79
    assert "ends at 79.0 %. This fall is smaller than two standard errors" in _on_one_line(inputs)
    prompt["last"] = 0.8
    assert "its last epoch is its best" in _on_one_line(inputs)


def test_a_count_is_checked_off_only_if_it_is_equal(inputs):
    def marks():
        (table,) = [block for block in _said(inputs)["blocks"] if block.get("head", [""])[-1] == "equal"]
        return [row[-1]["text"] for row in table["rows"]]

    assert marks() == ["✓"] * 10
    inputs.results["lora_scratch_r8"]["parameters"]["whole"] += 1
    assert marks() == ["✓"] * 7 + ["✗"] + ["✓"] * 2
    assert "In 1 of 10 runs, the hand count differs from what torch counts." in _sentences(inputs)


def test_the_derivation_has_the_numbers_put_in(inputs):
    said = _sentences(inputs)
    assert '"text": "(3 + 2·2)·2·(256·8 + 8·192) = \\"50,176\\""' in said
    assert '"text": "(3 + 2)·(256·8 + 8 + 8·256 + 256) = \\"21,800\\""' in said


# What is missing, and what is no hand-in


@BOTH
def test_what_is_missing_is_shown_as_missing(inputs, language):
    del inputs.results["lora_peft_r1"], inputs.results["bag_of_words"]
    for run in inputs.runs.values():
        for key in ("memory", "disk", "knowledge", "training_accuracy"):
            del run[key]
    bare = Documents(inputs.results, {}, None, None).read()
    drawings = draw(bare, language)
    assert drawings.keys() == {"accuracy", "curves", "time"}
    said = content(bare, Student(), language, drawings)
    assert any(language.run("lora_peft_r1") in warning["text"] for warning in said["warnings"])
    assert said["anonymous"] and language.say("no_name") in said["author"]
    told = json.dumps(said, ensure_ascii=False)
    for key in ("missing", "small_missing", "exact_missing"):
        assert language.say(key) in told
    assert told.count(language.say("not_measured")[1:]) >= 3  # once for each claim
    assert len(PdfReader(io.BytesIO(compile_pdf(said))).pages) <= 6


def test_a_report_on_the_baselines_alone_is_made(inputs):
    bare = Documents({"bag_of_words": inputs.results["bag_of_words"]}, {}, None, None)
    assert draw(bare.read(), ENGLISH) == {}
    assert "missing: not run" in _text(compile_pdf(_said(bare)))


def test_only_the_assignments_base_and_reviews_are_no_rehearsal(inputs):
    assert _said(inputs)["warnings"][0]["title"] == "A rehearsal, not a submission"
    for run in inputs.runs.values():
        run["profile"] = "course"
        run["base_model"]["name"], run["config"]["reviews"] = "google-t5/t5-small", "stanfordnlp/imdb"
        run["config"]["train_reviews"] = run["config"]["test_reviews"] = None
    assert _said(inputs)["warnings"] == []
    inputs.results["full"]["base_model"]["name"] = "google-t5/t5-base"
    titles = [warning["title"] for warning in _said(inputs)["warnings"]]
    assert titles == ["A rehearsal, not a submission", ""]
    assert "differ in: Base" in _said(inputs)["warnings"][1]["text"]


def test_the_reviews_are_as_many_as_were_counted(inputs):
    for run in inputs.runs.values():
        run["config"]["train_reviews"] = run["config"]["test_reviews"] = None
    said = json.dumps(_said(inputs))
    assert "all to train on, all to test on" in said
    assert "standard error of these accuracies" not in said  # nobody knows of how many
    for run in inputs.runs.values():
        run["reviews"] = {"train": 3_333, "test": 222}
    said = json.dumps(_said(inputs))
    assert "3,333 to train on, 222 to test on" in said
    assert "points on 222 test reviews" in said


# The files


@pytest.fixture
def folder(tmp_path, inputs):
    """An output folder."""
    for kind, of_kind in (("results", inputs.results), ("small_data", inputs.small_data)):
        (tmp_path / "report" / kind).mkdir(parents=True)
        for name, document in of_kind.items():
            (tmp_path / "report" / kind / f"{name}.json").write_text(json.dumps(document))
    (tmp_path / "exactness.json").write_text(json.dumps(inputs.exactness))
    (tmp_path / "pretraining.json").write_text(json.dumps(inputs.pretraining))
    return tmp_path


def _read(folder):
    return read(folder, folder / "exactness.json", folder / "pretraining.json")


def test_what_was_written_is_read(folder, inputs):
    assert _read(folder) == inputs.read()
    (folder / "pretraining.json").write_text(json.dumps({**inputs.pretraining, "parameters": 7}))
    assert _read(folder).pretraining is None, "the runs stand on another base"


@pytest.mark.parametrize(
    "name", ["report/results/full", "report/small_data/full", "exactness", "pretraining"]
)
def test_a_truncated_file_is_one_sentence(folder, name):
    path = folder / f"{name}.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=rf"{path.name} is not .*delete it"):
        _read(folder)


def test_a_result_that_lacks_something_is_one_sentence(folder):
    path = folder / "report" / "results" / "full.json"
    path.write_text('{"id": "full", "title": "x", "profile": "x", "accuracy": {"best": 1}}')
    with pytest.raises(UserError, match=r"full\.json lacks malformed, environment, config, .*run full again"):
        _read(folder)


def test_no_result_at_all_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="has no results: run `make run` first"):
        _read(tmp_path)


def test_the_command_writes_both_reports_and_the_figures_and_again_the_same_bytes(folder, tmp_path):
    folder_of = folder / "report"
    arguments = ["report", "--output", str(folder), "--name", "Ada", "--number", "98765432"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [str(folder_of / "report.pdf"), str(folder_of / "report.fa.pdf")]
    made = {
        path.name: path.read_bytes()
        for path in folder_of.rglob("*")
        if path.suffix in (".pdf", ".png", ".svg")
    }
    kinds = ("accuracy", "curves", "memory", "knowledge", "small_data", "time")
    assert made.keys() == {
        *("report.pdf", "report.fa.pdf", "page1.png", "page1.fa.png"),
        *(
            f"{name}{language}.{form}"
            for name in kinds
            for language in ("", ".fa")
            for form in ("svg", "png")
        ),
    }
    for name in ("report.pdf", "report.fa.pdf"):
        document = PdfReader(io.BytesIO(made[name]))
        assert "98765432" in _text(made[name]) and document.metadata.title
        assert len(document.pages) <= 6
    assert re.search(r"[\u0600-\u06ff]{4}", _text(made["report.fa.pdf"]).replace("\u200c", ""))
    inputs = read(folder, tmp_path / "none", tmp_path / "none")
    language = LANGUAGES["fa"]
    drawings = draw(inputs, language)
    assert drawings["curves"].encode() == made["curves.fa.svg"]
    said = content(inputs, Student("Ada", "98765432"), language, drawings)
    assert compile_pdf(said) == compile_pdf(copy.deepcopy(said))


# Words and labels


def test_both_languages_say_the_same_things_with_the_same_values():
    def fields(words):
        return {field for _, field, *_ in string.Formatter().parse(words) if field}

    assert ENGLISH.words.keys() == PERSIAN.words.keys()
    for key in ENGLISH.words:
        assert fields(ENGLISH.words[key]) == fields(PERSIAN.words[key]), key


def test_numbers_are_set_for_readers():
    assert ENGLISH.bytes(999) == "999 B" and ENGLISH.bytes(23_608_320) == "23.6 MB"
    assert ENGLISH.points(-0.012) == "−1.2" and ENGLISH.points(0.012) == "+1.2"
    assert ENGLISH.points(-0.0001) == "0.0" and ENGLISH.number(-0.001, 1) == "0.0"
    assert ENGLISH.rate(1e-5) == "1e-5" and ENGLISH.rate(0.003) == "0.003"
    assert ENGLISH.share(0.00004) == "0.004 %" and ENGLISH.share(0.5) == "50 %"
    assert PERSIAN.points(-0.012) == "\u2066−۱٫۲\u2069" and PERSIAN.rate(1e-5) == "\u2066۰٫۰۰۰۰۱\u2069"


@pytest.mark.parametrize("seed", range(3))
def test_no_label_of_the_main_figure_covers_a_point_or_another_label(seed):
    inputs = documents(seed)
    rng = random.Random(seed)
    for result in inputs.results.values():  # close together, as real runs are
        result["accuracy"]["best"] = 0.75 + rng.uniform(-0.015, 0.015)
    figure = figures.accuracy(inputs.read(), ENGLISH)
    (ax,) = figure.axes
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in ax.texts if text.get_text()]
    assert len(boxes) == 3 + 7  # one for scratch and library at the same place
    points = [
        ax.transData.transform(line.get_xydata()[0]) for line in ax.lines if len(line.get_xydata()) == 1
    ]
    assert len(points) >= 10
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[i + 1 :]) == 0
        assert not any(box.contains(*point) for point in points)
