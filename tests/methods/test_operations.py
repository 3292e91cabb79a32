"""Six methods, and twelve things that people do to a model: the same answers afterwards, or one sentence.

Each cell of the table is a test. A cell that is refused stands in `REFUSED`, with words of its sentence; all
others have to give the logits that the model gave before.
"""

from __future__ import annotations

import copy
import gc
import io
import pickle
import re
import weakref

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import T5ForConditionalGeneration, set_seed

from peft_scratch.errors import UserError
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.methods import (
    Adapter,
    LoRA,
    SoftPrompt,
    Tuned,
    apply,
    base_of,
    load_delta,
    merge,
    save_delta,
    unmerge,
)
from peft_scratch.notebook.toy import take_steps, tiny_batch, tiny_t5
from peft_scratch.training.recipe import RECIPES

METHODS = {
    type(method).__name__: method
    for method in (
        LoRA(2, alpha=64.0),
        Adapter(3),
        SoftPrompt(4),
        PeftLoRA(2, alpha=64.0),
        AdapterHubAdapter(3),
        OpenDeltaPrompt(4),
    )
}
LIBRARY_ALONE = "cannot be pickled or saved whole"
NO_COPY = "can neither be copied nor pickled nor saved whole"
NOTHING_TO_MERGE = "only LoRA can be merged"
REFUSED = {
    ("deepcopy", "OpenDeltaPrompt"): NO_COPY,
    ("pickle", "OpenDeltaPrompt"): NO_COPY,
    ("saved_whole", "OpenDeltaPrompt"): NO_COPY,
    ("pickle", "AdapterHubAdapter"): LIBRARY_ALONE,
    ("saved_whole", "AdapterHubAdapter"): LIBRARY_ALONE,
    ("float16", "OpenDeltaPrompt"): "in float16 AdamW makes it NaN",
    **{
        (operation, method): NOTHING_TO_MERGE
        for operation in ("state_while_merged", "saved_while_merged")
        for method in ("Adapter", "SoftPrompt", "AdapterHubAdapter", "OpenDeltaPrompt")
    },
    **{
        (operation, "PeftLoRA"): r"call its own merge_and_unload\(\)"
        for operation in ("state_while_merged", "saved_while_merged")
    },
    **{
        (f"checkpointing-{recipe}-after-reentrant", "AdapterHubAdapter"): "with use_reentrant=False only"
        for recipe in RECIPES
    },
}


def logits(model, batch=None):
    with torch.no_grad():
        return model(**(batch or tiny_batch())).logits


def trained(method, base=None):
    """A model with `method` in it, some steps trained, in evaluation mode."""
    tuned = apply(method, base or tiny_t5())
    take_steps(tuned.model, tiny_batch(), 3)
    tuned.model.eval()
    return tuned


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    """This process as a group of one, over gloo."""
    store = f"file://{tmp_path_factory.mktemp('group')}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


# The operations: each takes a trained model of `method`, checks what is its own, returns a model to ask.


def wrapped_in(wrapper, train=True):
    def operation(tuned, method, tmp_path):
        model = wrapper(tuned.model)
        if train:
            train_a_step(model)
        save_delta(model, tmp_path / "delta.pt", method.declares)
        again = apply(method, tiny_t5()).model.eval()
        load_delta(again, tmp_path / "delta.pt", method.declares)
        assert torch.equal(logits(again), logits(tuned.model))
        load_delta(wrapper(apply(method, tiny_t5()).model), tmp_path / "delta.pt", method.declares)
        return model

    return operation


