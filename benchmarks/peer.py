"""The peer that people really use: `Seq2SeqTrainer` of transformers with PEFT's LoRA in the model.

`plain` is set up as the documentation shows it: float32, batches at random. `tuned` has what its arguments
offer: bfloat16 (float16 where a GPU has no bfloat16), batches by length, the fused AdamW. Both get the
hyperparameters of ours, a constant learning rate among them: by default the trainer's falls to zero over
the run, so that few steps teach less.
"""

from __future__ import annotations

import inspect
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    DataCollatorForSeq2Seq,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from peft_scratch.assignment import MAX_LENGTH
from peft_scratch.data.batches import Collator
from peft_scratch.training.device import precision_of


@dataclass(frozen=True)
class Peer:
    """One way to set the trainer up.

    Attributes:
        low_precision: bfloat16, or float16, where the hardware has it.
        by_length: `group_by_length`.
        optimizer: as the trainer calls it.
    """

    name: str
    low_precision: bool
    by_length: bool
    optimizer: str

    def trainer(
        self,
        model: nn.Module,
        training: Collator,
        test: Collator,
        tokenizer: PreTrainedTokenizerBase,
        *,
        learning_rate: float,
        batch_size: int,
        epochs: int = 1,
        seed: int = 0,
    ) -> Seq2SeqTrainer:
        """A trainer of `model`, which PEFT has made; `train()` and `evaluate()` are its own."""
        dtype = precision_of()[0] if self.low_precision else torch.float32
        model.generation_config = GenerationConfig(
            max_length=MAX_LENGTH,
            do_sample=False,
            num_beams=1,
            decoder_start_token_id=model.config.decoder_start_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        arguments = Seq2SeqTrainingArguments(
            output_dir=tempfile.mkdtemp(prefix="peer-"),
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=2 * batch_size,  # as ours
            learning_rate=learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.01,  # torch's own default, which ours takes
            max_grad_norm=0.0,  # ours clips nothing
            num_train_epochs=epochs,
            optim=self.optimizer,
            bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16,
            use_cpu=not torch.cuda.is_available(),
            predict_with_generate=True,
            generation_max_length=MAX_LENGTH,
            label_names=["labels"],
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **self._grouping(),
        )
        return Seq2SeqTrainer(
            model=model,
            args=arguments,
            train_dataset=_rows(training),
            eval_dataset=_rows(test),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
            processing_class=tokenizer,
            compute_metrics=lambda output: _accuracy(output, tokenizer),
        )

    def _grouping(self) -> dict[str, Any]:
        """`group_by_length`, which later versions ask for in another way."""
        if not self.by_length:
            return {}
        known = inspect.signature(Seq2SeqTrainingArguments.__init__).parameters
        if "group_by_length" in known:
            return {"group_by_length": True}
        return {"train_sampling_strategy": "group_by_length"}


PEERS = {
    peer.name: peer
    for peer in (
        Peer("plain", low_precision=False, by_length=False, optimizer="adamw_torch"),
        Peer("tuned", low_precision=True, by_length=True, optimizer="adamw_torch_fused"),
    )
}


def _rows(collator: Collator) -> list[dict[str, list[int]]]:
    return [
        {"input_ids": row, "attention_mask": [1] * len(row), "labels": collator.targets[label]}
        for row, label in zip(collator.inputs, collator.labels, strict=True)
    ]


def _accuracy(output: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """With the labels that come with the predictions: `group_by_length` orders an evaluation by length too,
    and in the order of the data set no more than half of the answers would seem right."""
    said, wanted = (
        tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)
        for ids in (output.predictions, output.label_ids)
    )
    right = [one.strip() == other.strip() for one, other in zip(said, wanted, strict=True)]
    return {"accuracy": sum(right) / len(right)}
