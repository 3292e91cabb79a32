"""The sizes that a right submission has: entries, their shapes, and counts, calculated without a model.

The check runs in many short processes, so it does without torch, which takes seconds and hundreds of
megabytes to start. A test compares every size with the layers that are really trained.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from peft_scratch.assignment import HUB_BASE, PROFILES, RUNS, SIZES, Run
from peft_scratch.paths import OFFLINE_BASE


@dataclass(frozen=True)
class Base:
    """The sizes of a T5 with ReLU and tied embeddings: d is d_model, `inner` is heads times d_kv."""

    encoder: int
    decoder: int
    d: int
    d_ff: int
    inner: int
    heads: int
    vocabulary: int
    buckets: int = 32

    @property
    def parameters(self) -> int:
        """The parameters of the whole model before a method is applied."""
        attention, feed_forward = 4 * self.d * self.inner, 2 * self.d * self.d_ff
        encoder = self.encoder * (attention + feed_forward + 2 * self.d)
        decoder = self.decoder * (2 * attention + feed_forward + 3 * self.d)
        positions = 2 * self.buckets * self.heads
        return self.vocabulary * self.d + encoder + decoder + positions + 2 * self.d


# T5: Raffel et al. 2020 (arXiv:1910.10683), section 3.7, "Model variants".
_T5_SMALL = Base(encoder=6, decoder=6, d=512, d_ff=2048, inner=512, heads=8, vocabulary=32128)


@functools.cache
def base_of_profile(profile: str) -> Base:
    """The base that the runs of a profile start from."""
    if PROFILES[profile].base == HUB_BASE:
        return _T5_SMALL
    config = json.loads((OFFLINE_BASE / "config.json").read_text(encoding="utf-8"))
    return Base(
        encoder=config["num_layers"],
        decoder=config["num_decoder_layers"],
        d=config["d_model"],
        d_ff=config["d_ff"],
        inner=config["num_heads"] * config["d_kv"],
        heads=config["num_heads"],
        vocabulary=config["vocab_size"],
        buckets=config["relative_attention_num_buckets"],
    )


def base_name_of(profile: str) -> str:
    """The name of that base in messages."""
    return "t5-small" if PROFILES[profile].base == HUB_BASE else "offline"


@dataclass(frozen=True)
class Sizes:
    """A run on a base, in sizes alone.

    Attributes:
        entries: the shapes of the trained entries, by the names that this kit's layers give them.
        added, whole: the parameters that the method adds, and those of the whole model.
    """

    entries: dict[str, tuple[int, ...]]
    added: int
    whole: int


@functools.cache
def sizes_of(run_id: str, profile: str) -> Sizes:
    """The sizes of a run on the base of `profile`."""
    run, base = RUNS[run_id], base_of_profile(profile)
    added = added_by(run.kind, size_of(run), base)
    return Sizes(_entries(run.kind, size_of(run), base), added, base.parameters + added)


def size_of(run: Run) -> int:
    """N, b or r of a run; 0 for full fine-tuning."""
    return run.hyperparameters[SIZES[run.kind][0]] if run.kind in SIZES else 0


def added_by(kind: str, size: int, base: Base) -> int:
    """Parameters that a method of this size adds to `base`: N rows, 12 bottlenecks, 18 times q and v."""
    d = base.d
    return {
        "full": 0,
        "soft_prompt": size * d,
        "adapter": (base.encoder + base.decoder) * (d * size + size + size * d + d),
        "lora": (base.encoder + 2 * base.decoder) * 2 * size * (d + base.inner),
    }[kind]


def _entries(kind: str, size: int, base: Base) -> dict[str, tuple[int, ...]]:
    d = base.d
    if kind == "full":
        return {}
    if kind == "soft_prompt":
        return {"encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb": (size, d)}
    entries: dict[str, tuple[int, ...]] = {}
    for part, layers in (("encoder", base.encoder), ("decoder", base.decoder)):
        for block in range(layers):
            place = f"{part}.block.{block}.layer"
            if kind == "adapter":
                inside = f"{place}.{1 if part == 'encoder' else 2}.adapter.sharif_llm_adapter"
                entries |= {f"{inside}.0.weight": (size, d), f"{inside}.0.bias": (size,)}
                entries |= {f"{inside}.2.weight": (d, size), f"{inside}.2.bias": (d,)}
                continue
            attentions = ["0.SelfAttention", *(["1.EncDecAttention"] if part == "decoder" else [])]
            for attention in attentions:
                for letter in "qv":
                    inside = f"{place}.{attention}.{letter}.sharif_llm"
                    entries |= {f"{inside}_A": (d, size), f"{inside}_B": (size, base.inner)}
    return entries
