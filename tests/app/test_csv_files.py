"""CSV files as people's programs write them: marks, separators, encodings, odd rows; and the one written."""

import csv

import pytest

from peft_scratch.app.csv_files import Table, read_table, write_opinions
from peft_scratch.assignment import LABEL_WORDS
from peft_scratch.errors import UserError
from peft_scratch.experiments.ask import NEITHER, Opinion

PERSIAN = "فیلم خوبی بود، دوست داشتم"


def _read(folder, content, encoding="utf-8"):
    path = folder / "reviews.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return read_table(path)


@pytest.mark.parametrize(
    ("content", "encoding", "texts"),
    [
        ("text\nfine\ndull\n", "utf-8", ["fine", "dull"]),
        ("text\nfine\n", "utf-8-sig", ["fine"]),  # as Excel writes "CSV UTF-8"
        ("text\tstars\nfine\t5\n", "utf-16", ["fine"]),  # and "Unicode text"
        ("id;text\r\n1;fine, really\r\n", "utf-8", ["fine, really"]),
        ("id|text\n1|fine; really\n", "utf-8", ["fine; really"]),
        (" Text ,id\nfine,1\n", "utf-8", ["fine"]),
        ('text\n"two\nlines, and ""quotes"""\n', "utf-8", ['two\nlines, and "quotes"']),
        ("text,id\n\n,\nfine,1\n   \n", "utf-8", ["fine", "   "]),
        ("id,text\n1\n2,fine\n", "utf-8", ["", "fine"]),
        (f"text\n{PERSIAN}\n", "utf-8", [PERSIAN]),
        ("text\ngood\x00bad\n", "utf-8", ["good\x00bad"]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_programs_write_is_read(content, encoding, texts, tmp_path):
    assert _read(tmp_path, content, encoding).texts == texts


def test_a_text_of_a_megabyte_is_read(tmp_path):
    (text,) = _read(tmp_path, f'id,text\n1,"{"fine, " * 200_000}"\n').texts
    assert len(text) == 1_200_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("fine film\ndull film\n", "has the columns fine film, but text is needed: name one column text."),
        ("a;b;c\n1;2;3\n", "has the columns a, b, c, but text is needed"),
        ("text,text\n1,2\n", "has the columns text, text, but text is needed"),
        ("", "is empty: its first row has to name the column text."),
        ("\n\n", "is empty"),
        ("text\n", "has no row under its first one, which names the columns."),
        ("text\nfine, really\n", "row 1: it has 2 values for 1 columns; put each text in double quotes"),
        ("text\ncaf\xe9\n".encode("latin-1"), "byte 9 is not UTF-8; save it as UTF-8."),
        ("x" * 300 + "\n1\n", "x…, but text is needed"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_cannot_be_read_gets_one_sentence(content, sentence, tmp_path):
    with pytest.raises(UserError) as caught:
        _read(tmp_path, content)
    said = str(caught.value)
    assert sentence in said and "reviews.csv" in said and "\n" not in said


def test_a_folder_and_a_missing_file_get_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(UserError, match="cannot be read as a CSV file"):
            read_table(path)


def test_the_file_keeps_the_columns_and_gets_remarks_and_opinions(tmp_path):
    table = Table(["id", "text"], [["1", 'fine, "really"\n' + PERSIAN], ["2", ""]])
    opinions = [
        [Opinion("LoRA", "positive", dict(zip(LABEL_WORDS, (0.25, 0.75), strict=True)))],
        [Opinion("LoRA", NEITHER, dict.fromkeys(LABEL_WORDS, 0.0), "the film")],
    ]
    path = tmp_path / "out" / "opinions.csv"
    write_opinions(path, table, opinions, [[], ["The text is empty.", "Another."]])
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values()) for row in rows] == [
        ["1", 'fine, "really"\n' + PERSIAN, "", "positive", "0.2500", "0.7500", ""],
        ["2", "", "The text is empty. Another.", "neither", "0.0000", "0.0000", "the film"],
    ]
    assert list(rows[0])[2:] == [
        "remarks",
        *(f"LoRA: {what}" for what in ("verdict", "negative", "positive", "writes")),
    ]
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")  # by which Excel knows UTF-8
