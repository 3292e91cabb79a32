"""A profile opened for work: its base model, its reviews, the device and the output folder."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, find_executable_batch_size
from huggingface_hub.utils import disable_progress_bars as disable_hub_progress_bars
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from peft_scratch.assignment import BASELINES, PROFILES, RUNS, SST2_PREFIX, Profile, Run
from peft_scratch.data.base_model import base_origin, load_base
from peft_scratch.data.batches import Collator, evenly_spaced
from peft_scratch.data.reviews import Reviews, load_reviews
from peft_scratch.data.tokens import label_ids, tokenise_cached
from peft_scratch.errors import UserError
from peft_scratch.experiments.environment import environment
from peft_scratch.experiments.estimate import Rates, measure_rates
from peft_scratch.experiments.measurements import KNOWLEDGE_REVIEWS, masked_reviews, pretraining_loss
from peft_scratch.experiments.profile_choice import ProfileChoice, choose_profile
from peft_scratch.experiments.ready import check_folders
from peft_scratch.experiments.run import PreparedRun
from peft_scratch.files import alone_in
from peft_scratch.paths import DRIVE, shown
from peft_scratch.results import Origin, Origins, Result, read_results, write_result
from peft_scratch.training.device import memory_of
from peft_scratch.training.evaluation import Predictions, predict
from peft_scratch.training.recipe import Recipe, find_recipe
from peft_scratch.wording import counted, duration

if TYPE_CHECKING:
    from peft_scratch.experiments.ask import Opinion, Panel

# If training fits into memory, an evaluation fits with twice the batch: it keeps nothing for a backward pass.
EVALUATION_FACTOR = 2


@dataclass
class Session:
    """A profile opened for work. Notebooks and the command line both start here.

    `prepare` gives a run that can be trained; `results` reads what finished runs left in `output`.

    Attributes:
        choice: the profile and why it was chosen.
        seed: for initialisation, data order and dropout.
        output: folder that holds `report/results`, `weights` and the unfinished `runs`.
        recipe: how the work is done.
        extra_seed: whether this seed repeats the runs of a first seed. Its results are kept apart, its
            weights are not handed in, and nothing is measured after its last epoch.
    """

    choice: ProfileChoice
    seed: int
    output: Path
    accelerator: Accelerator
    recipe: Recipe
    extra_seed: bool = False
    panel: tuple[tuple[str, ...], Panel] | None = None
    _tokens: dict[tuple[str, int, str], list[list[int]]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        profile: str = "auto",
        seed: int = 0,
        output: str | Path | None = None,
        recipe: str = "fast",
        *,
        extra_seed: bool = False,
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
        # Before Drive is mounted, its folder can be created on the local disk, which a disconnect loses.
        if DRIVE in output.parents and not DRIVE.is_mount():
            raise UserError(
                f"Google Drive is not mounted, and {output} would be lost with this machine: run "
                f"`from google.colab import drive; drive.mount('{DRIVE}')` first."
            )
        _quiet_libraries()
        # The recipe sets the precision. Accelerate's setting holds for the whole process and would affect a
        # second session.
        accelerator = Accelerator(mixed_precision="no")
        if accelerator.is_main_process:
            check_folders(choice.profile, output)
        return cls(choice, seed, output, accelerator, chosen, extra_seed)

    @property
    def profile(self) -> Profile:
        return self.choice.profile

    @property
    def precision(self) -> str:
        """`float32` or `bfloat16`."""
        return self.recipe.precision_name

    def __str__(self) -> str:
        return self.summary()

    def summary(self, notebook: int | None = None) -> str:
        """What a notebook shows at its top; for `notebook`, with the time that its runs take."""
        return _summary(self, notebook)

    # What every run starts from

    @functools.cached_property
    def reviews(self) -> Reviews:
        return self.reviews_of(self.profile)

    def reviews_of(self, profile: Profile) -> Reviews:
        """The reviews of `profile`: this session's profile, perhaps with changed sizes."""
        with self.accelerator.main_process_first():  # the first downloads for all
            return load_reviews(profile)

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_base(self.profile)[1]

    def base(self) -> T5ForConditionalGeneration:
        """A fresh copy of the base model in float32, without any method."""
        return load_base(self.profile)[0]

    @functools.cached_property  # the base's file is hashed for it
    def base_origin(self) -> Origin:
        return base_origin(self.profile)

    def frozen_base(self) -> torch.nn.Module:
        """The base as the methods use it: frozen, in the recipe's precision."""
        return self.recipe.cast_frozen(self.base().requires_grad_(False))

    def collator(self, split: Any, max_tokens: int, prefix: str = "") -> Collator:
        """The reviews of `split` for batches, each with `prefix` before it, cut to `max_tokens` tokens.

        They are tokenised once for all runs that read them.
        """
        key = (split._fingerprint, max_tokens, prefix)  # `datasets` derives it from where the rows come from
        if key not in self._tokens:
            texts = [prefix + text for text in split["text"]]
            self._tokens[key] = tokenise_cached(texts, self.tokenizer, max_tokens)
        pad_id = self.tokenizer.pad_token_id
        return Collator(self._tokens[key], list(split["label"]), label_ids(self.tokenizer), pad_id)

    @functools.cached_property
    def masked(self) -> Collator:
        """The held-out reviews as the pre-training task: the same for every run."""
        test = self.reviews.test
        texts = test.select(evenly_spaced(len(test), KNOWLEDGE_REVIEWS))["text"]
        return masked_reviews(texts, self.tokenizer, self.profile.max_tokens)

    @functools.cached_property
    def base_knowledge(self) -> float:
        """The base's loss of the pre-training task, measured once for all runs."""
        return pretraining_loss(self.frozen_base(), self.masked, self)

    @functools.cached_property
    def rates(self) -> Rates:
        """How fast this machine is, measured on a few steps of each method."""
        return measure_rates(self)

    def seconds_of(self, runs: Iterable[Run]) -> float:
        """How long `runs` will take here one after the other, including the measurements at the end."""
        sizes = (self.profile, len(self.reviews.train), len(self.reviews.test))
        return self.rates.seconds_of_all(runs, *sizes)

    # Runs

    def prepare(self, run_id: str, settings: dict[str, Any] | None = None) -> PreparedRun:
        """Load a fresh base model and apply the run's method to it.

        Args:
            settings: constants to change, such as `{"rank": 4}`; a changed run is not one of the ten.

        Raises:
            UserError: unknown run or setting, impossible value, missing base model.
        """
        return PreparedRun.prepare(self, run_id, settings or {})

    def ask(self, text: str) -> list[Opinion]:
        """What the base and every trained run say about `text`; see `ask.Panel`.

        Raises:
            UserError: nothing is trained yet.
        """
        from peft_scratch.experiments.ask import opinions_on

        return opinions_on(self, text)

    def predict(
        self,
        model: torch.nn.Module,
        collator: Collator,
        batch_size: int,
        *,
        scoring: bool | None = None,
        title: str = "evaluating",
    ) -> Predictions:
        """Predictions in batches of `EVALUATION_FACTOR` times `batch_size`, or smaller if memory runs out.

        Args:
            scoring: overrides the recipe's.
            title: names the work in its progress bar.
        """
        recipe = self.recipe if scoring is None else replace(self.recipe, scoring=scoring)
        predicted = find_executable_batch_size(
            lambda size: predict(model, collator, self.tokenizer, self.accelerator, size, recipe, title),
            starting_batch_size=EVALUATION_FACTOR * batch_size,
        )
        return predicted()

    @contextmanager
    def alone_in(self, folder: Path) -> Iterator[None]:
        """`files.alone_in` for several processes: the first locks the folder; if it is refused, all are."""
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

    # Baselines

    def zero_shot(self, prefix: str = "") -> Result:
        """What the base answers before any tuning, with `prefix` before every review."""
        collator = self.collator(self.reviews.test, self.profile.max_tokens, prefix)
        model = self.frozen_base().to(self.accelerator.device)
        predictions = self.predict(model, collator, self.profile.batch_size)
        return self._keep_baseline("zero_shot_prefix" if prefix else "zero_shot", predictions)

    def bag_of_words(self) -> Result:
        """A logistic regression on the words of the same reviews, at their full length."""
        predictions = Predictions(bag_of_words(self.reviews), list(self.reviews.test["label"]))
        return self._keep_baseline("bag_of_words", predictions)

    def baselines(self) -> list[Result]:
        """All three baselines."""
        return [self.zero_shot(), self.zero_shot(SST2_PREFIX), self.bag_of_words()]

    def _keep_baseline(self, name: str, predictions: Predictions) -> Result:
        scores = predictions.score()
        result = Result(
            id=name,
            title=BASELINES[name],
            notebook=1,
            profile=self.profile.name,
            environment=environment(self.accelerator.device, self.precision),
            origins=Origins(base=self.base_origin, reviews=self.reviews.origin),
            accuracy={"best": scores["accuracy"]},
            malformed=scores["malformed"],
            mistakes=predictions.mistakes,
        )
        if self.accelerator.is_main_process:
            write_result(self.results_folder / f"{name}.json", result)
        return result

    # What is there

    def run_folder(self, run_id: str, fingerprint: str) -> Path:
        """Where a run of this configuration keeps its checkpoints and its best weights."""
        return self.output / "runs" / f"{self.profile.name}-{run_id}-{fingerprint}"

    @property
    def results_folder(self) -> Path:
        report = self.output / "report"
        return report / "seeds" / str(self.seed) if self.extra_seed else report / "results"

    def results(self) -> dict[str, Result]:
        """All results of this profile in the output folder, by id.

        Raises:
            UserError: a file there is not the JSON of a result.
        """
        found = read_results(self.results_folder)
        return {name: result for name, result in found.items() if result.profile == self.profile.name}


