"""A session in a few lines: what it trains, on which machine, and how long that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.experiments.environment import environment
from peft_scratch.paths import shown
from peft_scratch.training.device import memory_of
from peft_scratch.wording import counted, duration

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session


def summary(session: Session, notebook: int | None = None) -> str:
    """What a notebook shows at its top; if `notebook` is given, with the time that its runs take."""
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
