"""What the five notebooks show alike: source, tables, curves, numbers and mistakes.

Tables are displayed as Markdown: it reads well in Jupyter, in Colab and on code hosts, carries no
style sheet, and its plain form is readable too.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.ticker import MaxNLocator
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from torch import Tensor

from peft_scratch.assignment import LABEL_WORDS, PROFILES, RUNS
from peft_scratch.comparison import paired, sentence
from peft_scratch.experiments.run import PreparedRun
from peft_scratch.experiments.session import Session
from peft_scratch.results import Result, RunResult
from peft_scratch.wording import counted

#: The longest piece of a review that is ever shown: the reviews are other people's.
PHRASE = 80

# Okabe and Ito's colours (2008), told apart by colour-blind readers; the markers serve print in grey.
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))


def source(*things: Callable[..., Any] | type) -> None:
    """Display the source of functions and classes, highlighted."""
    for thing in things:
        code = f"# src/{thing.__module__.replace('.', '/')}.py\n\n{inspect.getsource(thing)}"
        # Colours in the elements themselves: a style sheet would be lost, or spread to the whole page.
        style = HtmlFormatter(
            noclasses=True, prestyles="font-family: monospace; font-size: 90%; padding: 8px"
        )
        display({"text/html": highlight(code, PythonLexer(), style), "text/plain": code}, raw=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Display a table; columns of numbers are set to the right."""
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    numeric = [
        all(re.match(r"[-+]?\d|-?$|not run", cell) for cell in column) for column in zip(*cells, strict=True)
    ]
    lines = [header, ["---:" if right else ":---" for right in numeric], *cells]
    _display("\n".join(f"| {' | '.join(line)} |" for line in lines))


def tensors(entries: dict[str, Tensor]) -> None:
    """Display names and shapes of tensors, the same entry of all blocks in one row."""
    rows = []
    for name, names in fold(entries).items():
        shape, sizes = tuple(entries[names[0]].shape), [entries[n].numel() for n in names]
        rows.append((f"`{name}`", shape, len(names), f"{sum(sizes):,}"))
    rows.append(("**together**", "", len(entries), f"{sum(t.numel() for t in entries.values()):,}"))
    table(("entry", "shape", "tensors", "parameters"), rows)


def run(prepared: PreparedRun) -> None:
    """Print a run's constants and where its method went, before it trains."""
    tuned, course = prepared.tuned, prepared.run.learning_rate
    there = len(list(tuned.model.parameters()))
    remark = "" if prepared.learning_rate == course else f" (in the course: {course:g})"
    print(f"run            {prepared.run.title}")
    print(f"method         {prepared.tuned.method}")
    print(f"learning rate  {prepared.learning_rate:g} in the {prepared.profile.name} profile{remark}")
    print(f"trains         {len(tuned.trainable)} of {there} tensors")
    if tuned.module_names:
        print(f"put into       {counted(len(tuned.module_names), 'place')}")
        print(*(f"               {name}" for name in fold(tuned.module_names)), sep="\n")


def fold(names: Iterable[str]) -> dict[str, list[str]]:
    """`names` by what they share besides the number of their block.

    >>> fold(["encoder.block.0.q", "encoder.block.1.q"])
    {'encoder.block.{0-1}.q': ['encoder.block.0.q', 'encoder.block.1.q']}
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    alone: dict[str, list[str]] = {}
    for name in names:
        if match := re.fullmatch(r"(.*?\bblock\.)(\d+)(\..*)", name):
            groups.setdefault((match[1], match[3]), []).append((int(match[2]), name))
        else:
            alone[name] = [name]
    folded = {}
    for (before, after), members in groups.items():
        numbers = [number for number, _ in members]
        span = f"{{{min(numbers)}-{max(numbers)}}}" if len(numbers) > 1 else str(numbers[0])
        folded[f"{before}{span}{after}"] = [name for _, name in members]
    return alone | folded


def curves(*results: RunResult) -> None:
    """Draw the training loss within the epochs, and the test accuracy after each; a ring marks the best."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), dpi=90, layout="constrained")
    for result, (colour, marker) in zip(results, _STYLES, strict=False):
        left.plot(*zip(*result.curve, strict=True), color=colour, label=result.title)
        epochs = [epoch.epoch for epoch in result.epochs]
        percents = [100 * epoch.accuracy for epoch in result.epochs]
        right.plot(epochs, percents, color=colour, marker=marker, label=result.title)
        best = result.accuracy.best_epoch
        right.plot(best, percents[best - 1], "o", markersize=13, markerfacecolor="none", color=colour)
    left.set(title="Training loss", xlabel="epochs done", ylabel="cross-entropy of the label word")
    right.set(title="Accuracy on the test split", xlabel="epoch", ylabel="%")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.margins(x=0.1, y=0.2)
    left.legend(frameon=False)  # where loss falls, the corner is free
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    plt.show()


