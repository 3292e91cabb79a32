"""Weight files read without torch: what torch.save writes, in all its formats, and nothing else."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from peft_scratch.assignment import RUNS
from peft_scratch.exactness.t5_configs import t5_config
from peft_scratch.libraries import method_of
from peft_scratch.methods import apply, count_parameters
from peft_scratch.submission import tensors, weights
from peft_scratch.submission.sizes import base_of_profile, sizes_of
from submission.parts import FIRST_B, saved
from submission.parts import weights as right_weights

ENTRIES = {
    "plain": torch.randn(3, 4),
    "transposed": torch.randn(5, 3).T,
    "a view": torch.randn(100)[10:20],
    "a scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "half": torch.randn(4).half(),
    "bfloat": torch.randn(7, 2).bfloat16(),
    "double": torch.randn(4).double(),
    "whole": torch.arange(5),
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pickle_protocol": 3},
        {"pickle_protocol": 4},
        {"pickle_protocol": 5},
        {"_use_new_zipfile_serialization": False},
    ],
    ids=["zip", "protocol 3", "protocol 4", "protocol 5", "before torch 1.6"],
)
def test_what_torch_saves_is_read_as_torch_reads_it(options):
    shared = torch.randn(6)
    content = {
        **ENTRIES,
        "shared": shared,
        "shared too": shared[2:],
        "own": torch.nn.Parameter(torch.randn(2, 2)),
    }
    read = tensors.read(saved(content, **options))
    assert list(read.entries) == list(content)
    for name, tensor in content.items():
        np.testing.assert_array_equal(read.entries[name], tensor.detach().float().numpy(), err_msg=name)
    assert (read.types["half"], read.types["bfloat"], read.types["plain"]) == (
        "float16",
        "bfloat16",
        "float32",
    )
    assert read.old == ("_use_new_zipfile_serialization" in options)


def test_a_state_dict_with_its_metadata_is_read():
    read = tensors.read(saved(torch.nn.Linear(3, 2).state_dict()))
    assert {name: entry.shape for name, entry in read.entries.items()} == {"weight": (2, 3), "bias": (2,)}


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (lambda: b"", tensors.Damaged),
        (lambda: saved(ENTRIES)[:-300], tensors.Damaged),
        (lambda: saved(ENTRIES, _use_new_zipfile_serialization=False)[:-30], tensors.Damaged),
        (lambda: pickle.dumps(ENTRIES), tensors.Foreign),
        (lambda: pickle.dumps({"a": 1.5}), tensors.Damaged),
        (lambda: saved({"a": Harmful()}), tensors.Foreign),
        (lambda: saved({"a": Harmful()}, _use_new_zipfile_serialization=False), tensors.Foreign),
        (lambda: saved([torch.zeros(2)]), tensors.NotTensors),
        (lambda: saved({"a": {"b": torch.zeros(2)}}), tensors.NotTensors),
        (lambda: saved({"a": torch.ones(1).expand(10**11)}), tensors.NotTensors),
        (lambda: saved(torch.zeros(2)), tensors.NotTensors),
        (lambda: b"x" + saved(ENTRIES), tensors.Damaged),
        (lambda: saved(ENTRIES) + b"x", tensors.Foreign),
    ],
)
def test_anything_else_is_refused(data, error):
    with pytest.raises(error):
        tensors.read(data())


def test_numbers_that_reach_beyond_their_storage_are_refused():
    plain = zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(4, 4)})))
    members = {name: plain.read(name) for name in plain.namelist()}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name, content in members.items():
            made.writestr(name, content[:8] if name.endswith("data/0") else content)
    with pytest.raises(tensors.Damaged, match="cut short"):
        tensors.read(data.getvalue())


@pytest.mark.parametrize(("profile", "base"), [("course", "t5-small"), ("offline", "offline")])
def test_the_sizes_are_those_of_the_layers_that_are_trained(profile, base):
    with torch.device("meta"):
        from transformers import T5ForConditionalGeneration

        config = t5_config(base)
        untouched = count_parameters(T5ForConditionalGeneration(config))
        assert base_of_profile(profile).parameters == untouched
        for run in RUNS.values():
            sizes, method = sizes_of(run.id, profile), method_of(run)
            assert sizes.added == method.added_parameters(config)
            assert sizes.whole == untouched + sizes.added
            if run.weight_file:
                named = apply(method, T5ForConditionalGeneration(config)).model.named_parameters()
                assert sizes.entries == {name: tuple(p.shape) for name, p in named if method.declares(name)}


@pytest.mark.parametrize(
    ("run", "change", "said"),
    [
        (
            "lora_scratch_r8",
            lambda e: {n: v * (1e-12 if n.endswith("_B") else 1) for n, v in e.items()},
            "36 of 36",
        ),
        (
            "lora_scratch_r8",
            lambda e: {n: v * (0 if n.endswith("_A") else 1) for n, v in e.items()},
            "only zeros",
        ),
        ("lora_scratch_r8", lambda e: {**e, FIRST_B: e[FIRST_B] * 1e-3}, None),
        ("prompt_scratch_n10", lambda e: {n: v * 0 for n, v in e.items()}, "a prompt of zeros"),
        (
            "adapter_scratch_b8",
            lambda e: {n: v * (0 if ".2.weight" in n else 1) for n, v in e.items()},
            "12 of 12",
        ),
        ("adapter_scratch_b8", lambda e: e, None),
    ],
)
def test_what_was_not_trained_is_named(run, change, said):
    entries = {name: entry.numpy() for name, entry in right_weights()[RUNS[run].weight_file].items()}
    found = weights.untrained(change(entries), RUNS[run], "course")
    assert found is None if said is None else said in found


def test_a_pickle_that_appends_to_a_dictionary_is_damaged():
    """An empty dictionary, a number, and the opcode that adds the number to it as to a list."""
    with pytest.raises(tensors.Damaged, match="not a list"):
        tensors.read(b"\x80\x02}K\x01a.")
