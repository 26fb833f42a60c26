"""The files that the agents read: which ones, and how."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MAX_FILES: Final = 200
"""Files read at most."""

MAX_FILE_BYTES: Final = 512 * 1024
"""Size of one file at most."""

MAX_TOTAL_BYTES: Final = 8 * 1024 * 1024
"""Size of all of them together at most."""

_MAX_ENTRIES: Final = 20_000
_SNIFFED_BYTES: Final = 4096
_NOT_DOCUMENTS: Final = frozenset({"__pycache__", "node_modules", "dist", "build", "htmlcov"})


class DocumentError(Exception):
    """A path that was asked for cannot be read at all; the message is for whoever asked."""


class UnreadableFileError(Exception):
    """A file turned out not to be text when it was read."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be read.

    Attributes:
        path: Where it is.
        name: What citations call it: as short as it can be and still be opened, where that is possible.
    """

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not read.

    Attributes:
        name: What messages call it.
        reason: Why not.
    """

    name: str
    reason: str


@dataclass(slots=True)
class Documents:
    """What was found.

    Attributes:
        files: To be read, in the order of their names.
        skipped: Left alone, with reasons.
    """

    files: list[SourceFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


def default_paths(working_directory: Path, package: Path) -> list[Path]:
    """Return the project's own documents, from its checkout if the working directory is in one.

    Args:
        working_directory: Where to look for the checkout, and above.
        package: The installed package, where there is no checkout.
    """
    for folder in (working_directory, *working_directory.parents):
        if (folder / package.name / "__init__.py").is_file() and (folder / "pyproject.toml").is_file():
            return [*sorted(folder.glob("*.md")), folder / package.name]
    return [package]


def find_documents(paths: Sequence[Path], working_directory: Path) -> Documents:
    """Find the text files under some paths, within the limits of this module.

    What is skipped without a word: hidden files and folders, links, caches, and virtual environments.
    Whether a file really is text shows only when it is read; a file with NUL bytes at its beginning is
    taken for a binary one.

    Args:
        paths: Files, and folders to be searched to their bottom.
        working_directory: What names are relative to, where the file is below it.

    Raises:
        DocumentError: A path is neither a file nor a folder, or there is nothing to read.
    """
    documents = Documents()
    total = 0
    seen: set[Path] = set()
    for root in paths:
        for path in _files_under(root, documents.skipped):
            resolved = path.resolve()
            if resolved in seen:
                continue
            seen.add(resolved)
            file = SourceFile(path, _name(resolved, root, working_directory))
            size, problem = _size_or_problem(path)
            if problem is None and len(documents.files) >= MAX_FILES:
                problem = f"the limit of {MAX_FILES} files is reached"
            if problem is None and total + size > MAX_TOTAL_BYTES:
                problem = f"the limit of {MAX_TOTAL_BYTES:,} bytes is reached"
            if problem is None:
                documents.files.append(file)
                total += size
            else:
                documents.skipped.append(SkippedFile(file.name, problem))
    if not documents.files:
        raise DocumentError(f"no text files in {', '.join(map(str, paths))}")
    return documents


def read_text(file: SourceFile) -> str:
    """Read a file whole.

    Raises:
        UnreadableFileError: It is not UTF-8, has grown too large, or the system refuses it.
    """
    try:
        with file.path.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(error.strerror or str(error)) from error
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableFileError(f"larger than {MAX_FILE_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"not UTF-8: byte {error.start} is 0x{content[error.start]:02x}") from error


def _files_under(root: Path, skipped: list[SkippedFile]) -> Iterator[Path]:
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise DocumentError(f"{root}: {error.strerror or error}") from error
    if stat.S_ISREG(mode):
        yield root
        return
    if not stat.S_ISDIR(mode):
        raise DocumentError(f"{root}: neither a file nor a folder")

    def skip(error: OSError) -> None:
        skipped.append(SkippedFile(str(error.filename), error.strerror or str(error)))

    entries = 0
    for folder, folders, names in os.walk(root, onerror=skip):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if _is_searched(here / name))
        for name in sorted(names):
            entries += 1
            if entries > _MAX_ENTRIES:
                raise DocumentError(f"{root}: more than {_MAX_ENTRIES:,} files; name a smaller folder")
            path = here / name
            if not name.startswith(".") and not path.is_symlink() and path.is_file():
                yield path


def _is_searched(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _NOT_DOCUMENTS or folder.is_symlink():
        return False
    return not (folder / "pyvenv.cfg").exists()


def _size_or_problem(path: Path) -> tuple[int, str | None]:
    try:
        size = path.stat().st_size
        if size == 0:
            return 0, "empty"
        if size > MAX_FILE_BYTES:
            return size, f"larger than {MAX_FILE_BYTES:,} bytes"
        with path.open("rb") as opened:
            if b"\0" in opened.read(_SNIFFED_BYTES):
                return size, "not text"
    except OSError:
        # The agent will meet the same, and have it in its trace.
        return 0, None
    return size, None


def _name(resolved: Path, root: Path, working_directory: Path) -> str:
    for base in (working_directory.resolve(), root.resolve().parent):
        if resolved.is_relative_to(base):
            return resolved.relative_to(base).as_posix()
    return str(resolved)
