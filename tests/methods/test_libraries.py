"""The methods through the libraries: what trains, what stays untouched, and equality with our own."""

from __future__ import annotations

import copy
import re
import subprocess
import sys

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.libraries.adapterhub_adapter import initialise
from peft_scratch.libraries.opendelta_compat import import_opendelta
from peft_scratch.methods.adapter import Adapter
from peft_scratch.methods.lora import LoRA
from peft_scratch.methods.method import apply
from peft_scratch.methods.parameters import count_parameters
from peft_scratch.methods.soft_prompt import SoftPrompt

METHODS = [PeftLoRA(rank=3), AdapterHubAdapter(bottleneck=5), OpenDeltaPrompt(virtual_tokens=4)]


def _name(method: object) -> str:
    return type(method).__name__


def _inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def _disturb(model: torch.nn.Module, names: list[str]) -> None:
    """Random values in the trainable parameters, so that nothing is zero or the identity."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_what_trains(method, tiny_t5, batch):
    tuned = apply(method, tiny_t5)
    expected = {
        "PeftLoRA": (12 * 3 * (32 + 32), 24, r"base_model\.model\..*\.(q|v)\.lora_[AB]\.default\.weight"),
        "AdapterHubAdapter": (
            4 * (32 * 5 + 5 + 5 * 32 + 32),
            16,
            r"(encoder\..*\.layer\.1|decoder\..*\.layer\.2)\.adapters\.imdb\.adapter_(down\.0|up)\.(weight|bias)",
        ),
        "OpenDeltaPrompt": (4 * 32, 1, r"encoder\.soft_prompt_layer\.soft_embeds"),
    }
    count, tensors, pattern = expected[_name(method)]
    assert count_parameters(tuned.model, trainable_only=True) == count
    assert len(tuned.trainable) == tensors
    for name in tuned.trainable:
        assert re.fullmatch(pattern, name), name
    # All of it gets a gradient and moves; nothing else does.
    _disturb(tuned.model, tuned.trainable)
    before = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
    optimiser = torch.optim.AdamW((p for p in tuned.model.parameters() if p.requires_grad), lr=0.01)
    tuned.model.train()
    tuned.model(**batch).loss.backward()
    optimiser.step()
    for name, parameter in tuned.model.named_parameters():
        assert (parameter.grad is not None) == (name in tuned.trainable), name
        assert torch.equal(parameter, before[name]) == (name not in tuned.trainable), name


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_the_callers_batch_is_left_alone(method, tiny_t5, batch):
    kept = {name: tensor.clone() for name, tensor in batch.items()}
    model = apply(method, tiny_t5).model
    first = model(**batch).loss
    words = model.generate(**_inputs(batch), max_length=5)
    assert words.shape[0] == 3 and words.shape[1] <= 5
    for name, tensor in batch.items():
        assert torch.equal(tensor, kept[name]), name
    assert torch.equal(model(**batch).loss, first)
    assert torch.equal(model.generate(**_inputs(batch), max_length=5), words)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_mode_and_places(method, training, tiny_t5):
    names = [name for name, _ in tiny_t5.named_modules()]
    tuned = apply(method, tiny_t5.train(training))
    assert {module.training for module in tuned.model.modules()} == {training}
    assert tuned.module_names and set(tuned.module_names) <= set(names)


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_weights_go_to_a_file_and_back(method, tiny_t5, batch, tmp_path):
    fresh = copy.deepcopy(tiny_t5)
    tuned = apply(method, tiny_t5)
    _disturb(tuned.model, tuned.trainable)
    torch.save({name: tuned.model.get_parameter(name) for name in tuned.trainable}, tmp_path / "delta.pt")
    again = apply(method, fresh)
    assert again.trainable == tuned.trainable
    assert not torch.equal(again.model(**batch).logits, tuned.model(**batch).logits)
    entries = torch.load(tmp_path / "delta.pt", weights_only=True)
    missing, unexpected = again.model.load_state_dict(entries, strict=False)
    assert not unexpected and not set(missing) & set(entries)
    assert torch.equal(again.model(**batch).logits, tuned.model(**batch).logits)
    # The whole state can be saved too: no library trims it.
    assert "shared.weight" in "".join(tuned.model.state_dict())


@pytest.mark.parametrize("rank", [1, 8])
def test_lora_equals_ours(rank, tiny_t5, batch):
    ours, theirs = apply(LoRA(rank), copy.deepcopy(tiny_t5)), apply(PeftLoRA(rank), tiny_t5)
    _disturb(ours.model, ours.trainable)
    with torch.no_grad():
        for name in ours.trainable:
            end = name[-1]
            peft_name = name.replace(f"sharif_llm_{end}", f"lora_{end}.default.weight")
            theirs.model.get_parameter(f"base_model.model.{peft_name}").copy_(
                ours.model.get_parameter(name).T
            )
    assert torch.equal(ours.model(**batch).logits, theirs.model(**batch).logits)


@pytest.mark.parametrize("bottleneck", [1, 5, 11])
def test_adapter_equals_ours(bottleneck, tiny_t5, batch):
    # On AdapterHub's T5 both: its attention copies q, k and v (composition.py,
    # match_attn_matrices_for_parallel), which changes the last bits of the base itself.
    other = copy.deepcopy(tiny_t5)
    initialise(other)
    ours, theirs = apply(Adapter(bottleneck), other), apply(AdapterHubAdapter(bottleneck), tiny_t5)
    _disturb(ours.model, ours.trainable)
    with torch.no_grad():
        for mine, other in zip(ours.trainable, theirs.trainable, strict=True):
            theirs.model.get_parameter(other).copy_(ours.model.get_parameter(mine))
    assert torch.equal(ours.model(**batch).logits, theirs.model(**batch).logits)


@pytest.mark.parametrize("masked", [True, False])
def test_soft_prompt_equals_ours(masked, tiny_t5, batch):
    ours, theirs = apply(SoftPrompt(4), copy.deepcopy(tiny_t5)), apply(OpenDeltaPrompt(4), tiny_t5)
    if not masked:
        del batch["attention_mask"]
    assert torch.equal(ours.model(**batch).logits, theirs.model(**batch).logits)  # both: the first rows
    for tuned in (ours, theirs):
        _disturb(tuned.model, tuned.trainable)
    assert torch.equal(ours.model(**batch).logits, theirs.model(**batch).logits)
    if masked:
        assert torch.equal(
            ours.model.generate(**_inputs(batch), max_length=5),
            theirs.model.generate(**_inputs(batch), max_length=5),
        )


def test_opendelta_takes_positional_arguments(tiny_t5, batch):
    model = apply(OpenDeltaPrompt(4), tiny_t5).model
    kept = batch["attention_mask"].clone()
    by_position = model(batch["input_ids"], batch["attention_mask"], labels=batch["labels"]).logits
    assert torch.equal(by_position, model(**batch).logits)
    assert torch.equal(batch["attention_mask"], kept)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        (PeftLoRA(rank=1), 36_864),
        (PeftLoRA(rank=8), 294_912),
        (AdapterHubAdapter(bottleneck=1), 18_444),
        (AdapterHubAdapter(bottleneck=8), 104_544),
    ],
    ids=str,
)
def test_counts_on_t5_small(method, count):
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config())  # transformers' defaults are t5-small's
    model = apply(method, model).model
    assert count_parameters(model, trainable_only=True) == count
    assert count_parameters(model) == 60_506_624 + count


@pytest.mark.parametrize(("rows", "count"), [(1, 512), (10, 5_120)])
def test_counts_of_opendelta_at_the_width_of_t5_small(rows, count):
    # OpenDelta cannot build on the meta device; the depth does not matter to it.
    model = T5ForConditionalGeneration(T5Config(num_layers=1, vocab_size=64, d_ff=64))
    assert count_parameters(apply(OpenDeltaPrompt(rows), model).model, trainable_only=True) == count


@pytest.mark.parametrize("bottleneck", range(1, 40))
def test_any_bottleneck_comes_out_exactly(bottleneck):
    config = T5Config(d_model=48, num_layers=1, d_ff=8, d_kv=4, num_heads=1, vocab_size=8)
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    apply(AdapterHubAdapter(bottleneck), model)
    assert model.encoder.block[0].layer[1].adapters["imdb"].adapter_up.in_features == bottleneck


@pytest.mark.parametrize(
    "bad",
    [
        lambda: PeftLoRA(rank=0),
        lambda: PeftLoRA(alpha=0.0),
        lambda: AdapterHubAdapter(bottleneck=-1),
        lambda: OpenDeltaPrompt(virtual_tokens=0),
    ],
)
def test_hyperparameters_that_make_no_sense(bad):
    with pytest.raises(UserError):
        bad()


def test_what_does_not_fit_the_model(tiny_t5):
    with pytest.raises(UserError, match="'nonesuch'"):
        apply(PeftLoRA(targets=("q", "nonesuch")), copy.deepcopy(tiny_t5))
    with pytest.raises(UserError, match="129 rows"):
        apply(OpenDeltaPrompt(virtual_tokens=129), tiny_t5)


@pytest.mark.parametrize("second", METHODS, ids=_name)
@pytest.mark.parametrize("first", METHODS, ids=_name)
def test_one_method_a_model(first, second, tiny_t5):
    model = apply(first, tiny_t5).model
    with pytest.raises(UserError, match="load a fresh base model"):
        apply(second, model)


@pytest.mark.parametrize(
    ("method", "package"), [(METHODS[0], "peft"), (METHODS[1], "adapters"), (METHODS[2], "opendelta")]
)
def test_a_missing_library_is_named(method, package, tiny_t5, monkeypatch):
    import_opendelta.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"pip install.*{package}"):
        apply(method, tiny_t5)


@pytest.mark.parametrize("imported", [False, True], ids=["installed", "imported before"])
def test_peft_beside_an_old_torchao(imported, tmp_path):
    """Colab's image has torchao 0.10.0, of which PEFT wants nothing to know; nothing here is quantised."""
    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao/__init__.py").touch()
    (tmp_path / "torchao-0.10.0.dist-info").mkdir()
    (tmp_path / "torchao-0.10.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n"
    )
    # In a process of its own, since PEFT remembers what it finds.
    script = f"""
import sys

import peft
from transformers import T5Config, T5ForConditionalGeneration

sys.path.insert(0, {str(tmp_path)!r})  # only now, since transformers 4 would look into it
if {imported}:
    import torchao

sizes = dict(d_model=16, d_kv=8, d_ff=16, num_heads=2, num_layers=1, vocab_size=32)
def t5():
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
settings = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q"])
try:
    peft.get_peft_model(t5(), settings)
except ImportError as error:
    assert "torchao" in str(error)
else:
    raise AssertionError("PEFT does not mind: this test shows nothing")

from peft_scratch.libraries import PeftLoRA
from peft_scratch.methods import apply

assert apply(PeftLoRA(), t5()).module_names
peft.get_peft_model(t5(), settings)  # and whatever is done through PEFT itself from then on
assert ("torchao" in sys.modules) == {imported}
import torchao
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_opendeltas_web_server_and_cloud_client_are_not_there():
    import_opendelta.cache_clear()
    import_opendelta()
    modules = {name: sys.modules[f"opendelta.{name}"] for name in ("basemodel", "utils.saving_loading_utils")}
    with pytest.raises(RuntimeError, match="OpenDelta's web server is left out of this kit"):
        modules["basemodel"].interactive(None, port=0)
    with pytest.raises(RuntimeError, match="OpenDelta's cloud client is left out of this kit"):
        modules["utils.saving_loading_utils"].OssClient()


def test_no_stand_in_is_left_behind_nothing_is_printed_and_no_connection_is_opened():
    # In a process of its own: transformers gives some of its warnings once only.
    script = """
import sys

def no_connection(event, arguments):
    assert event not in ("socket.bind", "socket.connect", "webbrowser.open"), (event, arguments)

sys.addaudithook(no_connection)
import torch
from transformers import T5Config, T5ForConditionalGeneration
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA
from peft_scratch.methods.method import apply

sizes = dict(d_model=16, d_kv=8, d_ff=16, num_heads=2, num_layers=1, vocab_size=32)
config = T5Config(**sizes, decoder_start_token_id=0)
ids = torch.tensor([[5, 7, 1]])
path = list(sys.path)
for method in (OpenDeltaPrompt(), PeftLoRA(), AdapterHubAdapter()):
    model = apply(method, T5ForConditionalGeneration(config)).model.train()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    model.eval().generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_length=5)

stand_ins = {"DeltaCenter", "turtle", "web", "transformers.deepspeed", "opendelta.utils.interactive.web"}
assert not stand_ins & set(sys.modules), stand_ins & set(sys.modules)
assert sys.path == path
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
