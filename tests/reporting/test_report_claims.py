"""What the report adds to the numbers: published ranges, verdicts, pairs, seeds, notes, one language."""

import copy
import io
import json
import random
from dataclasses import replace

import pytest
from pypdf import PdfReader
from report_documents import Documents, documents

from peft_scratch.assignment import RUNS, TEN
from peft_scratch.errors import UserError
from peft_scratch.reporting import facts
from peft_scratch.reporting.content import Student, content
from peft_scratch.reporting.figures import draw
from peft_scratch.reporting.inputs import read
from peft_scratch.reporting.languages import LANGUAGES, Language
from peft_scratch.reporting.notes import parse, reads_right_to_left
from peft_scratch.reporting.report import compile_pdf, write
from peft_scratch.reporting.tables import tables
from peft_scratch.results import read_results

ENGLISH, PERSIAN = LANGUAGES["en"], LANGUAGES["fa"]
STUDENT = Student("Ada Lovelace", "98765432")


@pytest.fixture
def inputs() -> Documents:
    return documents()


def _said(inputs: Documents, language: Language = ENGLISH) -> str:
    said = json.dumps(content(inputs.read(), STUDENT, language, {}), ensure_ascii=False)
    return said.replace("\u00a0", " ").replace("\u2060", "")


def _pdf_text(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


# The published ranges


def _as_the_assignment_asks(inputs: Documents) -> None:
    for name, run in inputs.runs.items():
        low, high = RUNS[name].published
        run["profile"] = "course"
        run["base_model"]["name"], run["config"]["reviews"] = "google-t5/t5-small", "stanfordnlp/imdb"
        run["config"] |= {"train_reviews": None, "test_reviews": None, "epochs": 10}
        run["config"]["learning_rate"] = RUNS[name].learning_rate
        run["reviews"] = {"train": 25_000, "test": 25_000}
        run["accuracy"]["best"], run["malformed"] = (low + high) / 200, 0.0


def test_the_assignments_numbers_are_compared_with_the_published_ones(inputs):
    _as_the_assignment_asks(inputs)
    assert "All 10 numbers lie inside the published ranges." in _said(inputs)
    inputs.results["full"]["accuracy"]["best"] = 0.95
    inputs.results["lora_peft_r8"]["accuracy"]["best"] = 0.885
    said = _said(inputs)
    assert "Inside the published ranges: 8 of 10 numbers." in said
    assert "Full fine-tuning is 4.9 points above the published range: usual causes are" in said
    assert "LoRA, PEFT, r = 8 is 0.2 points below the published range: another seed alone can do this" in said


def test_other_numbers_stand_beside_the_published_ones_and_are_not_compared(inputs):
    said = content(inputs.read(), STUDENT, ENGLISH, {})
    (table,) = [block for block in said["blocks"] if "published, %" in block.get("head", [])]
    cells = [row[5] for row in table["rows"][: len(TEN)]]
    assert cells[0] == {"style": "aside", "text": "89.9\N{EN DASH}90.1"}
    assert {cell["style"] for cell in cells} == {"aside"}
    text = json.dumps(said, ensure_ascii=False)
    assert "for orientation only. The runs of this report cannot be compared with them." in text
    assert "published range:" not in text and "published ranges" not in text


# Memory


def test_a_processs_resident_size_is_no_memory_of_a_method(inputs):
    before = _said(inputs)
    assert "the GPU's allocator" in before
    for run in inputs.runs.values():
        run["memory"]["peak_kind"] = "resident"
    after = _said(inputs)
    assert "peak" not in after and "resident" not in after
    assert "The sum of the parts is " in after


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_parameters_that_are_held_in_fewer_bytes_are_explained(inputs, language):
    start = language.say("held_lower", full="", others="")[:20]
    assert start not in _said(inputs, language)
    for name, run in inputs.runs.items():
        run["memory"]["parameters"] = (4 if name == "full" else 2) * run["parameters"]["whole"]
    said = _said(inputs, language)
    assert start in said
    if language is ENGLISH:
        assert "Full fine-tuning holds 4.0 bytes for each parameter, because" in said
        assert "The other runs hold 2.0 bytes for each parameter, because their base is frozen" in said


# Files


def test_a_tuned_model_for_each_task_is_as_large_as_full_fine_tunings_file(inputs):
    """The base's own file may have half the bytes: it is float16, and what is trained float32."""
    inputs.results["full"]["disk"] = {"delta": 23_626_110, "base": 11_810_456}
    said = _said(inputs)
    assert (
        "Full fine-tuning's file takes 23.6 MB, with 4.0 bytes for each parameter. The base's file has 2.0"
        in said
    )
    assert "A fully tuned model in place of each small file would take 213 MB." in said
    del inputs.results["full"]
    assert "A fully tuned model" not in _said(inputs)


# The verdicts


def _claim_three(inputs: Documents, moved: dict[str, float], gaps: dict[str, float]) -> str:
    inputs.small_data = {}
    for name, run in inputs.runs.items():
        run["knowledge"] = {"reviews": 128, "base": 2.0, "tuned": 2.0 + moved.get(name, 0.1), "off": 2.0}
        run["accuracy"]["best"] = 0.8
        run["training_accuracy"]["accuracy"] = 0.8 + gaps.get(name, 0.01)
    return facts.base_verdict(inputs.read().runs, {})[0]


def test_claim_three_holds_or_is_contradicted(inputs):
    assert _claim_three(inputs, {"full": 1.0}, {"full": 0.1}) == "holds"
    said = _said(inputs)
    assert "Yes: full fine-tuning changes the base's pre-training loss most and has the widest gap" in said
    assert _claim_three(inputs, {"full": 0.01}, {"full": 0.1}) == "contradicted"
    said = _said(inputs)
    assert (
        "No, these runs contradict it: in 9 of 9 other runs, the base's pre-training loss changes more"
        in said
    )
    assert (
        "In the ten runs, the gap between training and test accuracy is wider than full fine-tuning's "
        "in 0 of 9 other runs." in said
    )
    assert _claim_three(inputs, {"full": 0.5, "lora_peft_r8": 0.9}, {"full": 0.1}) == "partly"
    assert "In part: in 1 of 9 other runs, the base's pre-training loss changes more" in _said(inputs)
    del inputs.results["full"]
    assert facts.base_verdict(inputs.read().runs, {})[0] == "open"
    assert '"Open: not enough was measured."' in _said(inputs)


def test_claim_two_holds_in_parts(inputs):
    assert facts.disk_verdict(inputs.read().runs) == "holds"
    inputs.results["lora_peft_r8"]["knowledge"]["off"] += 0.25
    assert facts.disk_verdict(inputs.read().runs) == "fits"
    for run in inputs.runs.values():
        run["disk"]["delta"] = 10**8
    assert facts.disk_verdict(inputs.read().runs) == "contradicted"
    inputs.results["lora_peft_r8"]["knowledge"]["off"] -= 0.25
    assert facts.disk_verdict(inputs.read().runs) == "serves"
    for run in inputs.runs.values():
        del run["knowledge"]
    assert facts.disk_verdict(inputs.read().runs) == "open"


def test_every_claim_has_one_verdict(inputs):
    for language in LANGUAGES.values():
        for found in (inputs, Documents({"full": inputs.results["full"]}, {}, None, None)):
            blocks = content(found.read(), STUDENT, language, {})["blocks"]
            assert [block["kind"] for block in blocks].count("verdict") == 3


def test_every_verdict_has_words():
    for language in LANGUAGES.values():
        for claim, verdicts in {
            "memory": ("holds", "contradicted", "open"),
            "disk": ("holds", "fits", "serves", "contradicted", "open"),
            "base": ("holds", "partly", "contradicted", "open"),
        }.items():
            assert all(f"{claim}_{verdict}" in language.words for verdict in verdicts)


# Pairs and seeds


def _with_mistakes(inputs: Documents, rates: dict[str, float] | None = None, seeds: int = 1) -> None:
    """Give every run so many seeds, and the mistakes that make up its accuracy on 500 reviews."""
    for name, run in inputs.runs.items():
        runs = [copy.deepcopy(run) for _ in range(seeds)]
        for seed, one in enumerate(runs):
            rng = random.Random(f"{name} {seed}")
            one["config"] |= {"test_reviews": 500, "seed": seed}
            one["mistakes"] = [i for i in range(500) if rng.random() < (rates or {}).get(name, 0.2)]
            one["accuracy"]["best"] = 1 - len(one["mistakes"]) / 500
        inputs.results[name], inputs.further_seeds[name] = runs[0], runs[1:]


def test_pairs_are_compared_on_the_same_reviews(inputs):
    assert [(pair.first, pair.second) for pair in facts.PAIRS if pair.about == "library"] == [
        ("prompt_scratch_n10", "prompt_opendelta_n10"),
        ("adapter_scratch_b8", "adapter_adapterhub_b8"),
        ("lora_scratch_r8", "lora_peft_r8"),
    ]
    assert [(pair.first, pair.second) for pair in facts.PAIRS if pair.about == "size"] == [
        ("prompt_opendelta_n10", "prompt_opendelta_n1"),
        ("adapter_adapterhub_b8", "adapter_adapterhub_b1"),
        ("lora_peft_r8", "lora_peft_r1"),
    ]
    _with_mistakes(inputs, {"prompt_opendelta_n1": 0.5})
    inputs.results["lora_peft_r8"]["mistakes"] = inputs.results["lora_scratch_r8"]["mistakes"]
    inputs.results["lora_peft_r8"]["accuracy"] = inputs.results["lora_scratch_r8"]["accuracy"]
    said = _said(inputs)
    assert "The difference between scratch and library is 0.0 points for LoRA, r = 8, PEFT." in said
    assert (
        "Chance alone can hardly explain the difference between two sizes for soft prompt, OpenDelta, "
        in said
    )
    assert "Over the seeds" not in said and "findable" not in said


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_several_seeds_have_means_intervals_and_sentences_of_their_own(inputs, language):
    _with_mistakes(inputs, {"prompt_opendelta_n1": 0.4}, seeds=8)
    read_inputs = inputs.read()
    assert read_inputs.summaries["full"].seeds == 8
    drawings = draw(read_inputs, language)
    said = content(read_inputs, STUDENT, language, drawings)
    assert language.say("figure_accuracy_seeds") in [block.get("caption") for block in said["blocks"]]
    text = json.dumps(said, ensure_ascii=False)
    assert language.say("over_seeds") in text and language.say("pairs_over_seeds") in text
    assert language.say("one_seed", seed="0")[:10] not in text
    if language is ENGLISH:
        assert "Over the seeds, chance alone can hardly explain the difference between two sizes for " in text
        assert "With this number of seeds, a true difference is found in 80 % of cases" in text
        assert "the test cannot reach" not in text
    assert len(PdfReader(io.BytesIO(compile_pdf(said))).pages) <= 7


def test_with_several_seeds_sentences_about_differences_come_from_them(inputs):
    _with_mistakes(inputs, {"lora_scratch_r8": 0.1, "full": 0.101}, seeds=9)
    said = _said(inputs)
    means = {name: of.mean for name, of in inputs.read().summaries.items()}
    best = max(means, key=means.__getitem__)
    assert best in ("lora_scratch_r8", "full")
    assert f"Over 9 seeds, the highest mean accuracy in the best epoch is {100 * means[best]:.1f} %" in said
    assert "Of the 9 other runs, 1 cannot be told apart from that run" in said
    for of_one_seed in (
        "Between scratch and library",
        "Between two sizes",
        "The highest accuracy in the best",
    ):
        assert of_one_seed not in said
    assert "The seeds were not all trained in the same way" not in said


def test_seeds_that_were_trained_otherwise_are_said_to_be(inputs):
    _with_mistakes(inputs, seeds=3)
    for name in inputs.runs:
        inputs.results[name]["environment"] = {**inputs.results[name]["environment"], "threads": 2}
        for run in inputs.further_seeds[name]:
            run["environment"] = {**run["environment"], "threads": 1}
    said = _said(inputs)
    assert "The seeds were not all trained in the same way: they differ in the number of threads." in said
    assert "Runs of the same seed do not differ in the number of threads, so pairs are compared under" in said
    inputs.further_seeds["full"][0]["environment"]["threads"] = 4
    assert "Runs of the same seed do not differ" not in _said(inputs)


def test_a_mean_difference_that_rounds_to_nothing_is_not_called_none(inputs):
    _with_mistakes(inputs, seeds=3)
    ours, theirs = ("lora_scratch_r8", "lora_peft_r8")
    for name, wrong in ((ours, [1, 2]), (theirs, [3, 4])):
        for run in (inputs.results[name], *inputs.further_seeds[name]):
            run["mistakes"], run["accuracy"]["best"] = wrong, 1 - 2 / 500
    said = _said(inputs)
    assert "the mean difference between scratch and library is 0.0 points for LoRA, r = 8, PEFT." in said
    assert "no difference between" not in said


def test_an_interval_that_excludes_zero_does_not_show_it(inputs):
    """Ends of 0.03 and 2.74 points, as a published run had them."""
    _with_mistakes(inputs, seeds=3)
    found = inputs.read()
    pair = next(pair for pair in found.seed_differences if pair.about == "size")
    found.seed_differences[pair] = replace(found.seed_differences[pair], low=0.0003, high=0.0274)
    said = json.dumps(content(found, STUDENT, ENGLISH, {}), ensure_ascii=False)
    assert "+0.03 to +2.74" in said


def test_too_few_seeds_are_said_to_be_too_few(inputs):
    _with_mistakes(inputs, {"prompt_opendelta_n1": 0.6}, seeds=3)
    said = _said(inputs)
    assert "With 3 seeds the test cannot reach the 5 % level for all pairs; it needs 8." in said
    assert "can hardly explain" not in said.partition("The pairs over several seeds")[2]


def test_seeds_are_read_from_their_folders_and_go_to_tables(tmp_path, inputs):
    _with_mistakes(inputs, seeds=3)
    for name, run in inputs.results.items():
        places = [tmp_path / "report" / "results"]
        places += [tmp_path / "report" / "seeds" / str(seed) for seed in (1, 2) if name in TEN]
        for place, document in zip(places, [run, *inputs.further_seeds.get(name, [])], strict=True):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.json").write_text(json.dumps(document))
    found = read(tmp_path, tmp_path / "none", tmp_path / "none")
    assert [run.seed for run in found.seeds["full"]] == [0, 1, 2]
    files = tables(read_results(tmp_path / "report" / "results"), found.further_seeds)
    assert files["seeds.csv"].splitlines()[0] == "id,run,seeds,mean,deviation,low,high"
    assert files["seeds.csv"].count("\n") == 1 + len(TEN)
    assert files["differences.csv"].count("\n") == 1 + len(facts.PAIRS)


# The discussion


NOTES = """# What I *saw*

The **rate** matters; `#read("/etc/passwd")` and #read("/etc/hostname") are text, $x^2$ too.

1. first
2. second with [a link](https://example.org)

> quoted

| a | b |
|---|---|
| 1 | 2 |

```
code #panic()
```

<b>HTML</b> is shown, ![a picture](x.png) is not; "quotes" \\ and ] ) } stay.
"""


def test_the_notes_become_the_discussion(inputs):
    assert "This report has no discussion yet." in _said(inputs)
    assert "The student has not written a discussion." in _said(inputs)
    inputs.notes["en"] = NOTES
    text = _pdf_text(compile_pdf(content(inputs.read(), STUDENT, ENGLISH, {})))
    for words in (
        *("What I saw", "The rate matters", '#read("/etc/hostname")', "$x^2$ too", "second with a link"),
        *("quoted", "code #panic()", "<b>HTML</b> is shown", "[a picture] is not", "and ] ) } stay"),
    ):
        assert words in " ".join(text.split()), words
    assert "has no discussion yet" not in text
    assert "The discussion is the student's own." in " ".join(text.split())


def test_each_language_takes_its_own_notes_or_the_other_ones(inputs):
    inputs.notes = {"fa": "این بحث من است."}
    assert all("این بحث من است." in _said(inputs, language) for language in LANGUAGES.values())
    inputs.notes["en"] = "This is my discussion."
    assert "این بحث من است." not in _said(inputs) and "This is my discussion." in _said(inputs)
    assert "این بحث من است." in _said(inputs, PERSIAN)


def test_a_text_has_a_direction():
    assert reads_right_to_left("این بحث من است، با LoRA") and not reads_right_to_left("my LoRA")
    assert not reads_right_to_left("12")


def test_notes_are_blocks():
    assert [block["kind"] for block in parse(NOTES)] == [
        *("heading", "paragraph", "list", "quote", "table", "code", "paragraph")
    ]
    assert parse("") == []


def test_notes_are_read_from_the_output_folder(tmp_path, inputs):
    (tmp_path / "report" / "results").mkdir(parents=True)
    (tmp_path / "report" / "results" / "full.json").write_text(json.dumps(inputs.results["full"]))
    (tmp_path / "notes.md").write_text("\ufeffmine", encoding="utf-8")
    (tmp_path / "notes.fa.md").write_text("  \n", encoding="utf-8")
    assert read(tmp_path).notes == {"en": "mine"}
    (tmp_path / "notes.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"notes\.md is not a UTF-8 text file: save it as UTF-8"):
        read(tmp_path)


def test_a_formula_that_is_none_is_set_as_text(inputs):
    inputs.results["lora_peft_r8"]["parameters"]["by_hand"]["symbols"] = '#read("report.typ")'
    inputs.results["lora_peft_r8"]["parameters"]["by_hand"]["with_numbers"] = "#panic()"
    assert "#panic()" in _pdf_text(compile_pdf(content(inputs.read(), STUDENT, ENGLISH, {})))


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_a_formula_has_the_letters_of_the_notebooks(inputs, language):
    said = content(inputs.read(), STUDENT, language, {})
    formulas = [
        item["maths"] for block in said["blocks"] for item in block.get("items", []) if "maths" in item
    ]
    assert '(L_"enc" + 2·L_"dec")·2·(d·r + r·d\')' in formulas
    assert "enc+2⋅" in _pdf_text(compile_pdf(said)).replace(" ", "").replace("·", "⋅")


def test_a_result_of_an_older_kit_has_the_letters_of_today(inputs):
    of = inputs.results["lora_peft_r8"]["parameters"]["by_hand"]
    today = of["symbols"]
    of["symbols"] = "(E + 2·D)·2·(d·r + r·i)"
    assert inputs.read().runs["lora_peft_r8"].parameters.by_hand.symbols == today
    of["symbols"] = today
    assert inputs.read().runs["lora_peft_r8"].parameters.by_hand.symbols == today


def test_a_result_of_an_older_kit_has_no_hand_count(inputs):
    del inputs.results["lora_peft_r8"]["parameters"]["by_hand"]
    said = _said(inputs)
    assert "All 9 hand counts equal" in said
    assert "Results of an older version, without a hand count: 1. Run these again." in said


# Sources and languages


def test_what_was_used_is_cited_and_nothing_else(inputs):
    said = _said(inputs)
    for name in ("Raffel", "Maas", "Lester", "Houlsby", "Hu, E. J.", "OpenDelta", "AdapterHub", "PEFT: "):
        assert name in said
    for name in [name for name in inputs.results if name.startswith("adapter")]:
        del inputs.results[name]
    assert "Houlsby" not in _said(inputs) and "Lester" in _said(inputs)


def test_one_language_is_the_one_that_is_packed(tmp_path, inputs):
    (tmp_path / "report" / "results").mkdir(parents=True)
    (tmp_path / "report" / "results" / "full.json").write_text(json.dumps(inputs.results["full"]))
    folder = tmp_path / "report"
    assert [path.name for path in write(tmp_path, STUDENT)] == ["report.pdf", "report.fa.pdf"]
    assert write(tmp_path, STUDENT, "fa") == [folder / "report.fa.pdf"]
    assert [path.name for path in folder.glob("*.pdf")] == ["report.fa.pdf"]
    with pytest.raises(UserError, match="There is no report in 'de'; choose one of en, fa"):
        write(tmp_path, STUDENT, "de")


def test_the_persian_report_has_its_own_digits_and_typeface(inputs):
    said = content(inputs.read(), STUDENT, PERSIAN, draw(inputs.read(), PERSIAN))
    reader = PdfReader(io.BytesIO(compile_pdf(said)))
    fonts = {
        str(font.get_object()["/BaseFont"])
        for page in reader.pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert any("Vazirmatn" in font for font in fonts)
    for block in said["blocks"]:
        for sentence in block.get("items", []) if block["kind"] == "findings" else []:
            bare = sentence.split("\u2066")[0]
            assert not any(digit in bare for digit in "0123456789"), sentence
