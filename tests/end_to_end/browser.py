"""The notebooks in JupyterLab in a real browser, run from the menu: is everything seen that has to be?

`make browser` runs it, and so does, where playwright is installed,

    python tests/end_to_end/browser.py FOLDER BROWSER [NOTEBOOK ...]

BROWSER is Chromium's command, or empty for the one that is installed. The notebooks are run on copies, in
`smoke`. FOLDER gets screenshots to be looked at: of a progress bar, and of the whole notebook, page by page.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from peft_scratch.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MINUTES = 10  # that a notebook may take
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SETTINGS = {
    # A long notebook is drawn as far as it is in view, and no further; here all of it is looked at.
    "notebook-extension/tracker": {"windowingMode": "none"},
    # Else a question covers a corner of each picture.
    "apputils-extension/notification": {"fetchNews": "false"},
}
# What no output may hold: where things lie on this machine.
ELSEWHERE = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|content|usr|opt)/\S*")
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(it => it.textContent)"
LOUD = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
CUT = """shown => shown.some(it =>
    it.getBoundingClientRect().right > it.closest('.jp-Cell').getBoundingClientRect().right)"""


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A JupyterLab of its own, opened on `folder`: its process, and its address with `{}` for a notebook."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Settings of its own each time, or it would open what the one before it had open.
    token, settings = secrets.token_hex(8), Path(tempfile.mkdtemp(prefix=".", dir=folder))
    for name, content in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    options = {"ServerApp.root_dir": folder, "port": port, "IdentityProvider.token": token}
    options["LabApp.user_settings_dir"] = settings
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(settings), "HF_HUB_OFFLINE": "1"}
    log_path = settings / "server.log"
    with log_path.open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        while True:
            assert server.poll() is None, f"JupyterLab stopped:\n{log_path.read_text()}"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield psutil.Process(server.pid), f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def halted(kernels: list[psutil.Process]) -> Iterator[None]:
    """A pause in which nothing is computed, so that a moment can be looked at."""
    for kernel in kernels:
        kernel.suspend()
    try:
        yield
    finally:
        for kernel in kernels:
            kernel.resume()


def copy(notebook: Path, folder: Path) -> None:
    """A copy of `notebook` in `folder` without its outputs, to be run in `smoke`."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = 'PROFILE = "smoke"\nSEED = 0\nOUTPUT = "output"\nRECIPE = "fast"\nDRIVE = True'
    (folder / notebook.name).write_text(json.dumps(content), encoding="utf-8")


def begin(window: Browser, address: str) -> Page:
    """The notebook opened and run from the menu; its page, as soon as the first cell was run."""
    for _ in range(4):
        page = window.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(60_000 * MINUTES)
        page.goto(address)
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
        page.wait_for_timeout(3_000)  # JupyterLab may put another kernel in the place of this one
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells")).click()
        page.mouse.move(0, 0)
        for _ in range(1200):
            if re.search(r"\d", page.evaluate(PROMPTS)[0]):
                return page
            page.wait_for_timeout(100)
        page.close()  # what the first kernel was asked for, the second does not do
    sys.exit("JupyterLab ran no cell")


def wait_for_the_end(page: Page, server: psutil.Process, picture: Path) -> None:
    """Wait until all cells were run; `picture` is to show a progress bar."""
    begun = time.monotonic()
    bars = page.locator(".jp-OutputArea-output", has_text=re.compile(r"epoch \d+/\d+: +\d+%"))
    seen = False
    while any("*" in prompt for prompt in page.evaluate(PROMPTS)):
        assert time.monotonic() - begun < 60 * MINUTES, f"it has not ended after {MINUTES} minutes"
        if not seen and bars.count():
            with halted(server.children(recursive=True)):
                bars.evaluate_all("bars => bars.forEach(bar => bar.scrollIntoView({block: 'center'}))")
                page.screenshot(path=picture)
                seen = bars.count() > 0  # and not gone before the halt
        page.wait_for_timeout(50)
    # Cells after one that has failed are not run.
    ran = [bool(re.search(r"\d", prompt)) for prompt in page.evaluate(PROMPTS)]
    assert all(ran), f"code cell {sum(ran)} failed: {page.locator(LOUD).last.inner_text()[-500:]}"
    assert seen, "no progress bar was seen while the runs trained"


