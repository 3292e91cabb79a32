"""The files of a submission, read into memory from a folder, from zip archives, or one by one.

Archives are never unpacked to the disk, so a name in one can lead nowhere; it is reported all the same.
Every byte that is read counts against a limit while it is read, whatever an archive says of its sizes.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from peft_scratch.assignment import FILES
from peft_scratch.submission.findings import Finding, error, look
from peft_scratch.wording import counted

#: Of a submission, unpacked, in bytes and files: whole models are handed in by mistake, nothing larger.
LARGEST, MOST = 320 * 2**20, 1000
#: Of one file of a kind, in bytes: what is read as a whole by a parser.
LARGEST_OF = {".ipynb": 96 * 2**20, ".pdf": 96 * 2**20, ".json": 16 * 2**20}
_DEEPEST = 6
_READ = (".ipynb", ".pt", ".pth", ".pdf", ".zip")
#: Other archives, by how they begin: they cannot be opened here, and may hold what is missed.
_OTHER_ARCHIVES = ((b"Rar!", "RAR"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"))
_ARCHIVE_ENDINGS = (".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")
#: What systems leave behind unasked.
_JUNK = re.compile(r"(^|/)(__MACOSX|\.ipynb_checkpoints|\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*)(/|$)")
_CHUNK = 2**20


@dataclass(frozen=True)
class File:
    """A file of a submission: its own name, where it was found, and its content."""

    name: str
    where: str
    data: bytes

    @property
    def kind(self) -> str:
        """Its ending, in lower case."""
        return PurePosixPath(self.name).suffix.lower()


@dataclass
class Gathered:
    """All that a submission holds, and what was found wrong while it was read.

    Attributes:
        name: of the submission, for messages.
        files: notebooks, weights, PDFs, results; not the archives that they came in.
        archives: for each zip, its name and the kinds of files in it.
        packed: whether these are finished files, with the student's name on them.
        newest: when the newest file was last changed, in seconds since 1970.
    """

    name: str
    files: list[File] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    archives: dict[str, set[str]] = field(default_factory=dict)
    packed: bool = True
    newest: float = 0.0
    held: int = 0  # bytes
    seen: int = 0  # files and folders

    def of(self, *kinds: str) -> list[File]:
        """The files with one of these endings."""
        return [file for file in self.files if file.kind in kinds]

    def _wrong(self, code: str, text: str, fix: str) -> None:
        self.findings.append(error(FILES, code, text, fix))

    def _take(self, name: str, where: str, data: bytes, depth: int = 0) -> None:
        if name.lower().endswith(".zip"):
            self._take_archive(where, data, depth)
        else:
            self.files.append(File(name, where, data))
            self.held += len(data)

    def _take_archive(self, where: str, data: bytes, depth: int) -> None:
        inside = self.archives.setdefault(where, set())
        if other := next((kind for start, kind in _OTHER_ARCHIVES if data.startswith(start)), None):
            self._wrong(
                "zip-corrupt", f"{where} is a {other} archive by another name", "pack the files as zip"
            )
            return
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
            members = archive.infolist()
        except Exception:  # zipfile raises what the damaged bytes lead it to
            self._wrong("zip-corrupt", f"{where} cannot be opened as a zip", "pack it again")
            return
        unpacked = sum(member.file_size for member in members)
        if self.held + unpacked > LARGEST or len(members) > MOST:
            text = f"{where} would unpack to {unpacked:,} bytes in {len(members):,} files and is not read"
            self._wrong("zip-bomb", text, "pack only the files that are asked for")
            return
        seen: set[str] = set()
        for member in members:
            original = _member_name(member)
            name = original.replace("\\", "/")
            path = f"{where}/{name}"
            if _leads_elsewhere(original):
                text = f"{path} has a path that leads out of the archive"
                self._wrong("zip-path", text, "pack the files by their plain names")
            elif stat.S_ISLNK(member.external_attr >> 16):
                self._wrong("zip-link", f"{path} is a symbolic link, not a file", "pack the file itself")
            elif name in seen:
                self._wrong("zip-twice", f"{path} is in the archive twice", "pack it once")
            elif member.flag_bits & 1:
                self._wrong("zip-encrypted", f"{path} is encrypted", "pack it without a password")
            elif member.is_dir() or name.endswith("/"):
                continue
            else:
                self._take_member(archive, member, name, path, inside, depth)
            seen.add(name)

    def _take_member(
        self,
        archive: zipfile.ZipFile,
        member: zipfile.ZipInfo,
        name: str,
        path: str,
        inside: set[str],
        depth: int,
    ) -> None:
        name = PurePosixPath(name).name if not _JUNK.search(name) else name
        kind = PurePosixPath(name.lower()).suffix
        if kind in _ARCHIVE_ENDINGS:
            self._another_archive(path)
            return
        if _JUNK.search(name) or kind not in _READ or (kind == ".zip" and depth > 1):
            self.findings.append(_stray(path))
            return
        inside.add(kind)
        limit = min(LARGEST - self.held, LARGEST_OF.get(kind, LARGEST))
        try:
            with archive.open(member) as opened:
                data = _read_at_most(opened, limit)
        except _TooLarge:
            text = f"{path} unpacks to more than {limit:,} bytes and is not read"
            self._wrong("zip-bomb", text, "pack only the files that are asked for")
            return
        except Exception:  # wrong checksum, unknown compression, cut short, overlapping
            self._wrong("zip-corrupt", f"{path} cannot be unpacked", "pack it again")
            return
        self._take(name, path, data, depth + 1)

    def _another_archive(self, where: str) -> None:
        text = f"{where} is an archive that is no zip and cannot be opened here; what is missing may be in it"
        self._wrong("archive-not-zip", text, "pack its files as zip")


def gather(paths: Iterable[Path]) -> Gathered:
    """Read a submission: a folder as the kit leaves it, a folder of files, or files.

    What is wrong with a file becomes a finding, not an exception.
    """
    paths = list(paths)
    gathered = Gathered(str(paths[0]) if len(paths) == 1 else str(paths[0].parent / _common(paths)))
    for path in paths:
        if path.is_dir() and is_kit_folder(path):
            gathered.packed = False
            _read_kit(gathered, path)
        elif path.is_dir():
            _read_folder(gathered, path, path)
        else:
            _read_file(gathered, path, path.name)
    return gathered


def is_kit_folder(folder: Path) -> bool:
    """Whether the kit works in `folder`: its three folders are there, and nothing is packed."""
    parts = all((folder / part).is_dir() for part in ("notebooks", "weights", "report"))
    return parts and not any(folder.glob("*.zip")) and not any(folder.glob("*.pdf"))


def _read_kit(gathered: Gathered, folder: Path) -> None:
    """What belongs to the submission in a folder that the kit works in; the rest is the kit's own."""
    report = folder / "report" / "report.pdf"
    found = [
        *sorted((folder / "notebooks").glob("*.ipynb")),
        *sorted((folder / "weights").glob("*.pt")),
        *([report] if report.exists() else sorted((folder / "report").glob("*.pdf"))[:1]),
        *sorted((folder / "report" / "results").glob("*.json")),
    ]
    for path in found:
        _read_file(gathered, path, path.relative_to(folder).as_posix())


