"""Runs that differ in more than their names say, because of the assignment's constants."""

from __future__ import annotations

import math

from peft_scratch.comparison import error_of
from peft_scratch.reporting.sections.blocks import Block, Page
from peft_scratch.results import RunResult


def section(page: Page) -> list[Block]:
    traps = {  # in the order of the notebooks
        "trap_prompt": (_prompt, ("prompt_opendelta_n1",)),
        "trap_rate": (_rate, ("adapter_scratch_b8", "adapter_adapterhub_b8")),
        "trap_alpha": (_alpha, ("lora_peft_r1", "lora_peft_r8")),
        "trap_start": (_start, ("lora_scratch_r8",)),
    }
    items = [
        say(page, *(page.runs[name] for name in names))
        if all(name in page.runs for name in names)
        else page.say("confound_missing", trap=page.say(trap))
        for trap, (say, names) in traps.items()
    ]
    seeds = {run.config.seed for run in page.runs.values()}
    if len(seeds) == 1 and not page.inputs.seeds:
        items.append(page.say("one_seed", seed=seeds.pop() or 0))
    return [
        page.heading("confounds"),
        {"kind": "list", "items": [{"text": item, "maths": ""} for item in items]},
    ]


def _alpha(page: Page, low: RunResult, high: RunResult) -> str:
    ranks = [run.config.hyperparameters["rank"] for run in (low, high)]
    alphas = [run.config.hyperparameters["alpha"] for run in (low, high)]
    scales = [alpha / rank for alpha, rank in zip(alphas, ranks, strict=True)]
    formula = page.language.formula
    return page.say(
        "alpha_yes" if scales[0] == scales[1] else "alpha_no",
        low=formula(f"r = {ranks[0]}"),
        high=formula(f"r = {ranks[1]}"),
        alpha=page.language.join(dict.fromkeys(page.language.rate(alpha) for alpha in alphas)),
        low_scale=formula(f"{alphas[0]:g}/{ranks[0]} = {scales[0]:g}"),
        high_scale=formula(f"{alphas[1]:g}/{ranks[1]} = {scales[1]:g}"),
    )


def _rate(page: Page, scratch: RunResult, library: RunResult) -> str:
    ours, theirs = (run.config.learning_rate for run in (scratch, library))
    return page.say(
        "rate_yes" if ours == theirs else "rate_no",
        scratch=page.language.rate(ours),
        library=page.language.rate(theirs),
        factor=page.language.numeral(f"{ours / theirs:.3g}"),
        size=page.language.formula(f"b = {scratch.config.hyperparameters['bottleneck']}"),
    )


def _start(page: Page, run: RunResult) -> str:
    rank, width = run.config.hyperparameters["rank"], run.base_model.d_model
    # sqrt(6 / fan-in), the fan-in read as r, against loralib's 1 / sqrt(d).
    return page.say(
        "start",
        ratio=page.language.number(math.sqrt(6 * width / rank), 1),
        formula=page.language.formula(f"√(6·d/r) = √(6·{width}/{rank})"),
    )


def _prompt(page: Page, run: RunResult) -> str:
    accuracy = run.accuracy
    last = accuracy.best if accuracy.last is None else accuracy.last
    fall = accuracy.best - last
    errors = [error_of(run, share) for share in (accuracy.best, last)]
    clear = None not in errors and fall > 2 * math.hypot(*errors)
    return page.say(
        "prompt_stays" if fall <= 0 else "prompt_falls" if clear else "prompt_falls_little",
        rate=page.language.rate(run.config.learning_rate),
        epoch=accuracy.best_epoch or 0,
        best=page.language.percent(accuracy.best),
        last=page.language.percent(last),
    )