def _summary(session: Session, notebook: int | None) -> str:
    profile, reviews = session.profile, session.reviews
    machine = environment(session.accelerator.device, session.precision)
    memory = memory_of(session.accelerator.device) / 2**30
    own = [run for run in RUNS.values() if run.notebook == notebook]
    here = f"about {duration(session.seconds_of(own))} for this notebook's runs, " if own else ""
    lines = [
        f"profile    {profile.name}, because {session.choice.reason}",
        f"base       {shown(profile.base)}",
        f"reviews    {len(reviews.train):,} to train on, {len(reviews.test):,} to test on, "
        f"from {profile.reviews}; inputs of {profile.max_tokens} tokens",
        f"training   {counted(profile.epochs, 'epoch')} in batches of {profile.batch_size}, "
        f"seed {session.seed}",
        f"recipe     {session.recipe.name}: {session.recipe.summary}",
        f"device     {machine.device_name}, {memory:.0f} GiB of memory; {session.recipe.precision[1]}",
        f"time       {here}about {duration(session.seconds_of(RUNS.values()))} for all ten, estimated by "
        "timing a few steps of each method",
        f"output     {shown(session.output)}",
    ]
    if session.choice.automatic and profile.is_assignment:
        quick = PROFILES["quick"]
        sizes = (quick, quick.train_reviews, quick.test_reviews)
        seconds = session.rates.seconds_of_all(RUNS.values(), *sizes)
        lines.append(
            f'first      PROFILE = "quick" shows that everything works: about {duration(seconds)} for '
            "all ten, on fewer reviews; its numbers are not the assignment's"
        )
    return "\n".join(lines)


def bag_of_words(reviews: Reviews) -> list[int]:
    """Predictions on the test reviews of a logistic regression on tf-idf weighted words and word pairs.

    It reads whole reviews; T5 reads only their beginnings.
    """
    # Here, because scikit-learn takes 0.7 s to import and only this needs it.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    )
    classifier.fit(reviews.train["text"], reviews.train["label"])
    return classifier.predict(reviews.test["text"]).tolist()


def _quiet_libraries() -> None:
    transformers_logging.set_verbosity_error()
    # In Jupyter their bars are widgets, whose metadata breaks notebooks on code hosts.
    datasets.disable_progress_bars()
    disable_hub_progress_bars()
    # Otherwise `datasets` prints the local folder of the reviews if the Hub cannot be reached.
    datasets.logging.set_verbosity_error()
