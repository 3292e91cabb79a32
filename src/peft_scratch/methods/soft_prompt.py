"""The soft prompt: trained rows before the embedded input of a frozen model.

Source: Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", 2021
(arXiv:2104.08691): section 2 for the method, `[P; X]` instead of X; section 3.2 for the
initialisers. Reference code: google-research/prompt-tuning.

Letters: B batch, T tokens, d width of the model (`d_model`), N prompt rows, V vocabulary.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_scratch.errors import UserError
from peft_scratch.methods.derivation import Derivation, letters, step
from peft_scratch.methods.injection import refuse_second_injection
from peft_scratch.methods.method import Method, require_positive_int
from peft_scratch.methods.parameters import is_own
from peft_scratch.methods.t5 import stacks

# 0. Initialisers. All have the same signature, so that any of them, or your own, can be given to
#    `SoftPrompt`: (embedding (V, d), n, generator) -> rows (n, d).

Initialiser = Callable[[Tensor, int, torch.Generator | None], Tensor]


def first_rows(embedding: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """The first `n` rows of the vocabulary, as the course does. `(V, d)` -> `(n, d)`.

    For T5 these are the padding, end and unknown tokens, then the most frequent pieces.
    """
    _require_rows(n, len(embedding), "vocabulary")
    # BEGIN SOLUTION
    return embedding[:n]  # (n, d)
    # END SOLUTION


def sampled_vocabulary(embedding: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """`n` different rows drawn from the 5,000 most frequent pieces (section 3.2). `(V, d)` -> `(n, d)`.

    T5's vocabulary is ordered by frequency, so these are its first 5,000 rows.
    """
    pool = min(5000, len(embedding))
    _require_rows(n, pool, "part of the vocabulary that is sampled")
    chosen = torch.randperm(pool, generator=generator)[:n]  # (n)
    return embedding[chosen.to(embedding.device)]  # (n, d)


def random_uniform(embedding: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows drawn uniformly from -0.5 to 0.5 (section 3.2); the embedding gives only d. -> `(n, d)`."""
    rows = torch.rand(n, embedding.shape[1], generator=generator) - 0.5  # (n, d)
    return rows.to(embedding.device)


def label_words(
    embedding: Tensor,
    n: int,
    generator: torch.Generator | None = None,
    *,
    words: Sequence[Sequence[int]],
) -> Tensor:
    """One row per label word, then sampled vocabulary (section 3.2, "class label"). `(V, d)` -> `(n, d)`.

    For a word of several pieces, the mean of their rows. Bind the words first:
    `partial(label_words, words=[tokenizer(w, add_special_tokens=False).input_ids for w in LABEL_WORDS])`.
    """
    means = [embedding[list(pieces)].mean(0) for pieces in words[:n]]  # each (d)
    rest = sampled_vocabulary(embedding, n - len(means), generator)  # (n - words, d)
    return torch.cat([torch.stack(means), rest])  # (n, d)


def _require_rows(n: int, there: int, where: str) -> None:
    if n > there:
        raise UserError(
            f"A soft prompt of {n} rows cannot start from the {there} rows of the {where}; take fewer."
        )


# 1. The maths


class PromptRows(nn.Module):
    """N trained rows, put before an embedded text: `[P; X]` (section 2).

    This is the only method that is not the identity at the start, because the model reads the rows. With
    `first_rows` it behaves, to the last bit, as if the text began with those N pieces of the vocabulary.

    Shapes: embedded `(B, T, d)` -> `(B, N + T, d)`; `prompt_emb` `(N, d)`.
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        # BEGIN SOLUTION
        self.prompt_emb = nn.Parameter(rows.detach().to(torch.float32, copy=True))  # (N, d)
        # END SOLUTION

    def forward(self, embedded: Tensor) -> Tensor:
        """`(B, T, d)` -> `(B, N + T, d)`."""
        # BEGIN SOLUTION
        prompt = self.prompt_emb.to(embedded.dtype).expand(len(embedded), -1, -1)  # (N, d) -> (B, N, d)
        return torch.cat([prompt, embedded], dim=1)  # (B, N + T, d)
        # END SOLUTION


# 2. The composition


class PromptedEmbedding(nn.Embedding):
    """The encoder's embedding table together with the prompt rows.

    Looking up tokens is unchanged: `(B, T)` -> `(B, T, d)`. The table is the base's own, under the same
    name, and stays tied to the decoder's and to the output layer.

    The rows cannot be added here: the encoder takes the length of its input before it looks up tokens, so
    its attention mask would be N columns short. `prepend_prompt` adds them one step earlier.
    """

    def __init__(self, table: nn.Embedding, rows: PromptRows) -> None:
        # "meta" allocates nothing: the layer uses the base's own weight, not a second one.
        super().__init__(table.num_embeddings, table.embedding_dim, table.padding_idx, device="meta")
        self.weight = table.weight  # (V, d)
        self.sharif_llm_soft_prompts = rows
        self.train(table.training)


class SetPromptedEmbedding:
    """Replaces `encoder.set_input_embeddings`, so that the rows stay when the table is replaced.

    transformers calls it for a new vocabulary: `resize_token_embeddings`, `set_input_embeddings`. It refers
    to the encoder weakly, so that an unused model is freed at once.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self._encoder = weakref.ref(encoder)

    def __call__(self, table: nn.Embedding) -> None:
        encoder = self._encoder()
        encoder.embed_tokens = PromptedEmbedding(table, encoder.embed_tokens.sharif_llm_soft_prompts)

    def __reduce__(self) -> tuple:
        return SetPromptedEmbedding, (self._encoder(),)


