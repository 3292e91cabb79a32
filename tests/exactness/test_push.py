"""Uploading to a Hub on this machine: what is sent, that the token stays unseen, and what can go wrong."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_thisIsASecretOfTheTest"
NAME = "ada/film-lora"
ADDRESS = f"/{NAME}/commit/0123456789abcdef0123456789abcdef01234567"


class _Hub(ThreadingHTTPServer):
    """As much of the Hub's HTTP as an upload needs.

    Attributes:
        status: what every request is answered with.
        files: what was uploaded, by path.
        created: what was asked for when the repository was made.
        tokens: every `authorization` header.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.files: dict[str, bytes] = {}
        self.created: dict[str, Any] = {}
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.tokens.add(self.headers.get("authorization"))
        answer: dict[str, Any] = {}
        if self.path.endswith("/repos/create"):
            self.server.created = json.loads(body)
            answer = {"url": f"{self.server.url}/{NAME}"}
        elif "/preupload/" in self.path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            oid = ADDRESS.rpartition("/")[2]
            answer = {"success": True, "commitOid": oid, "commitUrl": self.server.url + ADDRESS}
        content = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[_Hub]:
    server = _Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# LoRA\n")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "google-t5/t5-small"}')
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (folder / "notes.txt").write_text("not for the Hub")
    return folder


def _push(folder: Path, url: str, *options: str, name: str = NAME, **changes: str) -> tuple[int, str]:
    """Exit status and all that was printed, by the command in a process of its own: the address of the Hub is
    read when huggingface_hub is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder.parent / "home"),
        "HF_TOKEN": TOKEN,
        **changes,
    }
    command = [sys.executable, "-m", "peft_scratch.cli", "push", str(folder), name, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def _is_private(hub: _Hub) -> bool:
    """huggingface_hub 1.x asks for a visibility, earlier ones for `private`."""
    asked = hub.created
    return asked["visibility"] == "private" if "visibility" in asked else asked["private"]


def test_the_folder_goes_up_and_the_token_stays_unseen(folder, hub):
    status, printed = _push(folder, hub.url)
    assert status == 0, printed
    assert hub.url + ADDRESS in printed
    assert set(hub.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert all(content == (folder / name).read_bytes() for name, content in hub.files.items())
    assert [hub.created["organization"], hub.created["name"]] == NAME.split("/")
    assert _is_private(hub)
    # The Hub gets it; nothing else does.
    assert f"Bearer {TOKEN}" in hub.tokens
    assert TOKEN not in printed
    written = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_public_is_asked_for(folder, hub):
    assert _push(folder, hub.url, "--public")[0] == 0
    assert not _is_private(hub)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "does not accept the token: run `hf auth login` again."),
        (403, f"does not let you write to {NAME}"),
        (500, f"did not take {NAME} (status 500)"),
    ],
)
def test_what_the_hub_refuses(status, sentence, folder, hub):
    hub.status = status
    exit_status, printed = _push(folder, hub.url)
    assert exit_status == 2
    assert sentence in printed and TOKEN not in printed


def test_what_a_user_can_get_wrong(folder, hub, tmp_path):
    for changes, sentence in (
        ({"HF_TOKEN": ""}, "Nobody is logged in"),
        ({"name": "not a name"}, "'not a name' is not the name of a repository: give OWNER/NAME."),
        ({"HF_HUB_OFFLINE": "1"}, "unset that environment variable"),
        ({"url": "http://127.0.0.1:9"}, "cannot be reached"),
    ):
        status, printed = _push(folder, changes.pop("url", hub.url), **changes)
        assert status == 2 and sentence in printed and TOKEN not in printed, printed
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    status, printed = _push(folder, hub.url)
    assert status == 2 and "a folder of this machine" in printed
    (folder / "README.md").unlink()
    status, printed = _push(folder, hub.url)
    assert status == 2 and "has no README.md" in printed
    assert not hub.files


def test_the_command_needs_no_torch():
    program = "import sys; import peft_scratch.exactness.push; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
