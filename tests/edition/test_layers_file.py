"""layers.py: loaded, and loaded again when it was saved again."""

import os
import sys

import pytest
from transformers import T5Config

from peft_scratch.edition import layers_file
from peft_scratch.errors import UserError
from peft_scratch.methods import lora


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An empty `layers.py`, which the kit takes for the student's."""
    path = tmp_path / "layers.py"
    monkeypatch.setattr(layers_file, "PATH", path)
    monkeypatch.setattr(layers_file, "_state", {"module": None, "stamp": None, "asked": set()})
    monkeypatch.delitem(sys.modules, "layers", raising=False)
    yield path
    sys.modules.pop("layers", None)


def _save(file, text):
    file.write_text(text)
    later = file.stat().st_mtime_ns + _save.calls * 1_000_000
    os.utime(file, ns=(later, later))
    _save.calls += 1


_save.calls = 1


def test_a_function_is_the_one_that_is_saved_now(file):
    _save(file, "def f(x):\n    return x + 1\n")
    f = layers_file.of_student("f")
    assert f(1) == 2 and f.__name__ == "f"
    _save(file, "def f(x):\n    return x + 2\n")
    assert f(1) == 3


def test_a_class_is_replaced_where_the_kit_holds_it(file, monkeypatch):
    module = type(sys)("peft_scratch.methods.for_this_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    _save(file, "class A:\n    size = 1\n")
    module.Layer = layers_file.of_student("A")
    assert module.Layer.size == 1
    _save(file, "class A:\n    size = 2\n")
    layers_file.current()
    assert module.Layer.size == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", r"layers.py, line 1: SyntaxError, .*; correct it and save the file\."),
        ("x = 1\ny = z\n", r"layers.py, line 2: NameError, name 'z' is not defined; correct it"),
        ("x = 1\n", r"layers.py defines no f: the kit calls it by that name\."),
    ],
)
def test_what_is_wrong_with_the_file_is_one_sentence(file, text, said):
    _save(file, "def f():\n    return 1\n")
    f = layers_file.of_student("f")
    assert f() == 1
    _save(file, text)
    with pytest.raises(UserError, match=said):
        f()
    _save(file, "def f():\n    return 2\n")
    assert f() == 2


def test_a_missing_file_is_named(file):
    with pytest.raises(UserError, match=r"layers.py is not in .*: put the file of the edition back"):
        layers_file.current()


def test_other_code_is_another_run_and_comments_are_not(file):
    _save(file, "def lora():\n    return 1\n\n\ndef adapter():\n    return 1\n")
    whole, lora = layers_file.fingerprint(set()), layers_file.fingerprint({"adapter"})
    _save(file, "def lora():\n    # the same\n    return 1\n\n\ndef adapter():\n    return 2\n")
    assert layers_file.fingerprint({"adapter"}) == lora
    assert layers_file.fingerprint(set()) != whole


def test_the_whole_kit_uses_no_students_code():
    import peft_scratch.experiments.session  # noqa: F401

    assert not layers_file.in_use()


def test_a_method_asks_for_its_own_formulas_only(monkeypatch):
    """Whoever has written LoRA alone can train it."""

    def blank():
        raise NotImplementedError("feed_forward_layers is still blank.")

    monkeypatch.setattr(lora, "feed_forward_layers", blank)
    assert lora.LoRA(8).derivation(T5Config()).value == 294_912
    with pytest.raises(NotImplementedError):
        lora.LoRA(8, targets=("wi",)).derivation(T5Config())
