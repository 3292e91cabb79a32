"""Files that hang or swell a reader: each costs seconds at most, and the others are still read."""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from pathlib import Path

import pypdf
import pytest
import torch

from peft_scratch.submission import archive, check, pool, report, tensors
from peft_scratch.submission.archive import File, gather
from peft_scratch.submission.findings import ERROR, UNREAD
from peft_scratch.submission.students import Group
from submission import workers
from submission.parts import PROMPT, STEM, pdf, saved, zipped

MB = 2**20


def two_directories() -> bytes:
    """A weight file behind another: a reader from the front and one from the back see two files."""
    good, other = saved({PROMPT: torch.ones(10, 512)}), saved({PROMPT: torch.zeros(10, 512)})
    return good + other


def lying_zip(claimed: int, real: int) -> bytes:
    """A member that claims to be small and inflates to much."""
    data = bytearray(zipped({"01_Full FineTune.ipynb": bytes(real)}, zipfile.ZIP_DEFLATED))
    for start, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(start) + at
        data[place : place + 4] = claimed.to_bytes(4, "little")
    return bytes(data)


def swollen_pdf(pages: int = 60, size: int = 2 * MB) -> bytes:
    """Pages that share one stream of drawing: small packed, large unpacked."""
    text = b"(x) Tj T* " * (size // 10)
    packed = zlib.compress(b"BT /F1 9 Tf 40 800 Td 12 TL " + text + b" ET", 9)
    kids = " ".join(f"{n + 4} 0 R" for n in range(pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode(),
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(packed) + packed + b"\nendstream",
    ]
    font = b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 3 0 R /Resources " + font + b" >>"
    objects += [page] * pages
    out, places = b"%PDF-1.4\n", []
    for n, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n" % n + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def braces() -> bytes:
    return b'{"cells": [' + b"{}," * 2_000_000


def huge_count() -> bytes:
    """A notebook whose epochs and counts have 5,000 digits."""
    nines = "9" * 5000
    said = f"epoch 1/{nines}: loss 0.3, test accuracy 89.9 %"
    cell = f'"execution_count": {nines}, "source": "x", "outputs": [{{"text": "{said}"}}]'
    return f'{{"cells": [{{"cell_type": "code", {cell}}}]}}'.encode()


NOTEBOOKS, WEIGHTS = f"{STEM}_notebooks.zip", f"{STEM}_weights.zip"
# A submission may unpack to 16 MB here, so that the bombs can be small.
HOSTILE = {
    "two directories": lambda: {WEIGHTS: zipped({"prompts.pt": two_directories()})},
    "a swollen PDF": lambda: {f"{STEM}.pdf": swollen_pdf()},
    "millions of braces": lambda: {NOTEBOOKS: zipped({"1.ipynb": braces()}, zipfile.ZIP_DEFLATED)},
    "a lying zip": lambda: {NOTEBOOKS: lying_zip(1000, 20 * MB)},
    "a bomb": lambda: {WEIGHTS: zipped({f"{n}.pt": bytes(5 * MB) for n in range(4)}, zipfile.ZIP_DEFLATED)},
    "long names": lambda: {NOTEBOOKS: zipped({f"{n}{'x' * 60_000}": b"" for n in range(200)})},
    "a huge count": lambda: {NOTEBOOKS: zipped({"01.ipynb": huge_count()})},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_costs_seconds(make, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 16 * MB)
    for name, data in make().items():
        (tmp_path / name).write_bytes(data)
    start = time.process_time()
    checked = check.check(tmp_path)
    assert time.process_time() - start < 10
    assert checked.marked(ERROR)
    said = "\n".join(checked.lines())
    assert "Traceback" not in said and len(said) < 40_000
    assert checked.points_without_error < 105


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "01_full.ipynb")
    gathered = gather([tmp_path])
    assert gathered.files == [] and [one.code for one in gathered.findings] == ["no-file"]


def test_a_weight_file_is_read_by_one_parser_alone():
    with pytest.raises(tensors.Foreign, match="more than one directory"):
        tensors.read(two_directories())


def test_a_swollen_report_is_read_in_part_and_said_to_be():
    start = time.process_time()
    (one, *_) = report.examine([File("a.pdf", "a.pdf", swollen_pdf())], {"full": 90.0}, "course", "")
    assert (one.code, one.mark) == ("report-partly", "!")
    assert time.process_time() - start < 5


# In processes


def test_what_happens_to_one_submission_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr(pool, "SECONDS", 8.0)
    names = ["fine", "hangs", "swells", "dies", "fails", "fine too"]
    groups = [Group([Path(name)], f"40000000{n}") for n, name in enumerate(names)]
    done = dict(pool.check_all(groups, processes=2, work=workers.work))
    assert sorted(done) == list(range(6))
    codes = {names[n]: [one.code for one in checked.findings] for n, checked in done.items()}
    assert codes == {
        "fine": [],
        "fine too": [],
        "hangs": ["took-too-long"],
        "swells": ["too-much"],
        "dies": ["check-died"],
        "fails": ["check-failed"],
    }
    assert {done[n].verdict for n in (1, 2, 3, 4)} == {UNREAD}
    assert [done[n].student[0] for n in range(6)] == [f"40000000{n}" for n in range(6)]
    assert all(one.mark == "!" for checked in done.values() for one in checked.findings), "nobody is accused"


def test_a_restricted_pdf_is_read_and_a_rar_is_named(tmp_path):
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["Full fine-tuning: 90.0 %"])))
    writer.encrypt("", "owner", algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    (tmp_path / f"{STEM}.pdf").write_bytes(data.getvalue())
    (tmp_path / f"{STEM}_notebooks.rar").write_bytes(b"Rar!\x1a\x07\x00")
    checked = check.check(tmp_path)
    assert "report" in {one.code for one in checked.of(6)}
    (one,) = [one for one in checked.findings if one.code == "archive-not-zip"]
    assert one.mark == ERROR and "what is missing may be in it" in one.text