def numbers(*results: Result) -> None:
    """Display the accuracies of `results`: the course's number, and the two honest ones beside it."""
    rows = [(result.title, *_numbers(result)) for result in results]
    table(("", *_NUMBERS), rows)
    if any(result.accuracy.last is not None for result in results):
        _display(_SELECTION)
    if not all(PROFILES[result.profile].measures for result in results):
        _display("*A smoke run: it shows that everything works; its numbers say nothing about the methods.*")


def standings(bench: Session) -> None:
    """Display every row that there will be in the end, with the numbers found in the output folder."""
    found = bench.results()
    baselines = [found[name] for name in ("zero_shot", "zero_shot_prefix", "bag_of_words") if name in found]
    rows = [(result.title, "", *_numbers(result)) for result in baselines]
    for run in RUNS.values():
        accuracies = _numbers(found[run.id]) if run.id in found else ("not run yet", "-", "-", "-")
        rows.append((run.title, run.notebook, *accuracies))
    table(("", "notebook", *_NUMBERS), rows)


_NUMBERS = ("best epoch, %", "last epoch, %", "by validation, %", "malformed, %")

_SELECTION = (
    "*The course's number is the best epoch on the test split: the reviews that score it also chose it, "
    "which flatters. The last epoch is chosen by nobody. The third is chosen by a fifth of the test reviews "
    "(the validation part) and scored on the rest; being on other reviews, it may come out above the first.*"
)


def _numbers(result: Result) -> tuple[str, ...]:
    accuracy, malformed = result.accuracy, f"{100 * result.malformed:.1f}"
    if accuracy.last is None:
        return f"{result.percent:.1f}", "-", "-", malformed
    return (
        f"{result.percent:.1f} (epoch {accuracy.best_epoch})",
        f"{100 * accuracy.last:.1f}",
        f"{100 * accuracy.validation_chosen:.1f} (epoch {accuracy.validation_chosen_epoch})",
        malformed,
    )


def mistakes(bench: Session, prepared: PreparedRun, result: Result, count: int = 6) -> None:
    """Say how often each label is missed, and display how a few reviews it gets wrong begin."""
    labels = bench.reviews.test["label"]
    wrong = result.mistakes
    for label, word in enumerate(LABEL_WORDS):
        missed, there = sum(labels[i] == label for i in wrong), sum(one == label for one in labels)
        print(f"{missed:,} of {there:,} {word} reviews are judged wrong ({100 * missed / there:.1f} %)")
    if rows := [wrong[i * len(wrong) // count] for i in range(min(count, len(wrong)))]:
        answers = prepared.answers(rows)
        shown = [
            (
                _plain(phrase(bench.reviews.test[i]["text"])),
                LABEL_WORDS[labels[i]],
                _plain(answer) or "nothing",
            )
            for i, answer in zip(rows, answers, strict=True)
        ]
        table(("the review begins", "label", "the model answers"), shown)


def phrase(review: str) -> str:
    """The beginning of `review`, of at most `PHRASE` characters."""
    if len(review) <= PHRASE:
        return review
    return review[: PHRASE - 1].rpartition(" ")[0] + "…"


def compare(bench: Session, first: Result, second: Result) -> None:
    """Print how far two results are apart, and whether this many test reviews can tell them apart.

    Another seed moves a number too: this is the luck of the test reviews alone (`comparison.paired`).
    """
    print(f"{first.title}: {first.percent:.1f} %\n{second.title}: {second.percent:.1f} %")
    difference = paired(first, second, len(bench.reviews.test))
    if difference is None:
        print("These results do not list the same reviews' mistakes, so they cannot be compared further.")
        return
    differ = difference.only_first + difference.only_second
    print(
        f"{sentence(difference)}\n"
        f"Both are wrong on {difference.both:,} of the reviews. "
        f"On {differ:,} of {difference.reviews:,} only one of them is."
    )


def hand_in(bench: Session, notebook: int) -> None:
    """Display what the assignment asks for from this notebook: the numbers, and the weight file if any."""
    found = bench.results()
    rows = []
    for run in RUNS.values():
        if run.notebook != notebook:
            continue
        number = f"{found[run.id].percent:.1f}" if run.id in found else "not run yet"
        file = bench.output / "weights" / run.weight_file if run.weight_file else None
        there = file is not None and file.exists()
        rows.append(
            (run.title, number, f"`weights/{file.name}`, {file.stat().st_size:,} bytes" if there else "-")
        )
    table(("", "for the report, %", "file to hand in"), rows)
    if not bench.profile.is_assignment:
        _display(
            f"*The {bench.profile.name} profile is a rehearsal: what is handed in comes from the course "
            "profile, `t5-small` on the whole of IMDB, which wants a GPU.*"
        )


def _plain(text: str) -> str:
    """`text` so that neither Markdown nor MathJax reads anything into it."""
    return re.sub(r"[*_`$~\[\]\\]", lambda match: f"&#{ord(match[0])};", html.escape(text, quote=False))


def _display(markdown: str) -> None:
    display({"text/markdown": markdown, "text/plain": markdown}, raw=True)
