"""`make gpu`: is the kit right on this machine's GPU, and how fast is it? It takes at most nine minutes.

    PYTHONPATH=src python benchmarks/gpu.py

It needs no network. It writes `benchmarks/gpu/<card>.json` after each part, and a page at the end. If a part
fails, its error is recorded and the next part starts.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import counted
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from gpu_page import page
from parts import read, summary
from subjects import method_rows, random_t5, tokenizer, tuned
from torch import Tensor, nn
from transformers import T5Config

from peft_scratch.assignment import RUNS
from peft_scratch.data.batches import Collator, plain_batches
from peft_scratch.errors import UserError
from peft_scratch.exactness.t5_configs import t5_config
from peft_scratch.experiments.environment import environment
from peft_scratch.files import write_atomically
from peft_scratch.methods import Adapter, FullFineTuning, LoRA, Method, SoftPrompt
from peft_scratch.paths import ROOT
from peft_scratch.results import write_json
from peft_scratch.training import device
from peft_scratch.training.recipe import RECIPES, Recipe
from peft_scratch.training.trainer import Trainer

METHODS: dict[str, Method] = {
    method.kind: method for method in (FullFineTuning(), SoftPrompt(10), Adapter(8), LoRA(8))
}
LEARNING_RATE = 1e-3
STEPS = 4  # of training, timed as one
WORDS = [[5, 1], [6, 1]]  # two label words and the end


@dataclass(frozen=True)
class Sizes:
    """What is measured. The tests use small sizes, to run all parts on a CPU."""

    config: T5Config
    tokens: int = 256
    batch: int = 32
    steps: int = 20
    rounds: int = 5
    profile: str = "offline"
    runs: tuple[str, ...] = tuple(RUNS)


@dataclass
class Measurement:
    """The parts in order, each recorded as soon as it is done, until the time is over."""

    path: Path
    deadline: float
    parts: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str, work: Callable[[], Any]) -> None:
        """Do `work` and record what it returns, or why it returned nothing."""
        started = time.perf_counter()
        if time.monotonic() > self.deadline:
            self.parts[name] = {"left_out": "the time was over"}
        else:
            try:
                self.parts[name] = {"found": work()}
            except Exception as problem:
                traceback.print_exc()
                self.parts[name] = {"failed": f"{type(problem).__name__}: {problem}"}
        self.parts[name]["seconds"] = time.perf_counter() - started
        write_json(self.path, self.parts)
        print(f"{name}: {self.parts[name]['seconds']:.0f} s", file=sys.stderr, flush=True)


def reviews(sizes: Sizes, count: int, rows: int = 0) -> Collator:
    """`count` inputs of random tokens, all as long as `sizes` allows with `rows` prompt rows."""
    rng = np.random.default_rng(0)
    ids = rng.integers(10, sizes.config.vocab_size - 200, (count, sizes.tokens - rows))
    return Collator(ids.tolist(), [i % 2 for i in range(count)], WORDS, pad_id=0)


def types_here(where: torch.device) -> list[torch.dtype]:
    """float32, float16 and, where the hardware has it, bfloat16."""
    new = where.type != "cuda" or torch.cuda.get_device_capability(where)[0] >= 8
    return [torch.float32, torch.float16, *([torch.bfloat16] if new else [])]


# (a) Whether it is right


def correctness(sizes: Sizes, where: torch.device) -> list[dict[str, Any]]:
    """Logits, gradients and losses of each method in each type, against T5's own code in float64.

    Errors are relative: the length of the difference over the length of what float64 gives.
    """
    config = copy.deepcopy(sizes.config)
    config.dropout_rate = 0.0
    base = random_t5(config)
    rows, recipe = [], RECIPES["fast"]
    for name, method in METHODS.items():
        collator = reviews(sizes, sizes.batch, method_rows(method))
        whole = list(range(sizes.batch))
        batch = {name: tensor.to(where) for name, tensor in collator(whole).items() if name != "index"}
        reference = tuned(method, base).double().to(where)
        expected = _once(reference, batch, RECIPES["reference"], where)
        losses = _plain_losses(reference, batch, sizes.steps)
        del reference
        for dtype in types_here(where):
            best = (dtype, "for the measurement")
            with mock.patch.object(device, "precision_of", return_value=best):
                model = recipe.cast_frozen(tuned(method, base)).to(where)
                found = _once(model, batch, recipe, where)
                trainer = _trainer(tuned(method, base), recipe, sizes.batch)
                ours = [trainer.train_batches(collator, [whole], "checking")[0] for _ in range(sizes.steps)]
                trainer.close()
            rows.append(
                {
                    "method": name,
                    "type": str(dtype).removeprefix("torch."),
                    "logits": _error(found["logits"], expected["logits"]),
                    "gradients": max(
                        _error(gradient, expected["gradients"][i])
                        for i, gradient in enumerate(found["gradients"])
                    ),
                    "losses": max(abs(one - other) for one, other in zip(ours, losses, strict=True)),
                    "finite": bool(np.isfinite(ours).all() and found["logits"].isfinite().all()),
                }
            )
    return rows


def _once(model: nn.Module, batch: dict[str, Tensor], recipe: Recipe, where: torch.device) -> dict[str, Any]:
    with recipe.forward_context(model, where):
        out = model(**batch, use_cache=False)
    trained = [p for p in model.parameters() if p.requires_grad]
    scale = 2.0**10  # as a loss scale would
    gradients = torch.autograd.grad(out.loss * scale, trained)
    return {"logits": out.logits.detach(), "gradients": [gradient / scale for gradient in gradients]}


def _plain_losses(model: nn.Module, batch: dict[str, Tensor], steps: int) -> list[float]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=LEARNING_RATE), []
    for _ in range(steps):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-12)).item()


def attention(sizes: Sizes, where: torch.device) -> list[dict[str, Any]]:
    """The fused kernel against plain products in float64, on lengths that are and are not multiples of 8."""
    from peft_scratch.training.gpu_attention import fused_attention

    heads, width, rows = sizes.config.num_heads, sizes.config.d_kv, []
    for dtype in types_here(where):
        for length in (8, 13, sizes.tokens - 1, sizes.tokens):
            generator = torch.Generator().manual_seed(length)
            q, k, v = (torch.randn(4, heads, length, width, generator=generator).to(where) for _ in "qkv")
            bias = torch.randn(4, heads, length, length, generator=generator).to(where)
            bias[1, :, :, length // 2 :] = torch.finfo(torch.float32).min
            exact = [x.double().requires_grad_() for x in (q / 4, k, v, bias)]
            plain = (exact[0] @ exact[1].transpose(2, 3) + exact[3]).softmax(-1) @ exact[2]
            given = [*(x.to(dtype).requires_grad_() for x in (q / 4, k, v)), bias.clone().requires_grad_()]
            fused = fused_attention(*given, p=0.0)
            gradients = torch.autograd.grad(fused.double().square().sum(), given)
            wanted = torch.autograd.grad(plain.square().sum(), exact)
            rows.append(
                {
                    "type": str(dtype).removeprefix("torch."),
                    "tokens": length,
                    "values": _error(fused, plain),
                    "gradients": max(map(_error, gradients, wanted)),
                }
            )
    return rows


# (b) The ten numbers


def ten_numbers(sizes: Sizes) -> list[dict[str, Any]]:
    """The runs of the offline profile, as the command line trains them, with scoring against generation."""
    from peft_scratch.experiments.session import Session

    session, rows = Session.open(sizes.profile, output=Path(tempfile.mkdtemp()), recipe="fast"), []
    for run_id in sizes.runs:
        try:
            result = session.prepare(run_id).train()
        except (ImportError, UserError) as problem:  # a library that is not installed here
            rows.append({"run": run_id, "failed": str(problem)})
            continue
        rows.append(
            {
                "run": run_id,
                "accuracy": result.accuracy.best,
                "last": result.accuracy.last,
                "seconds": result.seconds.total,
                "generation": result.generation.model_dump(),
                "precision": session.precision,
                "skipped_steps": [getattr(epoch, "skipped_steps", 0) for epoch in result.epochs],
            }
        )
    return rows


# (c) Speed and memory


def speed(sizes: Sizes, where: torch.device) -> list[dict[str, Any]]:
    """A step by each recipe, and by `Seq2SeqTrainer` with PEFT, on full batches, timed in turn."""
    base, rows = random_t5(sizes.config), []
    for name, method in METHODS.items():
        works = {
            recipe.name: _stepper(tuned(method, base), recipe, sizes, method) for recipe in RECIPES.values()
        }
        rows += [{"method": name, **row} for row in _timed(works, sizes, where)]
    try:
        rows += [{"method": "lora", **row} for row in _timed(_peers(base, sizes), sizes, where)]
    except ImportError as problem:
        rows.append({"method": "lora", "by": "Seq2SeqTrainer", "failed": str(problem)})
    finally:
        AcceleratorState._reset_state()  # the trainer has set its precision for the whole process
    return rows


def _trainer(model: nn.Module, recipe: Recipe, batch: int) -> Trainer:
    return Trainer(
        recipe.cast_frozen(model),
        accelerator=Accelerator(mixed_precision="no"),
        recipe=recipe,
        learning_rate=LEARNING_RATE,
        batch_size=batch,
    )


def _stepper(model: nn.Module, recipe: Recipe, sizes: Sizes, method: Method) -> Callable[[], object]:
    trainer = _trainer(model, recipe, sizes.batch)
    collator = reviews(sizes, STEPS * sizes.batch, method_rows(method))
    batches = plain_batches([len(row) for row in collator.inputs], sizes.batch)
    return lambda: trainer.train_batches(collator, batches, "measuring")


def _peers(base: nn.Module, sizes: Sizes) -> dict[str, Callable[[], object]]:
    """Some steps by `Seq2SeqTrainer`, plain and tuned, in this order: the last one made decides which low
    precision Accelerate uses, and the plain one uses none."""
    from peer import PEERS

    from peft_scratch.libraries import PeftLoRA

    whole = reviews(sizes, STEPS * sizes.batch)
    works = {}
    for peer in PEERS.values():
        model = tuned(PeftLoRA(rank=8, alpha=4.0), base)
        trainer = peer.trainer(
            model, whole, whole, tokenizer(), learning_rate=LEARNING_RATE, batch_size=sizes.batch
        )
        works[f"Seq2SeqTrainer, {peer.name}"] = trainer.train
    return works


def _timed(
    works: dict[str, Callable[[], object]], sizes: Sizes, where: torch.device
) -> Iterator[dict[str, Any]]:
    cuda = where.type == "cuda"
    seconds: dict[str, list[float]] = {name: [] for name in works}
    peak: dict[str, int | None] = {}
    for round_ in range(sizes.rounds + 1):  # the first, with what is done only once, is not timed
        for name, work in works.items():
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            work()
            if cuda:
                torch.cuda.synchronize()
            if round_:
                seconds[name].append((time.perf_counter() - started) / STEPS)
            peak[name] = torch.cuda.max_memory_allocated() if cuda else None
    for name in works:
        yield {"by": name, "step_seconds": summary(seconds[name]), "peak_bytes": peak[name]}


# (d) Hours for the assignment


def projection(sizes: Sizes, parts: dict[str, Any], name: str) -> dict[str, Any]:
    """Hours of all ten runs on this card: from measured steps, and the least possible from counted work.

    The time of an evaluation is that of a frozen step, scaled by their counted products.
    """
    work = counted.assignment_operations(sizes.config, sizes.tokens)
    steps = counted.EPOCHS * 25_000 / sizes.batch
    limits = {key: counted.hours(card, work["all"]) for key, card in counted.CARDS.items() if key in name}
    measured = {}
    rows = parts.get("speed", {}).get("found", [])
    for recipe in RECIPES:
        step = {row["method"]: row["step_seconds"]["median"] for row in rows if row.get("by") == recipe}
        if {"full", "lora"} <= step.keys():
            training = steps * (step["full"] + 9 * step["lora"])
            evaluation = 10 * steps * step["lora"] * work["evaluation"] / work["frozen_training"]
            measured[recipe] = (training + evaluation) / 3600
    return {"operations": work, "limits": limits, "hours": measured}


def measure(sizes: Sizes, where: torch.device, folder: Path, minutes: float) -> Path:
    """Measure all parts; return the path of the JSON. The page is beside it."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    path = folder / f"{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')}.json"
    found = environment(where, RECIPES["fast"].precision_name).model_dump()
    measurement = Measurement(path, time.monotonic() + 60 * minutes)
    measurement.part("machine", lambda: {"card": name, **found})
    measurement.part("correctness", lambda: correctness(sizes, where))
    measurement.part("attention", lambda: attention(sizes, where))
    measurement.part("speed", lambda: speed(sizes, where))
    measurement.part("projection", lambda: projection(sizes, measurement.parts, name))
    measurement.part("ten_numbers", lambda: ten_numbers(sizes))
    write_atomically(path.with_suffix(".md"), page(read(path)))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.5, help="when no further part starts")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "gpu")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This machine has no GPU that torch can use: run `make gpu` where there is one.")
    sizes = Sizes(t5_config("t5-small"))
    path = measure(sizes, torch.device("cuda"), arguments.folder, arguments.minutes)
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
