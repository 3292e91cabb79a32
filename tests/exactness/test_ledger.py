"""The ledger: the assignment's figures, every known model, every library's count, and no memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict

import pytest
from conftest import TINY, make_t5
from typer.testing import CliRunner

from peft_scratch.cli import app
from peft_scratch.errors import UserError
from peft_scratch.exactness.ledger import METHODS, account, base_steps, ledger
from peft_scratch.exactness.t5_configs import KNOWN, empty_t5, t5_config
from peft_scratch.libraries import opendelta_compat
from peft_scratch.methods import Adapter, LoRA, SoftPrompt, apply, count_parameters, save_delta

# The totals that are public for these models, less their tied copies.
TOTALS = {
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "flan-t5-small": 76_961_152,
    "flan-t5-base": 247_577_856,
    "flan-t5-large": 783_150_080,
    "flan-t5-xl": 2_849_757_184,
    "flan-t5-xxl": 11_135_332_352,
}


@pytest.fixture(scope="module")
def t5_small():
    return ledger("google-t5/t5-small")


def test_the_assignments_figures(t5_small):
    assert t5_small.parameters == 60_506_624
    figures = {a.kind: (a.size, a.added, a.trainable, a.whole) for a in t5_small.accounts}
    assert figures == {
        "full": ("", 0, 60_506_624, 60_506_624),
        "soft_prompt": ("N = 10", 5_120, 5_120, 60_511_744),
        "adapter": ("b = 8", 104_544, 104_544, 60_611_168),
        "lora": ("r = 8", 294_912, 294_912, 60_801_536),
    }
    # Four bytes of gradient and twice four of AdamW's state for each parameter that trains.
    costs = {a.kind: (a.gradient_bytes, a.optimiser_bytes) for a in t5_small.accounts}
    assert costs["full"] == (242_026_496, 484_052_992)
    assert costs["lora"] == (1_179_648, 2_359_296)


def test_what_the_libraries_count(t5_small):
    counted = {
        (a.kind, c.library, c.setting): (c.by_hand, c.counted, c.difference)
        for a in t5_small.accounts
        for c in a.libraries
    }
    assert counted == {
        ("soft_prompt", "PEFT", "defaults"): (10_240, 10_240, 5_120),
        ("soft_prompt", "PEFT", "as ours"): (5_120, 5_120, 0),
        ("soft_prompt", "OpenDelta", "defaults"): (51_200, 51_200, 46_080),
        ("soft_prompt", "OpenDelta", "as ours"): (5_120, 5_120, 0),
        ("soft_prompt", "AdapterHub", ""): (None, None, None),
        ("adapter", "AdapterHub", "defaults"): (399_744, 399_744, 295_200),
        ("adapter", "AdapterHub", "as ours"): (104_544, 104_544, 0),
        ("adapter", "AdapterHub", "double_seq_bn"): (799_488, 799_488, 694_944),
        ("adapter", "OpenDelta", "defaults"): (602_688, 602_688, 498_144),
        ("adapter", "OpenDelta", "as ours"): (104_544, 104_544, 0),
        ("adapter", "PEFT", ""): (None, None, None),
        ("lora", "PEFT", "defaults"): (294_912, 294_912, 0),
        ("lora", "PEFT", "as ours"): (294_912, 294_912, 0),
        ("lora", "AdapterHub", "defaults"): (294_912, 294_912, 0),
        ("lora", "AdapterHub", "as ours"): (294_912, 294_912, 0),
        ("lora", "OpenDelta", "defaults"): (196_608, 196_608, -98_304),
        ("lora", "OpenDelta", "as ours"): (294_912, 294_912, 0),
    }


def test_the_derivation_reads_as_one_does_it_by_hand(t5_small):
    steps = next(a.steps for a in t5_small.accounts if a.kind == "lora")
    assert [(s.symbols, s.numbers, s.value) for s in steps] == [
        ("L_enc + 2·L_dec", "6 + 2·6", 18),
        ("d·r + r·d'", "512·8 + 8·512", 8_192),
        ("(L_enc + 2·L_dec)·2·(d·r + r·d')", "(6 + 2·6)·2·(512·8 + 8·512)", 294_912),
    ]
    # The numbers say what the value is, to anyone's arithmetic.
    for step in (step for a in t5_small.accounts for step in a.steps):
        assert eval(step.numbers.replace("·", "*")) == step.value
    for step in t5_small.steps:
        assert eval(step.numbers.replace("·", "*")) == step.value


@pytest.mark.parametrize(
    ("method", "size"), [(SoftPrompt, 10), (SoftPrompt, 1), (Adapter, 8), (Adapter, 1), (LoRA, 8), (LoRA, 1)]
)
def test_the_file_is_as_long_as_it_will_be(method, size, tmp_path):
    make_t5().config.save_pretrained(tmp_path)
    save_delta(apply(method(size), make_t5()).model, tmp_path / "delta.pt")
    account = ledger(tmp_path, method=method.kind, size=size).accounts[0]
    assert account.file_bytes == (tmp_path / "delta.pt").stat().st_size


def test_the_assignments_files(t5_small):
    lengths = {a.kind: a.file_bytes for a in t5_small.accounts}
    assert round(lengths["soft_prompt"] / 1000) in (21, 22)
    assert round(lengths["adapter"] / 1000) == 434
    assert round(lengths["lora"] / 1e6, 1) == 1.2


@pytest.mark.parametrize("model", KNOWN)
def test_every_known_model_by_hand(model):
    assert base_steps(t5_config(model))[-1].value == TOTALS[model]


@pytest.mark.parametrize("kind", ["soft_prompt", "adapter", "lora"])
def test_any_shape_of_t5(kind, tmp_path):
    """Attention wider than the model, more decoder layers, gated, untied: hand and count still agree."""
    model = make_t5(
        num_heads=3, num_decoder_layers=3, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    )
    model.config.save_pretrained(tmp_path)
    result = ledger(tmp_path / "config.json", method=kind, size=5)
    assert result.parameters == count_parameters(model)
    for count in result.accounts[0].libraries:
        assert count.counted == count.by_hand, count
        assert count.setting != "as ours" or count.difference == 0, count


def test_t5_11b_takes_neither_time_nor_memory():
    """The whole command in a process of its own, all methods and libraries, from its start to its exit.

    Processor time, since wall time depends on what else the machine does; twice the 10 s that were measured
    on a busy core, for slower machines. Half of them are the import of torch and transformers.
    """
    program = """
