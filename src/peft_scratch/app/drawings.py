"""What the page shows, as HTML: bars, marked words, a plot. Every text of a user is escaped."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Sequence

from peft_scratch.assignment import LABEL_WORDS
from peft_scratch.experiments.ask import NEITHER, Opinion
from peft_scratch.results import RunResult

# Colours that people with any colour vision tell apart (Okabe and Ito 2008).
_COLOURS = {LABEL_WORDS[0]: "#D55E00", LABEL_WORDS[1]: "#0072B2", NEITHER: "#767676"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` without control characters, escaped for HTML."""
    return html.escape(_CONTROL.sub("\ufffd", text))


def bars(opinions: Sequence[Opinion]) -> str:
    """The opinions side by side: a row per model, a bar per label word, and the verdict."""
    rows = "".join(
        f"<tr><th scope='row'>{plain(opinion.model)}</th>"
        f"<td>{_bar(opinion)}</td>"
        f"<td style='color:{_COLOURS[opinion.verdict]};font-weight:600'>{opinion.verdict}"
        f"{_written(opinion)}</td></tr>"
        for opinion in opinions
    )
    negative, positive = (
        f"<span style='color:{_COLOURS[word]}'>probability of {word}</span>" for word in LABEL_WORDS
    )
    return (
        "<table class='opinions'><thead><tr><th>model</th>"
        f"<th>{negative} · {positive}</th><th>verdict</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _bar(opinion: Opinion) -> str:
    parts = "".join(
        f"<div class='line'><div class='bar' style='width:{100 * share:.1f}%;background:{_COLOURS[word]}'>"
        f"</div><span>{100 * share:.1f} %</span></div>"
        for word, share in opinion.probabilities.items()
    )
    return f"<div class='bars'>{parts}</div>"


def _written(opinion: Opinion) -> str:
    if opinion.generated is None:
        return ""
    return f"<br><small dir='auto'>it writes “{plain(opinion.generated) or 'nothing'}”</small>"


def marked(words: Iterable[tuple[str, float]]) -> str:
    """The words of a text, each on a ground as strong as what it carries."""
    words = list(words)
    if not words:
        return ""
    most = max(abs(weight) for _, weight in words) or 1.0
    spans = " ".join(
        f"<span title='{weight:+.3f}' style='background:{_ground(weight, most)};border-radius:3px;"
        f"padding:0 2px'>{plain(word)}</span>"
        for word, weight in words
    )
    negative, positive = (
        f"<span style='color:{_COLOURS[word]};font-weight:600'>{word}</span>" for word in LABEL_WORDS
    )
    return (
        f"<div dir='auto' class='marked'>{spans}</div><p><small>Occlusion: each word is left out once, and "
        f"the change of the model's answer is measured. Words on this ground speak for {negative} or for "
        f"{positive}; the largest change is {most:.2f} of 1.</small></p>"
    )


def _ground(weight: float, most: float) -> str:
    colour = _COLOURS[LABEL_WORDS[weight > 0]]
    strength = round(160 * abs(weight) / most)
    return f"{colour}{strength:02x}"


def history(rows: Sequence[tuple[str, str]]) -> str:
    """What was asked so far in this tab, newest first: the beginning of the text, and the verdicts."""
    if not rows:
        return "<p>Nothing was asked yet.</p>"
    lines = "".join(
        f"<tr><td dir='auto'>{plain(text)}</td><td>{plain(verdicts)}</td></tr>"
        for text, verdicts in reversed(rows)
    )
    return f"<table class='opinions'><tbody>{lines}</tbody></table>"


def accuracy_plot(results: Sequence[RunResult]) -> str:
    """Accuracy against trainable parameters, a point per run, as SVG; the points can be clicked."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax = figure.subplots()
    for result in results:
        (point,) = ax.plot(
            result.parameters.trainable, result.percent, "o", markersize=11, color="#0072B2", alpha=0.75
        )
        point.set_gid(f"run-{result.id}")
    ax.set_xscale("log")
    ax.set(xlabel="trainable parameters", ylabel="test accuracy, best epoch, %")
    ax.margins(x=0.08, y=0.15)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg \1width="100%"', svg, count=1)


def run_facts(result: RunResult) -> str:
    """What is known of one run, for the point that was clicked."""
    return (
        f"**{result.title}** · {result.percent:.1f} % in the best epoch, "
        f"{100 * (result.accuracy.last or 0):.1f} % in the last · "
        f"{result.parameters.trainable:,} trainable parameters of {result.parameters.whole:,} · "
        f"{result.seconds.total:,.0f} s"
    )
