"""What is handed in: a right submission passes, and each of many faults is found and named."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import zipfile
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

import nbformat
import pandas as pd
import pypdf
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from safetensors.torch import save_file
from typer.testing import CliRunner

from peft_scratch.assignment import ALL_POINTS, PARTS, PROFILES, REPORT, RUNS
from peft_scratch.cli import app
from peft_scratch.data import hub
from peft_scratch.errors import UserError
from peft_scratch.experiments.session import Session
from peft_scratch.experiments.settings import configuration
from peft_scratch.methods import read_delta
from peft_scratch.paths import ROOT
from peft_scratch.submission import archive, check, notebooks, pack
from peft_scratch.submission.contract import base_name_of, fitted, read_name
from peft_scratch.submission.deep import reproduce
from peft_scratch.submission.findings import FAULT, NOT_READY, READY, REHEARSAL

NUMBERS = {run.id: run.published[0] for run in RUNS.values()}
FIRST_A = "encoder.block.0.layer.0.SelfAttention.q.sharif_llm_A"
FIRST_B = "encoder.block.0.layer.0.SelfAttention.q.sharif_llm_B"
PROMPT = "encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb"
STEM = "400123456_Ada_Lovelace"


# A right submission


def notebook(number: int, profile: str = "course") -> nbformat.NotebookNode:
    """What the kit's notebook of that number leaves of its ten numbers, in tiny."""
    runs = [run for run in RUNS.values() if run.notebook == number]

    def said(text: str) -> list:
        return [new_output("stream", name="stdout", text=text)]

    cells = [new_code_cell("bench = Session.open()", outputs=said(f"profile    {profile}, because it is\n"))]
    for run in runs:
        best = NUMBERS[run.id]
        log = [f"Number of parameters: {fitted(run.id, base_name_of(profile)).whole:,}"]
        for epoch in range(1, 11):
            bar = f"\repoch {epoch}/10: 100%|##| 9/9\r{' ' * 24}\r"
            accuracy = best - abs(epoch - 7) / 10
            log.append(f"{bar}epoch {epoch}/10: loss 0.3, test accuracy {accuracy:.1f} %, 9 s")
        source = f'bench.train(bench.prepare("{run.id}"))'
        cells.append(new_code_cell(source, outputs=said("\n".join(log) + "\n")))
    rows = [f"| {run.title} | {NUMBERS[run.id]:.1f} | - |" for run in runs]
    table = "\n".join(["|  | for the report, % | file to hand in |", "| :--- | ---: | ---: |", *rows])
    shown = [new_output("display_data", data={"text/markdown": table, "text/plain": table})]
    cells += [new_markdown_cell("## What to hand in"), new_code_cell("show.hand_in(bench)", outputs=shown)]
    made = new_notebook(cells=cells)
    count(made)
    return made


def count(made: nbformat.NotebookNode) -> None:
    for n, cell in enumerate(code_cells(made), start=1):
        cell.execution_count = n


def code_cells(made: nbformat.NotebookNode) -> list:
    return [cell for cell in made.cells if cell.cell_type == "code"]


def weights(profile: str = "course") -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        RUNS[name].weight_file: {
            entry: torch.randn(p.shape, generator=generator) / 50
            for entry, p in fitted(name, base_name_of(profile)).entries.items()
        }
        for name in ("prompt_scratch_n10", "adapter_scratch_b8", "lora_scratch_r8")
    }


def report_lines(profile: str = "course") -> list[str]:
    lines = [f"{RUNS[name].id}: {number:.1f}" for name, number in NUMBERS.items()]
    counts = [f"adds {fitted(name, base_name_of(profile)).added:,}" for name in RUNS]
    return [*lines, *counts, f"student number {STEM[:9]}"]


def pdf(lines: list[str]) -> bytes:
    """A page with these lines, as small as a PDF gets."""
    text = " ".join(f"({line}) Tj T*" for line in lines)
    content = f"BT /F1 9 Tf 40 800 Td 12 TL {text} ET" if lines else ""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = "%PDF-1.4\n", []
    for n, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{n} 0 obj\n{body}\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    out += "".join(f"{place:010} 00000 n \n" for place in places)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return out.encode("latin-1")


