"""The numbers measured again from the weights."""

from __future__ import annotations

from peft_scratch.experiments.session import Session
from peft_scratch.methods import read_delta
from peft_scratch.submission import check
from peft_scratch.submission.deep import reproduce
from peft_scratch.submission.findings import ERROR, READY, REHEARSAL
from submission.parts import (
    an_offline_notebook,
    pdf,
    report_lines,
    weights,
)

# Reproducing


def test_deep_reproduces_the_number_or_says_that_it_does_not(tmp_path):
    bench = Session.open("smoke", output=tmp_path)
    kept = bench.prepare("adapter_scratch_b8").train()
    entries = read_delta(tmp_path / "weights" / "adapter.pt")
    percent = kept.percent
    arguments = {"adapter_scratch_b8": entries}, {"adapter_scratch_b8": percent}, "smoke"
    (found,) = reproduce(*arguments)
    assert (found.item, found.mark, found.code) == (3, "✓", "reproduced")
    (found,) = reproduce(arguments[0], {"adapter_scratch_b8": percent + 5}, "smoke")
    assert (found.item, found.mark, found.code) == (3, "✗", "not-reproducible")
    assert f"gives {percent:.1f} %; reported: {percent + 5:.1f} %" in found.text


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
    assert (checked.verdict, checked.marked(ERROR)) == (REHEARSAL, [])
