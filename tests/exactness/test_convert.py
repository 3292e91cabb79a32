"""Conversion: the libraries load what we write, we load what they write, and nothing changes on the way."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from conftest import make_t5
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import T5ForConditionalGeneration
from typer.testing import CliRunner

from peft_scratch.cli import app
from peft_scratch.errors import UserError
from peft_scratch.exactness.convert import convert
from peft_scratch.libraries.adapterhub_adapter import NAME
from peft_scratch.libraries.adapterhub_compat import import_adapters
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt, apply, load_delta, read_delta, save_delta

adapters = import_adapters()

GATED = {"num_heads": 3, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CASES = [
    *((method, {}) for method in (LoRA(8), LoRA(1), SoftPrompt(10), SoftPrompt(1), Adapter(8), Adapter(5))),
    *((method, GATED) for method in (LoRA(8), SoftPrompt(10), Adapter(8))),
]


def _id(value: object) -> str:
    if isinstance(value, Method):
        return f"{value.kind}-{next(iter(value.hyperparameters().values()))}"
    return "gated" if value else "t5"


def _trained(method: Method, base: T5ForConditionalGeneration, batch: dict) -> nn.Module:
    """`base` with the method in it, after two steps from random values."""
    model = apply(method, base).model
    _train(model, batch)
    return model


def _train(model: nn.Module, batch: dict) -> None:
    own = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in own:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    optimiser = torch.optim.AdamW(own, lr=0.01)
    for _ in range(2):
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
    model.eval()


def _load_folder(folder: Path, base: T5ForConditionalGeneration) -> nn.Module:
    """`base` with the adapter in `folder`, by nothing but the library's own loader."""
    if "peft_type" in json.loads((folder / "adapter_config.json").read_text()):
        return peft.PeftModel.from_pretrained(base, folder).eval()
    adapters.init(base)
    base.load_adapter(str(folder), set_active=True)
    return base.eval()


def _logits(model: nn.Module, batch: dict) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


def _from_file(method: Method, path: Path, base: T5ForConditionalGeneration) -> nn.Module:
    """`base` with our method in it and the weights at `path`.

    AdapterHub's T5 lays queries, keys and values out otherwise in memory, so with no adapter in it either
    it can differ from the plain one in the last bits (1e-6 on these models). What is compared here is the
    adapter, so ours goes into its T5 as well.
    """
    if method.kind == "adapter":
        adapters.init(base)
    model = apply(method, base).model
    load_delta(model, path)
    return model.eval()


@pytest.mark.parametrize(("method", "changes"), CASES, ids=_id)
def test_from_a_file_to_the_library_and_back(method, changes, batch, tmp_path):
    ours = _trained(method, make_t5(**changes), batch)
    save_delta(ours, tmp_path / "delta.pt")

    there = convert(tmp_path / "delta.pt", tmp_path / "folder")
    assert there.method == method
    assert there.tensors == len(read_delta(tmp_path / "delta.pt"))
    theirs = _logits(_load_folder(tmp_path / "folder", make_t5(**changes)), batch)
    again = _from_file(method, tmp_path / "delta.pt", make_t5(**changes))
    assert torch.equal(theirs, _logits(again, batch))
    torch.testing.assert_close(theirs, _logits(ours, batch), rtol=0, atol=1e-5)
    # The library really took the weights in: without them it answers differently.
    assert (theirs - _logits(make_t5(**changes), batch)).abs().max() > 0.1

    convert(tmp_path / "folder", tmp_path / "back.pt")
    assert (tmp_path / "back.pt").read_bytes() == (tmp_path / "delta.pt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.pt", "delta.pt", "folder"]


def _by_peft(config: peft.PeftConfig, folder: Path, batch: dict) -> nn.Module:
    model = peft.get_peft_model(make_t5(), config)
    _train(model, batch)
    model.save_pretrained(folder)
    return model


def _by_adapterhub(folder: Path, batch: dict, *, safetensors: bool = False, name: str = "any") -> nn.Module:
    model = make_t5()
    adapters.init(model)
    model.add_adapter(name, config=adapters.SeqBnConfig(reduction_factor=8), set_active=True)
    model.train_adapter(name)
    _train(model, batch)
    model.save_adapter(str(folder), name, use_safetensors=safetensors)
    return model


def _lora_config(**changes: object) -> peft.LoraConfig:
    return peft.LoraConfig(
        **{"task_type": "SEQ_2_SEQ_LM", "r": 8, "lora_alpha": 4, "target_modules": ["q", "v"], **changes}
    )


def _prompt_config(**changes: object) -> peft.PromptTuningConfig:
    return peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4, **changes)


