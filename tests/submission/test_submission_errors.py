"""Each of many errors is found and named."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from operator import attrgetter
from pathlib import Path

import nbformat
import pypdf
import pytest
import torch
from nbformat.v4 import new_code_cell, new_output

from peft_scratch.assignment import REPORT
from peft_scratch.submission import archive, check
from peft_scratch.submission.findings import ERROR, LOOK, NOT_READY, READY
from submission.parts import (
    FIRST_A,
    FIRST_B,
    PROMPT,
    STEM,
    an_offline_notebook,
    code_cells,
    codes,
    count,
    lora_not_trained,
    notebook,
    pdf,
    report_lines,
    saved,
    zipped,
)

# Faults

ERRORS = []


def plants(item: int, code: str, mark: str = ERROR):
    """Register a function that damages a right submission, with what the check has to find."""

    def register(damage):
        ERRORS.append(pytest.param(damage, item, code, mark, id=damage.__name__))
        return damage

    return register


def edit_bytes(name_end: str, change):
    """After packing, replace the file whose name ends so by `change(bytes)`."""

    def afterwards(files):
        (name,) = [name for name in files if name.endswith(name_end)]
        files[name] = change(files[name])

    return afterwards


def add_member(info: zipfile.ZipInfo | str, content: bytes = b"{}"):
    def change(data):
        made = io.BytesIO(data)
        with zipfile.ZipFile(made, "a") as opened:
            opened.writestr(info, content)
        return made.getvalue()

    return edit_bytes("_notebooks.zip", change)


# ... in files and names


@plants(0, "names-differ")
def another_student_s_number(s):
    def afterwards(files):
        files["400123457_Ada_Lovelace_weights.zip"] = files.pop(f"{STEM}_weights.zip")

    s.afterwards = afterwards


@plants(0, "names-differ")
def another_name(s):
    def afterwards(files):
        files["400123456_Ada_Byron.pdf"] = files.pop(f"{STEM}.pdf")

    s.afterwards = afterwards


@plants(0, "name-form")
def no_number_in_a_name(s):
    def afterwards(files):
        files["weights.zip"] = files.pop(f"{STEM}_weights.zip")

    s.afterwards = afterwards


@plants(0, "name-form")
def no_name_in_a_name(s):
    s.stem = "400123456"


@plants(0, "zips-missing")
def nothing_zipped(s):
    def afterwards(files):
        files.clear()
        books, tensors = s.parts()
        files |= books | tensors | {f"{STEM}.pdf": s.report}

    s.afterwards = afterwards


@plants(0, "zips-mixed", "!")
def one_zip_for_both(s):
    def afterwards(files):
        books, tensors = s.parts()
        del files[f"{STEM}_weights.zip"]
        files[f"{STEM}_notebooks.zip"] = zipped(books | tensors)

    s.afterwards = afterwards


@plants(0, "zip-corrupt")
def a_zip_cut_short(s):
    s.afterwards = edit_bytes("_weights.zip", lambda data: data[: len(data) // 2])


@plants(0, "zip-corrupt")
def a_zip_that_is_none(s):
    s.afterwards = edit_bytes("_weights.zip", lambda data: b"Rar!\x1a\x07\x00" + data[:5000])


@plants(0, "zip-corrupt")
def a_flipped_bit_in_a_zip(s):
    def flip(data):
        at = data.index(b"nbformat")
        return data[:at] + b"N" + data[at + 1 :]

    s.afterwards = edit_bytes("_notebooks.zip", flip)


@plants(0, "zip-path")
def a_path_out_of_the_zip(s):
    s.afterwards = add_member("../../owned.ipynb")


@plants(0, "zip-path")
def an_absolute_path_in_the_zip(s):
    s.afterwards = add_member("/tmp/owned.ipynb")


@plants(0, "zip-path")
def a_windows_path_in_the_zip(s):
    s.afterwards = add_member("C:\\Windows\\owned.ipynb")


@plants(0, "zip-path")
def backslashes_out_of_the_zip(s):
    s.afterwards = add_member("a\\..\\..\\owned.ipynb")


@plants(0, "zip-link")
def a_symbolic_link_in_the_zip(s):
    link = zipfile.ZipInfo("06_link.ipynb")
    link.external_attr = 0o120777 << 16
    s.afterwards = add_member(link, b"/etc/passwd")


@plants(0, "zip-twice")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def one_name_twice_in_the_zip(s):
    s.afterwards = add_member("01_part.ipynb")


@plants(0, "zip-encrypted")
def an_encrypted_zip(s):
    def lock(data):
        made = bytearray(data)
        made[data.rindex(b"PK\x01\x02") + 8] |= 1  # the first one would be of a weight file's own zip
        return bytes(made)

    s.afterwards = edit_bytes("_weights.zip", lock)


@plants(0, "zip-bomb")
def a_zip_bomb(s):
    bomb = zipped({"lora.pt": bytes(archive.LARGEST + 1)}, zipfile.ZIP_DEFLATED)
    s.afterwards = edit_bytes("_weights.zip", lambda data: bomb)


@plants(0, "stray", "!")
def a_program_in_the_zip(s):
    s.more["train.py"] = b"print('hello')"


@plants(0, "stray", "!")
def what_a_mac_leaves_in_a_zip(s):
    s.more["__MACOSX/._lora.pt"] = b"\x00\x05\x16\x07"


# ... in notebooks


@plants(5, "notebook-missing")
def a_notebook_missing(s):
    del s.notebooks["05_part.ipynb"]


@plants(2, "not-executed")
def a_cell_not_executed(s):
    cell = code_cells(s.notebooks["02_part.ipynb"])[-1]
    cell.execution_count, cell.outputs = None, []


@plants(3, "out-of-order", "!")
def cells_run_out_of_order(s):
    first, second = code_cells(s.notebooks["03_part.ipynb"])[:2]
    first.execution_count, second.execution_count = 2, 1


@plants(3, "run-again", "!")
def a_cell_run_again(s):
    code_cells(s.notebooks["03_part.ipynb"])[-1].execution_count = 17


@plants(4, "error-output")
def an_error_in_a_cell(s):
    error = new_output("error", ename="RuntimeError", evalue="CUDA out of memory", traceback=[])
    code_cells(s.notebooks["04_part.ipynb"])[1].outputs.append(error)


@plants(1, "notebook-damaged")
def a_notebook_cut_short(s):
    s.notebooks["01_part.ipynb"] = nbformat.writes(s.notebooks["01_part.ipynb"])[:300].encode()


@plants(1, "notebook-damaged")
def a_notebook_of_another_form(s):
    s.notebooks["01_part.ipynb"] = b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}'


@plants(1, "notebook-damaged")
def a_notebook_that_is_a_deep_list(s):
    s.notebooks["01_part.ipynb"] = b"[" * 200_000


@plants(2, "notebook-twice")
def one_notebook_handed_in_twice(s):
    s.notebooks["05_part.ipynb"] = s.notebooks["02_part.ipynb"]


@plants(2, "notebook-name", "!")
def two_notebooks_swapped(s):
    books = s.notebooks
    books["02_part.ipynb"], books["05_part.ipynb"] = books["05_part.ipynb"], books["02_part.ipynb"]


@plants(5, "number-missing")
def a_number_missing(s):
    code_cells(s.notebooks["05_part.ipynb"])[-1].outputs = []


def replace_text(made, old: str, new: str) -> None:
    changed = 0
    for cell in code_cells(made):
        for output in cell.outputs:
            for where, key in ((output, "text"), (output.get("data", {}), "text/markdown")):
                if old in where.get(key, ""):
                    where[key] = where[key].replace(old, new)
                    changed += 1
    assert changed


@plants(2, "number-differs")
def a_number_written_over(s):
    replace_text(s.notebooks["02_part.ipynb"], "| 84.7 |", "| 84.9 |")


@plants(1, "number-out-of-band", "!")
def a_number_that_no_run_gives(s):
    replace_text(s.notebooks["01_part.ipynb"], "89.9", "93.4")
    s.report = pdf([line.replace("89.9", "93.4") for line in report_lines()])


@plants(1, "number-unusual", "!")
def a_number_a_little_off(s):
    replace_text(s.notebooks["01_part.ipynb"], "89.9", "90.6")
    s.report = pdf([line.replace("89.9", "90.6") for line in report_lines()])


@plants(5, "count-wrong")
def a_wrong_count(s):
    made = s.notebooks["05_part.ipynb"]
    replace_text(made, "60,801,536", "60,654,080")  # rank 4


@plants(3, "count-missing")
def no_count(s):
    replace_text(s.notebooks["03_part.ipynb"], "Number of parameters: 60,611,168", "")


plants(0, "rehearsal", "!")(an_offline_notebook)


@plants(0, "profiles-mixed")
def one_offline_notebook_among_others(s):
    s.notebooks["04_part.ipynb"] = notebook(4, "offline")


# ... in weights


@plants(5, "weights-missing")
def weights_missing(s):
    del s.weights["lora.pt"]


@plants(3, "weights-swapped")
def weights_swapped(s):
    files = s.weights
    files["lora.pt"], files["adapter.pt"] = files["adapter.pt"], files["lora.pt"]


@plants(5, "weights-name")
def weights_by_another_name(s):
    s.weights["my_lora_final.pt"] = s.weights.pop("lora.pt")


@plants(0, "weights-more", "!")
def one_weight_file_too_many(s):
    s.weights["best_model.pt"] = s.weights["prompts.pt"]


@plants(5, "weights-differ")
def an_entry_missing(s):
    del s.weights["lora.pt"][FIRST_B]


@plants(5, "weights-differ")
def an_entry_too_many(s):
    s.weights["lora.pt"]["lm_head.sharif_llm_A"] = torch.ones(512, 8)


@plants(5, "weights-differ")
def another_rank(s):
    s.weights["lora.pt"] = {
        name: entry[:, :4] if name.endswith("A") else entry[:4]
        for name, entry in s.weights["lora.pt"].items()
    }


@plants(2, "weights-differ")
def another_number_of_rows(s):
    s.weights["prompts.pt"] = {PROMPT: torch.randn(20, 512)}


@plants(2, "weights-differ")
def another_width(s):
    s.weights["prompts.pt"] = {PROMPT: torch.randn(10, 256)}


@plants(3, "weights-differ")
def weights_without_the_course_s_keys(s):
    s.weights["adapter.pt"] = {
        name.replace("sharif_llm_", ""): entry for name, entry in s.weights["adapter.pt"].items()
    }


@plants(5, "weights-not-finite")
def not_a_number(s):
    s.weights["lora.pt"][FIRST_B] = torch.full((8, 512), float("nan"))


@plants(2, "weights-not-finite")
def infinity(s):
    s.weights["prompts.pt"] = {PROMPT: torch.full((10, 512), float("inf"))}


plants(5, "weights-untrained")(lora_not_trained)


@plants(5, "weights-untrained")
def lora_not_trained_in_one_place(s):
    s.weights["lora.pt"][FIRST_B] = torch.zeros(8, 512)


@plants(3, "weights-untrained")
def adapter_not_trained(s):
    s.weights["adapter.pt"] = {
        name: entry * ("adapter.0." in name) for name, entry in s.weights["adapter.pt"].items()
    }


@plants(5, "weights-type")
def half_precision(s):
    s.weights["lora.pt"] = {name: entry.half() for name, entry in s.weights["lora.pt"].items()}


@plants(5, "weights-surplus")
def the_base_saved_too(s):
    s.weights["lora.pt"]["shared.weight"] = torch.ones(100, 512)


@plants(3, "weights-unreadable")
def weights_in_a_list(s):
    s.weights["adapter.pt"] = saved(list(s.weights["adapter.pt"].values()))


@plants(3, "weights-unreadable")
def weights_in_a_dictionary_of_their_own(s):
    s.weights["adapter.pt"] = saved({"state_dict": s.weights["adapter.pt"]})


@plants(2, "weights-unreadable")
def a_huge_tensor_of_one_number(s):
    s.weights["prompts.pt"] = saved({PROMPT: torch.ones(1).expand(10**12)})


@plants(2, "weights-damaged")
def weights_cut_short(s):
    s.weights["prompts.pt"] = saved(s.weights["prompts.pt"])[:-500]


@plants(2, "weights-damaged")
def weights_that_are_none(s):
    s.weights["prompts.pt"] = b"version https://git-lfs.github.com/spec/v1\n"


@plants(2, "weights-damaged")
def a_bare_pickle(s):
    s.weights["prompts.pt"] = pickle.dumps({PROMPT: [0.0]})


@plants(2, "weights-unreadable")
def a_compressed_weight_file(s):
    plain = zipfile.ZipFile(io.BytesIO(saved({PROMPT: torch.zeros(10, 512)})))
    members = {name: plain.read(name) for name in plain.namelist()}
    s.weights["prompts.pt"] = zipped(members, zipfile.ZIP_DEFLATED)


class Malicious:
    """Unpickled, it makes the file `owned` in the working folder."""

    def __reduce__(self):
        return Path.touch, (Path("owned"),)


@plants(5, "pickled-code")
def code_in_a_weight_file(s):
    s.weights["lora.pt"] = saved({FIRST_A: Malicious()})


def with_pickle(code: bytes) -> bytes:
    plain = zipfile.ZipFile(io.BytesIO(saved({PROMPT: torch.zeros(10, 512)})))
    return zipped(
        {name: code if name.endswith("/data.pkl") else plain.read(name) for name in plain.namelist()}
    )


@plants(2, "pickled-code")
def a_key_that_takes_years_to_hash(s):
    # (((), ()), ((), ())), ... sixty times: each a pair of the one before.
    pairs = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
    s.weights["prompts.pt"] = with_pickle(b"\x80\x02)q\x00" + pairs + b"}h%cK\x01s." % 60)


@plants(2, "pickled-code")
def an_opcode_that_torch_does_not_write(s):
    inst = b"(X\x05\x00\x00\x00touch" + b"ios\nsystem\n"
    s.weights["prompts.pt"] = with_pickle(b"\x80\x02" + inst + b".")


# ... in the report


@plants(REPORT, "report-missing")
def no_report(s):
    s.afterwards = lambda files: files.pop(f"{STEM}.pdf")


@plants(REPORT, "report-no-pdf")
def a_report_that_was_renamed(s):
    s.report = b"PK\x03\x04 a document"


@plants(REPORT, "report-damaged")
def a_report_cut_short(s):
    s.report = s.report[:40]


@plants(REPORT, "report-locked")
def a_report_with_a_password(s):
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(s.report))
    writer.encrypt("secret", algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    s.report = data.getvalue()


@plants(REPORT, "report-no-text", "!")
def a_scanned_report(s):
    s.report = pdf([])


@plants(REPORT, "report-number")
def another_number_in_the_report(s):
    s.report = pdf([line.replace("84.7", "85.7") for line in report_lines()])


@plants(REPORT, "report-count", "!")
def no_hand_calculation(s):
    s.report = pdf([line for line in report_lines() if "104,544" not in line])


@plants(REPORT, "report-anonymous", "!")
def a_report_without_the_student_number(s):
    s.report = pdf([line for line in report_lines() if "student number" not in line])


@plants(REPORT, "report-more", "!")
def two_reports(s):
    s.more["draft.pdf"] = s.report


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("damage", "item", "code", "mark"), ERRORS)
def test_an_error_is_found_and_named(damage, item, code, mark, right, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archive, "LARGEST", 16 * 2**20)
    damage(right)
    right.write(tmp_path / "in")
    before = {path.name for path in tmp_path.iterdir()}
    checked = check.check([tmp_path / "in"])
    assert (item, code) in codes(checked, mark), checked.lines()
    (found, *_) = [one for one in checked.of(item, mark) if one.code == code]
    assert found.fix, "it has to say what to do"
    assert str(found) in "".join(checked.lines())
    assert checked.verdict == NOT_READY if mark == ERROR else code == "rehearsal" or checked.verdict == READY
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing is executed or unpacked"


def test_there_are_errors_enough():
    assert len(ERRORS) >= 60
    assert len({code for _, _, code, _ in map(attrgetter("values"), ERRORS)}) >= 40


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (another_rank, rf"does not fit: rank 4 in the file, 8 in the model, at {re.escape(FIRST_A)}"),
        (an_entry_missing, rf"does not fit: the file lacks the entry {re.escape(FIRST_B)}"),
        (another_number_of_rows, "number of prompt rows 20 in the file, 10 in the model"),
        (weights_swapped, "adapter.pt holds the entries of lora.pt"),
        (lora_not_trained, "not trained in 36 of 36 places"),
        (lora_not_trained_in_one_place, "not trained in 1 of 36 places"),
        (code_in_a_weight_file, "asks for `.*`, which is not a tensor and could run code"),
        (a_compressed_weight_file, "unpacks from .* to .* bytes, which torch.save never does"),
        (
            a_wrong_count,
            r"prints 60,654,080 parameters; it should print 60,801,536 \(LoRA, from scratch, r = 8\)",
        ),
        (a_number_written_over, r"84.9 % in the table, but 84.7 % in the log"),
        (cells_run_out_of_order, "1 cell ran out of order: `bench.train.*` .as number 1."),
        (an_error_in_a_cell, "ended with RuntimeError"),
        (a_number_that_no_run_gives, "93.4 %; published runs with the course's constants gave 89.9 to 90.1"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_finding_says_what_is_wrong(damage, message, right, tmp_path):
    damage(right)
    checked = check.check([right.write(tmp_path)])
    said = checked.marked(ERROR) + checked.marked(LOOK)
    assert any(re.search(message, found.text) for found in said), checked.lines()


def test_the_trap_is_a_real_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.load(io.BytesIO(saved({FIRST_A: Malicious()})), weights_only=False)
    assert (tmp_path / "owned").exists()


def test_a_notebook_s_code_and_scripts_are_not_run(right, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    payload = "import pathlib; pathlib.Path('owned').touch()"
    made = right.notebooks["01_part.ipynb"]
    html = new_output("display_data", data={"text/html": "<script>x</script>", "text/plain": "<IPython>"})
    made.cells.insert(0, new_code_cell(f"!touch owned\n{payload}", outputs=[html]))
    count(made)
    assert check.check([right.write(tmp_path / "in")]).verdict == READY
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    exec(payload)  # the trap is a real one
    assert (tmp_path / "owned").exists()
