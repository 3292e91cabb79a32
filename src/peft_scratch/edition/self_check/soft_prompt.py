"""What is wrong with a student's soft prompt, found by running it on what is recorded."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from peft_scratch.edition.self_check.oracle import Oracle, close
from peft_scratch.edition.self_check.shapes import Shapes


def start(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `first_rows`, or None."""
    table, n = oracle["t5/shared.weight"], oracle.facts["rows"]
    return None if close(student.first_rows(table, n, None), table[:n]) else "prompt_start"


def rows(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `PromptRows`, or None."""
    given = oracle["prompt/rows"]
    made = student.PromptRows(given)
    named = dict(made.named_parameters())
    if "prompt_emb" not in named:
        if isinstance(getattr(made, "prompt_emb", None), Tensor):
            return "prompt_not_trained"
        return "prompt_names"
    if not named["prompt_emb"].requires_grad:
        return "prompt_not_trained"
    if named["prompt_emb"].shape != given.shape:
        return "prompt_shape"
    before = given.clone()
    with torch.no_grad():
        named["prompt_emb"].add_(1.0)
        shared = not torch.equal(given, before)
        named["prompt_emb"].sub_(1.0)
    if shared:
        return "prompt_view"
    embedded = oracle["prompt/embedded"]
    with Shapes(prompt_emb=named["prompt_emb"], embedded=embedded):
        y = made(embedded)
    if mistake := oracle.mistake("prompt/y", y, "rows_wrong"):
        return mistake
    if not y.requires_grad:
        return "prompt_copied"
    (y * oracle["prompt/direction"]).sum().backward()
    now = dict(made.named_parameters())["prompt_emb"]
    right = now is named["prompt_emb"] and close(now.grad, oracle["prompt/gradient"])
    return None if right else "prompt_copied"


def mask(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `lengthened`, or None."""
    given = oracle["prompt/mask"].long()
    found = student.lengthened(given, oracle.facts["rows"])
    return _mask(found, given, oracle, "mask_encoder")


def encoder_hook(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `prepend_prompt`, or None. `PromptRows` must be right already."""
    encoder = oracle.t5().encoder
    encoder.embed_tokens = _table(student, encoder.embed_tokens, oracle)
    ids, given = oracle["prompt/ids"].long(), oracle["prompt/mask"].long()
    changed = student.prepend_prompt(encoder, (), {"input_ids": ids, "attention_mask": given})
    if changed is None:
        return "rows_lost"
    args, kwargs = changed
    seen = inspect.signature(type(encoder).forward).bind_partial(encoder, *args, **kwargs).arguments
    if seen.get("inputs_embeds") is None:
        return "rows_lost"
    if mistake := oracle.mistake("prompt/encoder_input", seen["inputs_embeds"], "rows_wrong"):
        return mistake
    if seen.get("attention_mask") is None:
        return "mask_encoder"
    return _mask(seen["attention_mask"], given, oracle, "mask_encoder")


def decoder_hook(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `lengthen_cross_attention_mask`, or None."""
    n, given = oracle.facts["rows"], oracle["prompt/mask"].long()
    encoded = oracle["prompt/encoder_input"]
    kwargs = {"encoder_attention_mask": given, "encoder_hidden_states": encoded}
    changed = student.lengthen_cross_attention_mask(nn.Identity(), (), kwargs, rows=n)
    if changed is None:
        return "mask_decoder"
    return _mask(changed[1].get("encoder_attention_mask"), given, oracle, "mask_decoder")


def _mask(found: object, given: Tensor, oracle: Oracle, short: str) -> str | None:
    """What is wrong with a mask that should be `given`, lengthened; `short` if it was not lengthened."""
    if not torch.equal(given, oracle["prompt/mask"].long()) or found is given:
        # `.data` may have been set, which changes even the shape
        unchanged = tuple(given.shape) == tuple(oracle.tensors["prompt/mask"].shape)
        return short if unchanged and torch.equal(given, oracle["prompt/mask"].long()) else "mask_in_place"
    if not isinstance(found, Tensor):
        return short
    mistake = oracle.mistake("prompt/long_mask", found.float(), "mask_wrong")
    return short if mistake == "mask_short" else mistake


class _Table(nn.Embedding):
    """An embedding that can carry the rows, as in the kit."""


def _table(student: Any, table: nn.Embedding, oracle: Oracle) -> nn.Module:
    made = _Table(table.num_embeddings, table.embedding_dim)
    made.weight = table.weight
    made.sharif_llm_soft_prompts = student.PromptRows(oracle["prompt/rows"])
    return made


def hooks(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `hook_prompt`, or None. The two hooks must be right already."""
    model, n = oracle.t5(), oracle.facts["rows"]
    model.encoder.embed_tokens = _table(student, model.encoder.embed_tokens, oracle)
    seen: dict[str, dict[str, Any]] = {}

    def spy(name: str, stack: nn.Module, args: tuple, kwargs: dict) -> None:
        bound = inspect.signature(type(stack).forward).bind_partial(stack, *args, **kwargs).arguments
        seen[name] = {key: value.shape[1] for key, value in bound.items() if isinstance(value, Tensor)}

    student.hook_prompt(model, n)
    for name in ("encoder", "decoder"):
        getattr(model, name).register_forward_pre_hook(partial(spy, name), with_kwargs=True)
    ids, mask_ = oracle["prompt/ids"].long(), oracle["prompt/mask"].long()
    targets = ids[:, :2].contiguous()
    t, error = ids.shape[1], None
    try:
        logits = model(input_ids=ids, attention_mask=mask_, labels=targets).logits
    except (RuntimeError, ValueError, IndexError) as problem:  # masks and inputs that do not fit
        logits, error = None, problem
    encoder, decoder = seen.get("encoder", {}), seen.get("decoder", {})
    read = encoder.get("inputs_embeds", encoder.get("input_ids"))
    if read != n + t:
        return "prompt_twice" if read == 2 * n + t else "encoder_not_hooked"
    if decoder.get("inputs_embeds", decoder.get("input_ids")) not in (None, targets.shape[1]):
        return "prompt_in_decoder"
    if decoder and decoder.get("encoder_attention_mask") != n + t:
        return "mask_decoder"
    if error is not None:
        raise error
    return None if close(logits, oracle["prompt/logits"]) else "rows_wrong"


def tokens(student: Any, oracle: Oracle) -> str | None:
    """The mistake in `tokens_left`, or None."""
    for most, n, left in oracle.facts["tokens"]:
        found = student.tokens_left(most, n)
        if found != left:
            return "beyond_length" if found == most else "tokens_wrong"
    return None