def saved(content: object, **options: object) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, **options)
    return data.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return data.getvalue()


@dataclass
class Submission:
    """The parts of a submission, to be damaged before they are packed, or `files` after."""

    notebooks: dict[str, nbformat.NotebookNode | bytes]
    weights: dict[str, dict[str, torch.Tensor] | bytes]
    report: bytes
    more: dict[str, bytes] = field(default_factory=dict)  # in the weights' zip
    stem: str = STEM
    #: Applied to the finished files, by name.
    afterwards: object = None

    def parts(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        books = {
            name: made if isinstance(made, bytes) else nbformat.writes(made).encode()
            for name, made in self.notebooks.items()
        }
        tensors = {
            name: content if isinstance(content, bytes) else saved(content)
            for name, content in self.weights.items()
        }
        return books, tensors | self.more

    def files(self) -> dict[str, bytes]:
        books, tensors = self.parts()
        files = {
            f"{self.stem}_notebooks.zip": zipped(books),
            f"{self.stem}_weights.zip": zipped(tensors),
            f"{self.stem}.pdf": self.report,
        }
        if self.afterwards:
            self.afterwards(files)
        return files

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (folder / name).write_bytes(content)
        return folder

    def write_unpacked(self, folder: Path) -> Path:
        """As the kit leaves them."""
        books, tensors = self.parts()
        report = {"report.pdf": self.report}
        for part, files in (("notebooks", books), ("weights", tensors), ("report", report)):
            (folder / part).mkdir(parents=True)
            for name, content in files.items():
                (folder / part / name).write_bytes(content)
        return folder


@pytest.fixture(scope="module")
def parts():
    """Notebooks as text and weights as bytes, made once."""
    books = {f"0{n}_part.ipynb": nbformat.writes(notebook(n)) for n in range(1, 6)}
    return books, weights()


@pytest.fixture
def right(parts) -> Submission:
    books, tensors = parts
    return Submission(
        {name: nbformat.reads(text, as_version=4) for name, text in books.items()},
        {name: dict(entries) for name, entries in tensors.items()},
        pdf(report_lines()),
    )


def codes(checked: check.Checked, mark: str | None = None) -> set[tuple[int, str]]:
    return {(found.item, found.code) for found in checked.findings if mark in (None, found.mark)}


def test_a_right_submission_is_ready(right, tmp_path):
    checked = check.check([right.write(tmp_path)])
    assert checked.marked(FAULT) == []
    assert checked.verdict == READY
    assert checked.numbers == NUMBERS
    assert checked.student == ("400123456", "ada lovelace")
    assert checked.points_without_fault == ALL_POINTS == 105
    # Nothing but what a machine without t5-small cannot know.
    assert [found.code for found in checked.marked("!")] == ["start-unknown"]
    said = "\n".join(checked.lines())
    for item in PARTS.values():
        assert item.title in said
    for count in ("60,506,624", "60,511,744", "60,611,168", "60,801,536"):
        assert f": {count} parameters" in said
    for tensors in ("1 tensor, 5,120", "48 tensors, 104,544", "72 tensors, 294,912"):
        assert f"pt: {tensors} parameters" in said


def test_it_may_come_in_other_ways(right, tmp_path):
    folder = right.write(tmp_path / "files")
    ways = {"files": sorted(folder.iterdir())}
    # One zip around the three, as some course pages make it; folders in the zips.
    (tmp_path / f"{STEM}.zip").write_bytes(zipped({f"{STEM}/{n}": c for n, c in right.files().items()}))
    ways["one zip"] = [tmp_path / f"{STEM}.zip"]
    books, tensors = right.parts()
    nested = {"400123456-Ada-Lovelace-Code.zip": zipped({f"a/b/{n}": c for n, c in books.items()})}
    nested["۴۰۰۱۲۳۴۵۶_ada_lovelace_weights.zip"] = zipped({f"w/{n}": c for n, c in tensors.items()})
    nested["400123456_Ada Lovelace_Report.pdf"] = right.report
    (tmp_path / "nested").mkdir()
    for name, content in nested.items():
        (tmp_path / "nested" / name).write_bytes(content)
    ways["nested"] = [tmp_path / "nested"]
    ways["working folder"] = [right.write_unpacked(tmp_path / "kit")]
    for way, paths in ways.items():
        checked = check.check(paths)
        assert (way, checked.marked(FAULT)) == (way, [])
        assert checked.numbers == NUMBERS


def test_the_kit_s_own_notebooks_are_read():
    """So that what the kit prints and what the check looks for stay the same."""
    found, said = notebooks.examine(archive.gather([ROOT]).of(".ipynb"))
    kept = {path.stem: json.loads(path.read_text()) for path in (ROOT / "report" / "results").glob("*.json")}
    assert sorted(found) == [1, 2, 3, 4, 5]
    for number, book in found.items():
        assert Path(book.file.name).name.startswith(f"0{number}")
        assert book.profile == "offline"
        assert book.numbers == {run.id: round(100 * kept[run.id]["accuracy"]["best"], 1) for run in book.runs}
        assert all(notebooks._logged(book, run) == book.numbers[run.id] for run in book.runs)
    assert [(one.item, one.code) for one in said if one.mark == FAULT and "number" in one.code] == []


# Faults

FAULTS = []


def plants(item: int, code: str, mark: str = FAULT):
    """Register a function that damages a right submission, with what the check has to find."""

    def register(damage):
        FAULTS.append(pytest.param(damage, item, code, mark, id=damage.__name__))
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


@plants(3, "out-of-order")
def cells_run_out_of_order(s):
    first, second = code_cells(s.notebooks["03_part.ipynb"])[:2]
    first.execution_count, second.execution_count = 2, 1


@plants(3, "out-of-order")
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


@plants(1, "number-out-of-band")
def a_number_that_no_run_gives(s):
    replace_text(s.notebooks["01_part.ipynb"], "89.9", "93.4")


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


@plants(0, "rehearsal", "!")
def an_offline_notebook(s):
    s.notebooks = {f"0{n}_part.ipynb": notebook(n, "offline") for n in range(1, 6)}


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


@plants(5, "weights-untrained")
def lora_not_trained(s):
    s.weights["lora.pt"] = {name: entry * name.endswith("A") for name, entry in s.weights["lora.pt"].items()}


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
@pytest.mark.parametrize(("damage", "item", "code", "mark"), FAULTS)
def test_a_fault_is_found_and_named(damage, item, code, mark, right, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archive, "LARGEST", 16 * 2**20)
    damage(right)
    right.write(tmp_path / "in")
    before = {path.name for path in tmp_path.iterdir()}
    checked = check.check([tmp_path / "in"])
    assert (item, code) in codes(checked, mark), checked.lines()
    (found, *_) = [one for one in checked.of(item, mark) if one.code == code]
    assert found.mend, "it has to say what to do"
    assert str(found) in "".join(checked.lines())
    assert checked.verdict == NOT_READY if mark == FAULT else code == "rehearsal" or checked.verdict == READY
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing is executed or unpacked"


def test_there_are_faults_enough():
    assert len(FAULTS) >= 60
    assert len({code for _, _, code, _ in map(attrgetter("values"), FAULTS)}) >= 40


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (another_rank, rf"does not fit: rank 4 in the file, 8 in the model, at {re.escape(FIRST_A)}"),
        (an_entry_missing, rf"does not fit: the file lacks the entry {re.escape(FIRST_B)}"),
        (another_number_of_rows, "number of prompt rows 20 in the file, 10 in the model"),
        (weights_swapped, "adapter.pt holds the entries of lora.pt"),
        (lora_not_trained, "not trained in 36 of 36 places"),
        (lora_not_trained_in_one_place, "not trained in 1 of 36 places"),
        (code_in_a_weight_file, "asks for `.*`, which is no tensor and could run code"),
        (a_compressed_weight_file, "unpacks from .* to .* bytes, which torch.save never does"),
        (
            a_wrong_count,
            r"prints 60,654,080 parameters; it should be 60,801,536 \(LoRA, from scratch, r = 8\)",
        ),
        (a_number_written_over, r"84.9 % in the table, but 84.7 % in the log"),
        (cells_run_out_of_order, r"code cell 1, `bench = Session.open\(\)`, was run as number 2"),
        (an_error_in_a_cell, "ended with RuntimeError"),
        (a_number_that_no_run_gives, "93.4 %; honest runs of the course's constants gave 89.9 to 90.1"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_finding_says_what_is_wrong(damage, message, right, tmp_path):
    damage(right)
    checked = check.check([right.write(tmp_path)])
    assert any(re.search(message, found.text) for found in checked.marked(FAULT)), checked.lines()


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


def test_a_prompt_that_was_not_trained_is_found_where_the_base_is_at_hand(right, tmp_path, monkeypatch):
    base = tmp_path / "hub" / PROFILES["course"].base
    base.mkdir(parents=True)
    table = torch.randn(12, 512)
    save_file({"shared.weight": table}, base / "model.safetensors")
    monkeypatch.setattr(hub, "BY_HAND", tmp_path / "hub")
    checked = check.check([right.write(tmp_path / "trained")])
    assert (checked.verdict, checked.marked("!")) == (READY, [])
    right.weights["prompts.pt"] = {PROMPT: table[:10].clone()}
    checked = check.check([right.write(tmp_path / "not")])
    assert (2, "weights-untrained") in codes(checked, FAULT)


def test_names_and_messages_cannot_play_tricks(right, tmp_path):
    right.more["\x1b[2J\u202egp.exe"] = b""
    said = "\n".join(check.check([right.write(tmp_path)]).lines())
    assert "\x1b" not in said and "\u202e" not in said
    assert "gp.exe" in said


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("400123456_Ada_Lovelace_notebooks.zip", ("400123456", "ada lovelace")),
        ("400123456-Ada-Lovelace-Weights.zip", ("400123456", "ada lovelace")),
        ("400123456_Ada Lovelace.pdf", ("400123456", "ada lovelace")),
        ("400123456_Ada_Lovelace (1).zip", ("400123456", "ada lovelace")),
        ("REHEARSAL_400123456_Ada_Lovelace.pdf", ("400123456", "ada lovelace")),
        ("۴۰۰۱۲۳۴۵۶_علی.pdf", ("400123456", "علی")),
        ("report.pdf", None),
        ("400123456_notebooks.zip", None),
        ("Ada_400123456.pdf", None),
    ],
)
def test_names_are_read(file_name, name):
    assert read_name(file_name) == name


