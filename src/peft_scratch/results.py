"""The JSON of a run: tables, figures and the report are made from nothing else.

One reader and one writer. Files of older kits still load: missing fields are `None`, extra fields are
kept. Nothing here imports torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from peft_scratch.assignment import RUNS
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    def as_json(self) -> dict[str, Any]:
        """The fields that were set, as JSON has them."""
        return self.model_dump(mode="json", exclude_unset=True)


class Accuracy(_Part):
    """Shares of 1. A baseline has no epochs, so it has only `best`.

    Attributes:
        best: the best epoch on the test split, which is the number that the assignment asks for.
        last: the last epoch.
        validation_chosen: the epoch that the validation part chose, scored on the rest of the test split.
    """

    best: float
    best_epoch: int | None = None
    last: float | None = None
    validation_chosen: float | None = None
    validation_chosen_epoch: int | None = None


class Environment(_Part):
    """What a number depends on besides its configuration.

    Attributes:
        threads: how many CPU threads torch divides its sums among. It changes the rounding.
    """

    python: str
    versions: dict[str, str | None]
    device: str
    device_name: str
    precision: str
    threads: int | None = None


class Origin(_Part):
    """Where the base or the reviews come from.

    Attributes:
        name: of the Hub's repository, of the installed package, or of a folder.
        revision: the Hub's commit or the package's version. A folder has none.
        sha256: of the base's weight file, or of the labelled texts that the run trains and tests on.
    """

    name: str
    revision: str | None = None
    sha256: str | None = None


class Origins(_Part):
    """What a number depends on that is not in this repository. Older results do not record it."""

    base: Origin
    reviews: Origin | None = None


class Config(_Part):
    """Everything that the weights of a run depend on; `fingerprint` is a hash of it."""

    kind: str
    library: str
    hyperparameters: dict[str, Any]
    learning_rate: float
    max_tokens: int | None = None
    train_reviews: int | None = None
    test_reviews: int | None = None
    epochs: int
    batch_size: int
    reviews: str
    base_sha256: str | None = None
    seed: int | None = None
    recipe: str | None = None


_OLDER_LETTERS = {"E": "L_enc", "D": "L_dec", "i": "d'"}


class HandCount(_Part):
    """The added parameters, derived by hand: as a formula in letters, with numbers, and the value."""

    symbols: str
    with_numbers: str
    value: int

    @field_validator("symbols")
    @classmethod
    def _letters_of_today(cls, symbols: str) -> str:
        """Results of an older kit have other letters for the numbers of blocks and the width of attention."""
        return re.sub(r"\b[EDi]\b", lambda letter: _OLDER_LETTERS[letter[0]], symbols)


class Parameters(_Part):
    """Counts. `added` and `by_hand` come from the formula; `trainable` and `whole` from the model."""

    added: int
    trainable: int
    whole: int
    trainable_tensors: int | None = None
    by_hand: HandCount | None = None


class BaseModelSizes(_Part):
    """The base model: its name, its widths and depths, and its number of parameters."""

    name: str
    d_model: int
    num_layers: int
    num_decoder_layers: int
    inner_dim: int
    parameters: int


class Epoch(_Part):
    """One epoch. Accuracies are shares of 1."""

    epoch: int
    loss: float
    accuracy: float
    malformed: float | None = None
    validation_accuracy: float | None = None
    rest_accuracy: float | None = None
    train_seconds: float | None = None
    evaluation_seconds: float | None = None


class Seconds(_Part):
    training: float
    evaluation: float

    @property
    def total(self) -> float:
        return self.training + self.evaluation


class Memory(_Part):
    """Bytes that training needs, and the peak of one step, if it could be measured."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    peak: int | None
    peak_kind: str | None = None


class Knowledge(_Part):
    """Loss of the pre-training task in nats per token: of the base, after tuning, with the method off."""

    reviews: int
    base: float
    tuned: float
    off: float | None


class TrainingAccuracy(_Part):
    accuracy: float
    reviews: int


class Generation(_Part):
    """How many predictions differ when all of `reviews` (out of `of`) are generated."""

    reviews: int
    of: int
    differ: int


class Disk(_Part):
    """Bytes of the trained part's file and of the base's."""

    delta: int
    base: int