def train_a_step(model):
    """A step of size zero: every gradient arrives, no weight moves."""
    model.zero_grad()
    model(**tiny_batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def deepcopy(tuned, method, tmp_path):
    return on_its_own(copy.deepcopy(tuned.model), tuned.model)


def pickled(tuned, method, tmp_path):
    return on_its_own(pickle.loads(pickle.dumps(tuned.model)), tuned.model)


def saved_whole(tuned, method, tmp_path):
    torch.save(tuned.model, tmp_path / "model.pt")
    return on_its_own(torch.load(tmp_path / "model.pt", weights_only=False), tuned.model)


def on_its_own(twin, model):
    """`twin`, after it was trained and its weights were put back; `model` has to stay as it was."""
    before, weights = logits(model), {name: p.detach().clone() for name, p in twin.named_parameters()}
    take_steps(twin, tiny_batch(), 2)
    assert torch.equal(logits(model), before)
    assert not torch.equal(logits(twin), before)
    with torch.no_grad():
        for name, p in twin.named_parameters():
            p.copy_(weights[name])
    return twin


def state_while_merged(tuned, method, tmp_path):
    merge(tuned.model)
    state = {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}
    models = [apply(method, tiny_t5()).model.eval() for _ in range(2)]
    merge(models[1])
    for model in models:
        model.load_state_dict(state)
    assert torch.allclose(logits(models[1]), logits(models[0]), atol=1e-5)
    return models[0]


def saved_while_merged(tuned, method, tmp_path):
    merge(tuned.model)
    tuned.model.save_pretrained(tmp_path)
    return T5ForConditionalGeneration.from_pretrained(tmp_path).eval()


def resized(tuned, method, tmp_path):
    names = [name for name, _ in tuned.model.named_parameters()]
    trainable = {name: tuned.model.get_parameter(name) for name in tuned.trainable}
    tuned.model.resize_token_embeddings(72)
    assert [name for name, _ in tuned.model.named_parameters()] == names
    assert tuned.trainable == list(trainable)  # the very tensors that an optimizer may hold
    assert all(tuned.model.get_parameter(name) is p for name, p in trainable.items())
    new = {**tiny_batch(), "input_ids": torch.tensor([[70, 71, 22, 23, 24, 1], [30, 31, 1, 0, 0, 0]])}
    assert logits(tuned.model, new).shape == (2, 2, 72)
    assert base_of(tuned).shared.weight.shape == (72, 32)
    return tuned.model


def other_embeddings(tuned, method, tmp_path):
    table = nn.Embedding(64, 32)
    with torch.no_grad():
        table.weight.copy_(tuned.model.get_input_embeddings().weight)
    table.weight.requires_grad_(False)
    tuned.model.set_input_embeddings(table)
    tuned.model.tie_weights()
    return tuned.model


OPERATIONS = {
    # Without a step: tracing the backward pass takes half a minute a method.
    "compile": wrapped_in(lambda model: torch.compile(model, backend="eager"), train=False),
    "DataParallel": wrapped_in(nn.DataParallel),
    "DistributedDataParallel": wrapped_in(DistributedDataParallel),
    "deepcopy": deepcopy,
    "pickle": pickled,
    "saved_whole": saved_whole,
    "state_while_merged": state_while_merged,
    "saved_while_merged": saved_while_merged,
    "resized": resized,
    "other_embeddings": other_embeddings,
}


def refusal(operation, name):
    """What a cell has to say if it is refused; otherwise it has to work."""
    words = REFUSED.get((operation, name))
    return pytest.raises(UserError, match=words) if words else None


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_answers_or_a_sentence(operation, name, tmp_path, process_group):
    method = METHODS[name]
    tuned = trained(method)
    before = logits(tuned.model)
    assert (before - logits(tiny_t5())).abs().max() > 0.05  # what was trained shows
    if refused := refusal(operation, name):
        with refused as caught:
            OPERATIONS[operation](tuned, method, tmp_path)
        assert re.fullmatch(r"[^\n]+\.", str(caught.value))
        assert torch.equal(logits(tuned.model), before)
        return
    after = logits(OPERATIONS[operation](tuned, method, tmp_path))[..., :64]
    if operation.endswith("while_merged"):  # W + A B in one matrix rounds otherwise
        torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    else:
        assert torch.equal(after, before)


# The eleventh: gradient checkpointing, enabled before or after, reentrant or not, under both recipes


def gradients(method, recipe, when=None, reentrant=None):
    set_seed(0)
    base, options = tiny_t5(), {"use_reentrant": reentrant}
    if when == "before":
        base.gradient_checkpointing_enable(options)
    tuned = apply(method, base)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in tuned.trainable:
            p = tuned.model.get_parameter(name)
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    model = tuned.model.train()
    if when == "after":
        model.gradient_checkpointing_enable(options)
    set_seed(5)  # for dropout
    with RECIPES[recipe].forward_context(model, torch.device("cpu")):
        loss = model(**tiny_batch(), use_cache=False).loss
    loss.backward()
    return torch.cat([model.get_parameter(name).grad.flatten() for name in tuned.trainable])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_checkpointing_leaves_the_gradients_as_they_are(recipe, when, reentrant, name):
    if reentrant and (refused := refusal(f"checkpointing-{recipe}-{when}-reentrant", name)):
        with refused:
            gradients(METHODS[name], recipe, when, reentrant)
        return
    plain = gradients(METHODS[name], recipe)
    assert plain.abs().sum() > 0
    found = gradients(METHODS[name], recipe, when, reentrant)
    assert (found - plain).norm() <= 1e-5 * plain.norm()


def test_checkpointing_really_runs_blocks_twice(monkeypatch):
    # Otherwise the test before could not fail.
    model = apply(LoRA(2), tiny_t5()).model.train()
    runs = []
    for block in model.encoder.block:
        block.layer[0].register_forward_hook(lambda *_: runs.append(1))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model(**tiny_batch(), use_cache=False).loss.backward()
    assert len(runs) == 2 * len(model.encoder.block)


def test_the_caller_s_embeddings_are_left_alone_by_checkpointing():
    base = tiny_t5()
    base.config.dropout_rate = 0.0
    for module in base.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model = apply(LoRA(2), base).model.train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    batch = tiny_batch()
    embedded = model.get_input_embeddings()(batch.pop("input_ids")).detach()
    model(inputs_embeds=embedded, use_cache=False, **batch).loss.backward()
    assert not embedded.requires_grad and embedded.grad is None
    assert model.encoder.block[0].layer[0].SelfAttention.q.sharif_llm_B.grad.abs().sum() > 0


# The twelfth: a base in half precision


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_a_base_in_half_precision_trains_or_is_refused(half, name):
    method, dtype = METHODS[name], getattr(torch, half)
    if refused := refusal(half, name):
        base = tiny_t5().to(dtype)
        with refused:
            apply(method, base)
        assert all(p.requires_grad for p in base.parameters())
        return
    tuned = apply(method, tiny_t5().to(dtype))
    start = logits(tuned.model)
    assert start.dtype == dtype
    reference = apply(method, tiny_t5().to(dtype).float())
    with torch.no_grad():
        for name in tuned.trainable:
            reference.model.get_parameter(name).copy_(tuned.model.get_parameter(name))
    error = (start.float() - logits(reference.model)).norm() / logits(reference.model).norm()
    assert error < 0.05  # of the precision of bfloat16, 2^-8, after four blocks
    take_steps(tuned.model.train(), tiny_batch(), 3)
    after = logits(tuned.model.eval())
    assert after.isfinite().all() and not torch.equal(after, start)
    for name, p in base_of(tuned).named_parameters():
        assert torch.equal(p, tiny_t5().to(dtype).get_parameter(name))


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_as_transformers_loads_it(name, tmp_path):
    """T5 keeps the feed-forward layer's `wo` in float32 then, and what comes after it is float32 too."""
    tiny_t5().save_pretrained(tmp_path)
    base = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float16)
    kept = {p.dtype for p in base.parameters()}
    assert kept == {torch.float16, torch.float32}
    if refused := refusal("float16", name):
        with refused:
            apply(METHODS[name], base)
        return
    tuned = apply(METHODS[name], base)
    take_steps(tuned.model.train(), tiny_batch(), 2)
    assert logits(tuned.model.eval()).isfinite().all()


