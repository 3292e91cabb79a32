"""Writes files completely or not at all, reads JSON, and locks folders for one process at a time."""

from __future__ import annotations

import codecs
import errno
import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from peft_scratch.errors import UserError

#: Error numbers of a disk that is full, read-only or forbidden.
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# Full, too large, read-only, forbidden, or not a folder: trying again does not help. Any other error may be
# a temporary failure of a mounted Drive.
_LASTING = (*REFUSED, errno.EFBIG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
# Seconds to wait before each further attempt. The layers save through this module and must need only torch
# and transformers, so it uses no retry library.
_PAUSES = (0.5, 1.0, 2.0)


def write_atomically(path: str | Path, data: str | bytes) -> None:
    """Write `data` to `path`; at any moment the file is the whole old one or the whole new one.

    This holds even after a kill, a full disk or a power failure. After an error that may be temporary,
    writing is retried for a few seconds.

    Args:
        path: the file; its folder is created if needed.
        data: bytes, or text, which is written as UTF-8.

    Raises:
        UserError: the file cannot be written; an old file is still there.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    for pause in (*_PAUSES, None):
        try:
            return _write(path, content)
        except OSError as problem:
            if pause is None or problem.errno in _LASTING:
                raise UserError(
                    f"Could not write {path}: {problem.strerror or problem}; free some space or choose "
                    "another output folder, then run again."
                ) from problem
            time.sleep(pause)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Remove drafts that killed processes left. This comes first, as a run may end once the file is there.
    # If such a process is still alive, its attempt fails and is retried.
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def encoding_of(data: bytes) -> str:
    """The encoding named by the byte order mark of a text file; UTF-8 if there is no mark.

    >>> encoding_of("text".encode("utf-16"))
    'utf-16'
    """
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    return next((name for mark, name in marks.items() if data.startswith(mark)), "utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in the JSON file at `path`, empty if it holds something else; `None` if there is no file.

    Raises:
        UserError: it cannot be read as JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise UserError(f"{path} cannot be read as JSON ({problem}).") from None
    return content if isinstance(content, dict) else {}


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process, creating it if needed; the lock ends with the process at the latest.

    The lock file is in this machine's temporary folder: a mounted Drive may not support locks, and a lock
    left there by a lost machine would stay forever.

    Raises:
        UserError: another process holds the folder; the message says which.
    """
    from filelock import FileLock, Timeout

    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"peft-scratch-{key}.lock", timeout=0)
    holder = folder / "running.txt"
    try:
        lock.acquire()
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise UserError(f"{folder} is in use by {who}: wait, or stop that process, then run again.") from None
    try:
        write_atomically(holder, f"process {os.getpid()}, since {datetime.now():%H:%M}")
        yield
    finally:
        with suppress(OSError):  # the note does not matter, only the lock does
            holder.unlink()
        lock.release()
