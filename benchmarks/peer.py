"""The usual tool to compare with: `Seq2SeqTrainer` of transformers, with PEFT's LoRA in the model.

`plain` is set up as the documentation shows it: float32, random batches. `tuned` uses the best of its
arguments: bfloat16 (or float16 on a GPU without it), batches by length, the fused AdamW. Both get our
hyperparameters. One of them is a constant learning rate: the trainer's default falls to zero over the run,
which would teach less in few steps.
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
    """One way to set up the trainer.

    Attributes:
        low_precision: whether to use bfloat16 or float16 if the hardware has it.
        by_length: whether batches have reviews of similar length.
        optimizer: the trainer's name for it.
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
        """The trainer of `model`, into which PEFT has put its LoRA."""
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
            weight_decay=0.01,  # torch's default, which ours uses
            max_grad_norm=0.0,  # ours does not clip gradients
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
        """The argument for batches by length, which later versions of transformers have renamed."""
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
    """The accuracy, by the labels that come with the predictions.

    Batches by length change the order of an evaluation too, so the data set's own labels would not fit.
    """
    said, wanted = (
        tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)
        for ids in (output.predictions, output.label_ids)
    )
    right = [one.strip() == other.strip() for one, other in zip(said, wanted, strict=True)]
    return {"accuracy": sum(right) / len(right)}