# Results beside the notebooks


def result(name: str) -> dict:
    run = RUNS[name]
    best = NUMBERS[name] / 100
    return {
        "id": name,
        "profile": "course",
        "config": configuration(run, PROFILES["course"], run.learning_rate, 0, "0" * 64, "fast"),
        "accuracy": {"best": best},
        "epochs": [{"accuracy": best - 0.01}, {"accuracy": best}],
        "parameters": {"whole": fitted(name, "t5-small").whole},
    }


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: None, None),
        (
            lambda r: (r["accuracy"].update(best=0.9), r["epochs"].append({"accuracy": 0.9})),
            "number-not-json",
        ),
        (lambda r: r["accuracy"].update(best=0.9), "json-differs"),
        (lambda r: r["config"].update(learning_rate=1e-3), "constants"),
        (lambda r: r["config"].update(epochs=3), "constants"),
        (lambda r: r["config"]["hyperparameters"].update(rank=4), "constants"),
        (lambda r: r["parameters"].update(whole=60_506_624), "json-count"),
        (lambda r: r.update(epochs="many"), "json-damaged"),
        (lambda r: r.update(profile="offline"), "profiles-mixed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_result_is_held_against_its_notebook(change, code, right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    content = result("lora_scratch_r8")
    change(content)
    (folder / "report" / "results").mkdir()
    (folder / "report" / "results" / "lora_scratch_r8.json").write_text(json.dumps(content))
    checked = check.check([folder])
    if code is None:
        assert checked.marked(FAULT) == []
    else:
        assert code in {found.code for found in checked.marked(FAULT)}


# Somebody else's notebooks


def foreign(source: str, *outputs: str) -> nbformat.NotebookNode:
    made = new_notebook(
        cells=[
            new_code_cell(source),
            *(new_code_cell("train()", outputs=[new_output("stream", text=text)]) for text in outputs),
        ]
    )
    count(made)
    return made


FOREIGN = {
    "HW-full.ipynb": foreign(
        "model = T5ForConditionalGeneration.from_pretrained('t5-small')",
        "Number of parameters: 60506624",
        "Epoch 1: train acc: 0.951, test acc: 0.8911\nEpoch 2: train acc: 0.967, test acc: 0.9003",
    ),
    "HW-2.ipynb": foreign(
        "class SoftPrompt(nn.Module):\n    pass\nfrom opendelta import SoftPromptModel",
        "Number of parameters: 60511744\n{'accuracy': 0.8512}\n{'accuracy': 0.8688}",
        "epoch 10 valid accuracy: 84.81%",
        "Epoch 9: 100%|####| 782/782 [01:02<00:00, loss=0.31, acc=0.8662]",
    ),
    "c.ipynb": foreign(
        "class Adapter(nn.Module):\n    pass\nmodel.adapter = Adapter()",
        "Number of parameters: 60,611,168\nTest Accuracy = 90.7 %",
    ),
    "d.ipynb": foreign(
        "import adapters\nadapters.init(model)\nmodel.train_adapter('a')", "acc: 0.902", "acc: 0.8921"
    ),
    "lora.ipynb": foreign(
        "class LoRA(nn.Module):\n    pass\npeft_config = LoraConfig(r=1)",
        "Number of parameters: 60801536\nacc 0.8933",
        "acc 0.8868",
        "acc 0.8879",
    ),
}


def test_the_notebooks_of_others_are_read_as_best_one_can(right, tmp_path):
    right.notebooks = dict(FOREIGN)
    right.report = pdf([*report_lines(), "90.0 86.9 84.8 86.6 90.7 90.2 89.2 89.3 88.7 88.8"])
    checked = check.check([right.write(tmp_path)])
    assert checked.marked(FAULT) == []
    assert checked.numbers == {
        "full": 90.0,
        "prompt_scratch_n10": 86.9,
        "prompt_opendelta_n1": 84.8,
        "prompt_opendelta_n10": 86.6,
        "adapter_scratch_b8": 90.7,
        "adapter_adapterhub_b8": 90.2,
        "adapter_adapterhub_b1": 89.2,
        "lora_scratch_r8": 89.3,
        "lora_peft_r1": 88.7,
        "lora_peft_r8": 88.8,
    }


def test_what_is_not_found_in_the_notebooks_of_others_is_said(right, tmp_path):
    right.notebooks = dict(FOREIGN)
    right.notebooks["d.ipynb"] = foreign("import adapters\nadapters.init(model)", "acc: 0.612", "acc: 0.8921")
    right.notebooks["HW-full.ipynb"] = foreign("model = T5()", "done")
    checked = check.check([right.write(tmp_path)])
    assert {(4, "number-not-found")} <= codes(checked, "!")
    assert {(1, "number-missing"), (1, "count-missing")} <= codes(checked, FAULT)
    assert "adapter_adapterhub_b8" not in checked.numbers and "full" not in checked.numbers


# Packing


def test_packing_says_that_the_report_is_anonymous(right, tmp_path):
    right.report = pdf([line for line in report_lines() if "student number" not in line])
    folder = right.write_unpacked(tmp_path / "kit")
    arguments = ["submit", "--number", "400123456", "--name", "Ada Lovelace", "--output", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert "report.pdf does not have the student number 400123456: `make report` puts" in done.output


def test_packing_makes_the_three_files_that_pass(right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    (folder / "weights" / "old_lora_backup.pt").write_bytes(b"not to be handed in")
    (folder / "notebooks" / "notes.txt").write_text("mine")
    written, checked = pack.pack("400123456", "Ada  Lovelace", folder)
    assert checked.verdict == READY
    names = [f"{STEM}_notebooks.zip", f"{STEM}_weights.zip", f"{STEM}.pdf"]
    assert [path.name for path in written] == names
    with zipfile.ZipFile(written[0]) as books, zipfile.ZipFile(written[1]) as tensors:
        assert books.namelist() == [f"0{n}_part.ipynb" for n in range(1, 6)]
        assert tensors.namelist() == ["adapter.pt", "lora.pt", "prompts.pt"]
        for member in (*books.infolist(), *tensors.infolist()):
            assert (member.date_time, member.extra, member.comment) == ((1980, 1, 1, 0, 0, 0), b"", b"")
    assert written[2].read_bytes() == right.report
    assert {path.name for path in (folder / "submission").iterdir()} == set(names)
    again = check.check([folder / "submission"])
    assert (again.verdict, again.numbers) == (READY, NUMBERS)


def test_the_bytes_depend_on_the_contents_alone(right, tmp_path):
    first, _ = pack.pack("400123456", "Ada", right.write_unpacked(tmp_path / "one"))
    second = right.write_unpacked(tmp_path / "two")
    for path in second.rglob("*"):  # another order, another time, other rights
        if path.is_file():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
            path.chmod(0o600)
    again, _ = pack.pack("۴۰۰۱۲۳۴۵۶", " Ada ", second)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert [path.name for path in first] == [path.name for path in again]


def test_what_has_a_fault_is_not_packed(right, tmp_path):
    lora_not_trained(right)
    folder = right.write_unpacked(tmp_path / "kit")
    with pytest.raises(UserError, match=r"Nothing was packed, for 1 fault; the first: .*36 of 36 places"):
        pack.pack("400123456", "Ada", folder)
    assert not (folder / "submission").exists()


@pytest.mark.parametrize(
    ("number", "name", "message"),
    [
        ("4001", "Ada", "run `make report` first"),
        ("", "Ada", "A student number is 4 to 12 digits, not ''"),
        ("../40012", "Ada", "A student number is 4 to 12 digits"),
        ("400123456", "", "A name is made of letters, not ''"),
        ("400123456", "../Ada", "A name is made of letters"),
        ("400123456", "Ada/Lovelace", "A name is made of letters"),
    ],
)
def test_what_cannot_be_packed_gets_one_sentence(number, name, message, right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    shutil.rmtree(folder / "report")
    arguments = ["submit", "--number", number, "--name", name, "--output", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.output
    assert not (folder / "submission").exists()


def test_an_offline_run_is_packed_as_a_rehearsal(tmp_path):
    made = Submission(
        {f"0{n}_part.ipynb": notebook(n, "offline") for n in range(1, 6)},
        weights("offline"),
        pdf(report_lines("offline")),
    )
    folder = made.write_unpacked(tmp_path / "kit")
    arguments = ["submit", "--number", "400123456", "--name", "Ada Lovelace", "--output", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "a rehearsal and not a hand-in" in done.stderr
    written = sorted(path.name for path in (folder / "submission").iterdir())
    assert all(name.startswith(f"REHEARSAL_{STEM}") for name in written) and len(written) == 3
    done = CliRunner().invoke(app, ["check", str(folder / "submission")])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].startswith("REHEARSAL: 0 faults")
    assert "an offline run (profile offline) is a rehearsal and not a hand-in" in done.stdout


# The command, over one and over many


def test_the_exit_status_says_whether_it_is_ready(right, tmp_path):
    good = right.write(tmp_path / "good")
    done = CliRunner().invoke(app, ["check", str(good)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0,
        "READY to hand in: 0 faults, 1 point to look at.",
    )
    lora_not_trained(right)
    done = CliRunner().invoke(app, ["check", str(right.write(tmp_path / "bad"))])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].startswith("NOT READY: 1 fault,")
    assert "worth 75 of 105" in done.stdout.splitlines()[-1]
    done = CliRunner().invoke(app, ["check", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "is not there" in done.stderr


def test_many_submissions_make_a_table(right, tmp_path, monkeypatch):
    folder = tmp_path / "all"
    right.write(folder / "400123456 Ada")
    right.stem = "400222222_Bea"
    for name, content in right.files().items():  # loose among the folders
        (folder / name).write_bytes(content)
    lora_not_trained(right)
    right.stem = "400333333_=cmd()"
    right.write(folder / "=cmd()")
    (folder / "empty").mkdir()
    (folder / "list.csv").write_text("number,name\n")
    (folder / "400444444_Dan_notebooks.zip").write_bytes(b"PK\x03\x04 broken")
    right.write(folder / "zz breaks the check")
    examine = check.weights.examine

    def failing(files, profile):
        if failing.left == 0:
            raise RuntimeError("a defect")
        failing.left -= 1
        return examine(files, profile)

    failing.left = 5
    monkeypatch.setattr(check.weights, "examine", failing)
    arguments = [*sorted(map(str, folder.iterdir()), key=lambda path: ("zz" in path, path))]
    done = CliRunner().invoke(app, ["check", *arguments, "--csv", str(tmp_path / "out.csv")])
    assert done.exit_code == 1, done.exception
    assert len(done.stdout.splitlines()) == 6
    assert "list.csv is no file of a submission" in done.stderr
    table = pd.read_csv(tmp_path / "out.csv", dtype={"student_number": str}).set_index("submission")
    rows = {Path(name).name: row for name, row in table.iterrows()}
    good = rows["400123456 Ada"]
    assert (good.verdict, good.faults, good.student_number) == (READY, 0, "400123456")
    assert good[list(RUNS)].to_dict() == NUMBERS
    assert (good.notebook_5, good.points_without_fault) == ("ok", 105)
    assert rows["400222222_Bea"].verdict == READY
    bad = rows["=cmd()"]
    assert (bad.verdict, bad.notebook_5, bad.points_without_fault) == (NOT_READY, "weights-untrained", 75)
    assert "36 of 36 places" in bad.what_is_wrong
    assert rows["empty"].verdict == NOT_READY and rows["empty"].points_without_fault == 0
    assert "zip-corrupt" in rows["400444444_Dan_notebooks.zip"].files
    assert rows["zz breaks the check"].files == "check-failed"
    # A spreadsheet would run a cell that begins with an equals sign.
    assert not re.search(r'(^|,)"?[=+@-]', (tmp_path / "out.csv").read_text(), re.MULTILINE)


# Reproducing


def test_deep_reproduces_the_number_or_says_that_it_does_not(tmp_path):
    bench = Session.open("smoke", output=tmp_path)
    kept = bench.train(bench.prepare("adapter_scratch_b8"))
    entries = read_delta(tmp_path / "weights" / "adapter.pt")
    percent = kept.percent
    arguments = {"adapter_scratch_b8": entries}, {"adapter_scratch_b8": percent}, "smoke"
    (found,) = reproduce(*arguments)
    assert (found.item, found.mark, found.code) == (3, "✓", "reproduced")
    (found,) = reproduce(arguments[0], {"adapter_scratch_b8": percent + 5}, "smoke")
    assert (found.item, found.mark, found.code) == (3, "✗", "not-reproducible")
    assert f"gives {percent:.1f} %, reported are {percent + 5:.1f} %" in found.text


def test_deep_without_the_base_says_so(right, tmp_path):
    checked = check.check([right.write(tmp_path)], deep=True)
    missing = [found for found in checked.marked("!") if found.code == "not-reproduced"]
    assert [found.item for found in missing] == [2, 3, 5]
    assert all("t5-small" in found.text for found in missing)
    assert checked.verdict == READY


def test_a_rehearsal_s_verdict_is_its_own(right, tmp_path):
    an_offline_notebook(right)
    right.weights, right.report = weights("offline"), pdf(report_lines("offline"))
    checked = check.check([right.write(tmp_path)])
    assert (checked.verdict, checked.marked(FAULT)) == (REHEARSAL, [])
