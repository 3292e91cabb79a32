"""The page below the cell of a notebook, as in Colab: in a frame that comes through a proxy of another name.

`make page` runs it. It is a stand-in: Gradio is told that it is in Colab, and Colab's own proxy, which speaks
https, is not here.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from pathlib import Path
from unittest.mock import patch

from aiohttp import ClientSession, web
from app import SECONDS, find_chromium, lay_out
from playwright.sync_api import sync_playwright

from peft_scratch.app.page import open_page
from peft_scratch.experiments.session import Session

NAME = "x-7860.colab.example"  # resolved to this machine in the browser
#: What Colab's page has: a connection to a port, and the place of a cell's output.
COLAB = """port => {
    const address = location.origin + '/';
    window.google = {colab: {kernel: {accessAllowed: true, proxyPort: async () => address}}};
    window.element = document.body;
}"""
DROPPED = ("host", "connection", "accept-encoding", "transfer-encoding", "content-length")


def proxy(port: int) -> int:
    """Serve the page on `port` at another port, too, with the name that the browser uses left out."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/notebook":
            return web.Response(text="<!doctype html><body></body>", content_type="text/html")
        kept = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
        kept |= {"Host": f"localhost:{port}", "Accept-Encoding": "identity"}
        url = f"http://127.0.0.1:{port}{request.rel_url}"
        data = await request.read()
        async with (
            ClientSession() as client,
            client.request(request.method, url, headers=kept, data=data) as got,
        ):
            kept = {name: value for name, value in got.headers.items() if name.lower() not in DROPPED}
            answer = web.StreamResponse(status=got.status, headers=kept)
            await answer.prepare(request)
            async for chunk in got.content.iter_any():
                await answer.write(chunk)
            return answer

    ready: list[int] = []
    begun = threading.Event()

    def serve() -> None:
        loop = asyncio.new_event_loop()
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", handle)
        runner = web.AppRunner(application)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        ready.append(runner.addresses[0][1])
        begun.set()
        loop.run_forever()

    threading.Thread(target=serve, daemon=True).start()
    assert begun.wait(SECONDS)
    return ready[0]


def main(folder: str, browser: str = "") -> None:
    shown: list = []
    with (
        tempfile.TemporaryDirectory() as place,
        patch("gradio.utils.colab_check", lambda: True),
        patch("gradio.utils.ipython_check", lambda: True),
        patch("IPython.display.display", shown.append),
    ):
        lay_out(Path(place))
        address = open_page(Session.open("offline", output=Path(place)))
        outside = proxy(int(address.rstrip("/").rpartition(":")[2]))
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=find_chromium(browser),
                args=["--no-sandbox", f"--host-resolver-rules=MAP {NAME} 127.0.0.1"],
            )
            page = chromium.new_page(viewport={"width": 1000, "height": 900})
            page.set_default_timeout(1000 * SECONDS)
            elsewhere: list[str] = []
            page.on("request", lambda it: elsewhere.append(it.url) if NAME not in it.url else None)
            page.goto(f"http://{NAME}:{outside}/notebook")
            page.evaluate(COLAB)
            page.evaluate(shown[-1].data)
            frame = page.frame_locator("iframe")
            frame.locator("#review textarea[dir=auto]").fill("A warm and clever film.")
            frame.locator("#ask").click()
            frame.locator("#words .words").wait_for()
            assert "A warm and clever film." in frame.locator("#history").inner_text()
            page.screenshot(path=Path(folder) / "page-in-colab.png")
            chromium.close()
        elsewhere = [url for url in elsewhere if not url.startswith(("data:", "blob:"))]
        assert not elsewhere, f"the browser asked for {elsewhere}, which Colab does not connect"
    print("In a frame as Colab connects it, the page answered.")


if __name__ == "__main__":
    main(*sys.argv[1:])
