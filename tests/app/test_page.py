"""The page's drawings; and, where Gradio is installed, that it is made and bound as it says."""

import sys
import warnings

import pytest

from peft_scratch.app import drawings, page
from peft_scratch.assignment import LABEL_WORDS
from peft_scratch.errors import UserError
from peft_scratch.experiments.ask import BASE, NEITHER, Opinion
from peft_scratch.paths import ROOT
from peft_scratch.results import RunResult, read_results


def _opinion(model, verdict, positive=0.5):
    return Opinion(model, verdict, dict(zip(LABEL_WORDS, (1 - positive, positive), strict=True)))


class _Panel:
    """As much of a panel as the page asks for."""

    titles = (BASE, "LoRA")

    def ask(self, texts):
        return [[_opinion(title, "positive", 0.75) for title in self.titles] for _ in texts]

    def remarks(self, text):
        return [f"remark on {text}"]

    def occlusion(self, title, text):
        return [(text, 0.5)]


@pytest.fixture(scope="module")
def results():
    found = read_results(ROOT / "report" / "results")
    return {name: one for name, one in found.items() if isinstance(one, RunResult)}


def test_a_bar_is_as_long_as_it_says():
    drawn = drawings.bars([_opinion("LoRA, r = 8", "positive", 0.985)])
    assert "width:98.5%" in drawn and "98.5\u00a0%" in drawn and "max-width" not in drawn
    assert "r\u00a0=\u00a08" in drawn  # not broken there
    assert "writes nothing" in drawings.bars([Opinion("LoRA", NEITHER, dict.fromkeys(LABEL_WORDS, 0.0), "")])


def test_the_verdicts_in_a_few_words():
    one, other = _opinion("LoRA", "positive"), _opinion("Adapter", "negative")
    assert drawings.summary([one, one]) == "all positive"
    assert drawings.summary([one]) == "positive"
    assert drawings.summary([one, other, one]) == "positive (2 of 3); Adapter: negative"


def test_what_was_left_out_is_said():
    assert "each word is left out once" in drawings.marked([("good", 0.5)], "LoRA")
    grouped = drawings.marked([("a good", 0.0), ("film", 0.0)], "LoRA")
    assert "each group of 2 words is left out once" in grouped and "the largest is 0.00" in grouped


def test_a_word_that_changes_next_to_nothing_is_pale():
    assert "#0072B210" in drawings.marked([("a", 0.005)]) and "#0072B2a0" in drawings.marked([("a", 0.5)])


def test_every_point_is_reached_by_the_keyboard_too_and_nothing_is_black_on_black(results):
    drawn = drawings.accuracy_plot(list(results.values()))
    assert drawn.count('role="button" aria-label="') == len(results) == 10
    assert "#000000" not in drawn and "#ffffff" not in drawn.lower()


def test_without_gradio_the_page_says_what_to_install(monkeypatch, results):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"Gradio is not installed: run `pip install 'gradio>=6\.20'`"):
        page.make_page(_Panel(), results)


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.delenv("no_proxy", raising=False)
    for _ in range(2):
        page._reach_directly("127.0.0.1")
    assert page.os.environ["NO_PROXY"] == "example.com,127.0.0.1"
    assert page.os.environ["no_proxy"] == "127.0.0.1"


@pytest.fixture
def made(results):
    pytest.importorskip("gradio", reason="an extra of its own")
    with warnings.catch_warnings():
        # Gradio warns where a function will not be given what it takes.
        warnings.filterwarnings("error", message="Expected")
        return page.make_page(_Panel(), results)


def test_the_page_answers_and_knows_the_clicked_run(made, results):
    import gradio

    functions = {function.name: function.fn for function in made.fns.values() if function.fn}
    remarks, opinions, words, history, asked, last = functions["ask"](
        "fine <b>", [("before", "all positive")]
    )
    assert "remark on fine" in remarks and "75.0" in opinions and words == ""
    assert [text for text, _ in asked] == ["before", "fine <b>"] and "fine &lt;b&gt;" in history
    assert "fine &lt;b&gt;" in functions["words"]("LoRA", last)
    # Half a surrogate pair, which the JSON of an answer cannot hold.
    assert all("\ud800" not in str(part) for part in functions["ask"]("\ud800", []))
    event = gradio.EventData(None, {"run": "lora_scratch_r8"})
    assert "57,344 trainable parameters" in functions["facts"](event)
    assert functions["facts"](gradio.EventData(None, {"run": "<script>"})) == ""


def test_a_port_that_is_taken_gets_one_sentence(made):
    import socket

    with socket.socket() as taken:
        taken.bind((page.LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} is in use"):
            page.launch(made, port, block=False)
