"""A run of the ten, with its method in a fresh base model: prepared, trained, kept and asked."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from peft_scratch.assignment import MAX_LENGTH, Profile, Run, find_run
from peft_scratch.data.batches import Collator
from peft_scratch.data.reviews import Reviews
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.experiments.base_model import base_bytes, base_fingerprint
from peft_scratch.experiments.environment import environment
from peft_scratch.experiments.measurements import measure
from peft_scratch.experiments.remarks import remark_on_epoch, remark_on_prompt
from peft_scratch.experiments.settings import change, configuration, fingerprint, prompt_rows
from peft_scratch.files import write_atomically
from peft_scratch.libraries import method_of
from peft_scratch.methods import Tuned, apply, count_parameters, save_delta
from peft_scratch.methods.checkpoint import serialised
from peft_scratch.paths import shown
from peft_scratch.results import Disk, Files, RunResult, write_result
from peft_scratch.training.checkpoints import History, restore, trainable_state
from peft_scratch.training.evaluation import Predictions
from peft_scratch.training.trainer import Trainer

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session


@dataclass(frozen=True)
class PreparedRun:
    """A run about to be trained: its constants, and a fresh base model with its method in it.

    Attributes:
        run: with changed hyperparameters if the user changed any.
        profile: with changed sizes, likewise.
        tuned: the model with the method in it.
        changed: whether the user changed a constant; such a run is kept apart from the ten.
    """

    session: Session
    run: Run
    profile: Profile
    learning_rate: float
    tuned: Tuned
    changed: bool

    @classmethod
    def prepare(cls, session: Session, run_id: str, settings: dict[str, Any]) -> PreparedRun:
        """See `Session.prepare`."""
        run, profile = change(find_run(run_id), session.profile, settings)
        learning_rate = settings.get("learning_rate", run.learning_rate_in(profile))
        set_seed(session.seed)  # decides how the method's own parameters start
        tuned = apply(method_of(run), session.base())
        session.recipe.cast_frozen(tuned.model)
        return cls(session, run, profile, float(learning_rate), tuned, bool(settings))

    @functools.cached_property  # the base's file is hashed for it
    def configuration(self) -> dict[str, Any]:
        """Everything that the weights of this run depend on."""
        seed, recipe = self.session.seed, self.session.recipe.name
        base = base_fingerprint(self.profile)
        return configuration(self.run, self.profile, self.learning_rate, seed, base, recipe)

    @property
    def folder(self) -> Path:
        """Where this run keeps its checkpoints and its best weights."""
        return self.session.run_folder(self.run.id, fingerprint(self.configuration))

    @property
    def reviews(self) -> Reviews:
        """The session's, or others if the user changed how many."""
        same = self.profile == self.session.profile
        return self.session.reviews if same else self.session.reviews_of(self.profile)

    def collator(self, split: Any) -> Collator:
        """The reviews of `split`, cut to what the run's virtual tokens leave of an input."""
        return self.session.collator(split, self.profile.max_tokens - prompt_rows(self.run))

    def predict(self, collator: Collator, **options: Any) -> Predictions:
        """What the model as it stands says of the reviews of `collator`."""
        model = self.tuned.model.to(self.session.accelerator.device)
        return self.session.predict(model, collator, self.profile.batch_size, **options)

    def trainer(self) -> Trainer:
        """A trainer of this run's model with its learning rate."""
        return Trainer(
            self.tuned.model,
            accelerator=self.session.accelerator,
            recipe=self.session.recipe,
            learning_rate=self.learning_rate,
            batch_size=self.profile.batch_size,
            seed=self.session.seed,
        )

    def train(self) -> RunResult:
        """Train the run, or resume it where it stopped; return its result, as its JSON holds it.

        Afterwards the model carries the weights of its best epoch. A finished run is not repeated.

        Raises:
            UserError: the output folder cannot be written to, or the loss stopped being a number.
        """
        session, config, folder, reviews = self.session, self.configuration, self.folder, self.reviews
        training, test = (self.collator(split) for split in (reviews.train, reviews.test))

        def evaluate(model: torch.nn.Module) -> dict[str, Any]:
            predictions = session.predict(model, test, self.profile.batch_size)
            return scores(predictions, reviews.test["validation"])

        def remark(epoch: dict[str, Any]) -> str | None:
            usual = self.run.learning_rate_in(self.profile)
            return remark_on_epoch(epoch, test.labels, self.learning_rate, usual)

        with session.alone_in(folder):
            history = self.trainer().fit(training, evaluate, self.profile.epochs, folder, remark)
            if self.run.kind == "soft_prompt" and (said := remark_on_prompt(self, history)):
                session.accelerator.print(said)
            restore(self.tuned.model, history.best_state)
            self.tuned.model.eval()
            measured = measure(self, history, training, test, folder / "result.json")
            result = RunResult(**self._facts(config, history, reviews), **_summary(history), **measured)
            if session.accelerator.is_main_process:
                self._keep(result, folder)
            session.accelerator.wait_for_everyone()  # so that no other reads what is not written yet
        return result

    def score(self) -> dict[str, Any]:
        """What the model scores on the test reviews as it stands: `accuracy` and other shares of 1."""
        test = self.session.reviews.test
        return scores(self.predict(self.collator(test)), test["validation"])

    def logits(self, rows: Sequence[int]) -> Tensor:
        """The model's logits (B, T', V) for the label words of the test reviews at `rows`."""
        with self._at_rest(self._texts_of(rows)) as (model, batch):
            names = ("input_ids", "attention_mask", "labels")
            return model(**{name: batch[name] for name in names}).logits.float().cpu()

    def leanings(self, texts: Sequence[str]) -> Tensor:
        """By how many nats the model prefers `positive` to `negative` after each of `texts` (B,)."""
        session = self.session
        tokens = tokenise(list(texts), session.tokenizer, self.profile.max_tokens - prompt_rows(self.run))
        targets = label_ids(session.tokenizer)
        collator = Collator(tokens, [0] * len(tokens), targets, session.tokenizer.pad_token_id)
        negative, positive = (target[0] for target in targets)
        with self._at_rest(collator) as (model, batch):
            names = ("input_ids", "attention_mask", "labels")
            first = model(**{name: batch[name] for name in names}).logits[:, 0].float().cpu()  # (B, V)
        return first[:, positive] - first[:, negative]

    def answers(self, rows: Sequence[int]) -> list[str]:
        """What the model generates for the test reviews at `rows`, word for word."""
        with self._at_rest(self._texts_of(rows)) as (model, batch):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            output = model.generate(**inputs, max_length=MAX_LENGTH, do_sample=False, num_beams=1)
            return self.session.tokenizer.batch_decode(output, skip_special_tokens=True)

    def _texts_of(self, rows: Sequence[int]) -> Collator:
        """The test reviews at `rows`, cut to length as in the run."""
        return self.collator(self.session.reviews.test.select(rows))

    @contextmanager
    def _at_rest(self, collator: Collator) -> Iterator[tuple[torch.nn.Module, dict[str, Tensor]]]:
        """The model on the device with dropout off, and all that `collator` has as one batch."""
        device = self.session.accelerator.device
        rows = list(range(len(collator.inputs)))
        batch = {name: tensor.to(device) for name, tensor in collator(rows).items()}
        model = self.tuned.model.to(device).eval()
        with torch.inference_mode(), self.session.recipe.forward_context(model, device):
            yield model, batch

    def _facts(self, config: dict[str, Any], history: History, reviews: Reviews) -> dict[str, Any]:
        """What the result says of the run besides what was measured."""
        run, tuned = self.run, self.tuned
        whole, t5 = count_parameters(tuned.model), tuned.model.config
        by_hand = tuned.method.derivation(t5)
        return {
            "id": run.id,
            "title": run.title,
            "notebook": run.notebook,
            "profile": self.profile.name,
            "fingerprint": fingerprint(config),
            "config": config,
            "reviews": {"train": len(reviews.train), "test": len(reviews.test)},
            "environment": environment(self.session.accelerator.device, self.session.precision),
            "parameters": {
                "added": by_hand.value,
                "by_hand": {
                    "symbols": by_hand.symbols,
                    "with_numbers": by_hand.with_numbers,
                    "value": by_hand.value,
                },
                "trainable": sum(tensor.numel() for tensor in history.best_state.values()),
                "whole": whole,
                "trainable_tensors": len(history.best_state),
                "modules": len(tuned.module_names),
            },
            "base_model": {
                "name": shown(self.profile.base),
                **{name: getattr(t5, name) for name in ("d_model", "num_layers", "num_decoder_layers")},
                "inner_dim": t5.num_heads * t5.d_kv,
                "parameters": whole - by_hand.value,
            },
        }

    def _keep(self, result: RunResult, folder: Path) -> None:
        run, model, output = self.run, self.tuned.model, self.session.output
        delta = folder / "best.pt"
        if run.library == "scratch":
            save_delta(model, delta)
        else:
            write_atomically(delta, serialised(trainable_state(model)))
        size = delta.stat().st_size
        result.disk = Disk(delta=size, base=base_bytes(self.profile))
        result.files = Files(bytes=size, weight_file=run.weight_file)
        write_result(folder / "result.json", result)
        if self.changed:
            return
        if run.weight_file and not self.session.extra_seed:
            save_delta(model, output / "weights" / run.weight_file)
        write_result(self.session.results_folder / f"{run.id}.json", result)


