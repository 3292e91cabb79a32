"""What is printed comes out in any encoding, readable."""

import os
import subprocess
import sys

import pytest

from peft_scratch.console import plain

MARKS = "✓ 89.9 – 90.1, ✗ “prefix”, N·d × 2 … Persian: ۸۹٫۹ سلام"  # noqa: RUF001


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp1256", "iso-8859-1", "utf-8"])
def test_every_mark_comes_out(encoding):
    program = (
        "import sys\nfrom peft_scratch.console import make_printable\nmake_printable()\n"
        f"print({MARKS!r})\nprint({MARKS!r}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    for stream in (done.stdout, done.stderr):
        said = stream.decode(encoding).strip()
        assert plain(said) == plain(MARKS)
        assert (said == MARKS) == (encoding == "utf-8")


def test_marks_stay_apart_in_ascii():
    assert plain("✓✗") == "+x"
    assert plain(MARKS).isascii()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "cp1256", "iso-8859-1", "ascii"])
def test_check_ends_with_its_verdict_in_any_encoding(encoding, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "peft_scratch.cli", "check", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    # Typer takes an ASCII stream for a mistake and writes UTF-8 to it, as Python itself does in the C locale.
    assert (done.stdout or done.stderr).decode("utf-8" if encoding == "ascii" else encoding).strip()
