"""What people do to a tuned model beside the table of operations: it works, or one sentence says why not."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from conftest import make_t5
from test_operations import METHODS, logits, trained
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.methods import (
    Adapter,
    LoRA,
    SoftPrompt,
    apply,
    base_of,
    load_delta,
    merge,
    read_delta,
    save_delta,
    unmerge,
)
from peft_scratch.notebook.toy import take_steps, tiny_batch, tiny_t5

METHOD = METHODS["LoRA"]


class Owner(nn.Module):
    """As people keep a T5 in a module of their own, beside other layers."""

    def __init__(self, t5):
        super().__init__()
        self.t5, self.head = t5, nn.Linear(2, 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_model_inside_a_module_of_the_user_s_is_saved_under_its_own_names(name, tmp_path):
    method = METHODS[name]
    model, again, inside = (
        trained(method).model,
        apply(method, tiny_t5()).model,
        apply(method, tiny_t5()).model,
    )
    save_delta(Owner(model), tmp_path / "delta.pt", method.declares)
    load_delta(again, tmp_path / "delta.pt", method.declares)
    load_delta(Owner(inside), tmp_path / "delta.pt", method.declares)
    assert torch.equal(logits(again.eval()), logits(model))
    assert torch.equal(logits(inside.eval()), logits(model))


def test_of_two_models_in_one_none_is_chosen(tmp_path):
    both = nn.ModuleList([trained(METHOD).model, trained(METHODS["Adapter"]).model])
    with pytest.raises(UserError, match="Two models with a method are in it, 0 and 1"):
        save_delta(both, tmp_path / "delta.pt")
    assert not list(tmp_path.iterdir())


def test_an_average_of_weights_is_saved_too(tmp_path):
    model = trained(METHOD).model
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    save_delta(average, tmp_path / "lora.pt")
    again = apply(METHOD, tiny_t5()).model.eval()
    load_delta(again, tmp_path / "lora.pt")
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("name", METHODS)
def test_merging_one_model_leaves_others_on_its_base_alone(name):
    first = trained(METHOD)
    other = trained(METHODS[name], base_of(first))
    before, own, base = logits(other.model), logits(first.model), logits(tiny_t5())
    merge(first.model)
    assert torch.equal(logits(other.model), before)
    assert torch.equal(logits(base_of(other)), base)
    unmerge(first.model)
    assert torch.equal(logits(first.model), own)
    assert torch.equal(logits(other.model), before)


def test_a_merged_model_refuses_to_train_and_still_answers():
    model = trained(METHOD).model
    before = logits(model)
    merge(model)
    model.train()
    loss = model(**tiny_batch()).loss
    with pytest.raises(UserError, match=r"merged and would not train: call unmerge\(model\) first"):
        loss.backward()
    assert torch.allclose(logits(model.eval()), before, atol=1e-4)
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)  # nothing of LoRA is meant to train then
    model.train()(**tiny_batch()).loss.backward()
    unmerge(model.eval())
    assert torch.equal(logits(model), before)


def test_a_graph_from_before_merging_is_not_used_with_the_merged_weights():
    model = trained(METHOD).model
    loss = model(**tiny_batch()).loss
    merge(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_merging_in_inference_mode_leaves_a_model_that_trains():
    model = trained(METHOD).model
    before = logits(model)
    with torch.inference_mode():
        merge(model)
        assert torch.allclose(model(**tiny_batch()).logits, before, atol=1e-4)
    assert not any(p.is_inference() for p in model.parameters())
    unmerge(model)
    take_steps(model, tiny_batch(), 1)
    with torch.inference_mode():
        merge(model)
        unmerge(model)
    take_steps(model, tiny_batch(), 1)


def test_copies_of_a_merged_model_are_unmerged_on_their_own():
    model = trained(METHOD).model
    before = logits(model)
    merge(model)
    twin = copy.deepcopy(model)
    unmerge(twin)
    assert torch.equal(logits(twin), before)
    assert torch.allclose(logits(model), before, atol=1e-4) and not torch.equal(logits(model), before)


def shared_blocks(model):
    model.encoder.block[1] = model.encoder.block[0]


def other_configuration(model):
    model.config.d_ff = 128


def without_q(model):
    model.decoder.block[0].layer[1].EncDecAttention.q = nn.Identity()


def offloaded(model):
    accelerate = pytest.importorskip("accelerate")
    accelerate.cpu_offload(model, execution_device="cpu")


def made_for_inference(model):
    with torch.inference_mode():
        model.shared.weight = nn.Parameter(torch.zeros(64, 32), requires_grad=False)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shared_blocks, r"encoder\.block\.1\.layer\.0\.SelfAttention\.q being the same as in another block"),
        (other_configuration, r"DenseReluDense\.wi being \(64, 32\) and not \(128, 32\)"),
        (without_q, r"decoder\.block\.0 lacking a layer q"),
        (offloaded, "are offloaded .*: load it without device_map"),
        (made_for_inference, r"made within torch\.inference_mode: load it again outside of it"),
    ],
)
def test_a_base_that_cannot_be_trained_is_named_and_left_as_it_was(change, words, name):
    base = tiny_t5()
    change(base)
    modules = list(base.modules())
    with pytest.raises(UserError, match=words) as caught:
        apply(METHODS[name], base)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
    assert all(one is other for one, other in zip(base.modules(), modules, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_not_applied_in_inference_mode(name):
    base = tiny_t5()
    with torch.inference_mode(), pytest.raises(UserError, match="outside of it"):
        apply(METHODS[name], base)
    trained(METHODS[name], base)


@pytest.mark.parametrize("name", METHODS)
def test_torch_s_default_type_is_not_the_method_s(name):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        tuned = apply(METHODS[name], tiny_t5().float())
    finally:
        torch.set_default_dtype(before)
    assert {tuned.model.get_parameter(name).dtype for name in tuned.trainable} == {torch.float32}
    take_steps(tuned.model, tiny_batch(), 1)


@pytest.mark.parametrize("name", METHODS)
def test_transformers_trainer_checkpoints_resumes_and_takes_the_best(name, tmp_path):
    rows = [{key: value[0].tolist() for key, value in tiny_batch().items()}] * 4

    def collate(rows):
        return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}

    def trainer(steps):
        options = Seq2SeqTrainingArguments(
            str(tmp_path),
            max_steps=steps,
            save_steps=1,
            eval_steps=1,
            eval_strategy="steps",
            load_best_model_at_end=True,
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            predict_with_generate=True,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        model = apply(METHODS[name], tiny_t5()).model
        return Seq2SeqTrainer(model, options, collate, rows, rows)

    first = trainer(2)
    first.train()
    after = logits(first.model.eval())
    assert not torch.equal(after, logits(apply(METHODS[name], tiny_t5()).model.eval()))
    again = trainer(2)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))  # nothing is left to train
    torch.testing.assert_close(logits(again.model.eval()), after, rtol=0, atol=1e-5)
    more = trainer(3)
    more.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logits(more.model.eval()).isfinite().all()


@pytest.mark.parametrize("options", [{"every_n_layers": 2}, {"offload": True}])
def test_adapterhub_refuses_what_it_cannot_checkpoint(options):
    model = trained(METHODS["AdapterHubAdapter"]).model
    with pytest.raises(UserError, match="leave out every_n_layers and offload"):
        model.gradient_checkpointing_enable(**options)


@pytest.mark.parametrize("name", METHODS)
def test_generation_in_every_way_gives_the_same(name):
    model = trained(METHODS[name]).model
    batch = {key: value for key, value in tiny_batch().items() if key != "labels"}
    expected = model.generate(**batch, max_new_tokens=4)
    longer = {key: torch.cat([value, torch.zeros(2, 5, dtype=torch.long)], 1) for key, value in batch.items()}
    embedded = model.get_input_embeddings()(batch["input_ids"])
    for options in (
        {**batch, "use_cache": False},
        {**batch, "cache_implementation": "static"},
        {"inputs_embeds": embedded, "attention_mask": batch["attention_mask"]},
        longer,
    ):
        assert torch.equal(model.generate(**options, max_new_tokens=4), expected)
    assert model.generate(**batch, max_new_tokens=4, num_beams=2, num_return_sequences=2).shape[0] == 4


@pytest.mark.parametrize("name", METHODS)
def test_an_output_layer_of_its_own_is_resized_with_the_vocabulary(name):
    base = make_t5(vocab_size=64, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    tuned = trained(METHODS[name], base)
    before, trainable = logits(tuned.model), tuned.trainable
    tuned.model.resize_token_embeddings(72)
    assert torch.equal(logits(tuned.model)[..., :64], before)
    assert tuned.trainable == trainable
    assert base_of(tuned).lm_head.weight.shape == (72, 32)
    tuned.model.resize_token_embeddings(40)
    assert torch.equal(logits(tuned.model), before[..., :40])


def test_a_model_kept_in_several_files_is_merged(tmp_path):
    model = trained(METHOD).model
    before = logits(model)
    merge(model)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again), before, rtol=0, atol=1e-4)


# Arguments and files of another kind


@pytest.mark.parametrize("call", [lambda tuned, path: save_delta(tuned, path), lambda tuned, _: merge(tuned)])
def test_what_apply_returned_is_not_the_model(call, tmp_path):
    with pytest.raises(UserError, match=r"A model is expected here, not a Tuned: hand over its \.model"):
        call(trained(METHOD), tmp_path / "lora.pt")
    with pytest.raises(UserError, match="A model is expected here, not a NoneType"):
        call(None, tmp_path / "lora.pt")


def test_arguments_in_another_order_are_named(tmp_path):
    tuned = trained(METHOD)
    for call in (save_delta, load_delta):
        with pytest.raises(
            UserError, match=r"A path is expected for the file, not a T5For.*: the model comes first"
        ):
            call(str(tmp_path / "lora.pt"), tuned.model)
    with pytest.raises(UserError, match="base_of takes what apply returned, a Tuned, and not a T5For"):
        base_of(tuned.model)
    with pytest.raises(UserError, match=r"goes into a model, not into a Tuned: .*[^\n]\.$"):
        apply(METHOD, tuned)


@pytest.mark.parametrize("name", ["PeftLoRA", "AdapterHubAdapter", "OpenDeltaPrompt"])
def test_the_names_of_a_library_have_to_be_declared(name, tmp_path):
    model = trained(METHODS[name]).model
    for call in (save_delta, load_delta):
        torch.save({"x": torch.ones(1)}, tmp_path / "delta.pt")
        with pytest.raises(UserError, match=rf"The model has {name}\(.*pass `method\.declares` as the third"):
            call(model, tmp_path / "delta.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a pointer of Git LFS.*git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>", "is a web page, as a failed download leaves one"),
        (b'\x10\0\0\0\0\0\0\0{"__metadata__":{}', "is a safetensors file; read it with safetensors"),
        (b"lora", "is not a tensor file, or is cut short"),
    ],
)
def test_what_a_file_is_instead_of_tensors_is_said(content, words, tmp_path):
    path = tmp_path / "lora.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_delta(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [LoRA(2), Adapter(3), SoftPrompt(4)], ids=["lora", "adapter", "prompt"])
def test_a_state_kept_inside_another_dictionary_is_named(method, tmp_path):
    model = apply(method, tiny_t5()).model
    state = {name: p.detach() for name, p in model.named_parameters() if method.declares(name)}
    torch.save({"epoch_state": state}, tmp_path / "last.pt")
    with pytest.raises(
        UserError, match=rf"'epoch_state': it is a dict, not .* {re.escape(next(iter(state)))}; "
    ):
        load_delta(model, tmp_path / "last.pt")
