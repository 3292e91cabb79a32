"""One of the ten runs, with its method in a fresh base model: prepared, trained, saved and asked."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from peft_scratch.assignment import Profile, Run, find_run
from peft_scratch.data.base_model import base_bytes
from peft_scratch.data.batches import Collator, evenly_spaced, subset
from peft_scratch.data.reviews import Reviews
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.errors import UserError
from peft_scratch.experiments.environment import environment
from peft_scratch.experiments.measurements import knowledge, training_memory
from peft_scratch.experiments.run_remarks import remark_on_epoch, remark_on_prompt
from peft_scratch.experiments.settings import (
    change,
    configuration,
    fingerprint,
    prompt_rows,
    with_label_words,
)
from peft_scratch.files import write_atomically
from peft_scratch.libraries import method_of
from peft_scratch.methods import Tuned, apply, count_parameters, save_delta
from peft_scratch.methods.checkpoint import serialised
from peft_scratch.methods.soft_prompt import tokens_left
from peft_scratch.paths import shown
from peft_scratch.results import (
    Disk,
    Files,
    Generation,
    Origins,
    RunResult,
    TrainingAccuracy,
    read_result,
    write_result,
)
from peft_scratch.training.checkpoints import History, trainable_state
from peft_scratch.training.evaluation import Predictions, generated_texts
from peft_scratch.training.schedule import decay_linearly
from peft_scratch.training.trainer import Trainer

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session

# The parts of a batch that the model takes.
_INPUTS = ("input_ids", "attention_mask", "labels")
#: The parts of a result that are measured after the last epoch.
MEASURED = ("memory", "knowledge", "training_accuracy", "generation")
#: For how many test reviews the answers are also generated at the end of a run.
GENERATED_REVIEWS = 200


@dataclass(frozen=True)
class PreparedRun:
    """A run ready to be trained: its constants, and a fresh base model with its method applied.

    Attributes:
        run: the run, with the hyperparameters that the user changed.
        profile: the profile, with the sizes that the user changed.
        tuned: the model with the method in it.
        changed: whether the user changed a constant; such a run is kept apart from the ten.
        schedule: of the learning rate, `constant` or `linear`.
    """

    session: Session
    run: Run
    profile: Profile
    learning_rate: float
    tuned: Tuned
    changed: bool
    schedule: str = "constant"

    @classmethod
    def prepare(cls, session: Session, run_id: str, settings: dict[str, Any]) -> PreparedRun:
        """See `Session.prepare`."""
        run, profile = change(find_run(run_id), session.profile, settings)
        run = with_label_words(run, [ids[:-1] for ids in label_ids(session.tokenizer)])  # no end token
        learning_rate = settings.get("learning_rate", run.learning_rate_in(profile))
        set_seed(session.seed)  # decides how the method's own parameters start
        tuned = apply(method_of(run), session.base())
        session.recipe.cast_frozen(tuned.model)
        schedule = settings.get("schedule", "constant")
        return cls(session, run, profile, float(learning_rate), tuned, bool(settings), schedule)

    @functools.cached_property
    def configuration(self) -> dict[str, Any]:
        """Everything that the weights of this run depend on."""
        seed, recipe = self.session.seed, self.session.recipe.name
        base = self.session.base_origin.sha256
        return configuration(self.run, self.profile, self.learning_rate, seed, base, recipe, self.schedule)

    @property
    def folder(self) -> Path:
        """Where this run keeps its checkpoints and its best weights."""
        return self.session.run_folder(self.run.id, fingerprint(self.configuration))

    @property
    def result_path(self) -> Path:
        """Where the result is written. A changed run's result lies with its weights, apart from the ten."""
        if self.changed:
            return self.folder / "result.json"
        return self.session.results_folder / f"{self.run.id}.json"

    @property
    def reviews(self) -> Reviews:
        """The session's reviews, or other ones if the user changed their number."""
        session = self.session
        return session.reviews if self.profile == session.profile else session.reviews_of(self.profile)

    def collator(self, split: Any) -> Collator:
        """The reviews of `split`, cut to the length that the run's virtual tokens leave."""
        return self.session.collator(split, self.text_tokens)

    @property
    def text_tokens(self) -> int:
        """How many tokens of a review the model reads."""
        rows, most = prompt_rows(self.run), self.profile.max_tokens
        return tokens_left(most, rows) if rows else most

    def predict(self, collator: Collator, **options: Any) -> Predictions:
        """What the model predicts now for the reviews of `collator`."""
        model = self.tuned.model.to(self.session.accelerator.device)
        return self.session.predict(model, collator, self.profile.batch_size, **options)

    @functools.cached_property
    def trainer(self) -> Trainer:
        """Trains this run's model with its learning rate."""
        trainer = Trainer(
            self.tuned.model,
            accelerator=self.session.accelerator,
            recipe=self.session.recipe,
            learning_rate=self.learning_rate,
            batch_size=self.profile.batch_size,
            seed=self.session.seed,
        )
        if self.schedule == "linear":
            steps = self.profile.epochs * math.ceil(len(self.reviews.train) / self.profile.batch_size)
            decay_linearly(trainer.optimizer, self.learning_rate, steps)
        return trainer

    def train(self) -> RunResult:
        """Train the run, or resume it where it stopped; return the result that its JSON file holds.

        Afterwards the model has the weights of its best epoch. A finished run is not repeated.

        Raises:
            UserError: the output folder cannot be written to, or the loss stopped being a number.
        """
        session, config, folder, reviews = self.session, self.configuration, self.folder, self.reviews
        training, test = (self.collator(split) for split in (reviews.train, reviews.test))

        def evaluate(model: torch.nn.Module) -> dict[str, Any]:
            return scores(session.predict(model, test, self.profile.batch_size), reviews.test["validation"])

        with session.alone_in(folder):
            history = self.trainer.fit(training, evaluate, self.profile.epochs, folder, self._remark)
            self.trainer.put_back_best()
            measured: dict[str, Any] = {}  # for further seeds only the predictions are needed
            if not session.extra_seed:
                measured = self._measured_before(history) or self.measure(training, test)
            result = RunResult(**self._facts(config, history, reviews), **_summary(history), **measured)
            if session.accelerator.is_main_process:
                self._keep(result, folder)
            session.accelerator.wait_for_everyone()  # so that no other process reads before it is written
            if self.run.kind == "soft_prompt" and (said := remark_on_prompt(self, history)):
                session.accelerator.print(said)
        return result

    def measure(self, training: Collator, test: Collator) -> dict[str, Any]:
        """The assignment's claims, measured on the model as it is now. Its weights do not change.

        Training accuracy uses at most half as many reviews as test accuracy: it costs time in every run.
        """
        memory, known = training_memory(self.trainer, training), knowledge(self)
        wanted = (self.profile.test_reviews or len(self.session.reviews.test)) // 2
        seen = subset(training, evenly_spaced(len(training.inputs), wanted))
        accuracy = self.predict(seen, title="measuring training accuracy").score()["accuracy"]
        return {
            "memory": memory,
            "knowledge": known,
            "training_accuracy": TrainingAccuracy(accuracy=accuracy, reviews=len(seen.inputs)),
            "generation": self.compared_with_generation(test),
        }

    def compared_with_generation(self, test: Collator) -> Generation:
        """How many of at most `GENERATED_REVIEWS` predictions differ between scoring and real generation."""
        some = subset(test, evenly_spaced(len(test.inputs), GENERATED_REVIEWS))
        scored, generated = (
            self.predict(some, scoring=scoring, title=f"comparing with generation: {how}").predictions
            for scoring, how in ((True, "scoring"), (False, "generating"))
        )
        differ = sum(map(operator.ne, scored, generated))
        return Generation(reviews=len(some.inputs), of=len(test.inputs), differ=differ)

    def score(self) -> dict[str, Any]:
        """What the model scores now on the test reviews: `accuracy` and other shares of 1."""
        test = self.session.reviews.test
        return scores(self.predict(self.collator(test)), test["validation"])

    def logits(self, rows: Sequence[int]) -> Tensor:
        """The model's logits (B, T', V) for the label words of the test reviews at `rows`."""
        with self._at_rest(self._texts_of(rows)) as (model, batch):
            return model(**{name: batch[name] for name in _INPUTS}).logits.float().cpu()

    def leanings(self, texts: Sequence[str]) -> Tensor:
        """How many nats the model prefers `positive` to `negative` for each of `texts`: (B,)."""
        session = self.session
        tokens = tokenise(list(texts), session.tokenizer, self.text_tokens)
        targets = label_ids(session.tokenizer)
        collator = Collator(tokens, [0] * len(tokens), targets, session.tokenizer.pad_token_id)
        negative, positive = (target[0] for target in targets)
        with self._at_rest(collator) as (model, batch):
            first = model(**{name: batch[name] for name in _INPUTS}).logits[:, 0].float().cpu()  # (B, V)
        return first[:, positive] - first[:, negative]

    def answers(self, rows: Sequence[int]) -> list[str]:
        """The exact words that the model generates for the test reviews at `rows`."""
        with self._at_rest(self._texts_of(rows)) as (model, batch):
            return generated_texts(model, batch, self.session.tokenizer)

    def _texts_of(self, rows: Sequence[int]) -> Collator:
        """The test reviews at `rows`, cut to length as in the run."""
        return self.collator(self.session.reviews.test.select(rows))

    @contextmanager
    def _at_rest(self, collator: Collator) -> Iterator[tuple[torch.nn.Module, dict[str, Tensor]]]:
        """The model on the device with dropout off, and all reviews of `collator` as one batch."""
        device = self.session.accelerator.device
        rows = list(range(len(collator.inputs)))
        batch = {name: tensor.to(device) for name, tensor in collator(rows).items()}
        model = self.tuned.model.to(device).eval()
        with torch.inference_mode(), self.session.recipe.forward_context(model, device):
            yield model, batch

    def _remark(self, epoch: dict[str, Any]) -> str | None:
        rates = self.learning_rate, self.run.learning_rate_in(self.profile)
        return remark_on_epoch(epoch, list(self.reviews.test["label"]), *rates)

    def _measured_before(self, history: History) -> dict[str, Any] | None:
        """What was measured when this run's result was written, if its epochs are those of `history`."""
        try:
            found = read_result(self.folder / "result.json")
        except (OSError, UserError):  # missing, damaged, or of an older kit: it is measured again
            return None
        if not isinstance(found, RunResult):
            return None
        epochs = [epoch.model_dump(exclude_unset=True) for epoch in found.epochs]
        parts = {name: getattr(found, name) for name in MEASURED}
        return None if None in parts.values() or epochs != _summary(history)["epochs"] else parts

    def _facts(self, config: dict[str, Any], history: History, reviews: Reviews) -> dict[str, Any]:
        """What the result says about the run besides the measurements."""
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
            "origins": Origins(base=self.session.base_origin, reviews=reviews.origin),
            "environment": environment(self.session.accelerator.device, self.session.precision),
            "parameters": {
                "added": by_hand.value,
                "by_hand": {name: getattr(by_hand, name) for name in ("symbols", "with_numbers", "value")},
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
        write_result(self.result_path, result)


def scores(predictions: Predictions, validation: list[bool]) -> dict[str, Any]:
    """The scores of an evaluation, as shares of 1: on the whole test split and on its two parts."""
    return {
        **predictions.score(),
        "validation_accuracy": predictions.score(validation)["accuracy"],
        "rest_accuracy": predictions.score([not chosen for chosen in validation])["accuracy"],
        "mistakes": predictions.mistakes,
    }


def _summary(history: History) -> dict[str, Any]:
    """The figures of a finished run: the assignment's number and two less optimistic ones."""
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
