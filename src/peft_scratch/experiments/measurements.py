"""The three claims that the assignment opens with, measured on a run.

1. Memory: what training holds, read off its tensors while the one training loop runs.
2. Disk: what a task adds to the base, and the base itself. Sizes of the files as they lie there.
3. Knowledge: the loss of the base's own pre-training task, before and after, with the method in the
   model and taken out again; and how far training and test accuracy are apart.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedTokenizerBase

from peft_scratch.data.batches import Collator, LengthGroupedBatches, SortedBatches, subset
from peft_scratch.data.corruption import corrupt, draw_spans, sentinel_ids
from peft_scratch.data.tokens import tokenise
from peft_scratch.training.recipe import Recipe
from peft_scratch.training.trainer import History, make_optimizer, train_epoch

#: How many held-out reviews the base's knowledge is measured on.
KNOWLEDGE_REVIEWS = 128
# Which of their tokens are masked is the same for every run, whatever its seed.
MASKING_SEED = 0


# 1. Memory


def training_memory(
    model: nn.Module,
    collator: Collator,
    *,
    accelerator: Accelerator,
    recipe: Recipe,
    learning_rate: float,
    batch_size: int,
) -> dict[str, Any]:
    """What training `model` holds in memory, measured in two steps on the longest batch of `collator`.

    They are steps of the one training loop, taken after the run on the run's own model: so a run that
    was found on disk is measured like any other. They move the trainable weights and no others; put those
    back afterwards (`training.restore`).

    Args:
        batch_size: how many reviews go through the model at once, in all processes together.

    Returns:
        Bytes: `parameters`, all of them; `gradients`, all there at once before the optimiser's step;
        `optimizer`, its state after a step; `activations`, what the forward pass saves for the backward
        pass (see `saved_for_backward`); `peak` and `peak_kind` of the second step, the first that has
        all of it at once (see `peak_during`).
    """
    lengths = [len(row) for row in collator.inputs]
    longest = next(iter(SortedBatches(lengths, batch_size)))
    collator = subset(collator, longest)
    batches = LengthGroupedBatches([lengths[i] for i in longest], batch_size, seed=0)
    model.to(accelerator.device)
    prepared, optimizer = accelerator.prepare(model, make_optimizer(model, learning_rate))

    def step() -> None:
        history = History(micro_batch=batch_size)
        train_epoch(prepared, optimizer, batches, collator, accelerator, recipe, history, "measuring memory")

    gradients = {}

    def note(parameter: Tensor) -> None:
        gradients[parameter] = parameter.grad.nbytes

    hooks = [p.register_post_accumulate_grad_hook(note) for p in model.parameters() if p.requires_grad]
    with saved_for_backward(model) as saved:
        step()
    for hook in hooks:
        hook.remove()
    peak, kind = peak_during(step, accelerator.device)
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    memory = {
        "parameters": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(gradients.values()),
        "optimizer": sum(value.nbytes for value in state if isinstance(value, Tensor)),
        "activations": sum(saved.values()),
        "peak": peak,
        "peak_kind": kind,
    }
    accelerator.free_memory()
    return memory


@contextmanager
def saved_for_backward(model: nn.Module) -> Iterator[dict[int, int]]:
    """Within it, a forward pass notes what it saves for its backward pass: bytes, by address.

    Each storage counts once, however many operations save it or a view into it; the parameters, which
    are there anyway, do not count. For one forward pass: memory that was freed may be used anew.
    """
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def peak_during(work: Callable[[], None], device: torch.device) -> tuple[int | None, str | None]:
    """The most memory held while `work` runs, in bytes, and its kind; (None, None) where it cannot be had.

    On a GPU (`cuda`) that is what torch's allocator handed out there. On a CPU under Linux (`resident`) it
    is the whole process, with interpreter and libraries, as the kernel counts it (`VmHWM` in proc(5)).
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device), "cuda"
    watched = device.type == "cpu" and _reset_resident_peak()
    work()
    if not watched:
        return None, None
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]), "resident"


def _reset_resident_peak() -> bool:
    """Let the kernel's peak start anew from what is resident now; false where it does not offer that."""
    try:
        # What was freed, but is kept by the C library for later, would count as held. glibc alone has it.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return "VmHWM:" in Path("/proc/self/status").read_text()


# 3. Knowledge


def masked_reviews(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Collator:
    """The texts as T5's pre-training task, span corruption (Raffel et al. 2020, section 3.1.4).

    Spans of three tokens on average, 15 % of all, are drawn at random, the same every time.

    Args:
        max_tokens: length to which a text is cut before it is corrupted, its end token included.
    """
    rng = np.random.default_rng(MASKING_SEED)
    sentinels, end = sentinel_ids(tokenizer), tokenizer.eos_token_id
    pairs = []
    for row in tokenise(texts, tokenizer, max_tokens):
        tokens = np.array(row[:-1])  # `corrupt` puts the end token back
        mask = draw_spans(np.ones(len(tokens)), rng)
        if mask.any():  # an empty review has nothing to mask
            pairs.append([ids.tolist() for ids in corrupt(tokens, mask, sentinels, end)])
    inputs, targets = map(list, zip(*pairs, strict=True))
    # A collator looks targets up by label; here every text has a target of its own.
    return Collator(inputs, list(range(len(inputs))), targets, tokenizer.pad_token_id)


def pretraining_loss(
    model: nn.Module, masked: Collator, accelerator: Accelerator, recipe: Recipe, batch_size: int
) -> float:
    """The mean cross-entropy of `model` for a target token of `masked`, in nats.

    The model ends on the accelerator's device, in evaluation mode.
    """
    model.to(accelerator.device).eval()
    total, tokens = 0.0, 0
    with torch.inference_mode(), recipe.at_work(model, accelerator.device):
        for rows in SortedBatches([len(row) for row in masked.inputs], batch_size):
            batch = {n: t.to(accelerator.device) for n, t in masked(rows).items() if n != "index"}
            count = sum(len(masked.targets[row]) for row in rows)
            total += count * model(**batch).loss.item()
            tokens += count
    return total / tokens
