"""The soft prompt through OpenDelta."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.libraries.opendelta_compat import import_opendelta
from peft_scratch.methods.derivation import Derivation
from peft_scratch.methods.method import Method
from peft_scratch.methods.soft_prompt import SoftPrompt, first_rows

_PARAMETER = "encoder.soft_prompt_layer.soft_embeds"


@dataclass(frozen=True)
class OpenDeltaPrompt(Method):
    """Our `SoftPrompt` by OpenDelta (Lester et al. 2021, section 2).

    The rows start as the first rows of the vocabulary: the library's `token_init`, which is its
    default and what the course asks for.

    Deep copies and pickles of the model are refused: basemodel.py, insert_module binds the encoder's new
    `forward` to this encoder, so a copy would run the original encoder.

    Attributes:
        virtual_tokens: N. The rows count towards the number of tokens that the input may have.
    """

    virtual_tokens: int = 10

    kind = "soft_prompt"
    library = "opendelta"

    def __post_init__(self) -> None:
        self._from_scratch()

    def _from_scratch(self) -> SoftPrompt:
        """The method from scratch, which checks the hyperparameter and derives the count."""
        return SoftPrompt(self.virtual_tokens)

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Put the rows into the encoder, which then places them before its embedded input.

        Raises:
            UserError: there are more rows than the vocabulary has, the model does not generate or is in
                float16, or OpenDelta is not installed.
        """
        if not model.can_generate():
            raise UserError(
                f"OpenDelta's prompt cannot be put into a {type(model).__name__}: use SoftPrompt() from "
                "scratch, which works on it."
            )
        if model.dtype == torch.float16:
            raise UserError(
                "OpenDelta's prompt has the type of the base, and in float16 AdamW makes it NaN: load the "
                "base in float32 or bfloat16."
            )
        opendelta = import_opendelta()
        rows = first_rows(model.get_input_embeddings().weight.detach(), self.virtual_tokens)  # (N, d)
        # delta_models/soft_prompt.py, SoftPromptLayer.__init__ and .instantiate make token ids on the default
        # device; and if the rows have to move, their `.to(device)` turns the parameter into an ordinary
        # tensor. With the model's device as the default, neither is a problem.
        with torch.device(model.device):
            prompt_by_opendelta(opendelta, model, self.virtual_tokens)
        assert torch.equal(model.get_parameter(_PARAMETER), rows), "OpenDelta started from other rows"
        # `freeze_module()` is left out on purpose: basemodel.py, set_active_state_dict would shorten what
        # `model.state_dict()` returns. The kit freezes by parameter names.
        model.train(model.training)  # the new layer is in training mode, even if the model is not
        _spare_the_callers_mask(model)
        for module in (model, model.encoder):
            module.__reduce_ex__ = _refuse_copy
        model.encoder.set_input_embeddings = functools.partial(_set_embedding, model.encoder)
        return model, ["encoder"]

    def declares(self, name: str) -> bool:
        """The prompt's rows."""
        return name == _PARAMETER

    def derivation(self, config: T5Config) -> Derivation:
        """As from scratch: `N·d`."""
        return self._from_scratch().derivation(config)


def prompt_by_opendelta(opendelta: ModuleType, model: T5ForConditionalGeneration, rows: int) -> None:
    """Put OpenDelta's prompt of `rows` rows into `model`, in place; the rows start from the vocabulary.

    Args:
        opendelta: the package.
    """
    # BEGIN SOLUTION
    opendelta.SoftPromptModel(model, soft_token_num=rows, token_init=True)
    # END SOLUTION


def _refuse_copy(protocol: int) -> tuple:
    raise UserError(
        "A model with OpenDelta's prompt in it can neither be copied nor pickled nor saved whole: save the "
        "prompt with save_delta(model, path, method.declares), and load it into a fresh model."
    )


def _set_embedding(encoder: nn.Module, table: nn.Embedding) -> None:
    """Replaces `encoder.set_input_embeddings`, because the library looks up tokens in its own table."""
    encoder.embed_tokens = encoder.soft_prompt_layer.__dict__["raw_embedding"] = table


def _spare_the_callers_mask(model: T5ForConditionalGeneration) -> None:
    """Give the model a copy of each attention mask it is called with, or ones if there is none.

    delta_models/soft_prompt.py, SoftPromptLayer.pre_forward sets `.data` of the mask it gets, so that
    the decoder, which gets the same tensor, sees N more columns. The caller sees them too, and its next
    call with the same batch fails. The mask has to be copied before it reaches encoder and decoder: in
    `forward`, and in `generate`, which calls the encoder itself. Without a mask, the library would hide
    token 0 from the encoder but not from the decoder, while a plain T5 hides nothing.

    With `encoder_outputs` from an earlier call, a caller passes the mask of its text. Then no encoder runs
    and lengthens the mask, so it is lengthened here.
    """
    signature = inspect.signature(model.forward)

    def own_mask(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        kwargs = signature.bind(*args, **kwargs).arguments
        if kwargs.get("attention_mask") is not None:
            mask = kwargs["attention_mask"].clone()  # (B, T), or (B, N + T) within `generate`
            if kwargs.get("encoder_outputs") is not None:
                rows = kwargs["encoder_outputs"][0].shape[1] - mask.shape[1]
                mask = torch.cat([mask.new_ones(len(mask), rows), mask], dim=1)  # (B, N + T)
            kwargs["attention_mask"] = mask
        elif kwargs.get("input_ids") is not None:
            kwargs["attention_mask"] = torch.ones_like(kwargs["input_ids"])
        return (), kwargs

    model.register_forward_pre_hook(own_mask, with_kwargs=True)
    library_generate = model.generate

    @functools.wraps(library_generate)
    def generate(*args: object, **kwargs: object) -> object:
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = kwargs["attention_mask"].clone()
        return library_generate(*args, **kwargs)

    model.generate = generate
