"""The proofs that a notebook shows: their rows, and that they fail when they should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peft_scratch.errors import UserError
from peft_scratch.exactness import proofs
from peft_scratch.exactness.pairs import PAIRS
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt
from peft_scratch.notebook.toy import t5_small


@pytest.mark.parametrize(("method", "libraries"), [(LoRA(8), 4), (Adapter(1), 2), (SoftPrompt(10), 2)])
def test_equal_to_the_libraries(method: Method, libraries: int, tiny_t5, batch):
    header, rows = proofs.equal_to_the_libraries(method, tiny_t5, batch)
    assert len(rows) == libraries
    for row in rows:
        assert len(row) == len(header)
        assert max(map(float, row[1:4])) <= 1e-6 < float(row[4])


def test_a_library_that_differs_is_noticed(tiny_t5, batch, monkeypatch):
    pair = next(pair for pair in PAIRS if pair.ours == LoRA(8) and pair.library == "PEFT")
    # The library with another scaling: alpha 8 where ours is 4.
    from peft_scratch.libraries import PeftLoRA

    wrong = replace(pair, build=lambda model: PeftLoRA(8, alpha=8.0).inject(model)[0])
    monkeypatch.setattr(proofs, "PAIRS", (wrong,))
    with pytest.raises(AssertionError, match="PEFT"):
        proofs.equal_to_the_libraries(LoRA(8), tiny_t5, batch)


def test_a_size_that_is_not_compared(tiny_t5, batch):
    with pytest.raises(UserError, match=r"no comparison of LoRA\(rank=3"):
        proofs.equal_to_the_libraries(LoRA(3), tiny_t5, batch)


def test_counted_in_the_libraries():
    header, rows = proofs.counted_in_the_libraries(LoRA(8), t5_small().config)
    assert header == ("library", "by hand", "counted", "what differs")
    assert ("OpenDelta, defaults", "196,608", "196,608") in [row[:3] for row in rows]
    assert len(rows) == 6
