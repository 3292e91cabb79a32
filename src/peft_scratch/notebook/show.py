"""What all five notebooks show: source, tables, curves, numbers and mistakes.

Tables are displayed as Markdown, because Jupyter, Colab and code hosts all show it well, without a style
sheet, and it can be read as plain text too.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.ticker import MaxNLocator
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from torch import Tensor

from peft_scratch.assignment import BASELINES, HUB_BASE, LABEL_WORDS, PROFILES, RUNS, Profile
from peft_scratch.comparison import error_of, paired, sentence
from peft_scratch.edition.layers_file import without_markers
from peft_scratch.experiments.run import PreparedRun
from peft_scratch.experiments.session import Session
from peft_scratch.results import Result, RunResult
from peft_scratch.wording import counted, duration

if TYPE_CHECKING:
    from peft_scratch.experiments.ask import Opinion

#: The longest piece of a review that is ever shown, in characters: the reviews belong to other people.
PHRASE = 80
# How many phrases of a review are tried. The model does not read that far.
_MOST_PHRASES = 40
_SHORTEST = 25
# The axis of accuracies spans at least this many points.
_SMALLEST_RANGE = 4.0

# Okabe and Ito's colours (2008), for colour-blind readers; the markers help in grey print.
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))


def source(*things: Callable[..., Any] | type) -> None:
    """Display the source of functions and classes, highlighted."""
    for thing in things:
        lines = without_markers(inspect.getsource(thing))
        folder = "src/" if "." in thing.__module__ else ""  # the student edition's layers.py is not in src
        code = f"# {folder}{thing.__module__.replace('.', '/')}.py\n\n{lines}"
        # Colours in the elements themselves: a style sheet would be lost, or would affect the whole page.
        style = HtmlFormatter(
            noclasses=True, prestyles="font-family: monospace; font-size: 90%; padding: 8px"
        )
        display({"text/html": highlight(code, PythonLexer(), style), "text/plain": code}, raw=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Display a table; columns of numbers are aligned right."""
    _display(_table(header, rows))


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    numeric = [
        all(re.match(r"[-+]?\d|-?$|not run", cell) for cell in column) for column in zip(*cells, strict=True)
    ]
    lines = [header, ["---:" if right else ":---" for right in numeric], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tensors(entries: dict[str, Tensor]) -> None:
    """Display names and shapes of tensors, the same entry of all blocks in one row."""
    rows = []
    for name, names in fold(entries).items():
        shape, sizes = tuple(entries[names[0]].shape), [entries[n].numel() for n in names]
        rows.append((f"`{name}`", shape, len(names), f"{sum(sizes):,}"))
    rows.append(("**together**", "", len(entries), f"{sum(t.numel() for t in entries.values()):,}"))
    table(("entry", "shape", "tensors", "parameters"), rows)


def passed(claim: str) -> None:
    """Say that the checks of a cell passed."""
    print(f"Passed: {claim}.")


def run(prepared: PreparedRun) -> None:
    """Print a run's hyperparameters, where its method is applied, and how long it will take."""
    tuned, assigned = prepared.tuned, prepared.run.learning_rate
    there = len(list(tuned.model.parameters()))
    remark = "" if prepared.learning_rate == assigned else f" (in the assignment: {assigned:g})"
    print(f"run            {prepared.run.title}")
    print(f"method         {prepared.tuned.method}")
    if not prepared.changed:
        print(f"time           about {duration(prepared.session.seconds_of([prepared.run]))}")
    print(f"learning rate  {prepared.learning_rate:g} in the {prepared.profile.name} profile{remark}")
    print(f"trains         {len(tuned.trainable)} of {there} tensors")
    if tuned.module_names:
        print(f"put into       {counted(len(tuned.module_names), 'place')}")
        print(*(f"               {name}" for name in fold(tuned.module_names)), sep="\n")


def fold(names: Iterable[str]) -> dict[str, list[str]]:
    """Group `names` that differ only in the number of their block.

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
    for position, (result, (colour, marker)) in enumerate(zip(results, _STYLES, strict=False)):
        left.plot(*zip(*result.curve, strict=True), color=colour, label=result.title)
        shift = 0.06 * (position - (len(results) - 1) / 2)  # so that error bars do not cover each other
        epochs = [epoch.epoch + shift for epoch in result.epochs]
        percents = [100 * epoch.accuracy for epoch in result.epochs]
        errors = [100 * (error_of(result, epoch.accuracy) or 0) for epoch in result.epochs]
        style = {"color": colour, "marker": marker, "capsize": 2, "label": result.title}
        right.errorbar(epochs, percents, errors, **style)
        best = result.accuracy.best_epoch - 1
        right.plot(epochs[best], percents[best], "o", markersize=13, markerfacecolor="none", color=colour)
    left.set(title="Training loss", xlabel="epochs done", ylabel="cross-entropy of the label word")
    right.set(title="Accuracy on the test split, ± 1 standard error", xlabel="epoch", ylabel="%")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.margins(x=0.1, y=0.2)
    low, high = right.get_ylim()
    if high - low < _SMALLEST_RANGE:  # a smaller range would make noise look like a trend
        middle = (low + high) / 2
        right.set_ylim(middle - _SMALLEST_RANGE / 2, middle + _SMALLEST_RANGE / 2)
    left.legend(frameon=False)  # the loss falls, so this corner is free
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    plt.show()


def numbers(*results: Result) -> None:
    """Display the accuracies of `results`: the assignment's number and two less optimistic ones."""
    header, published = _header(results)
    table(("", *header), [(result.title, *_numbers(result, published)) for result in results])
    if any(result.accuracy.last is not None for result in results):
        _display(_SELECTION)
    for profile in dict.fromkeys(result.profile for result in results):
        if remark := _remark(PROFILES[profile]):
            _display(f"*{remark}*")


def after_the_best(result: RunResult) -> None:
    """Print how far the accuracy fell from the best epoch to the last."""
    accuracy, epochs = result.accuracy, len(result.epochs)
    lost = f"{100 * (accuracy.best - accuracy.last):.1f}"
    if accuracy.best_epoch == epochs:
        end = "which is the last: no fall to see here"
    elif lost == "0.0":
        end = "and the last is as good"
    else:
        end = f"and the last is {lost} points lower"
    print(f"best after epoch {accuracy.best_epoch} of {epochs}, {end}")


def standings(session: Session) -> None:
    """Display all rows of the final table, with the numbers found so far in the output folder."""
    found = session.results()
    header, published = _header(found.values())
    baselines = [found[name] for name in BASELINES if name in found]
    rows = [(result.title, "", *_numbers(result, published)) for result in baselines]
    for run in RUNS.values():
        empty = ("not run yet", *["-"] * (len(header) - 1))
        accuracies = _numbers(found[run.id], published) if run.id in found else empty
        rows.append((run.title, run.notebook, *accuracies))
    table(("", "notebook", *header), rows)


def contribution(session: Session, notebook: int, found: Mapping[str, Result]) -> str:
    """Markdown of what a notebook hands in: its numbers and, if it has one, its weight file."""
    rows = []
    for run in (run for run in RUNS.values() if run.notebook == notebook):
        result = found.get(run.id)
        path = session.output / "weights" / run.weight_file if run.weight_file else None
        file = f"`weights/{path.name}`, {path.stat().st_size:,} bytes" if path and path.exists() else "-"
        published = [_published(run.id)] if session.profile.is_assignment else []
        number = f"{result.percent:.1f}" if result else "not run yet"
        rows.append((run.title, number, *published, file))
    header = [
        "",
        "for the report, %",
        *([_PUBLISHED] if session.profile.is_assignment else []),
        "file to hand in",
    ]
    remark = _remark(session.profile)
    return _table(header, rows) + (f"\n\n*{remark}*" if remark else "")


def _remark(profile: Profile) -> str:
    """What a reader must know about the numbers of `profile`; empty for the assignment's own."""
    if profile.is_assignment:
        return ""
    if not profile.measures:
        return f"A {profile.name} run shows that everything works. Its numbers say nothing about the methods."
    model = "`t5-small`" if profile.base == HUB_BASE else "a smaller base model"
    return (
        f"These are not the assignment's numbers: the {profile.name} profile trains {model} on "
        f'{profile.train_reviews:,} reviews. Set `PROFILE = "course"` for the numbers to hand in.'
    )


_PUBLISHED = "published runs, %"


def _published(name: str) -> str:
    return "{:.1f} to {:.1f}".format(*RUNS[name].published) if name in RUNS else "-"


def _header(results: Iterable[Result]) -> tuple[tuple[str, ...], bool]:
    """The columns of accuracies, and whether one of them has the published ranges."""
    published = any(PROFILES[result.profile].is_assignment for result in results)
    return (*_NUMBERS, *([_PUBLISHED] if published else [])), published


_NUMBERS = ("best epoch, %", "last epoch, %", "by validation, %", "malformed, %")

_SELECTION = (
    "*Best epoch: the assignment's number. It is optimistic, because the same reviews choose the epoch and "
    "score it. Last epoch: involves no choice. By validation: one fifth of the test reviews chooses the "
    "epoch, and its accuracy on the other four fifths is shown. These are other reviews, so it can be higher "
    "than the accuracy of the best epoch.*"
)


def _numbers(result: Result, published: bool) -> tuple[str, ...]:
    accuracy, malformed = result.accuracy, f"{100 * result.malformed:.1f}"
    others = (malformed, *([_published(result.id)] if published else []))
    if accuracy.last is None:
        return f"{result.percent:.1f}", "-", "-", *others
    return (
        f"{result.percent:.1f} (epoch {accuracy.best_epoch})",
        f"{100 * accuracy.last:.1f}",
        f"{100 * accuracy.validation_chosen:.1f} (epoch {accuracy.validation_chosen_epoch})",
        *others,
    )


def mistakes(session: Session, prepared: PreparedRun, result: Result, count: int = 6) -> None:
    """Say how often each label is missed, and display where a few of these reviews state their opinion."""
    labels, texts = session.reviews.test["label"], session.reviews.test["text"]
    wrong = result.mistakes
    for label, word in enumerate(LABEL_WORDS):
        missed, there = sum(labels[i] == label for i in wrong), sum(one == label for one in labels)
        print(f"{missed:,} of {there:,} {word} reviews get the wrong answer ({100 * missed / there:.1f} %)")
    if not (rows := [wrong[i * len(wrong) // count] for i in range(min(count, len(wrong)))]):
        return
    shown = [
        (_plain(opinion(prepared, texts[i], labels[i])), LABEL_WORDS[labels[i]], _plain(answer) or "nothing")
        for i, answer in zip(rows, prepared.answers(rows), strict=True)
    ]
    table(("phrase from the review", "label", "the model answers"), shown)
    _display(
        "*From each review, the table shows one phrase: the one that, read alone, moves the model most "
        "towards the right label.*"
    )


def opinion(prepared: PreparedRun, review: str, label: int) -> str:
    """The phrase of `review` that, read alone, moves the model most towards `label`."""
    candidates = phrases(review)
    leanings = prepared.leanings(candidates) * (1 if label else -1)
    return candidates[int(leanings.argmax())]


def phrases(review: str) -> list[str]:
    """Pieces of `review` of at most `PHRASE` characters, cut at punctuation or between words."""
    pieces = []
    for clause in re.split(r"(?<=[.!?;:,])\s+", review):
        while len(clause) > PHRASE:
            head, _, _ = clause[:PHRASE].rpartition(" ")
            head = head or clause[:PHRASE]
            pieces.append(head)
            clause = clause[len(head) :].strip()
        if pieces and len(pieces[-1]) + len(clause) < PHRASE:
            pieces[-1] = f"{pieces[-1]} {clause}"
        elif clause:
            pieces.append(clause)
    long = [piece for piece in pieces if len(piece) >= _SHORTEST] or pieces  # short ones say little
    return [_with_dots(piece, review) for piece in long[:_MOST_PHRASES]] or [""]


def _with_dots(piece: str, review: str) -> str:
    before = "" if review.startswith(piece) else "… "
    return f"{before}{piece}" if review.endswith(piece) else f"{before}{piece} …"


def opinions(found: Sequence[Opinion]) -> None:
    """Display what each model says about one text, as `session.ask` returns it."""
    from peft_scratch.experiments.ask import BASE  # as late as `session.ask`

    rows = [
        (one.model, one.verdict, *(f"{100 * one.probabilities[word]:.1f} %" for word in LABEL_WORDS))
        for one in found
    ]
    table(("model", "answer", *(f"probability of {word}" for word in LABEL_WORDS)), rows)
    for one in found:
        if one.generated is not None:
            name = "The untuned base" if one.model == BASE else one.model
            print(f"{name} writes {one.generated!r}, which is neither label word: a malformed output.")


def compare(session: Session, first: Result, second: Result) -> None:
    """Print how far two results are apart, and whether this many test reviews can tell them apart.

    Another seed would change the results too. This is about the test reviews only (`comparison.paired`).
    """
    print(f"{first.title}: {first.percent:.1f} %\n{second.title}: {second.percent:.1f} %")
    difference = paired(first, second, len(session.reviews.test))
    if difference is None:
        print("Their mistakes are not listed for the same reviews, so they cannot be compared further.")
        return
    differ = difference.only_first + difference.only_second
    print(sentence(difference))
    if difference.kind != "none":  # else the sentence has no p
        print("This p is for one comparison, without the report's correction for several comparisons.")
    print(
        f"Of {difference.reviews:,} reviews, {difference.both:,} are wrong in both, and {differ:,} are wrong "
        "in exactly one of the two."
    )


def _plain(text: str) -> str:
    """`text` escaped, so that Markdown and MathJax show it as it is."""
    return re.sub(r"[*_`$~\[\]\\]", lambda match: f"&#{ord(match[0])};", html.escape(text, quote=False))


def _display(markdown: str) -> None:
    display({"text/markdown": markdown, "text/plain": markdown}, raw=True)