def look(page: Page) -> str:
    """See what a student has to see of the executed notebook, and nothing else; what there is of it."""
    outputs = page.locator(".jp-OutputArea-output")
    said = page.locator(LOUD)
    assert not said.count(), f"a warning or an error is shown: {said.first.inner_text()[:500]}"
    found = ELSEWHERE.search("\n".join(outputs.all_inner_texts()))
    assert not found, f"a path of this machine is shown: {found and found[0]}"
    plots, tables = outputs.locator("img"), outputs.locator("table")
    assert plots.count(), "no plot is shown"
    assert all(plots.nth(i).evaluate("plot => plot.naturalWidth > 300") for i in range(plots.count()))
    assert tables.count(), "no table is shown"
    for shown in plots, tables:
        assert not shown.evaluate_all(CUT), "a plot or a table is wider than the page"
    formulas = page.locator("mjx-container")
    assert formulas.count(), "no formula is set"
    assert not page.locator("mjx-merror").count(), "a formula is wrong"
    assert "$" not in "".join(page.locator(".jp-MarkdownOutput p").all_inner_texts()), "a formula is not set"
    cells = page.locator(".jp-CodeCell").count()
    return f"{cells} cells run, {plots.count()} plots, {tables.count()} tables, {formulas.count()} formulas"


def hand_in(page: Page, last: bool) -> str:
    """Save the notebook and run its last cell again, as it asks for; what it then says.

    Args:
        last: whether all others were handed in, so that name and number are asked for and files are offered.
    """
    cell = page.locator(".jp-CodeCell").last
    assert "save the notebook (Ctrl+S" in cell.inner_text(), (
        "the last cell did not ask for the file to be saved"
    )
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+s")
    page.wait_for_timeout(3_000)
    page.keyboard.press("Control+Enter")
    if last:
        for answer in ("Ada Lovelace", "400123456"):
            box = cell.locator(".jp-Stdin-input:not([disabled])")
            box.wait_for()
            box.fill(answer)
            box.press("Enter")
            page.wait_for_timeout(1_000)
    wait = time.monotonic()
    while "Kept this notebook" not in (said := cell.inner_text()) or any(
        "*" in p for p in page.evaluate(PROMPTS)
    ):
        assert time.monotonic() - wait < 60 * MINUTES, f"the last cell says {said[-500:]}"
        page.wait_for_timeout(200)
    links = cell.locator("a[href*='submission']").count()
    assert links == (3 if last else 0), f"{links} files are offered"
    return f"kept, {links} files offered"


def take_pictures(page: Page, pictures: Path, name: str) -> None:
    """The notebook from its first cell to its last, a screen at a time."""
    paper = page.locator(".jp-WindowedPanel-outer")
    height, top = paper.evaluate("paper => [paper.clientHeight, paper.getBoundingClientRect().top]")
    paper.evaluate("paper => { paper.scrollTop = 0 }")
    end = page.locator(".jp-Cell").last.evaluate("cell => cell.getBoundingClientRect().bottom") - top
    for number, top in enumerate(range(0, int(end), int(height) - 40), start=1):
        paper.evaluate("(paper, top) => { paper.scrollTop = top }", top)
        page.screenshot(path=pictures / f"{name}-{number:02d}.png")


def main(folder: str, browser: str = "", *notebooks: str) -> None:
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        sys.exit("This needs the package playwright: `make browser` puts it into a folder of its own.")
    chromium = shutil.which(browser) if browser else next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not chromium:
        sys.exit(
            f"There is no {browser or 'Chromium or Chrome'} here: install it (Debian: apt-get install "
            "chromium), or say where it is: make browser BROWSER=/path/to/chromium."
        )
    pictures = Path(folder)
    pictures.mkdir(parents=True, exist_ok=True)
    names = notebooks or [path.stem for path in sorted((ROOT / "notebooks").glob("0*.ipynb"))]
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        try:
            # Root, as in a container, cannot have the sandbox; what is opened here is our own.
            window = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except Error as problem:
            sys.exit(f"{chromium} does not start as Chromium does: {problem.message.splitlines()[0]}")
        for name in names:
            copy(ROOT / "notebooks" / f"{name}.ipynb", Path(place))
            with jupyter_lab(Path(place)) as (server, address):
                page = begin(window, address.format(f"{name}.ipynb"))
                try:
                    wait_for_the_end(page, server, pictures / f"{name}-progress.png")
                    take_pictures(page, pictures, name)
                    print(f"{name}: {look(page)}", flush=True)
                    last = len(names) > 1 and name == names[-1]
                    print(f"{name}: {hand_in(page, last)}", flush=True)
                    page.screenshot(path=pictures / f"{name}-handed-in.png")
                except AssertionError as problem:
                    page.screenshot(path=pictures / f"{name}-failed.png")
                    sys.exit(f"{name}: {problem}")
                page.close()
        window.close()
    print(f"Pictures to look at: {pictures}")


if __name__ == "__main__":
    main(*sys.argv[1:])
