"""Labels for texts without labels, predicted by a MiniLM that was tuned on the labelled sentences.

The original T5 learnt `sst2 sentence: ` from 67,000 labelled phrases; here there are 7,500 labelled
sentences, which a small T5 learns by heart. An encoder that already knows English generalises from so
few, and its predictions on parts of the unlabelled reviews replace the missing phrases (distillation,
Hinton et al. 2015). The reviews' true labels are never read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from peft_scratch.data.batches import pad
from peft_scratch.pretraining.embeddings import minilm_folder
from peft_scratch.training.device import bfloat16_on_cpu

BATCH = 32
LEARNING_RATE = 1e-4
WARMUP = 0.1  # share of the steps; then the rate falls linearly to zero
LONGEST = 192  # how many tokens it reads at most
KEPT = 0.35  # share of its predictions that is kept for each label: the most certain


class Teacher:
    """MiniLM with a classification head, to be tuned by `train`.

    Raises:
        UserError: the package with MiniLM's weights is not installed.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        folder = minilm_folder()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        said, _ = logging.get_verbosity(), logging.set_verbosity_error()  # the head is meant to be new
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2, use_safetensors=True
        )
        logging.set_verbosity(said)

    def train(self, texts: Sequence[str], labels: Sequence[int], epochs: int) -> None:
        """AdamW on the cross-entropy of `labels`, with batches of similar length in random order."""
        rows, labels = self._tokens(texts), np.asarray(labels)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        steps = epochs * -(-len(rows) // BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1.0, (step + 1) / (WARMUP * steps), (steps - step) / ((1 - WARMUP) * steps)),
        )
        self.model.train()
        with tqdm(total=steps, desc="teacher: tuning", unit="step", mininterval=5) as bar:
            for _ in range(epochs):
                # A little noise on the lengths, so that batches differ in every epoch.
                order = np.argsort([len(row) + 3 * self.rng.random() for row in rows])
                batches = np.array_split(order, -(-len(rows) // BATCH))
                for chosen in self.rng.permutation(len(batches)):
                    batch = batches[chosen]
                    loss = cross_entropy(self._logits(rows, batch), torch.from_numpy(labels[batch]))
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    schedule.step()
                    bar.update()

    @torch.inference_mode()
    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts),) log-odds of positive against negative."""
        rows = self._tokens(texts)
        self.model.eval()
        scores = np.zeros(len(rows))
        batches = np.array_split(np.argsort([len(row) for row in rows]), -(-len(rows) // (2 * BATCH)))
        for batch in tqdm(batches, desc="teacher: predicting", unit="batch", mininterval=5):
            logits = self._logits(rows, batch)
            scores[batch] = (logits[:, 1] - logits[:, 0]).numpy()
        return scores

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]

    def _logits(self, rows: list[list[int]], batch: np.ndarray) -> Tensor:
        ids = pad([rows[i] for i in batch], self.tokenizer.pad_token_id)
        mask = (ids != self.tokenizer.pad_token_id).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_on_cpu()):
            return self.model(input_ids=ids, attention_mask=mask).logits.float()


def firmest(
    texts: Sequence[np.ndarray], scores: np.ndarray, kept: float = KEPT
) -> list[tuple[np.ndarray, int]]:
    """(text, label) of the share `kept` with the lowest scores (label 0) and with the highest (label 1).

    So each label gets the same number of texts, as in the reviews, even if the teacher prefers one label.
    """
    order, size = np.argsort(scores), round(kept * len(texts))
    return [(texts[i], 0) for i in order[:size]] + [(texts[i], 1) for i in order[len(order) - size :]]
