"""The files of a submission, read into memory from a folder, from zip archives, or one by one.

Archives are never unpacked to the disk, so a name in one can lead nowhere; it is reported all the same.
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
from peft_scratch.submission.findings import Finding, fault, note

#: Of a submission, unpacked: whole models are handed in by mistake, what is beyond is none. Bytes and files.
LARGEST, MOST = 512 * 2**20, 1000
_DEEPEST = 4
_READ = (".ipynb", ".pt", ".pth", ".pdf", ".zip")
#: What systems leave behind unasked.
_JUNK = re.compile(r"(^|/)(__MACOSX|\.ipynb_checkpoints|\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*)(/|$)")


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
    """

    name: str
    files: list[File] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    archives: dict[str, set[str]] = field(default_factory=dict)
    packed: bool = True
    held: int = 0  # bytes

    def of(self, *kinds: str) -> list[File]:
        """The files with one of these endings."""
        return [file for file in self.files if file.kind in kinds]

    def _wrong(self, code: str, text: str, mend: str) -> None:
        self.findings.append(fault(FILES, code, text, mend))

    def _take(self, name: str, where: str, data: bytes, depth: int = 0) -> None:
        if name.lower().endswith(".zip"):
            self._take_archive(where, data, depth)
        else:
            self.files.append(File(name, where, data))
            self.held += len(data)

    def _take_archive(self, where: str, data: bytes, depth: int) -> None:
        inside = self.archives.setdefault(where, set())
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
            members = archive.infolist()
        except Exception as problem:  # zipfile raises what the damaged bytes lead it to
            self._wrong("zip-corrupt", f"{where} cannot be opened as a zip ({problem})", "pack it again")
            return
        unpacked = sum(member.file_size for member in members)
        if self.held + unpacked > LARGEST or len(members) > MOST:
            self._wrong(
                "zip-bomb",
                f"{where} would unpack to {unpacked:,} bytes in {len(members):,} files and is not read",
                "pack only the files that are asked for",
            )
            return
        seen: set[str] = set()
        for member in members:
            path = f"{where}/{member.filename}"
            if _leads_elsewhere(member.orig_filename):
                self._wrong(
                    "zip-path",
                    f"{path} has a path that leads out of the archive",
                    "pack the files by their plain names",
                )
            elif stat.S_ISLNK(member.external_attr >> 16):
                self._wrong("zip-link", f"{path} is a symbolic link, not a file", "pack the file itself")
            elif member.filename in seen:
                self._wrong("zip-twice", f"{path} is in the archive twice", "pack it once")
            elif member.flag_bits & 1:
                self._wrong("zip-encrypted", f"{path} is encrypted", "pack it without a password")
            elif member.is_dir():
                continue
            else:
                self._take_member(archive, member, path, inside, depth)
            seen.add(member.filename)

    def _take_member(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str, inside: set[str], depth: int
    ) -> None:
        name = PurePosixPath(member.filename).name
        kind = PurePosixPath(name.lower()).suffix
        if _JUNK.search(member.filename) or kind not in _READ or (kind == ".zip" and depth):
            self.findings.append(_stray(path))
            return
        inside.add(kind)
        try:
            data = archive.read(member)
        except Exception as problem:  # wrong checksum, unknown compression, cut short, overlapping
            self._wrong("zip-corrupt", f"{path} cannot be unpacked ({problem})", "pack it again")
            return
        self._take(name, path, data, depth + 1)


def gather(paths: Iterable[Path]) -> Gathered:
    """Read a submission: a folder as the kit leaves it, a folder of files, or files.

    What is wrong with a file becomes a finding, not an exception.
    """
    paths = list(paths)
    gathered = Gathered(str(paths[0]) if len(paths) == 1 else str(paths[0].parent / _common(paths)))
    for path in paths:
        if path.is_dir() and any((path / part).is_dir() for part in ("notebooks", "weights")):
            gathered.packed = False
            _read_kit(gathered, path)
        elif path.is_dir():
            _read_folder(gathered, path, path)
        else:
            _read_file(gathered, path, path.name)
    return gathered


def _read_kit(gathered: Gathered, folder: Path) -> None:
    """What belongs to the hand-in of a folder that the kit works in; the rest is the kit's own."""
    report = folder / "report" / "report.pdf"
    found = [
        *sorted((folder / "notebooks").glob("*.ipynb")),
        *sorted((folder / "weights").glob("*.pt")),
        *([report] if report.exists() else sorted(folder.glob("*.pdf"))),
        *sorted((folder / "report" / "results").glob("*.json")),
    ]
    for path in found:
        _read_file(gathered, path, path.relative_to(folder).as_posix())


def _read_folder(gathered: Gathered, folder: Path, top: Path) -> None:
    for path in sorted(folder.iterdir()):
        where = path.relative_to(top).as_posix()
        if len(gathered.files) + len(gathered.findings) > MOST:
            gathered._wrong("too-many", f"{top} holds more than {MOST} files", "hand in what is asked for")
            return
        if path.is_dir() and not path.is_symlink():
            if not _JUNK.search(where) and where.count("/") < _DEEPEST:
                _read_folder(gathered, path, top)
        elif path.suffix.lower() in _READ:
            _read_file(gathered, path, where)
        elif not path.name.startswith("."):
            gathered.findings.append(_stray(where))


def _read_file(gathered: Gathered, path: Path, where: str) -> None:
    if path.is_symlink():
        gathered._wrong("link", f"{where} is a symbolic link, not a file", "put the file itself there")
        return
    try:
        size = path.stat().st_size
        if gathered.held + size > LARGEST:
            mend = "hand in the trained entries alone"
            gathered._wrong("too-large", f"{where} has {size:,} bytes and is not read", mend)
            return
        gathered._take(path.name, where, path.read_bytes())
    except OSError as problem:
        gathered._wrong(
            "unreadable", f"{where} cannot be read ({problem.strerror})", "see to its permissions"
        )


def _leads_elsewhere(name: str) -> bool:
    # As Windows reads it too, where a backslash parts folders and a colon ends a drive.
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name


def _stray(where: str) -> Finding:
    return note(FILES, "stray", f"{where} does not belong into the hand-in", "leave it out")


def _common(paths: list[Path]) -> str:
    """What the names of several files begin with."""
    names = [path.name for path in paths]
    length = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), None)
    return names[0][:length].rstrip("_-. ") or names[0]
