"""What a model predicts for each review, and how often it is right."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from peft_scratch.assignment import LABEL_WORDS, MAX_LENGTH
from peft_scratch.data.batches import Collator, make_loader
from peft_scratch.training.float16 import IN_FLOAT32, Float16Failed
from peft_scratch.training.progress import progress
from peft_scratch.training.recipe import Recipe

#: The prediction for an output that is neither label word.
MALFORMED = -1


class LabelWordAccuracy(evaluate.Metric):
    """Accuracy of label-word outputs; an output that is neither word is malformed and counts as wrong.

    Predictions are 0, 1 or -1 (malformed), references 0 or 1.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy of text-to-text sentiment, with the share of malformed outputs.",
            citation="",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        return {
            "accuracy": float((predictions == references).mean()),
            "malformed": float((predictions == MALFORMED).mean()),
        }


@dataclass(frozen=True)
class Predictions:
    """A prediction for each review of the test split, in its order: 0, 1 or -1 for malformed."""

    predictions: list[int]
    labels: list[int]

    def score(self, rows: Sequence[bool] | None = None) -> dict[str, float]:
        """`accuracy` and `malformed`, each a share of 1, over the reviews where `rows` is true."""
        keep = np.ones(len(self.labels), bool) if rows is None else np.asarray(rows, bool)
        # It keeps nothing but creates a folder. Not in the user's cache, which may not be writable.
        return LabelWordAccuracy(keep_in_memory=True, cache_dir=tempfile.gettempdir()).compute(
            predictions=np.asarray(self.predictions)[keep], references=np.asarray(self.labels)[keep]
        )

    @property
    def mistakes(self) -> list[int]:
        """Positions of the reviews the model got wrong."""
        return [
            i
            for i, (said, true) in enumerate(zip(self.predictions, self.labels, strict=True))
            if said != true
        ]


def predict(
    model: nn.Module,
    collator: Collator,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    batch_size: int,
    recipe: Recipe,
    title: str = "evaluating",
) -> Predictions:
    """Predict every review of `collator` with `model`, which `accelerator` has prepared.

    The predictions are those of greedy generation of at most `MAX_LENGTH` tokens. `recipe` may find them in a
    cheaper way (see `scored_predictions`). If float16 gives numbers that are not finite, everything is
    predicted again in float32.

    Args:
        title: names the work in its progress bar.
    """
    try:
        return _predict(model, collator, tokenizer, accelerator, batch_size, recipe, title)
    except Float16Failed:
        accelerator.print("float16 gave numbers that are not finite: this evaluation is done in float32")
        in_float32 = recipe.in_float32()
        in_float32.cast_frozen(model)
        return _predict(model, collator, tokenizer, accelerator, batch_size, in_float32, title)


def _predict(
    model: nn.Module,
    collator: Collator,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    batch_size: int,
    recipe: Recipe,
    title: str,
) -> Predictions:
    lengths = [len(row) for row in collator.inputs]
    loader = make_loader(
        recipe.evaluation_batches(lengths, batch_size * accelerator.num_processes), collator, accelerator
    )
    training = model.training
    model.eval()
    said = torch.full((len(lengths),), MALFORMED)
    bar = progress(loader, f"  {title}", "batch")
    with torch.inference_mode(), recipe.forward_context(model, accelerator.device):
        for batch in bar:
            whole = accelerator.unwrap_model(model)
            if recipe.scoring:
                predictions = scored_predictions(whole, batch, collator.targets, tokenizer)
            else:
                predictions = generated_predictions(whole, batch, tokenizer)
            said[batch["index"].cpu()] = predictions.cpu()
    model.train(training)
    # Where another process made the prediction, this one holds MALFORMED, which is less than any label.
    said = accelerator.gather(said[None].to(accelerator.device)).max(0).values.cpu()  # (processes, N) -> (N)
    return Predictions(said.tolist(), list(collator.labels))


