"""Soft prompts with one mistake each, as students of this assignment write them."""

from functools import partial

import torch
from torch import nn

from peft_scratch.methods import PromptRows
from peft_scratch.methods.soft_prompt import (
    first_rows,
    hook_prompt,
    lengthen_cross_attention_mask,
    lengthened,
    prepend_prompt,
)


class OtherName(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.soft_prompt = nn.Parameter(rows.clone())


class Buffer(PromptRows):
    def __init__(self, rows):
        nn.Module.__init__(self)
        self.register_buffer("prompt_emb", rows.clone())


class Frozen(PromptRows):
    def __init__(self, rows):
        super().__init__(rows)
        self.prompt_emb.requires_grad_(False)


class Turned(PromptRows):
    def __init__(self, rows):
        super().__init__(rows.T)


class Copied(PromptRows):
    def forward(self, embedded):
        rows = torch.tensor(self.prompt_emb.tolist()).expand(len(embedded), -1, -1)
        return torch.cat([rows, embedded], dim=1)


class MadeAgain(PromptRows):
    def forward(self, embedded):
        self.prompt_emb = nn.Parameter(self.prompt_emb.detach().clone())
        return super().forward(embedded)


class View(PromptRows):
    def __init__(self, rows):
        nn.Module.__init__(self)
        self.prompt_emb = nn.Parameter(rows)


class Behind(PromptRows):
    def forward(self, embedded):
        return torch.cat([embedded, self.prompt_emb.expand(len(embedded), -1, -1)], dim=1)


class Added(PromptRows):
    def forward(self, embedded):
        n = len(self.prompt_emb)
        return torch.cat([embedded[:, :n] + self.prompt_emb[: embedded.shape[1]], embedded[:, n:]], dim=1)


class Lost(PromptRows):
    def forward(self, embedded):
        return embedded + 0 * self.prompt_emb.sum()


def hooked(change):
    """`prepend_prompt` with what it hands the encoder changed."""

    def hook(encoder, args, kwargs):
        new_args, new_kwargs = prepend_prompt(encoder, args, kwargs)
        return new_args, change(dict(new_kwargs), kwargs)

    return hook


def _in_place(mask, rows):
    mask.data = torch.cat([mask.new_ones(len(mask), rows), mask], dim=1)
    return mask


def _hook_in_place(encoder, args, kwargs):
    new = dict(prepend_prompt(encoder, args, kwargs)[1])
    kwargs["attention_mask"].data = new["attention_mask"]
    return (), new


def _behind(mask, rows):
    return torch.cat([mask, mask.new_ones(len(mask), rows)], dim=1)


def _in_decoder(model, rows):
    hook_prompt(model, rows)
    prompt = model.encoder.embed_tokens.sharif_llm_soft_prompts

    def hook(decoder, args, kwargs):
        embedded = model.shared(kwargs.pop("input_ids"))
        return args, {**kwargs, "inputs_embeds": prompt(embedded)}

    model.decoder.register_forward_pre_hook(hook, with_kwargs=True)


def _only_decoder(model, rows):
    hook = partial(lengthen_cross_attention_mask, rows=rows)
    model.decoder.register_forward_pre_hook(hook, with_kwargs=True)


def _only_encoder(model, rows):
    model.encoder.register_forward_pre_hook(prepend_prompt, with_kwargs=True)


def _twice(model, rows):
    hook_prompt(model, rows)
    model.encoder.register_forward_pre_hook(prepend_prompt, with_kwargs=True)


PROMPT = [
    ("prompt_start", "first_rows", lambda table, n, generator=None: table[-n:]),
    ("prompt_start", "first_rows", lambda table, n, generator=None: torch.randn(n, table.shape[1])),
    ("prompt_start", "first_rows", lambda table, n, generator=None: first_rows(table, n + 1)[1:]),
    ("prompt_names", "PromptRows", OtherName),
    ("prompt_not_trained", "PromptRows", Buffer),
    ("prompt_not_trained", "PromptRows", Frozen),
    ("prompt_shape", "PromptRows", Turned),
    ("prompt_copied", "PromptRows", Copied),
    ("prompt_copied", "PromptRows", MadeAgain),
    ("prompt_view", "PromptRows", View),
    ("rows_behind", "PromptRows", Behind),
    ("rows_added", "PromptRows", Added),
    ("rows_lost", "PromptRows", Lost),
    ("mask_encoder", "lengthened", lambda mask, rows: mask),
    ("mask_encoder", "lengthened", lambda mask, rows: mask.clone()),
    (
        "mask_zeros",
        "lengthened",
        lambda mask, rows: (
            0 * lengthened(mask, rows) + torch.cat([0 * mask[:, :1].expand(-1, rows), mask], 1)
        ),
    ),
    ("mask_behind", "lengthened", _behind),
    ("mask_in_place", "lengthened", _in_place),
    ("mask_wrong", "lengthened", lambda mask, rows: torch.ones_like(lengthened(mask, rows))),
    (
        "mask_encoder",
        "prepend_prompt",
        hooked(lambda new, old: {**new, "attention_mask": old["attention_mask"]}),
    ),
    (
        "mask_encoder",
        "prepend_prompt",
        hooked(lambda new, old: {k: v for k, v in new.items() if "mask" not in k}),
    ),
    (
        "mask_zeros",
        "prepend_prompt",
        hooked(
            lambda new, old: {
                **new,
                "attention_mask": nn.functional.pad(
                    old["attention_mask"], (new["inputs_embeds"].shape[1] - old["attention_mask"].shape[1], 0)
                ),
            }
        ),
    ),
    ("mask_in_place", "prepend_prompt", _hook_in_place),
    (
        "rows_behind",
        "prepend_prompt",
        hooked(
            lambda new, old: {**new, "inputs_embeds": new["inputs_embeds"].roll(old["input_ids"].shape[1], 1)}
        ),
    ),
    ("rows_lost", "prepend_prompt", lambda encoder, args, kwargs: None),
    ("mask_decoder", "lengthen_cross_attention_mask", lambda decoder, args, kwargs, rows: None),
    ("mask_decoder", "lengthen_cross_attention_mask", lambda decoder, args, kwargs, rows: (args, kwargs)),
    (
        "mask_behind",
        "lengthen_cross_attention_mask",
        lambda decoder, args, kwargs, rows: (
            args,
            {**kwargs, "encoder_attention_mask": _behind(kwargs["encoder_attention_mask"], rows)},
        ),
    ),
    (
        "mask_in_place",
        "lengthen_cross_attention_mask",
        lambda decoder, args, kwargs, rows: (
            args,
            {**kwargs, "encoder_attention_mask": _in_place(kwargs["encoder_attention_mask"], rows)},
        ),
    ),
    ("prompt_in_decoder", "hook_prompt", _in_decoder),
    ("encoder_not_hooked", "hook_prompt", _only_decoder),
    ("encoder_not_hooked", "hook_prompt", lambda model, rows: None),
    ("mask_decoder", "hook_prompt", _only_encoder),
    ("prompt_twice", "hook_prompt", _twice),
    ("beyond_length", "tokens_left", lambda most, rows: most),
    ("tokens_wrong", "tokens_left", lambda most, rows: most - rows - 1),
    ("count_twice", "parameters_of_a_prompt", lambda: "2·N·d"),
]