class Files(_Part):
    bytes: int
    weight_file: str | None = None


class Result(_Part):
    """What a baseline or a run scored.

    Attributes:
        malformed: share of outputs that are neither label word.
        mistakes: positions of the test reviews whose prediction is wrong.
    """

    id: str
    title: str
    profile: str
    accuracy: Accuracy
    malformed: float
    notebook: int | None = None
    environment: Environment | None = None
    origins: Origins | None = None
    mistakes: list[int] = []

    @property
    def percent(self) -> float:
        """The number for the report."""
        return 100 * self.accuracy.best


class RunResult(Result):
    """What one of the ten runs, or a run with changed settings, left behind."""

    config: Config
    environment: Environment
    parameters: Parameters
    base_model: BaseModelSizes
    epochs: list[Epoch]
    curve: list[tuple[float, float]]
    seconds: Seconds
    fingerprint: str | None = None
    reviews: dict[str, int] | None = None
    memory: Memory | None = None
    knowledge: Knowledge | None = None
    training_accuracy: TrainingAccuracy | None = None
    generation: Generation | None = None
    disk: Disk | None = None
    files: Files | None = None

    @property
    def seed(self) -> int | None:
        """Of initialisation, data order and dropout."""
        return self.config.seed


def reviews_of(run: RunResult, split: Literal["train", "test"]) -> int | None:
    """How many reviews were in `split`; `None` if an older result took all of them without counting."""
    return (run.reviews or {}).get(split) or getattr(run.config, f"{split}_reviews")


class SmallDataEpoch(_Part):
    epoch: int
    loss: float
    training_accuracy: float
    test_accuracy: float


class SmallDataRun(_Part):
    seed: int
    epochs: list[SmallDataEpoch]


class SmallDataResult(_Part):
    """One method on a few reviews, with several seeds."""

    id: str
    title: str
    profile: str
    reviews: int
    epochs: int
    environment: Environment | None = None
    origins: Origins | None = None
    config: dict[str, Any]
    runs: list[SmallDataRun]


def write_result(path: Path, result: Result | SmallDataResult) -> None:
    """Write `result` to `path`, atomically."""
    write_json(path, result.as_json())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, atomically; NaN and infinity are refused, as JSON has neither."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_result(path: Path) -> Result:
    """The result at `path`: a `RunResult` if it is one of the ten or has a configuration, else a `Result`.

    Raises:
        UserError: the file is not the JSON of a result; the message names what is missing or wrong.
    """

    def kind(content: dict[str, Any]) -> type[Result]:
        return RunResult if "config" in content or content.get("id") in RUNS else Result

    return _read(path, kind, "that run")


def read_results(folder: Path) -> dict[str, Result]:
    """The results in `folder`, by id. A missing folder has none.

    Raises:
        UserError: as `read_result`.
    """
    return {(result := read_result(path)).id: result for path in sorted(folder.glob("*.json"))}


def read_small_data(folder: Path) -> dict[str, SmallDataResult]:
    """The results of the runs on few reviews in `folder`, by id.

    Raises:
        UserError: a file is not the JSON of such a result.
    """
    found = (
        _read(path, lambda _: SmallDataResult, "`make claims`") for path in sorted(folder.glob("*.json"))
    )
    return {result.id: result for result in found}


def _read(path: Path, kind: Callable[[dict[str, Any]], type[_Part]], again: str) -> Any:
    """The JSON at `path` as the model that `kind` chooses by its content; `again` makes the file again."""
    no_result = UserError(f"{path} is not the JSON of a result: delete it and run {again} again.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return kind(content).model_validate(content)
    except ValidationError as problem:
        errors = problem.errors()
    except (ValueError, TypeError, AttributeError):
        raise no_result from None
    named = [".".join(map(str, error["loc"])) for error in errors]
    absent = [name for name, error in zip(named, errors, strict=True) if error["type"] == "missing"]
    if not isinstance(content, dict) or "id" in absent:
        raise no_result
    what = f"lacks {', '.join(absent)}" if absent else f"has an impossible value for {', '.join(named[:3])}"
    raise UserError(f"{path} {what}: delete it and run {content.get('id')} again.")
