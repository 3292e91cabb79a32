"""The page of `peft-scratch app` in a real browser: typed, clicked, by two users at once, with hostile texts.

`make page` runs it, and so does, where gradio and playwright are installed,

    python tests/end_to_end/app.py FOLDER BROWSER

BROWSER is Chromium's command, or empty for the one that is installed. The models are those in `weights`,
and the runs those in `report/results`. FOLDER gets pictures to be looked at.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from browser import CHROMIUM

from peft_scratch.assignment import WEIGHT_FILES
from peft_scratch.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECONDS = 300  # that anything may take, on a machine that is busy with other work
GOOD, BAD = "A warm and clever film. I laughed.", "Two hours I will not get back: flat and dull."
PERSIAN = "فیلم بسیار خوبی بود <b>great</b> و من آن را دوست داشتم"
TYPE = "(box, text) => { box.value = text; box.dispatchEvent(new Event('input', {bubbles: true})) }"
#: A line more in the history, or a message that something went wrong.
ANSWERED = """count => document.querySelectorAll('#history tbody tr').length === count
    || document.querySelector('.toast-body')"""
#: How long each bar is drawn, and how long it has to be.
WIDTHS = """bars => bars.map(bar => [
    bar.getBoundingClientRect().width / bar.parentNode.getBoundingClientRect().width,
    parseFloat(bar.closest('.line').innerText) / 100])"""
#: By what each would do, if it did.
HOSTILE = {
    "html": "<img src=x onerror='window.hit=1'><script>window.hit=1</script><style>*{display:none}</style>",
    "a closing tag": "</td></tr></table></div><iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "templates": "${window.hit=1} {{constructor}} {{#each value}} @children `${window.hit=1}`",
    "Markdown": "# big [a link](javascript:window.hit=1) ![](http://example.invalid/x.png)",
    "turned around": "\u202eevitisop\u202c \u2067good\u2069",
    "Persian": PERSIAN,
    "NUL": "good\x00bad \x07\x1b[31m",
    "half a pair": "good \ud800 film",
    "a megabyte": "dull film " * 100_000,
    "a word of a megabyte": "a" * 1_000_000,
    "nothing": "",
}


def lay_out(folder: Path) -> None:
    """This repository's weights and results in `folder`, as runs leave them."""
    shutil.copytree(ROOT / "report" / "results", folder / "report" / "results")
    (folder / "weights").mkdir()
    for name in WEIGHT_FILES:
        shutil.copy(ROOT / "weights" / name, folder / "weights")


@contextmanager
def served(folder: Path) -> Iterator[tuple[psutil.Process, str, Path]]:
    """The command's own page on this repository's weights and results: its process, address and output."""
    lay_out(folder)
    command = [
        sys.executable,
        "-m",
        "peft_scratch.cli",
        "app",
        "--profile",
        "offline",
        "--output",
        str(folder),
    ]
    log_path = folder / "app.log"
    with log_path.open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        begun = time.monotonic()
        while not (found := re.search(r"http://\S+?(?=,)", log_path.read_text())):
            assert server.poll() is None, f"the command stopped:\n{log_path.read_text()}"
            assert time.monotonic() - begun < SECONDS, f"the page is not served:\n{log_path.read_text()}"
            time.sleep(0.5)
        yield psutil.Process(server.pid), found[0], log_path
    finally:
        server.terminate()
        server.wait()


