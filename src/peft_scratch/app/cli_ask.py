"""The commands `ask` and `app`: a trained model's opinion of any text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peft_scratch.errors import UserError

if TYPE_CHECKING:
    from peft_scratch.experiments.ask import Opinion

ProfileName = Annotated[str, typer.Option(help="Whose base and runs to ask, as for `run`.")]
OutputFolder = Annotated[Path | None, typer.Option(help="Folder of the runs; out/PROFILE by default.")]
Weights = Annotated[
    list[Path] | None,
    typer.Option("--weights", help="A .pt file to hand in, or a PEFT or AdapterHub folder; may be repeated."),
]


def ask(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The text to predict, in quotes.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A CSV file with a column `text` to predict.")] = None,
    to: Annotated[Path | None, typer.Option(help="The CSV to write for --file; FILE.opinions.csv.")] = None,
    weights: Weights = None,
    profile: ProfileName = "auto",
    output: OutputFolder = None,
) -> None:
    """Ask the base and every trained model for their opinion.

    Of a text, or of every row of a CSV file: the verdict, the probability of each label word, and what is
    generated if it is neither.
    """
    if (text is None) == (file is None):
        raise UserError('Give either a text, such as ask "A fine film.", or --file reviews.csv.')
    texts = [text] if text is not None else _texts_of(file)
    from peft_scratch.experiments.ask import panel_of
    from peft_scratch.experiments.session import Session

    panel = panel_of(Session.open(profile, output=output), weights or ())
    if text is not None:
        (opinions,) = panel.ask([text])
        for remark in panel.remarks(text):
            typer.echo(f"note: {remark}")
        _show(opinions)
        return
    from tqdm import tqdm

    rows = list(tqdm(panel.ask(texts), total=len(texts), unit="text"))
    target = to or file.with_suffix(".opinions.csv")
    _write(target, texts, rows)
    typer.echo(target)


def app(
    weights: Weights = None,
    profile: ProfileName = "auto",
    output: OutputFolder = None,
    port: Annotated[int | None, typer.Option(help="Port to serve on; a free one by default.")] = None,
) -> None:
    """Open a page to try the trained models.

    It is served to this machine alone and needs no network.
    """
    from peft_scratch.app.page import launch, make_page
    from peft_scratch.experiments.ask import panel_of
    from peft_scratch.experiments.session import Session
    from peft_scratch.results import RunResult

    session = Session.open(profile, output=output)
    panel = panel_of(session, weights or ())
    results = {name: one for name, one in session.results().items() if isinstance(one, RunResult)}
    launch(make_page(panel, results), port)


def _texts_of(path: Path) -> list[str]:
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UserError(f"{path} cannot be read as a CSV file ({reason}).") from None
    if "text" not in table.columns:
        raise UserError(f"{path} has the columns {', '.join(map(str, table.columns))}, but text is needed.")
    return table["text"].tolist()


def _show(opinions: list[Opinion]) -> None:
    from peft_scratch.assignment import LABEL_WORDS

    width = max(len(opinion.model) for opinion in opinions)
    for opinion in opinions:
        shares = ", ".join(f"{word} {100 * opinion.probabilities[word]:5.1f} %" for word in LABEL_WORDS)
        written = f"  writes {opinion.generated!r}" if opinion.generated is not None else ""
        typer.echo(f"{opinion.model:{width}}  {opinion.verdict:8}  {shares}{written}")


def _write(path: Path, texts: list[str], rows: list[list[Opinion]]) -> None:
    import pandas as pd

    from peft_scratch.assignment import LABEL_WORDS
    from peft_scratch.files import write_atomically

    lines = []
    for text, opinions in zip(texts, rows, strict=True):
        line = {"text": text}
        for opinion in opinions:
            line[f"{opinion.model}: verdict"] = opinion.verdict
            for word in LABEL_WORDS:
                line[f"{opinion.model}: {word}"] = f"{opinion.probabilities[word]:.4f}"
            line[f"{opinion.model}: writes"] = opinion.generated or ""
        lines.append(line)
    # With a mark at the beginning, by which Excel knows UTF-8.
    write_atomically(path, "\ufeff" + pd.DataFrame(lines).to_csv(index=False))
