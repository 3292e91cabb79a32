"""course.toml, the handout that is made of it, and the seed of each student."""

# ruff: noqa: RUF001 - Persian digits are meant.

import json
from dataclasses import replace

import pytest

from peft_scratch.assignment import PARTS, PROFILES, RUNS
from peft_scratch.course import COURSE, Course, read
from peft_scratch.edition import handout
from peft_scratch.edition.handout_texts import TEXTS
from peft_scratch.edition.make_edition import make_edition
from peft_scratch.edition.student_seed import seed_of
from peft_scratch.errors import UserError
from peft_scratch.paths import ROOT
from peft_scratch.reporting.languages import LANGUAGES


def _course(tmp_path, text):
    path = tmp_path / "course.toml"
    path.write_text(text, encoding="utf-8")
    return read(path)


def _said(course, language):
    """All that the handout says, without the marks that only set directions and breaks."""
    said = json.dumps(handout.content(course, LANGUAGES[language]), ensure_ascii=False)
    return said.translate(dict.fromkeys(map(ord, "\u2060\u2066\u2067\u2069")))


def test_the_kits_own_file_changes_nothing_and_its_examples_can_be_read(tmp_path):
    assert Course() == COURSE
    text = (ROOT / "course.toml").read_text(encoding="utf-8")
    examples = "\n".join(line.removeprefix("# ") for line in text.split("\n")[3:])
    course = _course(tmp_path, examples)
    assert course.deadline.year == 2027 and course.points == {1: 5, 6: 15} and course.seed_per_student
    # The examples say what is so anyhow.
    assert all(course.changed_run(run) == run for run in RUNS.values())
    assert all(course.changed_profile(profile) == profile for profile in PROFILES.values())


def test_constants_are_changed(tmp_path):
    course = _course(
        tmp_path,
        "[runs.lora_scratch_r8]\nrank = 4\nlearning_rate = 0.001\npublished = [80, 90]\n"
        "[profiles.course]\nepochs = 3\n[points]\n5 = 31\n",
    )
    run = course.changed_run(RUNS["lora_scratch_r8"])
    assert run.hyperparameters == {"rank": 4, "alpha": 4.0} and run.learning_rate == 0.001
    assert run.published == (80, 90) and course.changed_run(RUNS["full"]) is not None
    assert course.changed_profile(PROFILES["course"]).epochs == 3
    assert course.points_of(5, 30) == 31 and course.points_of(4, 5) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lecturer", "is not TOML"),
        ("lecturers = 'A'", "nothing is called lecturers"),
        ("deadline = 'soon'", "write a day"),
        ("marker = 'a-b'", "part of names"),
        ("[title]\nde = 'x'", "the languages are en and fa"),
        ("[points]\nlast = 1", "report = 15"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        _course(tmp_path, text)


def test_an_unknown_constant_is_refused(tmp_path):
    course = _course(tmp_path, "[runs.lora_scratch_r8]\nwidth = 4\n[profiles.course]\nsteps = 3\n")
    with pytest.raises(UserError, match="no constant is called width; there are rank, alpha"):
        course.changed_run(RUNS["lora_scratch_r8"])
    with pytest.raises(UserError, match="no size is called steps"):
        course.changed_profile(PROFILES["course"])


def test_the_handout_has_the_constants_of_the_code(monkeypatch):
    profile = replace(PROFILES["course"], epochs=13, max_tokens=200)
    monkeypatch.setitem(PROFILES, "course", profile)
    monkeypatch.setitem(RUNS, "full", replace(RUNS["full"], learning_rate=7e-5, published=(11.1, 22.2)))
    said = _said(Course(), "en")
    for constant in (
        "13 epochs",
        "200 tokens",
        "7e-5",
        "11.1 to 22.2",
        "sharif_llm_A",
        "105",
        "low_rank_update",
    ):
        assert constant in said, constant
    persian = _said(Course(), "fa")
    for constant in ("۱۳ دوره", "۲۰۰ توکن", "۱۱٫۱", "۱۰۵"):
        assert constant in persian, constant


def test_the_handout_has_what_the_lecturer_says(tmp_path):
    course = _course(
        tmp_path,
        "lecturer = 'Ada Lovelace'\ndeadline = 2027-01-31\nmarker = 'our_llm'\nseed_per_student = true\n"
        "[title]\nen = 'Homework'\n[text]\nen = 'Ask on Mondays.'\n",
    )
    said = _said(course, "en")
    for words in (
        "Homework",
        "Ada Lovelace",
        "2027/01/31",
        "our_llm_A",
        "Ask on Mondays.",
        "student number, in",
    ):
        assert words in said, words
    assert "sharif_llm" not in said
    assert "Homework" not in _said(course, "fa")


def test_both_languages_say_the_same_and_fit_on_two_pages():
    assert set(TEXTS["en"]) == set(TEXTS["fa"])
    for name, english in TEXTS["en"].items():
        persian = TEXTS["fa"][name]
        assert type(english) is type(persian) and (
            isinstance(english, str) or len(english) == len(persian)
        ), name
        fields = [set(part.split("}")[0] for part in str(text).split("{")[1:]) for text in (english, persian)]
        assert fields[0] == fields[1], name
    for language in LANGUAGES.values():
        pages = handout.pdf(handout.content(Course(), language), "png")
        assert len(pages) == 2
        assert handout.pdf(handout.content(Course(), language)).startswith(b"%PDF")


def test_the_edition_has_the_courses_marker_and_seeds(tmp_path, monkeypatch):
    import peft_scratch.edition.make_edition as module

    monkeypatch.setattr(module, "read", lambda path: Course(marker="our_llm", seed_per_student=True))
    make_edition(tmp_path / "edition")
    for path in (tmp_path / "edition").rglob("*"):
        if path.suffix in (".py", ".ipynb"):
            assert "sharif_llm" not in path.read_text(encoding="utf-8"), path
    notebook = (tmp_path / "edition/notebooks/05_lora.ipynb").read_text(encoding="utf-8")
    assert "SEED = seed_of(" in notebook and "SEED = 0" not in notebook


def test_a_notebook_is_worth_its_code_at_least(monkeypatch):
    assert '["notebook 5", "20", "10", "30"]' in _said(Course(), "en")
    monkeypatch.setitem(PARTS, 5, replace(PARTS[5], points=19))
    with pytest.raises(UserError, match="notebook 5 has 20 points for its code alone"):
        handout.content(Course(), LANGUAGES["en"])


def test_each_student_has_a_seed():
    assert seed_of("400123456") == seed_of(" ۴۰۰۱۲۳۴۵۶") != seed_of("400123457")
    assert 0 <= seed_of("1") < 100_000
    with pytest.raises(UserError, match="between the quotes"):
        seed_of("")
    with pytest.raises(UserError, match="made of digits"):
        seed_of("x12")
