"""Delta files: the course's keys, shapes and sizes; round trips; and every refusal, in one sentence."""

from __future__ import annotations

import collections
import gc
import io
import os
import pathlib
import pickle
import re
import sys

import pytest
import torch
from conftest import make_t5
from test_counts import T5_SMALL, tuned_on

from peft_scratch.errors import UserError
from peft_scratch.methods import Adapter, LoRA, SoftPrompt, apply, load_delta, read_delta, save_delta
from peft_scratch.methods.checkpoint import serialised

METHODS = [LoRA(rank=4), Adapter(bottleneck=4), SoftPrompt(virtual_tokens=4)]


def tuned_model(method, seed=0):
    """A model with `method` in it, its own parameters random."""
    tuned = apply(method, make_t5())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in tuned.trainable:
            p = tuned.model.get_parameter(name)
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return tuned.model


def own(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "sharif_llm" in name}


@pytest.fixture
def lora_file(tmp_path):
    """`lora.pt` of a model with rank 4, and its entries."""
    model = tuned_model(LoRA(rank=4))
    save_delta(model, tmp_path / "lora.pt")
    return tmp_path / "lora.pt", read_delta(tmp_path / "lora.pt")


# What is in a file

ATTENTION = [
    *(f"encoder.block.{i}.layer.0.SelfAttention" for i in range(6)),
    *(f"decoder.block.{i}.layer.0.SelfAttention" for i in range(6)),
    *(f"decoder.block.{i}.layer.1.EncDecAttention" for i in range(6)),
]
FEED_FORWARD = [f"encoder.block.{i}.layer.1" for i in range(6)] + [
    f"decoder.block.{i}.layer.2" for i in range(6)
]
COURSE = [
    (
        SoftPrompt(10),
        {"encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb": (10, 512)},
        21_000,
    ),
    (
        Adapter(8),
        {
            f"{layer}.adapter.sharif_llm_adapter.{end}": shape
            for layer in FEED_FORWARD
            for end, shape in {
                "0.weight": (8, 512),
                "0.bias": (8,),
                "2.weight": (512, 8),
                "2.bias": (512,),
            }.items()
        },
        434_000,
    ),
    (
        LoRA(8),
        {
            f"{layer}.{target}.sharif_llm_{letter}": shape
            for layer in ATTENTION
            for target in "qv"
            for letter, shape in {"A": (512, 8), "B": (8, 512)}.items()
        },
        1_200_000,
    ),
]


@pytest.mark.parametrize(("method", "shapes", "size"), COURSE, ids=["prompts.pt", "adapter.pt", "lora.pt"])
def test_the_course_s_files_to_the_letter(method, shapes, size, tmp_path):
    model = tuned_on(method, T5_SMALL).model.to_empty(device="cpu")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "sharif_llm" in name:
                p.zero_()
    save_delta(model, tmp_path / "delta.pt")
    entries = torch.load(tmp_path / "delta.pt", weights_only=True)
    assert type(entries) is dict
    assert {name: tuple(entry.shape) for name, entry in entries.items()} == shapes
    for entry in entries.values():
        assert type(entry) is torch.Tensor and entry.dtype == torch.float32 and entry.device.type == "cpu"
        assert entry.is_contiguous() and not entry.requires_grad
        assert entry.untyped_storage().nbytes() == entry.numel() * 4  # nothing hidden behind a view
    assert abs((tmp_path / "delta.pt").stat().st_size / size - 1) < 0.06


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_there_and_back(method, tmp_path, batch):
    model = tuned_model(method)
    save_delta(model, tmp_path / "deep" / "er" / "delta.pt")
    again = apply(method, make_t5()).model
    assert not torch.equal(again(**batch).logits, model(**batch).logits)
    load_delta(again, tmp_path / "deep" / "er" / "delta.pt")
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["delta.pt"]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_hot_swap_leaves_no_trace(method, tmp_path, batch):
    expected = {}
    for seed in (1, 2):
        model = tuned_model(method, seed)
        save_delta(model, tmp_path / f"{seed}.pt")
        expected[seed] = model(**batch).logits
    for seed in (1, 2, 1):
        load_delta(model, tmp_path / f"{seed}.pt")
        assert torch.equal(model(**batch).logits, expected[seed])


def test_the_bytes_depend_on_the_weights_alone(tmp_path):
    save_delta(tuned_model(LoRA()), tmp_path / "a.pt")
    save_delta(tuned_model(LoRA()), tmp_path / "another_name.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another_name.pt").read_bytes()


