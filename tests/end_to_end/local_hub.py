"""A Hugging Face Hub on this machine: as much of its HTTP as the real clients need to load or to fail.

huggingface_hub, transformers and datasets are the real ones here, and so is the cache that they fill: what
works against this Hub is downloaded, cached and found again by the very code that does it in the course
profile. Only the other end of the line is ours. (Not played: Xet, the Hub's newer way to send large files.)
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import pyarrow as pa
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Value

from peft_scratch.assignment import HUB_BASE, HUB_REVIEWS, REVISIONS

LARGE = (".safetensors", ".parquet", ".model")  # in Git LFS on the Hub: sent from another address

CARD = """---
pretty_name: IMDB
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
  splits:
{counts}configs:
- config_name: plain_text
  data_files:
{files}  default: true
---

A stand-in, with the layout of the real one.
"""

#: What can be wrong with a repository, and what the Hub then says to every request for it.
FAULTS = {
    "gated": (403, "GatedRepo", "Access to it is restricted."),
    "gone": (404, "RepoNotFound", "Repository not found"),
    "no such version": (404, "RevisionNotFound", "Invalid rev id: main"),
    "out of order": (503, None, None),
}


class LocalHub(ThreadingHTTPServer):
    """Serves the repositories in `folder`: `models/OWNER/NAME/...` and `datasets/OWNER/NAME/...`.

    Attributes:
        fault: of every repository, one of `FAULTS`; `cut` breaks large files off in the middle.
        moved: old names of repositories, with their new ones.
        commits: the one version that a repository has, which is also its `main`.
        asked: the method and path of every request so far.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.fault: str | None = None
        self.moved: dict[str, str] = {}
        self.commits = dict(REVISIONS)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(folder: Path) -> Iterator[LocalHub]:
    hub = LocalHub(folder)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = unquote(urlparse(self.path).path)
        kinds = r"(?P<kind>models|datasets)"
        question = r"(?:/(?P<asked>[a-z-]+)/(?P<rest>.+))?"
        if found := re.fullmatch(rf"/api/{kinds}/(?P<name>[^/]+/[^/]+){question}", path):
            self._about(found["kind"], found["name"], found["asked"], found["rest"] or "main")
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind = "datasets" if found[1] else "models"
            if self._is_well(kind, found[2], found[3]):
                self._resolve(self.server.folder / kind / found[2] / found[4], self._commit(found[2]))
        elif path.startswith("/cdn/"):
            self._send_file(self.server.folder / path.removeprefix("/cdn/"))
        else:
            self._send(404)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def _commit(self, name: str) -> str:
        """The version of `name`, which is what it was before it was renamed."""
        old = {new: old for old, new in self.server.moved.items()}.get(name, name)
        return self.server.commits[old]

    def _is_well(self, kind: str, name: str, version: str) -> bool:
        if new := self.server.moved.get(name):
            self._send(307, {"Location": self.path.replace(name, new)})
            return False
        status, code, message = FAULTS.get(self.server.fault, (200, None, None))
        if not (self.server.folder / kind / name).is_dir():
            status, code, message = FAULTS["gone"]
        elif status == 200 and version not in ("main", self._commit(name)):
            status, code, message = FAULTS["no such version"]
        if status != 200:
            said = {"X-Error-Code": code, "X-Error-Message": message}
            self._send(status, {header: text for header, text in said.items() if text})
        return status == 200

    def _about(self, kind: str, name: str, asked: str | None, rest: str) -> None:
        """Answer what is `asked` about a repository; `rest` is a version and, of a tree, a path."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        version, _, path = rest.partition("/")
        if not self._is_well(kind, name, version):
            return
        root = self.server.folder / kind / name
        files = [file for file in sorted(root.rglob("*")) if file.is_file()]
        if asked in (None, "revision"):
            siblings = [{"rfilename": str(file.relative_to(root))} for file in files]
            self._send_json(
                {"id": name, "sha": self._commit(name), "private": False, "tags": [], "siblings": siblings}
            )
        elif asked == "paths-info":
            wanted = [root / path for path in parse_qs(body)["paths"]]
            self._send_json([_entry(path, root) for path in wanted if path.exists()])
        elif asked == "tree":
            below = root / path
            recursive = "recursive=True" in self.path
            if not below.is_dir():
                self._send(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
                return
            found = below.rglob("*") if recursive else below.iterdir()
            self._send_json([_entry(path, root) for path in sorted(found)])
        else:
            self._send(404)

    def _resolve(self, file: Path, version: str) -> None:
        commit = {"X-Repo-Commit": version}
        if not file.is_file():
            self._send(404, {**commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        elif file.suffix in LARGE:
            linked = {"X-Linked-Etag": f'"{_name(file)}"', "X-Linked-Size": str(file.stat().st_size)}
            # Another host than the Hub's, as the real one has it: its clients follow no further than that.
            location = (
                f"http://localhost:{self.server.server_port}/cdn/{file.relative_to(self.server.folder)}"
            )
            self._send(302, {**commit, **linked, "Location": location})
        else:
            self._send_file(file, {**commit, "ETag": f'"{_name(file)}"'})

    def _send_file(self, file: Path, headers: dict[str, str] | None = None) -> None:
        content, status = file.read_bytes(), 200
        if ranged := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, size, status = int(ranged[1]), len(content), 206
            headers = {**(headers or {}), "Content-Range": f"bytes {start}-{size - 1}/{size}"}
            content = content[start:]
        if self.server.fault == "cut" and file.suffix in LARGE and self.command == "GET":
            self._send(status, headers, content, content[: len(content) // 2])
            self.close_connection = True
        else:
            self._send(status, headers, content)

    def _send_json(self, content: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _send(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
        sent: bytes | None = None,
    ) -> None:
        """Answer with `content`; or with no more of it than `sent`, whatever the headers promise."""
        self.send_response(status)
        for header, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if sent is None else sent)


def _name(file: Path) -> str:
    """The name that the Hub knows a file's content by: as Git LFS has it, or as Git."""
    content = file.read_bytes()
    if file.suffix in LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def _entry(path: Path, root: Path) -> dict[str, Any]:
    name = str(path.relative_to(root))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    size, known_by = path.stat().st_size, _name(path)
    lfs = {"lfs": {"oid": known_by, "size": size, "pointerSize": 135}} if path.suffix in LARGE else {}
    return {"type": "file", "path": name, "oid": known_by, "size": size, **lfs}


def write_reviews(folder: Path, splits: dict[str, tuple[list[str], list[int]]]) -> None:
    """Texts and labels as the repository `stanfordnlp/imdb` holds them: a card, a parquet file a split."""
    root = folder / "datasets" / HUB_REVIEWS
    (root / "plain_text").mkdir(parents=True)
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    for split, (texts, labels) in splits.items():
        table = Dataset.from_dict({"text": texts, "label": labels}, features).with_format("arrow")[:]
        pa.parquet.write_table(table, root / "plain_text" / f"{split}-00000-of-00001.parquet")
    counts = "".join(f"  - name: {s}\n    num_examples: {len(texts)}\n" for s, (texts, _) in splits.items())
    files = "".join(f"  - split: {s}\n    path: plain_text/{s}-*\n" for s in splits)
    (root / "README.md").write_text(CARD.format(counts=counts, files=files))


def model_folder(folder: Path) -> Path:
    """Where a model goes that is to be served under the name of the course's."""
    return folder / "models" / HUB_BASE
