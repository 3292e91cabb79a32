"""Whose files are whose: numbers, names in two scripts, folders, loose files, class lists; and odd zips."""

from __future__ import annotations

import io
import zipfile

import pytest

from peft_scratch.errors import UserError
from peft_scratch.submission import check
from peft_scratch.submission.archive import gather, is_kit_folder
from peft_scratch.submission.findings import ERROR, LOOK
from peft_scratch.submission.names import folded, number_in, read_name
from peft_scratch.submission.students import read_class_list, submissions
from submission.parts import pdf, report_lines, zipped


def laid(folder, *names: str) -> list:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")
    return sorted(folder.iterdir())


def grouped(paths) -> list[set[str]]:
    return [{path.name for path in group.paths} for group in submissions(paths)[0]]


def test_loose_files_of_two_students_are_never_put_together(tmp_path):
    names = [
        "400123456_Ada_notebooks.zip",
        "400123456_Ada.pdf",
        "400999999_Bea_notebooks.zip",
        "400999999_Bea.pdf",
    ]
    paths = laid(tmp_path, *names, "weights.zip")
    assert grouped(paths) == [set(names[:2]), set(names[2:]), {"weights.zip"}]
    assert grouped([tmp_path]) == grouped(paths), "a folder of several students is a class"


def test_loose_files_without_numbers_go_by_their_names(tmp_path):
    paths = laid(tmp_path, "ali_notebooks.zip", "ali_report.pdf", "sara_notebooks.zip", "sara_report.pdf")
    assert grouped(paths) == [
        {"ali_notebooks.zip", "ali_report.pdf"},
        {"sara_notebooks.zip", "sara_report.pdf"},
    ]


def test_the_files_of_one_student_are_one_submission(tmp_path):
    names = ["400123456_Ada.pdf", "notebooks.zip", "weights.zip"]
    assert grouped(laid(tmp_path, *names)) == [set(names)]


def test_a_class_of_folders_is_many_submissions(tmp_path):
    laid(tmp_path, "400123456 Ada/a.pdf", "400999999 Bea/b.pdf", "list.csv")
    groups, others = submissions([tmp_path])
    assert [group.number for group in groups] == ["400123456", "400999999"]
    assert [path.name for path in others] == ["list.csv"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("400123456_علي_كريمي.pdf", "400123456_علی_کریمی.pdf"),
        ("400123456_می‌نا.pdf", "400123456_مینا.pdf"),
        ("400123456_Ada  Lovelace.pdf", "۴۰۰۱۲۳۴۵۶-ada-lovelace.pdf"),
    ],
)
def test_one_student_is_one_however_the_name_is_typed(one, other):
    assert read_name(one) == read_name(other)


def test_a_name_in_persian_and_in_latin_letters_is_no_error(tmp_path):
    laid(tmp_path, "400123456_Ada_Karimi.pdf")
    (tmp_path / "400123456_آدا_کریمی_notebooks.zip").write_bytes(zipped({"1.ipynb": b"{}"}))
    found = check.check(tmp_path).of(0)
    assert "names-differ" not in {one.code for one in found}
    assert [one.mark for one in found if one.code == "names-spelt"] == [LOOK]


def test_folders_of_those_names_do_not_make_it_the_kit_s(tmp_path):
    laid(tmp_path, "notebooks/01_full.ipynb", "weights/lora.pt", "400123456_Ada.pdf")
    assert not is_kit_folder(tmp_path)
    assert {file.name for file in gather([tmp_path]).files} == {
        "01_full.ipynb",
        "lora.pt",
        "400123456_Ada.pdf",
    }


def windows_zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name in (r"weights\lora.pt", r"weights\adapter.pt", r"HW3\01_full.ipynb", r"__MACOSX\._lora.pt"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            made.writestr(info, b"-")
    return data.getvalue()


def test_a_zip_of_windows_parts_folders_by_backslashes(tmp_path):
    (tmp_path / "400123456_Ada_Lovelace_weights.zip").write_bytes(windows_zip())
    gathered = gather([tmp_path])
    assert [file.name for file in gathered.files] == ["lora.pt", "adapter.pt", "01_full.ipynb"]


def test_names_of_a_persian_windows_are_read(tmp_path):
    raw = "درس".encode("cp1256")
    data = zipped({f"{'x' * len(raw)}/01_full.ipynb": b"{}"}).replace(b"x" * len(raw), raw)
    (tmp_path / "a.zip").write_bytes(data)
    (file,) = gather([tmp_path]).files
    assert (file.name, "درس" in file.where) == ("01_full.ipynb", True)


@pytest.mark.parametrize(
    "text",
    [
        "number,name\n400123456,Ada Lovelace\n400999999,Bea\n",
        "نام;شماره دانشجویی\nAda Lovelace;۴۰۰۱۲۳۴۵۶\nBea;۴۰۰۹۹۹۹۹۹\n",
        "row\tstudent id\tfirst name\n1\t400123456\tAda Lovelace\n2\t400999999\tBea\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_class_list_is_read(text, encoding, tmp_path):
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    names = read_class_list(tmp_path / "list.csv")
    assert list(names) == ["400123456", "400999999"]
    assert "Ada Lovelace" in names["400123456"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_class_list_of_a_persian_windows_is_read(end, tmp_path):
    (tmp_path / "list.csv").write_bytes(f"شماره,نام\n400123456,علي{end}".encode("cp1256"))
    assert read_class_list(tmp_path / "list.csv") == {"400123456": "علي"}


def test_a_class_list_without_numbers_gets_one_sentence(tmp_path):
    (tmp_path / "list.csv").write_text("name\nAda\n")
    with pytest.raises(UserError, match="no column of student numbers"):
        read_class_list(tmp_path / "list.csv")


def test_small_things():
    assert number_in("HW1 - 400123456 - late (2)") == "400123456"
    assert number_in("05_LoRA.ipynb") == ""
    assert folded("  Ada_Lovelace ") == "ada lovelace"
    assert ERROR != LOOK


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Report.pdf", "name-form"),
        ("Report_401200001_Ada.pdf", "name-order"),
        ("Ada 40120001.pdf", "name-order"),
    ],
)
def test_a_name_in_another_order_is_a_remark(name, code, tmp_path):
    (tmp_path / name).write_bytes(pdf(report_lines()))
    found = [one for one in check.check([tmp_path / name]).findings if one.code.startswith("name-")]
    assert [(one.code, one.mark == ERROR) for one in found] == [(code, code == "name-form")]
    assert "_weights.zip" not in found[0].fix