@pytest.mark.parametrize(
    ("train", "method"),
    [
        (partial(_by_peft, _lora_config()), LoRA(8)),
        (partial(_by_peft, _lora_config(r=2, target_modules=".*[.][qv]")), LoRA(2)),
        (partial(_by_peft, _prompt_config(num_transformer_submodules=1)), SoftPrompt(4)),
        # The library's default: eight rows, of which it reads the first four.
        (partial(_by_peft, _prompt_config()), SoftPrompt(4)),
        (_by_adapterhub, Adapter(4)),
        (partial(_by_adapterhub, safetensors=True, name="another"), Adapter(4)),
    ],
    ids=["lora", "lora-regex", "prompt", "prompt-2N", "adapter-bin", "adapter-safetensors"],
)  # fmt: skip
def test_from_the_library_to_a_file(train, method, batch, tmp_path):
    theirs = train(tmp_path / "folder", batch)
    back = convert(tmp_path / "folder", tmp_path / "delta.pt")
    assert back.method == method
    ours = _from_file(method, tmp_path / "delta.pt", make_t5())
    assert torch.equal(_logits(ours, batch), _logits(theirs, batch))


def test_alpha_goes_into_the_folder_and_is_asked_for_on_the_way_back(batch, tmp_path):
    ours = _trained(LoRA(4, alpha=16.0), make_t5(), batch)
    save_delta(ours, tmp_path / "lora.pt")
    convert(tmp_path / "lora.pt", tmp_path / "folder", alpha=16)
    theirs = _load_folder(tmp_path / "folder", make_t5())
    assert torch.equal(_logits(theirs, batch), _logits(ours, batch))
    with pytest.raises(UserError, match=r"lora_alpha = 16.*would be used with 4: pass --alpha 16"):
        convert(tmp_path / "folder", tmp_path / "back.pt")
    assert convert(tmp_path / "folder", tmp_path / "back.pt", alpha=16).method == LoRA(4, alpha=16)