def _read_folder(gathered: Gathered, folder: Path, top: Path) -> None:
    try:
        inside = sorted(folder.iterdir())
    except OSError as problem:
        gathered._wrong(
            "unreadable", f"{folder.name} cannot be read ({problem.strerror})", "see to its permissions"
        )
        return
    for path in inside:
        where = path.relative_to(top).as_posix()
        gathered.seen += 1
        if gathered.seen > MOST:
            gathered._wrong("too-many", f"{top} holds more than {MOST} files", "hand in what is asked for")
            return
        if path.is_dir() and not path.is_symlink():
            if not _JUNK.search(where) and where.count("/") < _DEEPEST:
                _read_folder(gathered, path, top)
        elif _JUNK.search(where):
            continue
        elif path.suffix.lower() in _READ:
            _read_file(gathered, path, where)
        elif path.suffix.lower() in _ARCHIVE_ENDINGS:
            gathered._another_archive(where)
        elif not path.name.startswith("."):
            gathered.findings.append(_stray(where))


def _read_file(gathered: Gathered, path: Path, where: str) -> None:
    if path.is_symlink():
        gathered._wrong("link", f"{where} is a symbolic link, not a file", "put the file itself there")
        return
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            gathered._wrong(
                "no-file", f"{where} is no regular file and is not read", "put the file itself there"
            )
            return
        limit = min(LARGEST - gathered.held, LARGEST_OF.get(path.suffix.lower(), LARGEST))
        if status.st_size > limit:
            text = f"{where} has {status.st_size:,} bytes and is not read"
            gathered._wrong(
                "too-large", text, "hand in only what is asked for, of weights the trained entries alone"
            )
            return
        gathered.newest = max(gathered.newest, status.st_mtime)
        gathered._take(path.name, where, path.read_bytes())
    except OSError as problem:
        gathered._wrong(
            "unreadable", f"{where} cannot be read ({problem.strerror})", "see to its permissions"
        )


class _TooLarge(Exception):
    """A member of an archive holds more than is read."""


def _read_at_most(opened: zipfile.ZipExtFile, limit: int) -> bytes:
    """All of a member, unless it turns out longer than `limit`, whatever the archive says of its size."""
    parts: list[bytes] = []
    size = 0
    while part := opened.read(_CHUNK):
        size += len(part)
        if size > limit:
            raise _TooLarge
        parts.append(part)
    return b"".join(parts)


def _member_name(member: zipfile.ZipInfo) -> str:
    """A member's name; without the flag for UTF-8, Windows in Iran wrote it as cp1256, others as UTF-8."""
    name = member.orig_filename
    if member.flag_bits & 0x800 or name.isascii():
        return name
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:
        return name
    for encoding in ("utf-8", "cp1256"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name


def _leads_elsewhere(name: str) -> bool:
    # As Windows reads it too, where a backslash parts folders and a colon ends a drive.
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name


def _stray(where: str) -> Finding:
    return look(FILES, "stray", f"{where} is not part of the submission", "leave it out")


def _common(paths: list[Path]) -> str:
    """What the names of several files begin with."""
    names = [path.name for path in paths]
    length = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), None)
    return names[0][:length].rstrip("_-. ") or f"{names[0]} and {counted(len(names) - 1, 'other file')}"