def scored_predictions(
    model: nn.Module, batch: dict[str, Tensor], targets: list[list[int]], tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """The predictions (B,) on a batch: those of greedy generation, without most of its work.

    Greedy generation stops at the end-of-sequence token. So if the best token of the whole vocabulary is
    first a label word and then the end, the output is that word: one encoder pass and two decoder steps are
    enough. If the first token rules out both words (see `may_begin`), the output is malformed, whatever
    follows. Text is really generated only for the other reviews. The steps are those of `generate`,
    including its cache, so the numbers are the same.
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    first = torch.tensor([target[0] for target in targets], device=batch["input_ids"].device)
    predictions = torch.full((len(batch["input_ids"]),), MALFORMED, device=first.device)

    decoder_ids = torch.full_like(batch["input_ids"][:, :1], model.config.decoder_start_token_id)  # (B, 1)
    out = model(**inputs, decoder_input_ids=decoder_ids, use_cache=True)
    require_finite(out.logits)
    encoded = out.encoder_last_hidden_state  # (B, T, d), or longer by a prompt's rows
    word = out.logits[:, -1].argmax(-1)  # (B,)
    settled = torch.isin(word, first) if all(len(target) == 2 for target in targets) else word < 0
    if settled.any():
        out = model(
            encoder_outputs=BaseModelOutput(encoded),
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=word[:, None],
            **cache_of(out),
            use_cache=True,
        )
        settled &= out.logits[:, -1].argmax(-1) == tokenizer.eos_token_id
        predictions[settled] = (word[settled, None] == first).int().argmax(-1)
    possible = [token for token in word[~settled].unique().tolist() if may_begin(token, tokenizer)]
    rest = ~settled & torch.isin(word, word.new_tensor(possible))
    if rest.any():
        # The encoder runs again, because AdapterHub's `generate` takes no `encoder_outputs`.
        left = {name: tensor[rest] for name, tensor in inputs.items()}
        predictions[rest] = generated_predictions(model, left, tokenizer)
    return predictions


def require_finite(logits: Tensor) -> None:
    """Refuse float16's logits if they are not finite; those of other types are taken as they are.

    Raises:
        Float16Failed: they are not.
    """
    if logits.dtype == torch.float16 and not logits.isfinite().all():
        raise Float16Failed(f"float16 gave logits that are not finite: {IN_FLOAT32}.")


def cache_of(out: ModelOutput) -> dict[str, Any]:
    """The cache of a decoding step, as the argument of the next one.

    Its name is that of this version of transformers; some have both names for the same cache.
    """
    names = [name for name in ("cache", "past_key_values") if name in out]
    return {name: out[name] for name in names[:1]}


def may_begin(token: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether an output that begins with `token` may be decoded to a label word.

    Decoding joins the texts of the tokens and leaves out special tokens: any word may follow those. The text
    of any other first token begins the output, so it must also begin a label word. Nothing follows the end
    token.
    """
    if token == tokenizer.eos_token_id:
        return False
    text = tokenizer.decode([token], skip_special_tokens=True).strip()
    return any(word.startswith(text) for word in LABEL_WORDS)


def generated_predictions(
    model: nn.Module, inputs: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """The predictions (B,) by generation alone, as the assignment says; `scored_predictions` must agree.

    Args:
        inputs: `input_ids` and `attention_mask`, each `(B, T)`; more is passed over.
    """
    words = [text.strip() for text in generated_texts(model, inputs, tokenizer)]
    said = [LABEL_WORDS.index(word) if word in LABEL_WORDS else MALFORMED for word in words]
    return torch.tensor(said, device=inputs["input_ids"].device)


def generated_texts(
    model: nn.Module, inputs: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """What `model` writes for each of `inputs`, as `generated_predictions` takes them: greedy generation."""
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    output = model.generate(**texts, max_length=MAX_LENGTH, do_sample=False, num_beams=1)
    return tokenizer.batch_decode(output, skip_special_tokens=True)
