"""The files of a submission, read into memory from a folder, from zip archives, or one by one.

Archives are never unpacked to the disk, so a path in an archive cannot lead anywhere; it is still reported.
Every byte counts towards a limit while it is read, because an archive can lie about its sizes.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from peft_scratch.assignment import FILES
from peft_scratch.submission.findings import Finding, error, look
from peft_scratch.wording import counted

#: Limits of a submission, unpacked, in bytes and files. The largest thing handed in by mistake is a model.
LARGEST, MOST = 320 * 2**20, 1000
#: Limits of one file in bytes, by kind, where a parser reads it as a whole.
LARGEST_OF = {".ipynb": 96 * 2**20, ".pdf": 96 * 2**20, ".json": 16 * 2**20}
_DEEPEST = 6
#: The endings of the files that make up a submission.
HANDED_IN = (".ipynb", ".pt", ".pth", ".pdf", ".zip")
#: Other archives, by their first bytes. They cannot be opened here, and what is missing may be in them.
_OTHER_ARCHIVES = ((b"Rar!", "RAR"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"))
_ARCHIVE_ENDINGS = (".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")
#: Files that operating systems and Jupyter leave behind.
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
    """All files of a submission, and the findings that were made while they were read.

    Attributes:
        name: what the submission is called in messages.
        files: notebooks, weights, PDFs, results; not the archives that they came in.
        archives: the kinds of files in each zip, by the name of the zip.
        packed: whether these are the files to hand in, and not the folder that the kit works in.
        newest: when the newest file was last changed, in seconds since 1970.
    """

    name: str
    files: list[File] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    archives: dict[str, set[str]] = field(default_factory=dict)
    packed: bool = True
    newest: float = 0.0

    def of(self, *kinds: str) -> list[File]:
        """The files with one of these endings."""
        return [file for file in self.files if file.kind in kinds]


def gather(paths: Iterable[Path]) -> Gathered:
    """Read a submission: a folder as the kit leaves it, a folder of files, or files.

    What is wrong with a file becomes a finding, not an exception.
    """
    paths = list(paths)
    gathered = Gathered(str(paths[0]) if len(paths) == 1 else str(paths[0].parent / _common(paths)))
    reader = Reader(gathered)
    for path in paths:
        if path.is_dir() and is_kit_folder(path):
            gathered.packed = False
            for file in _files_of_kit(path):
                reader.file(file, file.relative_to(path).as_posix())
        elif path.is_dir():
            reader.folder(path, path)
        else:
            reader.file(path, path.name)
    return gathered


def is_kit_folder(folder: Path) -> bool:
    """Whether the kit works in `folder`: its three folders are there, and nothing is packed."""
    parts = all((folder / part).is_dir() for part in ("notebooks", "weights", "report"))
    return parts and not any(folder.glob("*.zip")) and not any(folder.glob("*.pdf"))


def _files_of_kit(folder: Path) -> list[Path]:
    """What belongs to the submission in a folder that the kit works in."""
    report = folder / "report" / "report.pdf"
    return [
        *sorted((folder / "notebooks").glob("*.ipynb")),
        *sorted((folder / "weights").glob("*.pt")),
        *([report] if report.exists() else sorted((folder / "report").glob("*.pdf"))[:1]),
        *sorted((folder / "report" / "results").glob("*.json")),
    ]


class Reader:
    """Reads files into a `Gathered`, within the limits of one submission."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._bytes = self._seen = 0

    def folder(self, folder: Path, top: Path) -> None:
        """Read a folder and the folders in it; names in messages are relative to `top`."""
        try:
            inside = sorted(folder.iterdir())
        except OSError as problem:
            self._unreadable(folder.name, problem)
            return
        for path in inside:
            where = path.relative_to(top).as_posix()
            self._seen += 1
            if self._seen > MOST:
                text = f"{top} holds more than {MOST} files"
                self._refuse("too-many", text, "hand in only what is asked for")
                return
            if _JUNK.search(where):
                continue
            if path.is_dir() and not path.is_symlink():
                if where.count("/") < _DEEPEST:
                    self.folder(path, top)
            elif path.suffix.lower() in HANDED_IN:
                self.file(path, where)
            elif path.suffix.lower() in _ARCHIVE_ENDINGS or not path.name.startswith("."):
                self._not_read(where)

    def file(self, path: Path, where: str) -> None:
        """Read one file; `where` is its name in messages."""
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                self._refuse("link", f"{where} is a symbolic link, not a file", "put the file itself there")
            elif not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
                text = f"{where} is not a regular file and was not read"
                self._refuse("no-file", text, "put the file itself there")
            elif status.st_size > self._limit(path.suffix.lower()):
                text = f"{where} has {status.st_size:,} bytes and was not read"
                fix = "hand in only what is asked for; a weight file holds only the trained entries"
                self._refuse("too-large", text, fix)
            else:
                self._gathered.newest = max(self._gathered.newest, status.st_mtime)
                self.take(path.name, where, path.read_bytes())
        except OSError as problem:
            self._unreadable(where, problem)

    def _limit(self, kind: str) -> int:
        return min(LARGEST - self._bytes, LARGEST_OF.get(kind, LARGEST))

    def take(self, name: str, where: str, data: bytes, depth: int = 0) -> None:
        """Take in the content of a file; if it is a zip, the files in it."""
        if name.lower().endswith(".zip"):
            self._archive(where, data, depth)
        else:
            self._gathered.files.append(File(name, where, data))
            self._bytes += len(data)

    def _archive(self, where: str, data: bytes, depth: int) -> None:
        kinds = self._gathered.archives.setdefault(where, set())
        if other := next((kind for start, kind in _OTHER_ARCHIVES if data.startswith(start)), None):
            text = f"{where} is a {other} archive, not a zip"
            self._refuse("zip-corrupt", text, "pack the files as zip")
            return
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
            members = archive.infolist()
        except Exception:  # damaged bytes can make zipfile raise anything
            self._refuse("zip-corrupt", f"{where} cannot be opened as a zip", "pack it again")
            return
        unpacked = sum(member.file_size for member in members)
        if self._bytes + unpacked > LARGEST or len(members) > MOST:
            text = f"{where} would unpack to {unpacked:,} bytes in {len(members):,} files and was not read"
            self._refuse("zip-bomb", text, "pack only the files that are asked for")
            return
        names: set[str] = set()
        for member in members:
            original = _member_name(member)
            name = original.replace("\\", "/")
            path = f"{where}/{name}"
            kind = PurePosixPath(name.lower()).suffix
            if _leads_elsewhere(original):
                text = f"{path} has a path that leads out of the archive"
                self._refuse("zip-path", text, "pack the files under their plain names")
            elif stat.S_ISLNK(member.external_attr >> 16):
                self._refuse("zip-link", f"{path} is a symbolic link, not a file", "pack the file itself")
            elif name in names:
                self._refuse("zip-twice", f"{path} is in the archive twice", "pack it once")
            elif member.flag_bits & 1:
                self._refuse("zip-encrypted", f"{path} is encrypted", "pack it without a password")
            elif name.endswith("/"):
                continue
            elif kind not in HANDED_IN or _JUNK.search(name) or (kind == ".zip" and depth > 1):
                self._not_read(path)
            else:
                kinds.add(kind)
                content = self._unpacked(archive, member, path, self._limit(kind))
                if content is not None:
                    self.take(PurePosixPath(name).name, path, content, depth + 1)
            names.add(name)

    def _unpacked(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str, limit: int
    ) -> bytes | None:
        """The content of a member. It is refused above `limit` bytes, whatever size the archive states."""
        data = bytearray()
        try:
            with archive.open(member) as opened:
                while (part := opened.read(_CHUNK)) and len(data) <= limit:
                    data += part
        except Exception:  # wrong checksum, unknown compression, cut short, overlapping
            self._refuse("zip-corrupt", f"{path} cannot be unpacked", "pack it again")
            return None
        if len(data) > limit:
            text = f"{path} unpacks to more than {limit:,} bytes and was not read"
            self._refuse("zip-bomb", text, "pack only the files that are asked for")
            return None
        return bytes(data)

    def _refuse(self, code: str, text: str, fix: str) -> None:
        """Note why a file is not read, so that the next one can be read."""
        self._gathered.findings.append(error(FILES, code, text, fix))

    def _unreadable(self, where: str, problem: OSError) -> None:
        self._refuse("unreadable", f"{where} cannot be read ({problem.strerror})", "check its permissions")

    def _not_read(self, where: str) -> None:
        if PurePosixPath(where.lower()).suffix not in _ARCHIVE_ENDINGS:
            found = look(FILES, "stray", f"{where} is not part of the submission", "leave it out")
            self._gathered.findings.append(found)
        else:
            text = f"{where} is not a zip and cannot be opened here; what is missing may be in it"
            self._refuse("archive-not-zip", text, "pack its files as zip")


def _member_name(member: zipfile.ZipInfo) -> str:
    """A member's name. If it is not marked as UTF-8, it is UTF-8 all the same, or Iranian Windows' cp1256."""
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
    # On Windows, a backslash separates folders and a colon ends the name of a drive.
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name


def _common(paths: list[Path]) -> str:
    """The beginning that the names of several files share."""
    names = [path.name for path in paths]
    start = os.path.commonprefix(names).rstrip("_-. ")  # noqa: RUF071 - letter by letter is meant
    return start or f"{names[0]} and {counted(len(names) - 1, 'other file')}"
