"""The page itself, made with Gradio: a box, the models side by side, marked words, a plot, a history."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from peft_scratch.app import drawings
from peft_scratch.errors import UserError
from peft_scratch.experiments.ask import Panel
from peft_scratch.results import RunResult

#: The only address that the page listens on: this machine's own.
LOOPBACK = "127.0.0.1"

#: A longer text is cut before it is looked at: no model here reads a hundredth of it.
MOST_CHARACTERS = 100_000

#: Made up for this page.
EXAMPLES = (
    "A warm and clever film. I laughed, I cried, and I would see it again tomorrow.",
    "Two hours of my life that I will not get back: flat jokes, wooden acting, no story.",
    "The acting is superb, but the plot falls apart after an hour, and the ending is a let-down.",
    "I expected to hate it. I did not.",
    "It is a film. It has a beginning and an end.",
)

_STYLE = """
.opinions { width: 100%; border-collapse: collapse; }
.opinions th, .opinions td { text-align: start; padding: 4px 8px; border-bottom: 1px solid #8884; }
.opinions th[scope=row] { font-weight: 500; }
.bars { min-width: 12em; }
.line { display: flex; align-items: center; gap: 6px; font-size: 0.85em; }
.bar { height: 0.7em; min-width: 1px; border-radius: 2px; flex: none; max-width: 75%; }
.marked { line-height: 1.9; overflow-wrap: anywhere; }
svg [id^='run-'] { cursor: pointer; }
"""

# The points of the plot are SVG groups with an id; a click on one says which.
_ON_CLICK = """
element.addEventListener('click', (event) => {
  const point = event.target.closest("[id^='run-']");
  if (point) trigger('click', {run: point.id.slice(4)});
});
"""


def make_page(panel: Panel, results: dict[str, RunResult]) -> Any:
    """The page, a `gradio.Blocks`.

    Args:
        panel: the models to ask.
        results: of the runs, by id, for the plot.

    Raises:
        UserError: Gradio is not installed.
    """
    gr = _import_gradio()
    titles = list(panel.models)

    def ask(text: str, about: str, asked: list[tuple[str, str]]) -> tuple[str, str, str, str, list]:
        text = (text or "")[:MOST_CHARACTERS]
        (opinions,) = panel.ask([text])
        remarks = "\n\n".join(f"⚠ {remark}" for remark in panel.remarks(text))
        said = ", ".join(f"{opinion.model}: {opinion.verdict}" for opinion in opinions)
        asked = [*asked, (text[:80] + ("…" if len(text) > 80 else ""), said)][-20:]
        words = drawings.marked(panel.occlusion(about, text))
        return remarks, drawings.bars(opinions), words, drawings.history(asked), asked

    def facts(event: gr.EventData) -> str:
        chosen = results.get(str(event.run))
        return drawings.run_facts(chosen) if chosen else ""

    with gr.Blocks(title="peft-scratch", analytics_enabled=False) as page:
        gr.Markdown(
            "# Ask the trained models\n"
            f"The base and {len(titles) - 1} trained models read the same text. This page runs on your "
            f"machine alone ({LOOPBACK}) and needs no network."
        )
        asked = gr.State([])
        with gr.Row():
            with gr.Column(scale=2):
                text = gr.Textbox(label="A film review", lines=5, max_lines=12, elem_id="review")
                about = gr.Dropdown(
                    titles, value=titles[-1], label="Mark the words of", elem_id="about", filterable=False
                )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                gr.Examples([[example] for example in EXAMPLES], [text], label="Made-up examples")
            with gr.Column(scale=3):
                remarks = gr.Markdown(elem_id="remarks")
                opinions = gr.HTML(elem_id="opinions")
                words = gr.HTML(elem_id="words")
        if results:
            gr.Markdown("## What the runs cost and reached\nClick a point.")
            plot = gr.HTML(
                drawings.accuracy_plot(list(results.values())), js_on_load=_ON_CLICK, elem_id="plot"
            )
            chosen = gr.Markdown(elem_id="chosen")
            plot.click(facts, None, chosen)
        gr.Markdown("## Asked so far")
        history = gr.HTML(drawings.history([]), elem_id="history")
        outputs = [remarks, opinions, words, history, asked]
        gr.on([button.click, text.submit], ask, [text, about, asked], outputs)
    return page


def launch(page: Any, port: int | None = None, *, block: bool = True) -> str:
    """Serve `page` on this machine alone; return its address.

    Args:
        port: a free one from 7860 on by default.
        block: whether to wait until the user stops it, as a command does and a notebook does not.

    Raises:
        UserError: the port is taken.
    """
    gr = _import_gradio()
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    try:
        _, address, _ = page.queue().launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=theme,
            css=_STYLE,
            footer_links=[],
            max_file_size="1mb",
        )
    except OSError as problem:
        raise UserError(f"The page cannot be served on port {port}: {problem}; choose another.") from None
    print(f"The page is at {address}, for this machine only. Press Ctrl+C to stop it.", flush=True)
    if block:
        page.block_thread()
    return address


def _import_gradio() -> ModuleType:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise UserError("Gradio is not installed: run `pip install 'gradio>=6.20'`.") from None
    return gradio