class User:
    """Somebody with a window of their own, who must see neither an error nor a request to elsewhere."""

    def __init__(self, browser: Browser, address: str, **window: object) -> None:
        self.page: Page = browser.new_context(**window).new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda it: self._look_at(it.url, address))
        self.page.on("pageerror", lambda it: self.errors.append(str(it)))
        self.page.on("dialog", lambda it: self.errors.append(f"a dialog: {it.message}"))
        self.page.goto(address)
        self.page.wait_for_selector("#review textarea")
        self.page.wait_for_function("document.querySelector('#review textarea').dir === 'auto'")

    def _look_at(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.elsewhere.append(url)

    def begin(self, text: str, key: str | None = None) -> None:
        """Type `text` and ask, by a click or by `key`."""
        before = self.page.locator("#history tbody tr").count()
        self.text, self.expected = text, before + 1
        # As one input event: a megabyte typed key by key takes minutes. It keeps NUL, as `fill` does not.
        self.page.locator("#review textarea").evaluate(
            "(box, text) => { box.value = text; box.dispatchEvent(new Event('input', {bubbles: true})) }",
            text,
        )
        if key:
            self.page.locator("#review textarea").press(key)
        else:
            self.page.locator("#ask").click()

    def answer(self) -> list[tuple[str, str]]:
        """Wait for the answer and its words; each model with its verdict."""
        self.page.wait_for_function(ANSWERED, arg=self.expected)
        self.check()
        if self.text.strip():
            self.page.wait_for_selector("#words .words")
        self.check()
        rows = self.page.locator("#opinions tbody tr")
        models, said = rows.locator("th"), rows.locator("td > span")
        return list(zip(models.all_inner_texts(), said.all_inner_texts(), strict=True))

    def ask(self, text: str, key: str | None = None) -> list[tuple[str, str]]:
        self.begin(text, key)
        return self.answer()

    def check(self) -> None:
        """Nothing of what must not be."""
        assert not self.errors, self.errors
        assert not self.elsewhere, f"something is asked for elsewhere: {self.elsewhere}"
        assert self.page.evaluate("window.hit === undefined"), "a text was executed"
        assert not self.page.locator(".toast-body").count(), self.page.locator(
            ".toast-body"
        ).all_inner_texts()

    def seen(self, part: str) -> str:
        return self.page.locator(part).inner_text()


def look(user: User, pictures: Path) -> None:
    """One user, every part of the page."""
    page = user.page
    assert "this machine alone (127.0.0.1)" in page.locator("body").inner_text()
    answer = user.ask(GOOD)
    assert len(answer) == 4 and answer[0][0] == "Base, not tuned", answer
    assert {verdict for _, verdict in answer[1:]} == {"positive"}, answer
    widths = page.locator("#opinions .bar").evaluate_all(WIDTHS)
    assert widths and all(abs(drawn - said) < 0.02 for drawn, said in widths), f"bars are too long: {widths}"
    page.wait_for_selector("#words .words")
    assert "warm" in user.seen("#words") and "LoRA" in user.seen("#words")
    page.locator("#about input").click()
    page.get_by_role("option", name="Adapter").first.click()
    page.wait_for_function("document.querySelector('#words').innerText.includes('Adapter')")

    assert user.ask(BAD, "Shift+Enter")[1][1] == "negative"
    page.get_by_text("I expected to hate it. I did not.").first.click()
    page.wait_for_function("document.querySelector('#review textarea').value.startsWith('I expected')")
    page.locator("#ask").click()
    user.expected = 3
    user.answer()
    lines = page.locator("#history tbody tr").all_inner_texts()
    assert ["I expected" in lines[0], BAD[:20] in lines[1], GOOD in lines[2]] == [True] * 3, lines

    points = page.locator("#plot [id^='run-']")
    assert points.count() == 10, points.count()
    page.locator("#run-lora_scratch_r8").click()
    page.wait_for_function("document.querySelector('#chosen').innerText.includes('LoRA, from scratch')")
    page.locator("#run-adapter_adapterhub_b1").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#chosen').innerText.includes('AdapterHub')")
    assert "3,845 trainable parameters" in user.seen("#chosen")
    page.wait_for_timeout(500)
    page.screenshot(path=pictures / "page.png", full_page=True)
    page.set_viewport_size({"width": 400, "height": 800})
    page.screenshot(path=pictures / "page-narrow.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than a telephone"


def look_at_two(browser: Browser, address: str) -> None:
    """Two users who ask at the same time get their own answers, and see their own history."""
    users = [User(browser, address), User(browser, address)]
    alone = [user.ask(text) for user, text in zip(users, (GOOD, BAD), strict=True)]
    for _ in range(3):
        for user, text in zip(users, (GOOD, BAD), strict=True):
            user.begin(text)
        assert [user.answer() for user in users] == alone
    for user, own, other in zip(users, (GOOD, BAD), (BAD, GOOD), strict=True):
        assert own in user.seen("#history") and other not in user.seen("#history")


def look_at_hostile(user: User, pictures: Path) -> None:
    for what, text in HOSTILE.items():
        begun = time.monotonic()
        answer = user.ask(text)
        assert len(answer) == 4, f"{what}: {answer}"
        print(f"  {what}: {time.monotonic() - begun:.1f} s", flush=True)
        if what in ("html", "Persian"):
            user.page.screenshot(path=pictures / f"page-{what}.png", full_page=True)
        if what == "html":
            assert "<script>" in user.seen("#words"), "the text is not shown as it is"
        remark = {"Persian": "not Latin", "a megabyte": "cut off", "nothing": "empty"}.get(what, "")
        assert remark in user.seen("#remarks"), f"{what}: {user.seen('#remarks')}"
    assert "\x00" not in user.page.content() and "\u202e" not in user.seen("#history")


def find_chromium(browser: str) -> str:
    """The command `browser`, or the Chromium that is installed; without one, the end of this program."""
    chromium = shutil.which(browser) if browser else next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not chromium:
        sys.exit(
            f"There is no {browser or 'Chromium or Chrome'} here: install it (Debian: apt-get install "
            "chromium), or say where it is: make page BROWSER=/path/to/chromium."
        )
    return chromium


def main(folder: str, browser: str = "") -> None:
    try:
        import gradio  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit(
            "This needs the packages gradio and playwright: `make page` puts them into a folder of its own."
        )
    chromium = find_chromium(browser)
    pictures = Path(folder)
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, served(Path(place)) as (server, address, log):
        listening = [it.laddr.ip for it in server.net_connections() if it.status == psutil.CONN_LISTEN]
        assert listening and set(listening) == {"127.0.0.1"}, f"it listens on {listening}"
        print(f"It is served on {address} and listens on nothing else.", flush=True)
        with sync_playwright() as playwright:
            # Root, as in a container, cannot have the sandbox; what is opened here is our own.
            window = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            look(User(window, address, viewport={"width": 1280, "height": 900}), pictures)
            print("One user saw all of it.", flush=True)
            look_at_two(window, address)
            print("Two users at once got their own answers.", flush=True)
            look_at_hostile(User(window, address, color_scheme="dark"), pictures)
            print(f"{len(HOSTILE)} hostile texts did nothing.", flush=True)
            window.close()
        assert "Traceback" not in log.read_text(), log.read_text()
    print(f"Pictures to look at: {pictures}")


if __name__ == "__main__":
    main(*sys.argv[1:])