# What the table leaves out


def test_a_state_of_peft_is_refused_while_merged_and_right_otherwise(tmp_path):
    method = METHODS["PeftLoRA"]
    model, other = trained(method).model, apply(method, tiny_t5()).model.eval()
    before, state = logits(model), copy.deepcopy(model.state_dict())
    model.merge_adapter()
    for call in (
        model.state_dict,
        lambda: model.load_state_dict(state),
        lambda: base_of(Tuned(model, method, [])),
    ):
        with pytest.raises(UserError, match="merge"):
            call()
    model.unmerge_adapter()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(other), before, rtol=0, atol=1e-4)
    plain = model.merge_and_unload()
    plain.save_pretrained(tmp_path)
    again = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again), before, rtol=0, atol=1e-4)


def test_the_base_is_not_given_back_once_peft_has_merged_and_unloaded():
    tuned = trained(METHODS["PeftLoRA"])
    tuned.model.merge_and_unload()
    with pytest.raises(UserError, match="is not in the model any more"):
        base_of(tuned)


@pytest.mark.parametrize("name", ["LoRA", "Adapter", "SoftPrompt", "PeftLoRA"])
def test_checkpointing_stands_in_no_pickle_s_way(name):
    base = tiny_t5()
    base.gradient_checkpointing_enable()
    model = trained(METHODS[name], base).model
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(logits(twin), logits(model))
    twin.train()(**tiny_batch()).loss.backward()