def scores(predictions: Predictions, validation: list[bool]) -> dict[str, Any]:
    """What an evaluation leaves: shares of 1 over the whole test split and over its two parts."""
    return {
        **predictions.score(),
        "validation_accuracy": predictions.score(validation)["accuracy"],
        "rest_accuracy": predictions.score([not chosen for chosen in validation])["accuracy"],
        "mistakes": predictions.mistakes,
    }


def _summary(history: History) -> dict[str, Any]:
    """The figures of a finished run: the assignment's number, and the two honest ones beside it."""
    epochs, best = history.epochs, history.best
    chosen = max(range(len(epochs)), key=lambda i: (epochs[i]["validation_accuracy"], -i))
    return {
        "accuracy": {
            "best": epochs[best]["accuracy"],
            "best_epoch": best + 1,
            "last": epochs[-1]["accuracy"],
            "validation_chosen": epochs[chosen]["rest_accuracy"],
            "validation_chosen_epoch": chosen + 1,
        },
        "malformed": epochs[best]["malformed"],
        "mistakes": epochs[best]["mistakes"],
        "epochs": [{name: value for name, value in epoch.items() if name != "mistakes"} for epoch in epochs],
        "curve": history.curve,
        "seconds": {
            "training": sum(epoch["train_seconds"] for epoch in epochs),
            "evaluation": sum(epoch["evaluation_seconds"] for epoch in epochs),
        },
    }