def prepend_prompt(encoder: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Before the encoder runs: embed the tokens, put the rows before them, lengthen the mask to match.

    `input_ids` `(B, T)` or `inputs_embeds` `(B, T, d)` become `inputs_embeds` `(B, N + T, d)`, and
    `attention_mask` `(B, T)`, if there is one, becomes `(B, N + T)`. The caller's tensors do not change.
    T5 computes its relative positions from the length it sees, so they need no change.
    """
    inputs = inspect.signature(type(encoder).forward).bind_partial(encoder, *args, **kwargs).arguments
    del inputs["self"]
    ids, embedded = inputs.pop("input_ids", None), inputs.pop("inputs_embeds", None)
    if (ids is None) == (embedded is None):
        return None  # none or both: T5 itself says what is wrong
    table = encoder.embed_tokens
    if (prompt := getattr(table, "sharif_llm_soft_prompts", None)) is None:
        raise UserError(
            "The encoder's embed_tokens was replaced, and the soft prompt in it is lost: replace it with "
            "model.set_input_embeddings, which keeps the prompt."
        )
    embedded = table(ids) if embedded is None else embedded  # (B, T, d)
    # BEGIN SOLUTION
    inputs["inputs_embeds"] = prompt(embedded)  # (B, N + T, d)
    if (mask := inputs.get("attention_mask")) is not None:
        inputs["attention_mask"] = lengthened(mask, len(prompt.prompt_emb))  # (B, N + T)
    # END SOLUTION
    return (), inputs


def lengthen_cross_attention_mask(
    decoder: nn.Module, args: tuple, kwargs: dict, *, rows: int
) -> tuple[tuple, dict] | None:
    """Before the decoder runs: lengthen its mask over the encoder's output by the prompt's N columns.

    T5 (and `generate`, at every step) gives the decoder the mask that the caller gave for the text,
    `(B, T)`; the encoder's output is `(B, N + T, d)`.
    """
    mask, encoded = kwargs.get("encoder_attention_mask"), kwargs.get("encoder_hidden_states")
    if mask is None or encoded is None or mask.shape[1] + rows != encoded.shape[1]:
        return None
    # BEGIN SOLUTION
    return args, {**kwargs, "encoder_attention_mask": lengthened(mask, rows)}
    # END SOLUTION


def lengthened(mask: Tensor, rows: int) -> Tensor:
    """Put `rows` columns of ones before `mask`: `(B, T)` -> `(B, N + T)`, a new tensor."""
    # BEGIN SOLUTION
    return torch.cat([mask.new_ones(len(mask), rows), mask], dim=1)
    # END SOLUTION


# 3. The injection


@dataclass(frozen=True)
class SoftPrompt(Method):
    """N trained rows before the encoder's input; the rest of the model is frozen.

    Attributes:
        virtual_tokens: N. The rows count towards the number of tokens that the input may have.
        initialiser: makes the initial rows.
    """

    virtual_tokens: int = 10
    initialiser: Initialiser = field(default=first_rows, repr=False)

    kind = "soft_prompt"
    library = "scratch"

    def __post_init__(self) -> None:
        rows = require_positive_int("The soft prompt's number of rows", self.virtual_tokens)
        object.__setattr__(self, "virtual_tokens", rows)  # frozen from here on

    def inject(self, model: T5ForConditionalGeneration) -> tuple[nn.Module, list[str]]:
        """Put the rows beside the encoder's embedding, and hook encoder and, if there is one, decoder.

        Raises:
            UserError: the initialiser cannot give that many rows, or the model already has a method.
        """
        refuse_second_injection(model)
        table = model.encoder.embed_tokens
        rows = self.initialiser(table.weight.detach(), self.virtual_tokens, None)  # (N, d)
        if rows.shape != (shape := (self.virtual_tokens, table.embedding_dim)):
            raise UserError(
                f"The initialiser returned rows of shape {tuple(rows.shape)}; it has to be {shape}."
            )
        model.encoder.embed_tokens = PromptedEmbedding(table, PromptRows(rows))
        model.encoder.set_input_embeddings = SetPromptedEmbedding(model.encoder)
        hook_prompt(model, self.virtual_tokens)
        return model, ["encoder.embed_tokens"]

    def declares(self, name: str) -> bool:
        """The prompt's rows."""
        return is_own(name)

    def derivation(self, config: T5Config) -> Derivation:
        """Rows as wide as the model."""
        sizes = letters(config) | {"N": self.virtual_tokens}
        return Derivation((step("rows as wide as the model", parameters_of_a_prompt(), sizes),))

    def hyperparameters(self) -> dict:
        """As for every method, with the initialiser by its name."""
        initialiser = getattr(self.initialiser, "func", self.initialiser)  # the function inside the `partial`
        return {"virtual_tokens": self.virtual_tokens, "initialiser": initialiser.__name__}


def hook_prompt(model: T5ForConditionalGeneration, rows: int) -> None:
    """Make the encoder put the prompt before its input, and the decoder lengthen its mask by `rows`.

    The decoder reads the rows only as part of the encoder's output; it has no rows of its own.
    """
    # BEGIN SOLUTION
    model.encoder.register_forward_pre_hook(prepend_prompt, with_kwargs=True)
    if "decoder" in stacks(model):  # an encoder alone returns its N + T rows to the caller
        model.decoder.register_forward_pre_hook(
            partial(lengthen_cross_attention_mask, rows=rows), with_kwargs=True
        )
    # END SOLUTION


def tokens_left(max_tokens: int, rows: int) -> int:
    """How many of `max_tokens` tokens are left for the text, because the rows count too."""
    # BEGIN SOLUTION
    return max_tokens - rows
    # END SOLUTION


def parameters_of_a_prompt() -> str:
    """How many parameters the rows have, in letters."""
    # BEGIN SOLUTION
    return "N·d"
    # END SOLUTION
