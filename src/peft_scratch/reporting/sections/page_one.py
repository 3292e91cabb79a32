"""What a reader must know before the first number, and what was run on what."""

from __future__ import annotations

from peft_scratch.assignment import BASELINES, HUB_BASE, HUB_REVIEWS, TEN
from peft_scratch.reporting.facts import CONDITIONS, differing, is_assignments, reviews_of
from peft_scratch.reporting.sections.blocks import Block, Page
from peft_scratch.results import RunResult


def warnings(page: Page) -> list[Block]:
    """Rehearsal, missing runs, mixed settings."""
    found = []
    others = [run for run in page.runs.values() if not is_assignments(run)]
    if others or not page.runs:
        text = page.say(
            "rehearsal_text",
            wanted_base=page.language.ltr(HUB_BASE),
            wanted_reviews=page.language.ltr(HUB_REVIEWS),
            profile=page.distinct(lambda run: run.profile, others),
            base=page.distinct(lambda run: run.base_model.name, others),
            reviews=page.distinct(lambda run: run.config.reviews, others),
        )
        found.append({"title": page.say("rehearsal"), "text": text})
    if missing := [page.language.run(name) for name in TEN | BASELINES if name not in page.inputs.results]:
        found.append({"title": "", "text": page.say("incomplete", runs=page.language.join_longer(missing))})
    if differ := [page.say(word) for word in differing(page.runs.values(), CONDITIONS)]:
        found.append({"title": "", "text": page.say("mixed", what=page.language.join(differ))})
    return found


def facts(page: Page) -> list[list[str]]:
    """Name and value of everything that the runs depend on."""
    if not page.runs:
        return []
    distinct, number = page.distinct, page.language.number
    spent = {kind: sum(getattr(run.seconds, kind) for run in page.runs.values()) for kind in _KINDS}
    time = {kind: page.language.seconds(total) for kind, total in spent.items()}
    found = [
        ("profile", distinct(lambda run: run.profile)),
        ("base", distinct(lambda run: _base(page, run), raw=True)),
        ("reviews", distinct(lambda run: _reviews(page, run), raw=True)),
        ("training", distinct(lambda run: _training(page, run), raw=True)),
        ("seed", _seeds(page)),
        ("device", distinct(lambda run: _device(page, run), raw=True)),
        ("time", page.say("time_value", **time, runs=len(page.runs))),
        ("versions", distinct(lambda run: _versions(page, run), raw=True)),
    ]
    if made := page.inputs.pretraining:
        value = page.say("base_made_value", tokens=made["tokens"], minutes=number(made["seconds"] / 60))
        found.insert(2, ("base_made", value))
    return [[page.say(word), value] for word, value in found]


_KINDS = ("training", "evaluation")


def _base(page: Page, run: RunResult) -> str:
    base = run.base_model
    return page.say(
        "base_value",
        name=page.language.ltr(base.name),
        parameters=base.parameters,
        encoder=base.num_layers,
        decoder=base.num_decoder_layers,
        width=base.d_model,
        sha=page.language.ltr(f"SHA-256 {run.config.base_sha256[:8]}…") if run.config.base_sha256 else "",
    )


def _reviews(page: Page, run: RunResult) -> str:
    name, everything = page.language.ltr(run.config.reviews), page.say("all")
    train, test = (reviews_of(run, split) or everything for split in ("train", "test"))
    tokens = run.config.max_tokens or everything
    return page.say("reviews_value", name=name, tokens=tokens, train=train, test=test)


def _training(page: Page, run: RunResult) -> str:
    return page.say("training_value", epochs=run.config.epochs, batch=run.config.batch_size)


def _seeds(page: Page) -> str:
    seeds = dict.fromkeys(run.config.seed for run in page.runs.values())
    for runs in page.inputs.seeds.values():
        seeds |= dict.fromkeys(run.seed for run in runs)
    return page.language.join(page.language.number(seed) for seed in seeds if seed is not None)


def _device(page: Page, run: RunResult) -> str:
    where = run.environment
    return page.language.ltr(f"{where.device}, {where.device_name}, {where.precision}")


def _versions(page: Page, run: RunResult) -> str:
    named = {"python": run.environment.python, **run.environment.versions}
    return page.language.ltr(", ".join(f"{name} {version}" for name, version in named.items() if version))