import re, sys
from pathlib import Path
from typer.testing import CliRunner
from peft_scratch.cli import app
done = CliRunner().invoke(app, ["parameters", "t5-11b"])
assert done.exit_code == 0, done.output
assert "11,307,321,344" in done.output and "not installed" not in done.output
print([name for name in ("datasets", "matplotlib") if name in sys.modules])
# Not getrusage's peak, which begins with that of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) / 2**20)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    heavy, gibibytes = done.stdout.splitlines()[-2:]
    assert heavy == "[]"
    assert float(gibibytes) < 1
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20


def test_a_missing_library_is_said_and_the_rest_is_counted(tmp_path, monkeypatch):
    make_t5().config.save_pretrained(tmp_path)

    def missing() -> None:
        raise UserError("The library OpenDelta cannot be imported.")

    monkeypatch.setattr("peft_scratch.libraries.catalogue.import_opendelta", missing)
    rows = ledger(tmp_path, method="lora").accounts[0].libraries
    assert {row.reason for row in rows if row.library == "OpenDelta"} == {
        "The library OpenDelta cannot be imported."
    }
    assert all(row.counted is None for row in rows if row.library == "OpenDelta")
    assert all(row.counted == row.by_hand for row in rows if row.library != "OpenDelta")
    assert opendelta_compat.import_opendelta is not missing


def test_the_base_is_left_as_it_was():
    """One base serves every method and library in turn, by copies: none may find another in there."""
    base = empty_t5(make_t5().config)
    plain = {name: (type(m), sorted(vars(m))) for name, m in base.named_modules()}
    for kind, make in METHODS.items():
        alone = account(make(), empty_t5(base.config))
        assert account(make(), base) == alone, kind
    assert plain == {name: (type(m), sorted(vars(m))) for name, m in base.named_modules()}
    assert all(p.is_meta and p.requires_grad for p in base.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in base.modules())


def _config(**changes: object) -> str:
    return json.dumps({"model_type": "t5", **TINY, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "its model_type is not t5"),
        (_config(model_type="bert"), "its model_type is not t5"),
        (_config(d_model="wide"), "d_model has to be a whole number"),
        (_config(num_layers=0), "num_layers has to be a whole number"),
        (_config(feed_forward_proj="gated-a-b"), "is not the configuration of a T5"),
    ],
)
def test_a_wrong_configuration(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        ledger(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t6-small"], "There is no T5 called 't6-small' here: give one of t5-small, "),
        (["--method", "bitfit"], "There is no method 'bitfit'; choose one of full, "),
        (["--size", "4"], "A size belongs to one method"),
        (["--method", "full", "--size", "4"], "A size belongs to one method"),
        (["--method", "lora", "--size", "0"], "LoRA's rank has to be a whole number of at least 1"),
    ],
)
def test_a_wrong_command(arguments, message):
    done = CliRunner().invoke(app, ["parameters", *arguments])
    assert done.exit_code == 2
    assert message in done.output


def test_the_command(tmp_path):
    make_t5().config.save_pretrained(tmp_path)
    done = CliRunner().invoke(
        app, ["parameters", str(tmp_path), "--method", "adapter", "--json", str(tmp_path / "ledger.json")]
    )
    assert done.exit_code == 0, done.output
    assert "(2 + 2)·(32·8 + 8 + 8·32 + 32)" in done.output
    assert r"r'[r]encoder" in done.output  # a regular expression, not a style
    written = json.loads((tmp_path / "ledger.json").read_text())
    assert written == json.loads(json.dumps(asdict(ledger(tmp_path, method="adapter"))))
    assert written["accounts"][0]["added"] == 4 * (32 * 8 + 8 + 8 * 32 + 32)