def test_a_library_s_names(tmp_path, batch):
    # Any other name will do too, if it is declared: that is how the libraries' weights are saved.
    def declared(name):
        return name.endswith("q.weight")

    model = make_t5()
    save_delta(model, tmp_path / "q.pt", declared)
    assert len(read_delta(tmp_path / "q.pt")) == 6
    other = make_t5(seed=1)
    load_delta(other, tmp_path / "q.pt", declared)
    for name, p in other.named_parameters():
        assert torch.equal(p, model.get_parameter(name)) == (declared(name) or "layer_norm" in name)


# Files by other students


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: {name: entry.half() for name, entry in entries.items()},
        lambda entries: {name: entry.bfloat16() for name, entry in entries.items()},
        lambda entries: {name: entry.double() for name, entry in entries.items()},
        lambda entries: {name: torch.nn.Parameter(entry) for name, entry in entries.items()},
        lambda entries: {name: entry.T.contiguous().T for name, entry in entries.items()},
        lambda entries: dict(reversed(entries.items())),
        lambda entries: collections.OrderedDict(entries),
        lambda entries: {
            **make_t5().state_dict(),
            **entries,
        },  # the course's loader passes over the base's too
    ],
    ids=["half", "bfloat16", "double", "parameter", "strided", "reversed", "OrderedDict", "whole model"],
)
def test_other_forms_of_the_same_file_are_taken(change, lora_file):
    path, entries = lora_file
    torch.save(change(entries), path)
    model = apply(LoRA(rank=4), make_t5(seed=5)).model
    before = model.shared.weight.clone()
    load_delta(model, path)
    for name, p in own(model).items():
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, entries[name], rtol=0, atol=2e-3)  # bfloat16 has eight bits
    assert torch.equal(model.shared.weight, before)


def test_the_old_format_of_torch_is_taken(lora_file):
    path, entries = lora_file
    torch.save(entries, path, _use_new_zipfile_serialization=False)
    assert all(torch.equal(entry, entries[name]) for name, entry in read_delta(path).items())


# Refusals

FIRST = "encoder.block.0.layer.0.SelfAttention.q.sharif_llm_A"
SECOND = "encoder.block.0.layer.0.SelfAttention.q.sharif_llm_B"


def without(entries, name):
    return {key: entry for key, entry in entries.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: without(e, FIRST), rf"lacks the entry {FIRST}\.$"),
        (
            lambda e: {**without(e, FIRST), "my_sharif_llm_A": e[FIRST]},
            f"lacks .*{FIRST} .*my_sharif_llm_A instead",
        ),
        (lambda e: {**e, "sharif_llm_more": e[FIRST]}, "has an entry sharif_llm_more"),
        (lambda e: {**e, FIRST: e[FIRST].T}, f"input width 4 in the file, 32 in the model, at {FIRST}"),
        (
            lambda e: {**e, SECOND: e[SECOND].flatten()},
            re.escape("shape (128,) in the file, (4, 32) in the model"),
        ),
        (lambda e: {}, "lacks the entry"),
        (lambda e: {key.replace("sharif_llm", "lora"): entry for key, entry in e.items()}, "lacks the entry"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, message, lora_file):
    path, entries = lora_file
    torch.save(change(entries), path)
    model = apply(LoRA(rank=4), make_t5()).model
    before = own(model)
    with pytest.raises(UserError, match=message) as caught:
        load_delta(model, path)
    assert str(path) in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in own(model).items())


@pytest.mark.parametrize(
    ("wrote", "reads", "message"),
    [
        (LoRA(4), LoRA(8), "rank 4 in the file, 8 in the model"),
        (Adapter(4), Adapter(8), "bottleneck 4 in the file, 8 in the model"),
        (SoftPrompt(4), SoftPrompt(10), "number of prompt rows 4 in the file, 10 in the model"),
        (LoRA(4), Adapter(8), "lacks .*sharif_llm_adapter.*sharif_llm_A instead"),
        (SoftPrompt(4), LoRA(4), "lacks .*sharif_llm_A.*prompt_emb instead"),
        (LoRA(4, targets=("q",)), LoRA(4), r"lacks the entry .*\.v\.sharif_llm_A"),
        (LoRA(4), LoRA(4, targets=("q",)), r"has an entry .*\.v\.sharif_llm_A that the model has not"),
    ],
    ids=str,
)
def test_a_file_of_another_size_or_method_is_refused(wrote, reads, message, tmp_path):
    save_delta(tuned_model(wrote), tmp_path / "delta.pt")
    with pytest.raises(UserError, match=message):
        load_delta(apply(reads, make_t5()).model, tmp_path / "delta.pt")