def test_the_base_is_checked_and_written_down(batch, tmp_path):
    base = make_t5()
    base.config.save_pretrained(tmp_path / "base")
    save_delta(_trained(LoRA(2), base, batch), tmp_path / "lora.pt")
    convert(tmp_path / "lora.pt", tmp_path / "folder", base=tmp_path / "base")
    config = json.loads((tmp_path / "folder" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    with pytest.raises(
        UserError, match=r"lora.pt was not trained on the base t5-small: it lacks encoder\.block\.2"
    ):
        convert(tmp_path / "lora.pt", tmp_path / "other", base="t5-small")


def test_half_precision_comes_back_as_float32(batch, tmp_path):
    _by_peft(_lora_config(), tmp_path / "folder", batch)
    weights = tmp_path / "folder" / "adapter_model.safetensors"
    half = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}
    save_file(half, weights)
    convert(tmp_path / "folder", tmp_path / "lora.pt")
    site = "encoder.block.0.layer.0.SelfAttention.q"
    entry = read_delta(tmp_path / "lora.pt")[f"{site}.sharif_llm_A"]
    assert torch.equal(entry, half[f"base_model.model.{site}.lora_A.weight"].T.to(torch.float32))


# What a user may get wrong. Each case changes a sound file or folder; the message has to name the trouble.


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with every kind of sound source: lora.pt, prompts.pt, adapter.pt, and a folder of each."""
    folder = tmp_path_factory.mktemp("sound")
    for name, method in (("lora", LoRA(2)), ("prompts", SoftPrompt(3)), ("adapter", Adapter(2))):
        save_delta(apply(method, make_t5()).model, folder / f"{name}.pt")
        convert(folder / f"{name}.pt", folder / name)
    return folder


_Q = "encoder.block.0.layer.0.SelfAttention.q.sharif_llm_A"


def _without(key: str):
    return lambda entries: {name: tensor for name, tensor in entries.items() if name != key}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lora", lambda e: {}, "holds no tensor at all"),
        ("lora", lambda e: e | {"shared.weight": torch.ones(2, 2)}, "'shared.weight', which belongs to none"),
        ("lora", lambda e: e | {_Q.replace(".q.", ".k."): e[_Q]}, r"SelfAttention\.k\.sharif_llm_A', which"),
        ("lora", lambda e: {"x": torch.ones(1)}, "'x', which belongs to none of lora.pt, adapter.pt"),
        ("lora", lambda e: e | {_Q: torch.ones(32)}, "but must be a matrix"),
        ("lora", lambda e: e | {_Q: torch.ones(0, 2)}, "but must be a matrix"),
        ("lora", _without(_Q), rf"not complete: it lacks {_Q}"),
        ("lora", lambda e: {_Q: e[_Q]}, "not complete: it has no B of any layer"),
        ("lora", lambda e: e | {_Q.replace("0.layer", "9999.layer"): e[_Q]}, "not complete: it lacks"),
        ("lora", lambda e: e | {_Q.replace(".q.", ".v."): torch.ones(32, 3)}, r"\(32, 3\) and not \(32, 2\)"),
        (
            "adapter",
            _without("decoder.block.1.layer.2.adapter.sharif_llm_adapter.2.bias"),
            r"lacks decoder\.block\.1\.layer\.2\.adapter\.sharif_llm_adapter\.2\.bias",
        ),
        ("prompts", lambda e: {key: torch.ones(3) for key in e}, "but must be a matrix"),
    ],
)  # fmt: skip
def test_a_wrong_file(name, change, message, sound, tmp_path):
    torch.save(change(read_delta(sound / f"{name}.pt")), tmp_path / "wrong.pt")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "wrong.pt", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pt"]


def _set(**changes: object):
    return lambda config: config | changes


def _set_inside(**changes: object):
    return lambda config: config | {"config": config["config"] | changes}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lora", _set(use_dora=True), "use_dora = True, which lora.pt cannot hold"),
        ("lora", _set(use_rslora=True), "use_rslora = True, which lora.pt cannot hold"),
        ("lora", _set(bias="lora_only"), "bias = 'lora_only', which"),
        ("lora", _set(init_lora_weights="pissa"), "init_lora_weights = 'pissa', which"),
        ("lora", _set(rank_pattern={"q": 4}), "rank_pattern = {'q': 4}, which"),
        ("lora", _set(something_of_next_year={"x": 1}), "something_of_next_year"),
        ("lora", _set(target_modules=["q", "v", "k", "o"]), r"no k or o: train with \['q', 'v'\]"),
        ("lora", _set(task_type="CAUSAL_LM"), "task_type = 'CAUSAL_LM', which"),
        ("lora", _set(lora_alpha=None), "lora_alpha = None"),
        ("lora", _set(peft_type="IA3"), "type IA3; only LORA and PROMPT_TUNING"),
        ("lora", lambda config: {}, "neither PEFT's nor AdapterHub's"),
        ("lora", lambda config: [1], "neither PEFT's nor AdapterHub's"),
        ("prompts", _set(task_type="CAUSAL_LM"), "not a soft prompt for an encoder-decoder"),
        ("prompts", _set(num_virtual_tokens=2), "holds 3 prompt rows, but its configuration says 2"),
        ("adapter", _set_inside(non_linearity="gelu"), "non_linearity = 'gelu', where adapter.pt has 'relu'"),
        ("adapter", _set_inside(mh_adapter=True), "mh_adapter = True, where adapter.pt has False"),
        ("adapter", _set_inside(architecture="lora"), "architecture lora; only a bottleneck"),
        ("adapter", _set(config="pfeiffer"), "only names its config, 'pfeiffer'"),
        ("adapter", _set(name="other"), rf"holds the tensor 'encoder.*adapters\.{NAME}"),
    ],
)
def test_a_wrong_configuration(name, change, message, sound, tmp_path):
    folder = shutil.copytree(sound / name, tmp_path / "wrong")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(change(config)))
    with pytest.raises(UserError, match=message):
        convert(folder, tmp_path / "target.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["wrong"]


_WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / _WEIGHTS).unlink(), "has no weights"),
        (lambda folder: (folder / _WEIGHTS).write_bytes(b"x" * 40), "not a safetensors file"),
        (
            lambda folder: save_file({"x": torch.ones(1)}, folder / _WEIGHTS),
            "holds the tensor 'x', for which the .pt file has no place",
        ),
        (
            lambda folder: save_file({"x": torch.full((1,), torch.nan)}, folder / _WEIGHTS),
            "'x' does not hold finite",
        ),
    ],
)  # fmt: skip
def test_a_damaged_folder(damage, message, sound, tmp_path):
    folder = shutil.copytree(sound / "lora", tmp_path / "damaged")
    damage(folder)
    with pytest.raises(UserError, match=message):
        convert(folder, tmp_path / "target.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_targets_that_cannot_be(sound, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("x")
    for source, target, message in (
        ("lora.pt", "there", "there is there already"),
        ("lora.pt", "folder.pt", "must not end in .pt"),
        ("lora", "lora", "has to end in .pt"),
        ("nothing.pt", "folder", "nothing.pt is not there"),
        ("lora.pt", "file/folder", "Could not write"),
    ):
        with pytest.raises(UserError, match=message):
            convert(sound / source, tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


def test_the_command(sound, tmp_path):
    done = CliRunner().invoke(app, ["convert", str(sound / "lora.pt"), str(tmp_path / "folder")])
    assert done.exit_code == 0, done.output
    assert "PEFT folder of LoRA(rank=2" in done.output
    assert "24 tensors, 1,536 parameters" in done.output
    assert "PeftModel.from_pretrained(base" in done.output
    back = ["convert", str(tmp_path / "folder"), str(tmp_path / "lora.pt")]
    wrong = CliRunner().invoke(app, [*back, "--alpha", "16"])
    assert wrong.exit_code == 2
    assert "lora_alpha = 4.0" in wrong.output
    assert CliRunner().invoke(app, back).exit_code == 0
    assert (tmp_path / "lora.pt").read_bytes() == (sound / "lora.pt").read_bytes()


def test_a_failure_while_writing_leaves_nothing_behind(sound, tmp_path, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("peft_scratch.exactness.folders.save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        convert(sound / "lora.pt", tmp_path / "folder")
    assert not list(tmp_path.iterdir())
