"""The catalogue: names go there and back, and a call that is shown is the call that is made."""

from __future__ import annotations

import copy

import pytest

from peft_scratch.errors import UserError
from peft_scratch.libraries import catalogue
from peft_scratch.libraries.catalogue import AS_OURS, NAMES, PEFT_FOLDER_NAMES, adapterhub_names, call, calls
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, SoftPrompt, apply, count_parameters

METHODS = {"lora": LoRA(3), "adapter": Adapter(5), "soft_prompt": SoftPrompt(4)}


@pytest.mark.parametrize(("kind", "library"), NAMES, ids=str)
def test_a_name_goes_there_and_back(kind, library, tiny_t5):
    names = NAMES[kind, library]
    theirs = call(METHODS[kind], library, tiny_t5.config).put_into(copy.deepcopy(tiny_t5))
    for name, parameter in apply(METHODS[kind], tiny_t5).model.named_parameters():
        if "sharif_llm" in name:
            other = names.theirs(name)
            assert names.turned(theirs.get_parameter(other)).shape == parameter.shape
            assert names.ours(other) == name


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (PEFT_FOLDER_NAMES["lora"], "encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"),  # no prefix
        (PEFT_FOLDER_NAMES["lora"], "base_model.model.encoder.block.0.layer.0.SelfAttention.q.weight"),
        (PEFT_FOLDER_NAMES["soft_prompt"], "prompt_encoder.weight"),
        (adapterhub_names("one"), "encoder.block.0.layer.1.adapters.two.adapter_up.weight"),
        (NAMES["adapter", "AdapterHub"], "encoder.block.0.layer.1.adapter.sharif_llm_adapter.0.weight"),
    ],
)
def test_another_name_is_none_of_the_method(names, wrong):
    assert names.ours(wrong) is None


def test_a_call_is_shown_as_it_is_made(tiny_t5):
    shown = [str(one) for method in METHODS.values() for one in calls(method, tiny_t5.config)]
    assert "LoraConfig(r=3, lora_alpha=4)" in shown
    assert f"SeqBnConfig(reduction_factor={32 / 5.5})" in shown  # 32 // (32 / 5) is 4
    assert "SoftPromptModel(model, soft_token_num=4)" in shown
    assert (
        "AdapterModel(model, bottleneck_dim=5, non_linearity='relu', modified_modules="
        r"[r'[r]encoder\.block\.\d+\.layer\.1', r'[r]decoder\.block\.\d+\.layer\.2'])"
    ) in shown
    for method in METHODS.values():
        for one in calls(method, tiny_t5.config):
            start = {"OpenDelta": "model, "}.get(one.library, "")
            arguments = str(one).removeprefix(f"{one.name}({start}").removesuffix(")")
            assert one.settings == (eval(f"dict({arguments})") if one.settings else {})


@pytest.mark.parametrize("kind", METHODS)
def test_as_ours_adds_what_ours_adds(kind, tiny_t5):
    method = METHODS[kind]
    expected = method.added_parameters(tiny_t5.config)
    same = [one for one in calls(method, tiny_t5.config) if one.setting == AS_OURS]
    assert len(same) == (3 if kind == "lora" else 2)
    for one in same:
        model = one.put_into(copy.deepcopy(tiny_t5))
        assert count_parameters(model) - count_parameters(tiny_t5) == expected, str(one)


def test_no_library_is_called_for_full_fine_tuning(tiny_t5):
    assert calls(FullFineTuning(), tiny_t5.config) == []


def test_a_missing_library_is_said(tiny_t5, monkeypatch):
    def missing() -> None:
        raise UserError("The library PEFT cannot be imported.")

    monkeypatch.setattr(catalogue, "import_peft", missing)
    with pytest.raises(UserError, match="PEFT cannot be imported"):
        call(LoRA(), "PEFT", tiny_t5.config).put_into(tiny_t5)