def test_a_file_of_another_model_is_refused(tmp_path):
    save_delta(tuned_model(SoftPrompt(4)), tmp_path / "delta.pt")
    model = apply(SoftPrompt(4), make_t5(d_model=48)).model
    with pytest.raises(UserError, match="width 32 in the file, 48 in the model"):
        load_delta(model, tmp_path / "delta.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({"a": [1.0]}, "'a'.*is a list, not a tensor"),
        ({"state_dict": {"a": torch.ones(2)}}, "'state_dict'.*is a dict, not a tensor"),
        ({1: torch.ones(2)}, "1.*key is a int"),
        ({"a": torch.ones(2, dtype=torch.long)}, "'a'.*torch.int64"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "'a'.*torch.complex64"),
        ({"a": torch.eye(2).to_sparse()}, "'a'.*torch.sparse"),
        ({"a": torch.empty(2, device="meta")}, "'a'.*not an ordinary"),
        ({"a": torch.ones(1).expand(10**12)}, "'a'.*larger than the numbers stored"),
        ({"a": torch.tensor([1.0, float("nan")])}, "'a'.*NaN or infinity"),
        ({"a": torch.tensor([1.0, float("-inf")])}, "'a'.*NaN or infinity"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_a_dictionary_of_numbers_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message):
        read_delta(tmp_path / "x.pt")


class Malicious:
    """Unpickled, it makes a file called `owned`."""

    def __init__(self, folder):
        self.target = folder / "owned"

    def __reduce__(self):
        return pathlib.Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("by_torch", [True, False])
def test_pickled_code_is_refused_and_not_run(by_torch, tmp_path):
    path, content = tmp_path / "x.pt", {FIRST: Malicious(tmp_path)}
    if by_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"Python objects besides tensors|not a tensor file"):
        read_delta(path)
    assert not (tmp_path / "owned").exists()
    if by_torch:  # the trap is a real one
        torch.load(path, weights_only=False)
        assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99, -1])
def test_a_truncated_file_is_refused(kept, lora_file):
    path, _ = lora_file
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match="not a tensor file, or is cut short"):
        read_delta(path)


@pytest.mark.parametrize("content", [b"hello\n", b"{}", b"PK\x03\x04", os.urandom(2000), b"\x80\x02."])
def test_another_kind_of_file_is_refused(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match="not a tensor file"):
        read_delta(tmp_path / "x.pt")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        read_delta(tmp_path / "x.pt")
    with pytest.raises(UserError, match="is a folder"):
        read_delta(tmp_path)


def test_a_model_without_a_method_is_refused(tmp_path, lora_file):
    with pytest.raises(UserError, match="apply a method"):
        save_delta(make_t5(), tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()
    with pytest.raises(UserError, match="apply a method"):
        load_delta(make_t5(), lora_file[0])


# Writing


def test_a_failed_write_keeps_the_old_file(lora_file, monkeypatch):
    path, _ = lora_file
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"{path}: No space left on device"):
        save_delta(tuned_model(LoRA(rank=4), seed=8), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["lora.pt"]


def test_the_bytes_to_write_are_no_view_of_a_buffer():
    """In a cycle with a failed write's exception, a view crashed Python 3.12.1: python/cpython#111049."""
    data = serialised({"a": torch.ones(2)})
    assert type(data) is bytes
    assert torch.load(io.BytesIO(data), weights_only=True)["a"].tolist() == [1, 1]


def test_a_failed_write_leaves_nothing_that_cannot_be_collected(tmp_path, monkeypatch):
    """The same, as it happened: it ended Python 3.12.1, and from 3.13 on it raised an unraisable error."""

    def full(*_):
        raise OSError(28, "No space left on device")

    reported = []
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    with pytest.raises(UserError, match="No space left on device"):
        save_delta(tuned_model(LoRA(rank=4)), tmp_path / "x.pt")
    gc.collect()
    assert reported == []


def test_the_new_file_takes_the_old_one_s_place_at_once(lora_file):
    path, _ = lora_file
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_delta(tuned_model(LoRA(rank=4), seed=8), path)
        assert reader.read() == before  # it was not written over, but moved away from
    assert path.read_bytes() != before


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.pt", tmp_path):
        with pytest.raises(UserError, match="Could not write"):
            save_delta(tuned_model(LoRA()), path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
