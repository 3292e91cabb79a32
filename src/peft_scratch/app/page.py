"""The page itself, made with Gradio: a text box, the models side by side, marked words, a plot, a history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from peft_scratch.app import drawings
from peft_scratch.errors import UserError
from peft_scratch.experiments.ask import Panel, encodable, panel_of, trained_results
from peft_scratch.results import RunResult
from peft_scratch.wording import counted

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session

#: The only address that the page listens on: this machine's own.
LOOPBACK = "127.0.0.1"

#: Reviews made up for this page.
EXAMPLES = (
    "A warm and clever film. I laughed, I cried, and I would see it again tomorrow.",
    "Two hours of my life that I will not get back: flat jokes, wooden acting, no story.",
    "The acting is superb, but the plot falls apart after an hour, and the ending is a let-down.",
    "I expected to hate it. I did not.",
    "It is a film. It has a beginning and an end.",
)

# The points of the plot are SVG groups with an id. A click on one, or Enter, chooses its run.
_CHOOSE = """
const choose = (event) => {
  const point = event.target.closest("[id^='run-']");
  if (!point || (event.key && event.key !== 'Enter')) return;
  element.querySelectorAll('.chosen').forEach((other) => other.classList.remove('chosen'));
  point.classList.add('chosen');
  trigger('click', {run: point.id.slice(4)});
};
element.addEventListener('click', choose);
element.addEventListener('keydown', choose);
"""

# Each text is written in the direction of its own language.
_DIRECTION = "() => { document.querySelector('#review textarea').dir = 'auto'; }"

Asked = list[tuple[str, str]]


def make_page(panel: Panel, results: dict[str, RunResult]) -> Any:
    """The page, a `gradio.Blocks`.

    Args:
        panel: the models to ask.
        results: of the runs, by id, for the plot.

    Raises:
        UserError: Gradio is not installed.
    """
    gr = require_gradio()

    def ask(text: str, asked: Asked) -> tuple[str, str, str, str, Asked, str]:
        text = encodable(text or "")
        (opinions,) = panel.ask([text])
        remarks = "\n\n".join(f"⚠ {remark}" for remark in panel.remarks(text))
        line = text[:80] + ("…" if len(text) > 80 else "")
        asked = [*asked, (line, drawings.summary(opinions))][-20:]
        # The marked words come a moment later. Until then none are shown, not even those of the last text.
        shown = drawings.bars(opinions), "", drawings.history(asked)
        return remarks, *shown, asked, text

    def words(about: str, text: str | None) -> str:
        return "" if text is None else drawings.marked(panel.occlusion(about, text), about)

    with gr.Blocks(title="peft-scratch", analytics_enabled=False) as page:
        gr.Markdown(
            "# Ask the trained models\n"
            f"The base and {counted(len(panel.titles) - 1, 'trained model')} read the same text. This page "
            f"is served to this machine alone ({LOOPBACK}), and it needs no network."
        )
        asked, last = gr.State([]), gr.State(None)
        with gr.Row():
            with gr.Column(scale=2):
                text = gr.Textbox(
                    label="A film review (Shift+Enter asks)", lines=5, max_lines=12, elem_id="review"
                )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                gr.Examples([[example] for example in EXAMPLES], [text], label="Made-up examples")
                about = gr.Dropdown(
                    panel.titles, value=panel.titles[-1], label="Mark the words for", elem_id="about"
                )
            with gr.Column(scale=3):
                remarks = gr.Markdown(elem_id="remarks")
                opinions = gr.HTML(elem_id="opinions", apply_default_css=False)
                marked = gr.HTML(elem_id="words", apply_default_css=False)
        if results:
            _plot(gr, results)
        gr.Markdown("## Asked so far")
        history = gr.HTML(drawings.history([]), elem_id="history", apply_default_css=False)
        outputs = [remarks, opinions, marked, history, asked, last]
        answered = gr.on([button.click, text.submit], ask, [text, asked], outputs)
        answered.then(words, [about, last], marked)
        about.change(words, [about, last], marked)
        page.load(None, js=_DIRECTION)
    return page


def _plot(gr: Any, results: dict[str, RunResult]) -> None:
    """The plot of the runs, whose points can be clicked, and next to it the facts about the chosen run."""

    def facts(event: Any) -> str:
        chosen = results.get(str(event.run))
        return drawings.run_facts(chosen) if chosen else ""

    # Gradio reads the annotations to find out what a function needs, but in this file they are only strings.
    facts.__annotations__["event"] = gr.EventData
    gr.Markdown("## What the runs cost and reached\nClick a point to see its numbers.")
    with gr.Row():
        with gr.Column(scale=3):
            plot = gr.HTML(
                drawings.accuracy_plot(list(results.values())),
                js_on_load=_CHOOSE,
                elem_id="plot",
                apply_default_css=False,
            )
        with gr.Column(scale=2):
            chosen = gr.HTML(elem_id="chosen", apply_default_css=False)
    plot.click(facts, None, chosen, show_progress="hidden")


def open_page(
    session: Session,
    files: Sequence[Path] = (),
    port: int | None = None,
    *,
    alpha: float | None = None,
    block: bool = False,
) -> str:
    """Serve the page for the models that `session` has trained; return its address.

    In a notebook, the page also appears as a frame below the cell. It stays until the kernel is restarted.

    Args:
        files: more trained parts, as for `peft-scratch ask --weights`.
        port, block: as for `launch`.
        alpha: LoRA's, for `files`.

    Raises:
        UserError: nothing is trained yet, or Gradio is not installed, or the port is taken.
    """
    require_gradio()  # before the models are loaded, which takes seconds
    page = make_page(panel_of(session, files, alpha), trained_results(session))
    return launch(page, port, block=block)


def launch(page: Any, port: int | None = None, *, block: bool = True) -> str:
    """Serve `page` on this machine alone; return its address.

    Args:
        port: a free one from 7860 on by default.
        block: whether to wait until the user stops it, as a command does and a notebook does not.

    Raises:
        UserError: the port is taken.
    """
    gr = require_gradio()
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    _reach_directly(LOOPBACK)
    try:
        _, address, _ = page.queue().launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=theme,
            css=drawings.STYLE,
            footer_links=[],
            max_file_size="1mb",
            height=820,  # of the frame in a notebook
        )
    except OSError:
        taken = f"Port {port} is in use" if port else "No port from 7860 on is free"
        raise UserError(f"{taken}, so the page cannot be served there: give another with --port.") from None
    print(
        f"The page is at {address}, for this machine only." + " Press Ctrl+C to stop it." * block, flush=True
    )
    if block:
        page.block_thread()
    return address


def _reach_directly(host: str) -> None:
    """Let this process reach `host` without a proxy, because Gradio requests the page when it starts."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [one for one in os.environ.get(name, "").split(",") if one]
        if host not in hosts:
            os.environ[name] = ",".join([*hosts, host])


def require_gradio() -> ModuleType:
    """The package `gradio`, with its usage statistics switched off.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise UserError("Gradio is not installed: run `pip install 'gradio>=6.20'`.") from None
    return gradio
