"""Record the oracle: what our layers do, and what known mistakes give, as data.

The student edition carries the recordings and not this file.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.edition.self_check.oracle import Oracle
from peft_scratch.methods import (
    AdaptedLayerFF,
    Bottleneck,
    LoRALinear,
    PromptRows,
    SoftPrompt,
    apply,
)
from peft_scratch.methods.adapter import adapter_places, parameters_of_a_bottleneck
from peft_scratch.methods.derivation import attention_blocks, feed_forward_layers, step
from peft_scratch.methods.injection import find_in_blocks
from peft_scratch.methods.lora import parameters_of_an_update
from peft_scratch.methods.soft_prompt import parameters_of_a_prompt


@dataclass(frozen=True)
class Sizes:
    """The sizes of a recording: of a small T5, and of the methods."""

    heads: int = 2
    d_kv: int = 8
    d_ff: int = 24
    encoder_layers: int = 2
    decoder_layers: int = 1
    vocabulary: int = 32
    rank: int = 3
    alpha: float = 5.0
    bottleneck: int = 4
    rows: int = 3
    texts: int = 2
    tokens: int = 5

    @property
    def width(self) -> int:
        """Of the model: as wide as its attention, so that A B is square."""
        return self.heads * self.d_kv


#: The recordings that the kit carries: sizes and seed.
SHIPPED = (
    (Sizes(), 0),
    (Sizes(3, 4, 20, 1, 2, 40, 2, 3.0, 3, 4, 3, 6), 1),
    (Sizes(2, 10, 30, 2, 2, 36, 5, 2.0, 6, 2, 2, 7), 2),
)


def random_sizes(seed: int) -> Sizes:
    """Sizes drawn at random, for which no two mistakes give the same numbers."""
    draw = random.Random(seed)
    encoder = draw.randint(1, 3)
    return Sizes(
        heads=draw.randint(1, 4),
        d_kv=draw.choice((4, 8, 12)),
        d_ff=draw.randint(8, 40),
        encoder_layers=encoder,
        decoder_layers=draw.choice([n for n in (1, 2, 3, 4) if n != encoder]),
        vocabulary=draw.randint(24, 60),
        rank=draw.randint(2, 4),
        alpha=draw.choice((2.5, 5.0, 7.0, 11.0, 16.5)),
        bottleneck=draw.randint(2, 8),
        rows=draw.randint(2, 6),
        texts=draw.randint(2, 4),
        tokens=draw.randint(5, 9),
    )


def record(sizes: Sizes, seed: int) -> Oracle:
    """What our layers do at `sizes`, with everything random drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _t5(sizes)
        tensors = {f"t5/{name}": p.detach().clone() for name, p in model.named_parameters()}
        facts = _facts(model, sizes, seed)
        tensors |= _lora(sizes, "lora", sizes.width)
        tensors |= _lora(sizes, "lora_wide", sizes.width + 3)
        tensors |= _adapter(model, sizes)
        tensors |= _prompt(model, sizes)
    return Oracle({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, facts)


def write(folder: Path) -> list[Path]:
    """Write the recordings that the kit carries into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sizes, seed in SHIPPED:
        oracle = record(sizes, seed)
        path = folder / f"recording_{seed}.safetensors"
        save_file(dict(oracle.tensors), path, metadata={"facts": json.dumps(oracle.facts)})
        written.append(path)
    return written


def _t5(sizes: Sizes) -> T5ForConditionalGeneration:
    config = T5Config(**_config(sizes), attn_implementation="eager")
    model = T5ForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # all ones would hide a norm that is skipped
            parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
    return model


def _config(sizes: Sizes) -> dict[str, Any]:
    return {
        "vocab_size": sizes.vocabulary,
        "d_model": sizes.width,
        "d_kv": sizes.d_kv,
        "d_ff": sizes.d_ff,
        "num_layers": sizes.encoder_layers,
        "num_decoder_layers": sizes.decoder_layers,
        "num_heads": sizes.heads,
        "decoder_start_token_id": 0,
    }


def _lora(sizes: Sizes, where: str, width_out: int) -> dict[str, Tensor]:
    d, r, s = sizes.width, sizes.rank, sizes.alpha / sizes.rank
    base = nn.Linear(d, width_out).requires_grad_(False)
    layer = LoRALinear(base, r, sizes.alpha)
    with torch.no_grad():
        layer.sharif_llm_A.copy_(torch.randn(d, r) / 2)
        layer.sharif_llm_B.copy_(torch.randn(r, width_out) / 2)
    x, direction = (
        torch.randn(sizes.texts, sizes.tokens, d),
        torch.randn(sizes.texts, sizes.tokens, width_out),
    )
    y = layer(x)
    (y * direction).sum().backward()
    w, bias = base.weight.detach().clone(), base.bias.detach().clone()
    a, b = layer.sharif_llm_A.detach().clone(), layer.sharif_llm_B.detach().clone()
    tensors = {"weight": w, "bias": bias, "x": x, "direction": direction, "A": a, "B": b, "y": y.detach()}
    tensors |= {"gradient_A": layer.sharif_llm_A.grad, "gradient_B": layer.sharif_llm_B.grad}
    if width_out == d:
        plain, update = F.linear(x, w, bias), (x @ a) @ b
        layer.merge()
        factors = {
            "scaling_missing": 1.0,
            "alpha_missing": 1 / r,
            "rank_missing": sizes.alpha,
            "scaling_twice": s * s,
            "scaling_inverted": 1 / s,
            "scaling_sqrt": sizes.alpha / r**0.5,
            "update_lost": 0.0,
        }
        tensors |= {f"y/{name}": plain + factor * update for name, factor in factors.items()}
        tensors |= {f"update/{name}": f * update for name, f in factors.items() if name != "update_lost"}
        tensors |= {
            "base": plain,
            "update": s * update,
            "update/update_order": s * (x @ b.T) @ a.T,
            "y/base_bias_twice": y.detach() + bias,
            "y/base_bias_lost": y.detach() - bias,
            "y/base_lost": s * update,
            "y/input_side": F.linear(x + s * update, w, bias),
            "y/update_order": plain + s * (x @ b.T) @ a.T,
            "counted_twice": plain + 2 * s * update,
            "merged": layer.weight.detach().clone(),
            "merged/merge_unscaled": w + (a @ b).T,
            "merged/merge_turned": w + s * (a @ b),
        }
    return {f"{where}/{name}": tensor for name, tensor in tensors.items()}


def _adapter(model: T5ForConditionalGeneration, sizes: Sizes) -> dict[str, Tensor]:
    d, base = sizes.width, model.encoder.block[0].layer[1]
    tensors = {}
    layer = AdaptedLayerFF(base, sizes.bottleneck).eval()
    with torch.no_grad():
        for name, parameter in layer.adapter.named_parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
            tensors[f"bottleneck/{name.partition('.')[2]}"] = parameter.clone()
    down, _, up = layer.adapter.sharif_llm_adapter
    x, direction = torch.randn(sizes.texts, sizes.tokens, d), torch.randn(sizes.texts, sizes.tokens, d)

    def run(module: nn.Module, where: str) -> Tensor:
        module.zero_grad()
        y = module(x)
        (y * direction).sum().backward()
        tensors[f"{where}/gradient"] = down.weight.grad.clone()
        tensors.update({f"{where}/x": x, f"{where}/direction": direction, f"{where}/y": y.detach()})
        return y.detach()

    inside = run(layer.adapter, "bottleneck")
    y = run(layer, "adapted")
    with torch.no_grad():
        wrong = {
            "relu_after_up": up(down(x).relu()).relu(),
            "relu_after_up ": up(down(x)).relu(),
            "relu_missing": up(down(x)),
            "other_activation": up(F.gelu(down(x))),
            "other_activation ": up(F.gelu(down(x), approximate="tanh")),
            "other_activation  ": up(down(x).tanh()),
            "other_activation   ": up(F.silu(down(x))),
            "residual_inside": x + inside,
            "bottleneck_layer_norm": layer.adapter(F.layer_norm(x, (d,))),
        }
        tensors |= {f"bottleneck/y/{name}": tensor for name, tensor in wrong.items()}
        tensors |= {f"adapted/y/{name}": t for name, t in _adapted(base, layer.adapter, x, y).items()}
    return tensors


def _adapted(base: nn.Module, bottleneck: Bottleneck, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What the mistakes around the bottleneck give for the input `x`, where `y` is right."""
    fx = base.DenseReluDense(base.layer_norm(x))
    h, d = x + fx, x.shape[-1]
    without_norm = x + base.DenseReluDense(x)
    return {
        "residual_missing": bottleneck(h),
        "residual_twice": y + h,
        "before_residual": h + bottleneck(fx),
        "adapter_parallel": h + bottleneck(x),
        "adapter_layer_norm": h + bottleneck(F.layer_norm(h, (d,))),
        "adapter_layer_norm ": h + bottleneck(base.layer_norm(h)),
        "feed_forward_lost": x + bottleneck(h),
        "feed_forward_lost ": x + bottleneck(x),
        "input_lost": fx + bottleneck(h),
        "input_lost ": fx + bottleneck(fx),
        "base_norm_lost": without_norm + bottleneck(without_norm),
        "adapter_lost": h,
    }


def _prompt(model: T5ForConditionalGeneration, sizes: Sizes) -> dict[str, Tensor]:
    n, b, t = sizes.rows, sizes.texts, sizes.tokens
    rows = torch.randn(n, sizes.width)
    ids = torch.randint(2, sizes.vocabulary, (b, t))
    mask = torch.ones(b, t)
    mask[1, t - 2 :] = 0
    ids[1, t - 2 :] = 0
    embedded, direction = model.shared(ids).detach(), torch.randn(b, n + t, sizes.width)
    layer = PromptRows(rows)
    y = layer(embedded)
    (y * direction).sum().backward()
    new, wide = torch.ones(b, n), rows.expand(b, n, sizes.width)
    wrong = {"rows_behind": torch.cat([embedded, wide], 1), "rows_lost": embedded}
    if n <= t:
        wrong["rows_added"] = embedded + F.pad(wide, (0, 0, 0, t - n))
    masks = {
        "mask_short": mask,
        "mask_zeros": torch.cat([0 * new, mask], 1),
        "mask_behind": torch.cat([mask, new], 1),
    }
    tensors = {
        "rows": rows,
        "ids": ids.float(),
        "mask": mask,
        "embedded": embedded,
        "direction": direction,
        "y": y.detach(),
        "gradient": layer.prompt_emb.grad,
        "encoder_input": y.detach(),
        "long_mask": torch.cat([new, mask], 1),
        "logits": _logits(model, rows, ids, mask),
    }
    tensors |= {f"y/{name}": tensor for name, tensor in wrong.items()}
    tensors |= {f"encoder_input/{name}": tensor for name, tensor in wrong.items()}
    tensors |= {f"long_mask/{name}": tensor for name, tensor in masks.items()}
    return {f"prompt/{name}": tensor for name, tensor in tensors.items()}


def _logits(model: T5ForConditionalGeneration, rows: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The logits of a prompted copy of `model` for the first two tokens as targets."""
    tuned = apply(SoftPrompt(len(rows), initialiser=lambda table, n, generator: rows), copy.deepcopy(model))
    with torch.no_grad():
        return tuned.model(input_ids=ids, attention_mask=mask.long(), labels=ids[:, :2].contiguous()).logits


def _facts(model: T5ForConditionalGeneration, sizes: Sizes, seed: int) -> dict[str, Any]:
    right = adapter_places(model)
    attention = [
        n for n, m in model.named_modules() if n.endswith(".layer.0") and hasattr(m, "SelfAttention")
    ]
    cross = [n for n, m in model.named_modules() if hasattr(m, "EncDecAttention")]
    in_encoder = [name for name in right if name.startswith("encoder")]
    # A prime for each letter: two formulas then have the same value only if they say the same.
    letters = dict(zip(_LETTERS, random.Random(seed).sample(_PRIMES, len(_LETTERS)), strict=True))
    return {
        "seed": seed,
        "config": _config(sizes),
        "rank": sizes.rank,
        "alpha": sizes.alpha,
        "scaling": sizes.alpha / sizes.rank,
        "bottleneck": sizes.bottleneck,
        "rows": sizes.rows,
        "tokens": [[256, n, 256 - n] for n in (10, 1)],
        "letters": letters,
        "places": [
            [list(targets), find_in_blocks(model, targets, nn.Linear)]
            for targets in (("q", "v"), ("o",), ("wo",))
        ],
        "adapter_places": right,
        "wrong_adapter_places": {
            "adapter_after_attention": attention,
            "adapter_everywhere": [*attention, *right],
            "adapter_everywhere ": [*attention, *cross, *right],
            "adapter_after_cross": in_encoder + cross,
            "adapter_encoder_only": in_encoder,
            "adapter_inner": [f"{name}.DenseReluDense" for name in right],
        },
        "counts": _counts(letters),
    }


def _counts(letters: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """The value of each formula and of wrong ones, by the function that returns it and its arguments."""

    def value(symbols: str) -> int:
        return step("", symbols, letters).value

    found: dict[str, list[dict[str, Any]]] = {}
    for function, arguments, wrong in _COUNTS:
        case = {
            "arguments": list(arguments),
            "right": value(function(*arguments)),
            "wrong": [[mistake, value(symbols)] for mistake, symbols in wrong],
        }
        found.setdefault(function.__name__, []).append(case)
    return found


_LETTERS = ("V", "d", "d'", "f", "g", "H", "k", "L_enc", "L_dec", "r", "b", "N")
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)

_COUNTS: tuple[tuple[Callable[..., str], tuple[str, ...], tuple[tuple[str, str], ...]], ...] = (
    (
        attention_blocks,
        (),
        (
            ("count_cross", "L_enc + L_dec"),
            ("count_decoder", "L_enc"),
            ("count_twice", "2·L_enc + 4·L_dec"),
        ),
    ),
    (feed_forward_layers, (), (("count_decoder", "L_enc"), ("count_twice", "2·L_enc + 2·L_dec"))),
    (
        parameters_of_an_update,
        ("d'",),
        (
            ("count_one_matrix", "d·r"),
            ("count_one_matrix", "r·d'"),
            ("count_square", "2·d·r"),
            ("count_twice", "2·d·r + 2·r·d'"),
        ),
    ),
    (parameters_of_an_update, ("f",), (("count_other", "d·r + r·d'"),)),
    (
        parameters_of_a_bottleneck,
        (),
        (
            ("count_bias", "2·d·b"),
            ("count_bias", "2·d·b + b"),
            ("count_bias", "2·d·b + d"),
            ("count_one_matrix", "d·b + b + d"),
            ("count_twice", "4·d·b + 2·b + 2·d"),
        ),
    ),
    (parameters_of_a_prompt, (), (("count_twice", "2·N·d"),)),
)


if __name__ == "__main__":
    for path in write(Path(__file__).parent / "self_check" / "recorded"):
        print(path, path.stat().st_size)
