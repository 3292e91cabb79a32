"""From a run's id to its result: what the notebooks and the command line both call."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, find_executable_batch_size, set_seed
from huggingface_hub.utils import disable_progress_bars as disable_hub_progress_bars
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from peft_scratch.assignment import MAX_LENGTH, RUNS, SST2_PREFIX, Profile, Run, find_run
from peft_scratch.data.batches import Collator, evenly_spaced, subset
from peft_scratch.data.reviews import Reviews, load_reviews
from peft_scratch.data.tokens import label_ids, tokenise_cached
from peft_scratch.errors import UserError
from peft_scratch.experiments.base_model import base_bytes, base_fingerprint, load_base
from peft_scratch.experiments.baselines import bag_of_words
from peft_scratch.experiments.estimate import TIMED_STEPS, sample, seconds_of_a_run
from peft_scratch.experiments.measurements import (
    KNOWLEDGE_REVIEWS,
    masked_reviews,
    pretraining_loss,
    training_memory,
)
from peft_scratch.experiments.profile_choice import ProfileChoice, choose_profile
from peft_scratch.experiments.results import environment, write_json
from peft_scratch.experiments.run import change, configuration, fingerprint, prompt_rows
from peft_scratch.files import alone_in, write_atomically
from peft_scratch.libraries import method_of
from peft_scratch.methods import Tuned, apply, base_of, count_parameters, save_delta
from peft_scratch.methods.checkpoint import serialised
from peft_scratch.paths import shown
from peft_scratch.training.device import memory_of
from peft_scratch.training.evaluation import Verdicts, judge
from peft_scratch.training.recipe import Recipe, find_recipe
from peft_scratch.training.trainer import History, restore, train, trainable_state
from peft_scratch.wording import duration

# Twice the batch of training fits wherever training fits: nothing is kept for a backward pass.
EVALUATION_FACTOR = 2

#: How many test reviews each run ends on generating for.
GENERATED_REVIEWS = 200

#: Where Colab mounts Google Drive. A folder in there can be made before it is mounted, on a disk that is
#: gone after a disconnect.
DRIVE = Path("/content/drive")


@dataclass(frozen=True)
class Prepared:
    """A run about to be trained: its constants, and a fresh base model with its method in it."""

    run: Run
    profile: Profile
    learning_rate: float
    tuned: Tuned
    changed: bool  # by the user: such a run is kept apart from the ten


@dataclass
class Session:
    """A profile opened for work: base, reviews, device and output folder.

    Attributes:
        choice: the profile and why it was chosen.
        seed: of initialisation, data order and dropout.
        output: folder that holds `report/results`, `weights` and the unfinished `runs`.
        recipe: how the work is done.
    """

    choice: ProfileChoice
    seed: int
    output: Path
    accelerator: Accelerator
    recipe: Recipe
    _judged: dict[str, Verdicts] = field(default_factory=dict)
    _tokens: dict[tuple[str, int, str], list[list[int]]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        profile: str = "auto",
        seed: int = 0,
        output: str | Path | None = None,
        recipe: str = "fast",
    ) -> Session:
        """Choose the profile, look at the device, and make sure that `output` can be written to.

        Raises:
            UserError: unknown profile or recipe, negative seed, or an output folder that cannot be written to
                or is on a Drive that is not mounted.
        """
        choice, chosen = choose_profile(profile), find_recipe(recipe)
        if not isinstance(seed, int) or seed < 0:
            raise UserError(f"The seed must be a whole number of at least 0, not {seed!r}.")
        output = choice.profile.output if output is None else Path(output)
        if DRIVE in output.parents and not DRIVE.is_mount():
            raise UserError(
                f"Google Drive is not mounted, and {output} would be lost with this machine: run "
                f"`from google.colab import drive; drive.mount('{DRIVE}')` first."
            )
        transformers_logging.set_verbosity_error()
        # Their bars are widgets where Jupyter has them, whose metadata breaks notebooks on code hosts.
        datasets.disable_progress_bars()
        disable_hub_progress_bars()
        # Without the Hub it would name the folder of this machine that it found the reviews in.
        datasets.logging.set_verbosity_error()
        # The recipe decides on the precision: Accelerate's is one for the whole process, and would stand
        # in the way of a second workbench.
        accelerator = Accelerator(mixed_precision="no")
        if accelerator.is_main_process:
            probe = output / "runs" / ".writable"
            write_atomically(probe, "")
            probe.unlink(missing_ok=True)
        return cls(choice, seed, output, accelerator, chosen)

    @property
    def profile(self) -> Profile:
        return self.choice.profile

    def __str__(self) -> str:
        """What a notebook shows at its top."""
        profile = self.profile
        reviews = self.reviews
        return "\n".join(
            (
                f"profile    {profile.name}, because {self.choice.reason}",
                f"base       {shown(profile.base)}",
                f"reviews    {len(reviews.train):,} to train on, {len(reviews.test):,} to test on, "
                f"from {profile.reviews}; inputs of {profile.max_tokens} tokens",
                f"training   {profile.epochs} epochs in batches of {profile.batch_size}, seed {self.seed}",
                f"recipe     {self.recipe.name}: {self.recipe.summary}",
                f"device     {environment(self.accelerator.device, self.precision)['device_name']}, "
                f"{memory_of(self.accelerator.device) / 2**30:.0f} GiB of memory; {self.recipe.precision[1]}",
                f"time       about {duration(self.seconds_of_a_run)} a run, "
                f"{duration(len(RUNS) * self.seconds_of_a_run)} for all ten, going by a few steps of LoRA "
                "timed just now",
                f"output     {shown(self.output)}",
            )
        )

    @property
    def precision(self) -> str:
        return self.recipe.precision_name

    @functools.cached_property
    def reviews(self) -> Reviews:
        with self.accelerator.main_process_first():  # the others find what it has downloaded
            return load_reviews(self.profile)

    @functools.cached_property
    def seconds_of_a_run(self) -> float:
        """How long a run of this profile will take here, measured on a few steps of LoRA."""
        profile, reviews = self.profile, self.reviews
        chosen = (
            split.select(sample(len(split), batches * profile.batch_size))
            for split, batches in ((reviews.train, 1 + TIMED_STEPS), (reviews.test, EVALUATION_FACTOR))
        )
        training, test = (self.collator(split, profile.max_tokens) for split in chosen)
        with torch.random.fork_rng():  # so that nothing after it comes out otherwise
            return seconds_of_a_run(
                self.recipe.hold(apply(method_of(find_run("lora_scratch_r8")), self.base()).model),
                training,
                lambda model: self.judge(model, test, profile.batch_size),
                accelerator=self.accelerator,
                recipe=self.recipe,
                profile=profile,
                reviews=(len(reviews.train), len(reviews.test)),
                judged=len(test.inputs),
            )

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_base(self.profile)[1]

    def base(self) -> T5ForConditionalGeneration:
        """A fresh copy of the base model in float32, with nothing in it."""
        return load_base(self.profile)[0]

    def _held_base(self) -> torch.nn.Module:
        """The base as the methods find it: frozen, and held as the recipe says."""
        return self.recipe.hold(self.base().requires_grad_(False))

    def prepare(self, run_id: str, settings: dict[str, Any] | None = None) -> Prepared:
        """Load a fresh base model and put the run's method into it.

        Args:
            settings: constants to change, such as `{"rank": 4}`; a changed run is not one of the ten.

        Raises:
            UserError: unknown run or setting, impossible value, missing base model.
        """
        settings = settings or {}
        run, profile = change(find_run(run_id), self.profile, settings)
        learning_rate = settings.get("learning_rate", run.learning_rate_in(profile))
        set_seed(self.seed)  # decides how the method's own parameters start
        tuned = apply(method_of(run), self.base())
        self.recipe.hold(tuned.model)
        return Prepared(run, profile, float(learning_rate), tuned, bool(settings))

    def configuration(self, prepared: Prepared) -> dict[str, Any]:
        """All that the weights of a prepared run depend on."""
        run, profile = prepared.run, prepared.profile
        base = base_fingerprint(profile)
        return configuration(run, profile, prepared.learning_rate, self.seed, base, self.recipe.name)

    def folder(self, prepared: Prepared, config: dict[str, Any]) -> Path:
        """Where a prepared run of `config` keeps its checkpoints and its best weights."""
        name = f"{prepared.profile.name}-{prepared.run.id}-{fingerprint(config)}"
        return self.output / "runs" / name

    def train(self, prepared: Prepared) -> dict[str, Any]:
        """Train a prepared run, or pick it up where it stopped; return its result, as its JSON holds it.

        Afterwards the model carries the weights of its best epoch. A finished run is not repeated.

        Raises:
            UserError: the output folder cannot be written to, or the loss stopped being a number.
        """
        run, profile, tuned = prepared.run, prepared.profile, prepared.tuned
        config = self.configuration(prepared)
        folder = self.folder(prepared, config)
        reviews = self.reviews if profile == self.profile else load_reviews(profile)
        length = profile.max_tokens - prompt_rows(run)
        training, test = (self.collator(split, length) for split in (reviews.train, reviews.test))

        def evaluate(model: torch.nn.Module) -> dict[str, Any]:
            return _scores(self.judge(model, test, profile.batch_size), reviews.test["validation"])

        whole, t5 = count_parameters(tuned.model), tuned.model.config
        with self.alone_in(folder):
            history = train(
                tuned.model,
                training,
                evaluate,
                accelerator=self.accelerator,
                recipe=self.recipe,
                epochs=profile.epochs,
                learning_rate=prepared.learning_rate,
                batch_size=profile.batch_size,
                seed=self.seed,
                checkpoints=folder,
            )
            restore(tuned.model, history.best_state)
            tuned.model.eval()
            result = {
                "id": run.id,
                "title": run.title,
                "notebook": run.notebook,
                "profile": profile.name,
                "fingerprint": fingerprint(config),
                "config": config,
                "reviews": {"train": len(reviews.train), "test": len(reviews.test)},
                "environment": environment(self.accelerator.device, self.precision),
                "parameters": {
                    "added": tuned.method.added_parameters(t5),
                    "trainable": sum(tensor.numel() for tensor in history.best_state.values()),
                    "whole": whole,
                    "trainable_tensors": len(history.best_state),
                    "places": len(tuned.places),
                },
                "base_model": {
                    "name": shown(profile.base),
                    **{name: getattr(t5, name) for name in ("d_model", "num_layers", "num_decoder_layers")},
                    "inner_dim": t5.num_heads * t5.d_kv,
                    "parameters": whole - tuned.method.added_parameters(t5),
                },
                **_summary(history),
            }
            result |= self._claims(prepared, history, training, test, folder)
            if self.accelerator.is_main_process:
                self._keep(result, prepared, folder)
            self.accelerator.wait_for_everyone()  # so that no other reads what is not written yet
        return result

    @contextmanager
    def alone_in(self, folder: Path) -> Iterator[None]:
        """`files.alone_in` for several processes: one holds the folder; what it is refused, all are."""
        with ExitStack() as held:
            refused: list[str | None] = [None]
            if self.accelerator.is_main_process:
                try:
                    held.enter_context(alone_in(folder))
                except UserError as problem:
                    refused = [str(problem)]
            if (sentence := broadcast_object_list(refused)[0]) is not None:
                raise UserError(sentence)
            yield

    def _claims(
        self, prepared: Prepared, history: History, training: Collator, test: Collator, folder: Path
    ) -> dict[str, dict[str, Any]]:
        """What the assignment claims, measured on a trained run; of a run measured before, what was found.

        Training accuracy is taken on half as many reviews as test accuracy, if there are so many: it costs
        time in every run.
        """
        method, profile, model = prepared.tuned.method, prepared.profile, prepared.tuned.model
        names = ("memory", "knowledge", "training_accuracy", "generation")
        try:
            found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            if found["epochs"] == _summary(history)["epochs"]:
                return {name: found[name] for name in names}
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, damaged, or of an older kit: it is written anew
        memory = training_memory(
            model,
            training,
            accelerator=self.accelerator,
            recipe=self.recipe,
            learning_rate=prepared.learning_rate,
            batch_size=history.micro_batch,
        )
        restore(model, history.best_state)  # measuring takes steps
        model.eval()
        # Frozen, as the untouched base was, so that both are measured alike whatever a recipe does with that.
        off = (
            None if method.kind == "full" else self._knowledge(base_of(prepared.tuned).requires_grad_(False))
        )
        wanted = (profile.test_reviews or len(self.reviews.test)) // 2
        seen = subset(training, evenly_spaced(len(training.inputs), wanted))
        knowledge = {
            "reviews": len(self._masked.inputs),
            "base": self._base_knowledge,
            "tuned": self._knowledge(model),
            "off": off,
        }
        accuracy = self.judge(model, seen, profile.batch_size).score()["accuracy"]
        training_accuracy = {"accuracy": accuracy, "reviews": len(seen.inputs)}
        generation = self._generation(model, test, profile.batch_size)
        return dict(zip(names, (memory, knowledge, training_accuracy, generation), strict=True))

    def _generation(self, model: torch.nn.Module, test: Collator, batch_size: int) -> dict[str, int]:
        """How many verdicts on test reviews come out otherwise when each of them is really generated for.

        On `GENERATED_REVIEWS` of them, evenly spread, if there are so many: generation is what costs time.
        """
        rows = evenly_spaced(len(test.inputs), GENERATED_REVIEWS)
        said, generated = (
            self.judge(model, subset(test, rows), batch_size, scoring=scoring).verdicts
            for scoring in (True, False)
        )
        differ = sum(one != other for one, other in zip(said, generated, strict=True))
        return {"reviews": len(rows), "of": len(test.inputs), "differ": differ}

    def _knowledge(self, model: torch.nn.Module) -> float:
        return pretraining_loss(model, self._masked, self.accelerator, self.recipe, self.profile.batch_size)

    @functools.cached_property
    def _base_knowledge(self) -> float:
        return self._knowledge(self._held_base())

    @functools.cached_property
    def _masked(self) -> Collator:
        """The same held-out reviews for every run of the profile."""
        test = self.reviews.test
        texts = test.select(evenly_spaced(len(test), KNOWLEDGE_REVIEWS))["text"]
        return masked_reviews(texts, self.tokenizer, self.profile.max_tokens)

    def score(self, prepared: Prepared) -> dict[str, Any]:
        """What the model scores on the test reviews as it stands: `accuracy` and other shares of 1."""
        profile = prepared.profile
        test = self.collator(self.reviews.test, profile.max_tokens - prompt_rows(prepared.run))
        model = prepared.tuned.model.to(self.accelerator.device)
        return _scores(self.judge(model, test, profile.batch_size), self.reviews.test["validation"])

    def logits(self, prepared: Prepared, rows: Sequence[int]) -> Tensor:
        """The model's logits (B, T', V) for the label words of the test reviews at `rows`."""
        with self._at_rest(prepared, rows) as (model, batch):
            names = ("input_ids", "attention_mask", "labels")
            return model(**{name: batch[name] for name in names}).logits.float().cpu()

    def answers(self, prepared: Prepared, rows: Sequence[int]) -> list[str]:
        """What the model generates for the test reviews at `rows`, word for word."""
        with self._at_rest(prepared, rows) as (model, batch):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            output = model.generate(**inputs, max_length=MAX_LENGTH, do_sample=False, num_beams=1)
            return self.tokenizer.batch_decode(output, skip_special_tokens=True)

    @contextmanager
    def _at_rest(
        self, prepared: Prepared, rows: Sequence[int]
    ) -> Iterator[tuple[torch.nn.Module, dict[str, Tensor]]]:
        """The model on the device with dropout off, and a batch cut to length as in the run."""
        collator = self.collator(
            self.reviews.test.select(rows), prepared.profile.max_tokens - prompt_rows(prepared.run)
        )
        device = self.accelerator.device
        batch = {name: tensor.to(device) for name, tensor in collator(list(range(len(rows)))).items()}
        model = prepared.tuned.model.to(device).eval()
        with torch.inference_mode(), self.recipe.at_work(model, device):
            yield model, batch

    def zero_shot(self, prefix: str = "") -> dict[str, Any]:
        """What the base says before any tuning, with `prefix` before every review."""
        collator = self.collator(self.reviews.test, self.profile.max_tokens, prefix)
        model = self._held_base().to(self.accelerator.device)
        verdicts = self.judge(model, collator, self.profile.batch_size)
        name = "zero_shot_prefix" if prefix else "zero_shot"
        title = f"Zero-shot, prefix “{SST2_PREFIX.strip()}”" if prefix else "Zero-shot, no prefix"
        return self._keep_baseline(name, title, _scores(verdicts, self.reviews.test["validation"]))

    def bag_of_words(self) -> dict[str, Any]:
        """A logistic regression on the words of the same reviews, in whole length."""
        verdicts = Verdicts(bag_of_words(self.reviews), list(self.reviews.test["label"]))
        scores = _scores(verdicts, self.reviews.test["validation"])
        return self._keep_baseline("bag_of_words", "Bag of words, logistic regression", scores)

    def results(self) -> dict[str, dict[str, Any]]:
        """All results of this profile in the output folder, by id."""
        found = {}
        for path in sorted(self._results.glob("*.json")):
            try:
                result = json.loads(path.read_text(encoding="utf-8"))
                if result["profile"] == self.profile.name:
                    found[result["id"]] = result
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{shown(path)} is not the JSON of a result: delete it and run again what it should hold."
                ) from None
        return found

    @property
    def _results(self) -> Path:
        return self.output / "report" / "results"

    def judge(
        self,
        model: torch.nn.Module,
        collator: Collator,
        batch_size: int,
        *,
        scoring: bool | None = None,
    ) -> Verdicts:
        """Verdicts in batches of `EVALUATION_FACTOR` times `batch_size`, or what part of it memory holds.

        Args:
            scoring: overrides the recipe's.
        """
        recipe = self.recipe if scoring is None else replace(self.recipe, scoring=scoring)
        judged = find_executable_batch_size(
            lambda size: judge(model, collator, self.tokenizer, self.accelerator, size, recipe),
            starting_batch_size=EVALUATION_FACTOR * batch_size,
        )
        return judged()

    def collator(self, split: Any, max_tokens: int, prefix: str = "") -> Collator:
        """The reviews of `split`, `prefix` before each, cut to `max_tokens` tokens, for batches.

        They are tokenised once, for all the runs that read them.
        """
        key = (split._fingerprint, max_tokens, prefix)  # `datasets` keeps it by what the rows came of
        if key not in self._tokens:
            texts = [prefix + text for text in split["text"]]
            self._tokens[key] = tokenise_cached(texts, self.tokenizer, max_tokens)
        return Collator(
            self._tokens[key],
            list(split["label"]),
            label_ids(self.tokenizer),
            self.tokenizer.pad_token_id,
        )

    def _keep(self, result: dict[str, Any], prepared: Prepared, folder: Path) -> None:
        run, model = prepared.run, prepared.tuned.model
        delta = folder / "best.pt"
        if run.library == "scratch":
            save_delta(model, delta)
        else:
            write_atomically(delta, serialised(trainable_state(model)))
        result["disk"] = {"delta": delta.stat().st_size, "base": base_bytes(prepared.profile)}
        result["files"] = {"bytes": delta.stat().st_size, "weight_file": run.weight_file}
        write_json(folder / "result.json", result)
        if prepared.changed:
            return
        if run.weight_file:
            save_delta(model, self.output / "weights" / run.weight_file)
        write_json(self._results / f"{run.id}.json", result)

    def _keep_baseline(self, name: str, title: str, scores: dict[str, Any]) -> dict[str, Any]:
        result = {
            "id": name,
            "title": title,
            "notebook": 1,
            "profile": self.profile.name,
            "environment": environment(self.accelerator.device, self.precision),
            "accuracy": {"best": scores["accuracy"]},
            "malformed": scores["malformed"],
            "mistakes": scores["mistakes"],
        }
        if self.accelerator.is_main_process:
            write_json(self._results / f"{name}.json", result)
        return result


def _scores(verdicts: Verdicts, validation: list[bool]) -> dict[str, Any]:
    """What an evaluation leaves: shares of 1 over the whole test split and over its two parts."""
    return {
        **verdicts.score(),
        "validation_accuracy": verdicts.score(validation)["accuracy"],
        "rest_accuracy": verdicts.score([not chosen for chosen in validation])["accuracy"],
        "mistakes": verdicts.mistakes,
    }


def _summary(history: History) -> dict[str, Any]:
    """The figures of a finished run: the course's number, and the two honest ones beside it."""
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
