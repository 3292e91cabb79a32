"""What the page shows, as HTML: bars, marked words, a plot, a history. Every text from outside is escaped."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from peft_scratch.assignment import KIND_NAMES, LABEL_WORDS
from peft_scratch.experiments.ask import Opinion
from peft_scratch.results import RunResult

# Two colours that everyone can tell apart, also with a colour vision deficiency (Okabe and Ito 2008).
_COLOURS = dict(zip(LABEL_WORDS, ("#D55E00", "#0072B2"), strict=True))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")

#: If no word changes the lean of the model by more than this, all backgrounds are pale.
FAINT = 0.05

#: The style of the page. On a dark page, the colours of the verdicts are lighter.
STYLE = f"""
.opinions {{ width: 100%; border-collapse: collapse; }}
.opinions th, .opinions td {{ text-align: start; padding: 5px 8px; border-bottom: 1px solid #8883; }}
.opinions th {{ font-weight: 500; }}
.opinions th[scope=row] {{ min-width: 7.5em; }}
.opinions thead th {{ font-size: 0.85em; opacity: 0.8; }}
.opinions bdi {{ overflow-wrap: anywhere; }}
.bars {{ min-width: 8em; width: 50%; }}
.line {{ display: flex; align-items: center; gap: 6px; font-size: 0.8em; line-height: 1.35; }}
.line span {{ width: 4em; text-align: end; font-variant-numeric: tabular-nums; }}
.track {{ flex: auto; background: #8882; border-radius: 2px; }}
.bar {{ height: 0.65em; border-radius: 2px; }}
.negative {{ color: {_COLOURS[LABEL_WORDS[0]]}; font-weight: 600; }}
.positive {{ color: {_COLOURS[LABEL_WORDS[1]]}; font-weight: 600; }}
.dark .negative {{ color: #FF9A57; }}
.dark .positive {{ color: #6CBCF5; }}
.neither {{ font-weight: 600; }}
.negative, .positive, .neither {{ white-space: nowrap; }}
.words {{ line-height: 2; overflow-wrap: anywhere; }}
.words div span {{ border-radius: 3px; padding: 1px 2px; unicode-bidi: isolate; }}
.words h4, .facts h4 {{ margin: 0 0 4px; font-weight: 600; }}
.aside {{ font-size: 0.85em; opacity: 0.8; }}
.facts p {{ margin: 2px 0; }}
.plot svg {{ width: 100%; max-width: 560px; height: auto; fill: currentColor; }}
.plot svg text {{ fill: currentColor; font-family: inherit; }}
.plot [id^='run-'] {{ cursor: pointer; pointer-events: all; }}
.plot [id^='run-'] * {{ pointer-events: all; }}
.plot [id^='run-']:focus-visible, .plot [id^='run-'].chosen {{ outline: 2px solid; outline-offset: 3px; }}
"""


def plain(text: str) -> str:
    """`text` without control characters, escaped for HTML."""
    return html.escape(_CONTROL.sub("\ufffd", text))


def bars(opinions: Sequence[Opinion]) -> str:
    """The opinions side by side: a row per model, a bar per label word, and the verdict."""
    rows = "".join(
        f"<tr><th scope='row'>{_unbroken(opinion.model)}</th>"
        f"<td class='bars'>{_bars(opinion)}</td>"
        f"<td><span class='{opinion.verdict}'>{opinion.verdict}</span>{_written(opinion)}</td></tr>"
        for opinion in opinions
    )
    words = " and ".join(f"<span class='{word}'>{word}</span>" for word in LABEL_WORDS)
    return (
        f"<table class='opinions'><thead><tr><th>model</th><th>probability of {words}</th><th>verdict</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )


def _unbroken(title: str) -> str:
    """The title, in which a line can break after a comma but not inside `N = 10`."""
    return plain(title).replace(" = ", "\u00a0=\u00a0")


def _bars(opinion: Opinion) -> str:
    return "".join(
        f"<div class='line'><div class='track'><div class='bar' style='width:{100 * share:.1f}%;"
        f"background:{_COLOURS[word]}'></div></div><span>{100 * share:.1f}\u00a0%</span></div>"
        for word, share in opinion.probabilities.items()
    )


def _written(opinion: Opinion) -> str:
    if opinion.generated is None:
        return ""
    written = f"writes “<bdi>{plain(opinion.generated)}</bdi>”" if opinion.generated else "writes nothing"
    return f"<br><small>{written}</small>"


def marked(words: Iterable[tuple[str, float]], model: str = "the model") -> str:
    """The words of a text, each with a background as strong as its effect on the answer.

    Args:
        words: with their effects, as `Panel.occlusion` gives them.
        model: the name of the model that answered.
    """
    words = list(words)
    if not words:
        return ""
    most = max(abs(weight) for _, weight in words)
    spans = " ".join(
        f"<span title='{weight:+.3f}' style='background:{_ground(weight, most)}'>{plain(word)}</span>"
        for word, weight in words
    )
    together = max(len(word.split()) for word, _ in words)
    left_out = "each word" if together == 1 else f"each group of {together} words"
    negative, positive = (f"<span class='{word}'>{word}</span>" for word in LABEL_WORDS)
    return (
        f"<div class='words'><h4>The words that the answer of {_unbroken(model)} depends on</h4>"
        f"<div dir='auto'>{spans}</div></div>"
        f"<p class='aside'>Occlusion: {left_out} is left out once, and the change of the model's lean "
        f"towards positive is measured; the largest is {most:.2f}. Orange words speak for {negative}, "
        f"blue words for {positive}. Words that matter only together are missed.</p>"
    )


def _ground(weight: float, most: float) -> str:
    colour = _COLOURS[LABEL_WORDS[weight > 0]]
    strength = round(160 * abs(weight) / max(most, FAINT))
    return f"{colour}{strength:02x}"


def summary(opinions: Sequence[Opinion]) -> str:
    """The verdicts in a few words: the most frequent one, and the models with a different one."""
    (verdict, count), *_ = Counter(opinion.verdict for opinion in opinions).most_common()
    if count == len(opinions):
        return f"all {verdict}" if count > 1 else verdict
    others = (f"{opinion.model}: {opinion.verdict}" for opinion in opinions if opinion.verdict != verdict)
    return f"{verdict} ({count} of {len(opinions)}); " + "; ".join(others)


def history(rows: Sequence[tuple[str, str]]) -> str:
    """What was asked in this tab so far, the newest first: the beginning of each text, and the verdicts."""
    if not rows:
        return "<p>Nothing was asked yet.</p>"
    lines = "".join(
        f"<tr><td><bdi>{plain(text)}</bdi></td><td>{_unbroken(verdicts)}</td></tr>"
        for text, verdicts in reversed(rows)
    )
    return (
        "<table class='opinions'><thead><tr><th>text</th><th>verdicts</th></tr></thead>"
        f"<tbody>{lines}</tbody></table>"
    )


def accuracy_plot(results: Sequence[RunResult]) -> str:
    """Accuracy against trainable parameters, a point per run, as SVG; the points can be clicked."""
    from peft_scratch.reporting.figures import style
    from peft_scratch.reporting.languages import LANGUAGES

    with style.styled(LANGUAGES["en"]):
        figure, (ax,) = style.new_figure(LANGUAGES["en"], 3.4)
        figure.set_size_inches(5.6, 3.4)  # the page is narrower than the report
        for background in figure.patch, ax.patch:  # the page has its own background, which may be dark
            background.set_visible(False)
        # Runs through a library are drawn first and larger, so that both can be clicked at the same place.
        for result in sorted(results, key=_is_from_scratch):
            colour, marker = style.METHODS[result.config.kind]
            filled, size = (colour, 7) if _is_from_scratch(result) else ("none", 11)
            at = result.parameters.trainable, result.percent
            (point,) = ax.plot(*at, marker, color=colour, mfc=filled, mew=1.5, ms=size)
            point.set_gid(f"run-{result.id}")
        ax.set_xscale("log")
        ax.set(xlabel="trainable parameters", ylabel="test accuracy, best epoch, %")
        ax.margins(x=0.08, y=0.12)
        ax.grid(color="#888888", alpha=0.25)
        there = {result.config.kind for result in results}
        handles = [style.dot(*style.METHODS[kind], KIND_NAMES[kind]) for kind in KIND_NAMES if kind in there]
        handles.append(style.dot("#000000", "o", "through a library", mfc="none"))
        style.legend(figure, handles, 3)
        drawn = style.svg(figure)
    drawn = drawn[drawn.index("<svg") :].replace("#000000", "currentColor")
    for result in results:  # for screen readers and the keyboard
        label = html.escape(f"{result.title}: {result.percent:.1f} %", quote=True)
        drawn = drawn.replace(
            f'id="run-{result.id}"', f'id="run-{result.id}" tabindex="0" role="button" aria-label="{label}"'
        )
    return f"<div class='plot'>{drawn}</div>"


def _is_from_scratch(result: RunResult) -> bool:
    return result.config.library in ("none", "scratch")


def run_facts(result: RunResult) -> str:
    """What is known about one run, for the point that was clicked."""
    accuracy, counts, config = result.accuracy, result.parameters, result.config
    last = "" if accuracy.last is None else f", {100 * accuracy.last:.1f} % in the last"
    lines = [
        f"{result.percent:.1f} % in the best epoch{last}",
        f"{counts.trainable:,} trainable parameters of {counts.whole:,}",
        f"{result.seconds.total:,.0f} s for training and evaluation",
        *([f"{config.train_reviews:,} training reviews"] if config.train_reviews else []),
        *([f"{config.test_reviews:,} test reviews"] if config.test_reviews else []),
    ]
    facts = "".join(f"<p>{plain(line)}</p>" for line in lines)
    return f"<div class='facts'><h4>{_unbroken(result.title)}</h4>{facts}</div>"