@pytest.mark.parametrize(
    "wrap",
    [lambda model: torch.compile(model, backend="eager"), nn.DataParallel],
    ids=["compile", "DataParallel"],
)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_not_applied_to_a_wrapper(wrap, name):
    base = tiny_t5()
    with pytest.raises(UserError, match=r"around a T5ForConditionalGeneration: apply .* to the model itself"):
        apply(METHODS[name], wrap(base))
    assert all(p.requires_grad for p in base.parameters())
    assert logits(apply(METHODS[name], base).model).shape == (2, 2, 64)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_file_with_a_wrapper_s_names_loads(wrapper, tmp_path):
    model = trained(METHODS["LoRA"]).model
    entries = {wrapper + name: p for name, p in model.named_parameters() if "sharif_llm" in name}
    torch.save(entries, tmp_path / "lora.pt")
    again = apply(METHODS["LoRA"], tiny_t5()).model.eval()
    load_delta(again, tmp_path / "lora.pt")
    assert torch.equal(logits(again), logits(model))


def test_parts_compiled_one_by_one_are_saved_under_their_own_names(tmp_path):
    method = METHODS["LoRA"]
    model = trained(method).model
    for stack in (model.encoder, model.decoder):
        for i, block in enumerate(stack.block):
            stack.block[i] = torch.compile(block, backend="eager")
    save_delta(model, tmp_path / "lora.pt")
    again = apply(method, tiny_t5()).model.eval()
    load_delta(again, tmp_path / "lora.pt")
    assert torch.equal(logits(again), logits(model))


def test_a_state_from_before_merging_loads_into_a_merged_model():
    method = METHODS["LoRA"]
    model = trained(method).model
    state = copy.deepcopy(model.state_dict())
    other = trained(method, tiny_t5(seed=1)).model
    merge(other)
    other.load_state_dict(state)
    torch.testing.assert_close(logits(other), logits(model), rtol=0, atol=1e-4)
    unmerge(other)
    assert torch.equal(logits(other), logits(model))


def test_an_embedding_put_in_by_hand_is_noticed():
    model = trained(METHODS["SoftPrompt"]).model
    model.encoder.embed_tokens = nn.Embedding(64, 32)
    with pytest.raises(UserError, match=r"replace it with model\.set_input_embeddings"):
        logits(model)


def test_a_model_that_nobody_holds_is_freed_at_once():
    gc.collect()
    gc.disable()
    try:
        for method in (METHODS["LoRA"], METHODS["Adapter"], METHODS["SoftPrompt"]):
            tuned = apply(method, tiny_t5())
            logits(tuned.model)
            gone = weakref.ref(tuned.model)
            del tuned
            assert gone() is None, method
    finally:
        gc.enable()


def test_a_whole_model_may_be_kept_in_memory_too():
    model = trained(METHODS["SoftPrompt"]).model
    kept = io.BytesIO()
    torch.save(model, kept)
    kept.seek(0)
    assert torch.equal(logits(torch.load(kept, weights_only=False)), logits(model))
