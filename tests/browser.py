"""One notebook in JupyterLab in a real browser: all cells run from the menu, progress and plots seen.

By hand, for it needs a browser: `pip install playwright`, then, with Debian's chromium or another one,

    python tests/browser.py FOLDER [NOTEBOOK] [BROWSER]

It leaves screenshots in FOLDER, to be looked at, and stops at what it does not find. The notebook is run
in `smoke`, on a copy.
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

from playwright.sync_api import Page, sync_playwright

from peft_scratch.experiments.profiles import ROOT

MINUTES = 10
# A long notebook is drawn as far as it is in view, and no further; here all of it is looked at.
ALL_CELLS = {"windowingMode": "none"}


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """A JupyterLab of its own, opened on `folder`; its address, with `{}` for a notebook's name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, settings = secrets.token_hex(8), folder / ".settings"
    tracker = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps(ALL_CELLS))
    options = {"ServerApp.root_dir": folder, "port": port, "IdentityProvider.token": token}
    options["LabApp.user_settings_dir"] = settings
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder / ".config"), "HF_HUB_OFFLINE": "1"}
    with (folder / ".server.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        for _ in range(60 * MINUTES):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (folder / ".server.log").read_text()
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}"
    finally:
        server.terminate()
        server.wait()


def copy(notebook: Path, folder: Path) -> str:
    """A copy of `notebook` in `folder` without its outputs, to be run in `smoke`; its name."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = f'PROFILE = "smoke"\nSEED = 0\nOUTPUT = "{folder / "output"}"\nRECIPE = "fast"'
    (folder / notebook.name).write_text(json.dumps(content), encoding="utf-8")
    return notebook.name


def look(page: Page, address: str, pictures: Path) -> None:
    """Open the notebook, run it from the menu, and see what a student has to see."""
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    page.wait_for_selector(".jp-NotebookPanel-toolbar [data-status='idle'], .jp-Notebook-ExecutionIndicator")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells")).click()

    output = page.locator(".jp-OutputArea-output")
    bar = output.filter(has_text=re.compile(r"epoch \d+/\d+: +\d+%")).first
    bar.wait_for(timeout=60_000 * MINUTES)
    bar.scroll_into_view_if_needed()
    print("progress:", re.sub(r"\s+", " ", bar.inner_text())[-70:])
    page.screenshot(path=pictures / "progress.png")

    page.wait_for_function(
        """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
                 .every(prompt => /^\\[\\d+\\]:$/.test(prompt.textContent))""",
        timeout=60_000 * MINUTES,
    )
    assert not page.locator("[data-mime-type='application/vnd.jupyter.error']").count(), "a cell failed"
    cells, plots = page.locator(".jp-CodeCell").count(), page.locator(".jp-OutputArea-output img")
    assert plots.count(), "no plot is shown"
    assert all(plots.nth(i).evaluate("image => image.naturalWidth") > 300 for i in range(plots.count()))
    assert page.locator(".jp-OutputArea-output table").count(), "no table is shown"
    assert page.locator("mjx-container").count(), "no formula is set"
    print(f"{cells} cells run, {plots.count()} plots shown")
    for name, place in (
        ("top", output.first),
        ("plots", plots.first),
        ("numbers", page.locator(".jp-OutputArea-output table").last),
    ):
        place.scroll_into_view_if_needed()
        page.screenshot(path=pictures / f"{name}.png")


def main(pictures: str, notebook: str = "05_lora", browser: str = "/usr/bin/chromium") -> None:
    Path(pictures).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    try:
        name = copy(ROOT / "notebooks" / f"{notebook}.ipynb", folder)
        with jupyter_lab(folder) as address, sync_playwright() as playwright:
            # Root, as in a container, cannot have the sandbox; what is opened here is our own.
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(60_000 * MINUTES)
            look(page, address.format(name), Path(pictures))
            chromium.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
