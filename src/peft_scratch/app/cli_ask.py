"""The commands `ask` and `app`: a trained model's opinion of any text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peft_scratch.app.csv_files import read_table, write_opinions
from peft_scratch.errors import UserError

if TYPE_CHECKING:
    from peft_scratch.experiments.ask import Opinion, Panel

ProfileName = Annotated[str, typer.Option(help="The profile whose base and runs to ask, as for `run`.")]
OutputFolder = Annotated[Path | None, typer.Option(help="Folder of the runs; out/PROFILE by default.")]
Weights = Annotated[
    list[Path] | None,
    typer.Option("--weights", help="A weight file, or a PEFT or AdapterHub folder; may be repeated."),
]
Alpha = Annotated[
    float | None,
    typer.Option(help="LoRA's alpha for --weights; by default the folder's own, or the assignment's 4."),
]


def ask(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The text to predict, in quotes.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A CSV file with a column `text` to predict.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="The CSV file to write for --file; by default FILE.opinions.csv.")
    ] = None,
    weights: Weights = None,
    alpha: Alpha = None,
    profile: ProfileName = "auto",
    output: OutputFolder = None,
) -> None:
    """Ask the base and every trained model for their opinion on a text, or on each row of a CSV file.

    An opinion is the verdict and the probability of each label word; and the generated text, if that is not
    a label word.
    """
    if (text is None) == (file is None):
        raise UserError('Give either a text, such as ask "A fine film.", or --file reviews.csv.')
    if file is None:
        if to is not None:
            raise UserError("--to needs --file: for one text, no CSV file is written.")
        panel = _panel(profile, output, weights, alpha)
        for remark in panel.remarks(text):
            typer.echo(f"note: {remark}")
        (opinions,) = panel.ask([text])
        _show(opinions)
        return
    target = to or file.with_suffix(".opinions.csv")
    if target.resolve() == file.resolve():
        raise UserError(f"--to names {file} itself, whose texts would be lost: give another name.")
    table = read_table(file)  # before the models are loaded, which takes seconds
    panel = _panel(profile, output, weights, alpha)
    texts = table.texts
    write_opinions(target, table, panel.ask(texts, bar=True), [panel.remarks(text) for text in texts])
    typer.echo(target)


def app(
    weights: Weights = None,
    alpha: Alpha = None,
    profile: ProfileName = "auto",
    output: OutputFolder = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to serve on; a free one by default.")
    ] = None,
) -> None:
    """Open a page to try the trained models.

    It is served to this machine alone and needs no network.
    """
    from peft_scratch.app.page import open_page
    from peft_scratch.experiments.session import Session

    open_page(Session.open(profile, output=output), weights or (), port, alpha=alpha, block=True)


def _panel(profile: str, output: Path | None, weights: list[Path] | None, alpha: float | None) -> Panel:
    from peft_scratch.experiments.ask import panel_of
    from peft_scratch.experiments.session import Session

    return panel_of(Session.open(profile, output=output), weights or (), alpha)


def _show(opinions: list[Opinion]) -> None:
    from peft_scratch.assignment import LABEL_WORDS

    width = max(len(opinion.model) for opinion in opinions)
    for opinion in opinions:
        shares = ", ".join(f"{word} {100 * opinion.probabilities[word]:5.1f} %" for word in LABEL_WORDS)
        written = f"  writes {opinion.generated!r}" if opinion.generated is not None else ""
        typer.echo(f"{opinion.model:{width}}  {opinion.verdict:8}  {shares}{written}")
