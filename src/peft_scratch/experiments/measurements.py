"""The three claims that the assignment opens with, measured on a run.

1. Memory: what training holds, read from its tensors while the one training loop runs.
2. Disk: the sizes of the files of what a task adds to the base, and of the base itself.
3. Knowledge: the loss of the base's own pre-training task before and after training, and with the method
   taken out again; and how far training and test accuracy are apart.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedTokenizerBase

from peft_scratch.data.batches import Collator, sorted_batches
from peft_scratch.data.corruption import corrupt, draw_spans, sentinel_ids
from peft_scratch.data.tokens import tokenise
from peft_scratch.methods import base_of
from peft_scratch.results import Knowledge, Memory
from peft_scratch.training.progress import progress
from peft_scratch.training.trainer import Trainer

if TYPE_CHECKING:
    from peft_scratch.experiments.run import PreparedRun
    from peft_scratch.experiments.session import Session

#: How many held-out reviews the base's knowledge is measured on.
KNOWLEDGE_REVIEWS = 128
# The same tokens are masked for every run, whatever its seed.
MASKING_SEED = 0


# 1. Memory


def training_memory(trainer: Trainer, collator: Collator) -> Memory:
    """What training holds in memory, measured in two steps on the longest batch of `collator`.

    The steps are those of the one training loop. They are taken after the run, on the run's own model, so a
    run found on disk is measured like any other. The learning rate is 0, so no weight changes. The batch
    holds as many reviews as go through the model at once (`trainer.micro_batch`).

    Returns:
        Bytes of all `parameters`; of the `gradients`, just before the optimizer's step; of the `optimizer`'s
        state after a step; and of the `activations` that the forward pass saves for the backward pass (see
        `saved_for_backward`). `peak` and `peak_kind` are of the second step, the first that holds all of
        these at once (see `peak_during`).
    """
    model = trainer.model
    longest = sorted_batches([len(row) for row in collator.inputs], trainer.micro_batch)[0]

    def step() -> None:
        trainer.train_batches(collator, [longest], "  measuring memory")

    gradients = {}

    def note(parameter: Tensor) -> None:
        gradients[parameter] = parameter.grad.nbytes

    hooks = [p.register_post_accumulate_grad_hook(note) for p in model.parameters() if p.requires_grad]
    with _learning_nothing(trainer):
        with saved_for_backward(model) as saved:
            step()
        for hook in hooks:
            hook.remove()
        peak, kind = peak_during(step, trainer.accelerator.device)
    state = [value for entry in trainer.optimizer.state.values() for value in entry.values()]
    trainer.close()
    return Memory(
        parameters=sum(p.nbytes for p in model.parameters()),
        gradients=sum(gradients.values()),
        optimizer=sum(value.nbytes for value in state if isinstance(value, Tensor)),
        activations=sum(saved.values()),
        peak=peak,
        peak_kind=kind,
    )


@contextmanager
def _learning_nothing(trainer: Trainer) -> Iterator[None]:
    """Within it, the learning rate is 0, whatever its schedule: AdamW's steps then move no weight."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # the one that Accelerate wraps

    def set_rate(rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    hook = optimizer.register_step_pre_hook(lambda *_: set_rate(0.0))
    yield
    hook.remove()
    set_rate(trainer.learning_rate)


@contextmanager
def saved_for_backward(model: nn.Module) -> Iterator[dict[int, int]]:
    """Within it, a forward pass notes what it saves for its backward pass: bytes, by address.

    Each storage counts once, however many operations save it or a view of it. Parameters do not count,
    because they are in memory anyway. Each noted storage is kept alive until the end. Otherwise another
    tensor could get its address, and the two would count as one.
    """
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and storage.data_ptr() not in saved:
            saved[storage.data_ptr()] = storage.nbytes()
            kept.append(storage)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def peak_during(work: Callable[[], None], device: torch.device) -> tuple[int | None, str | None]:
    """The most memory held while `work` runs, in bytes, and its kind; (None, None) if it cannot be measured.

    On a GPU (`cuda`) it is what torch's allocator handed out. On a CPU under Linux (`resident`) it is the
    whole process, with interpreter and libraries, as the kernel counts it (`VmHWM` in proc(5)).
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
    """Reset the kernel's peak to the memory in use now; false if the kernel cannot do that."""
    try:
        # Otherwise freed memory that the C library keeps for later would count. Only glibc has this call.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return "VmHWM:" in Path("/proc/self/status").read_text()


# 3. Knowledge


def knowledge(prepared: PreparedRun) -> Knowledge:
    """The loss of the pre-training task: of the base, of the tuned model, and with the method off."""
    session, model = prepared.session, prepared.tuned.model
    masked = session.masked
    off = None
    if prepared.run.kind != "full":
        # Frozen like the untouched base, so that every recipe measures both alike.
        off = pretraining_loss(base_of(prepared.tuned).requires_grad_(False), masked, session)
    return Knowledge(
        reviews=len(masked.inputs),
        base=session.base_knowledge,
        tuned=pretraining_loss(model, masked, session),
        off=off,
    )


def masked_reviews(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Collator:
    """The texts as T5's pre-training task: span corruption (Raffel et al. 2020, section 3.1.4).

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
    # A collator looks up targets by label; here every text has its own target.
    return Collator(inputs, list(range(len(inputs))), targets, tokenizer.pad_token_id)


def pretraining_loss(model: nn.Module, masked: Collator, session: Session) -> float:
    """The mean cross-entropy of `model` per target token of `masked`, in nats.

    The model ends on the session's device, in evaluation mode.
    """
    device = session.accelerator.device
    model.to(device).eval()
    total, tokens = 0.0, 0
    with torch.inference_mode(), session.recipe.forward_context(model, device):
        batches = sorted_batches([len(row) for row in masked.inputs], session.profile.batch_size)
        for rows in progress(batches, "  measuring the pre-training task", "batch"):
            batch = {n: t.to(device) for n, t in masked(rows).items() if n != "index"}
            count = sum(len(masked.targets[row]) for row in rows)
            total += count * model(**batch).loss.item()
            tokens += count
    return total / tokens
