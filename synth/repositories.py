"""Source code from folders on this machine, such as clones of repositories."""

from __future__ import annotations

import glob
import os
import random
import re
import stat
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from synth.licences import licence_of
from synth.parts import deal, largest_piece, parts_wanted
from synth.python_library import cut_definitions, is_table
from synth.text import SourceText

# What is not the repository's own source: dependencies, what a build made, caches. So are hidden folders, and any
# folder that a virtual environment lies in.
_SKIPPED_FOLDERS = {
    "node_modules", "bower_components", "site-packages", "dist-packages", "vendor", "vendored", "_vendor",
    "third_party", "third-party", "thirdparty", "build", "dist", "target", "__pycache__", "venv",
}  # fmt: skip
_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"
_MINIFIED_NAME = re.compile(r"[.-](min|bundle|pack(ed)?)\.\w+$|_pb2(_grpc)?\.pyi?$|\.pb\.\w+$", re.I)

# The limits of Codex' training files (arXiv 2107.03374, section 3.1): larger files, longer lines and long lines on
# average are data, minified or generated.
LARGEST_FILE = 1_000_000  # bytes
_LONGEST_LINE, _LONGEST_MEAN = 1_000, 100  # characters

_PYTHON = (".py", ".pyi")


@dataclass(frozen=True)
class Repository:
    """A folder of source code, or the share of a huge one.

    Attributes:
        name: The folder, as the recipe's pattern gives it; it is what texts are grouped by.
        folder: Where a relative name starts, since a worker process may run elsewhere.
        suffixes: Endings of the files to take.
        files: How many files there are to take.
        size: Their bytes.
        alone: Whether it is the only one; its files are the groups then, so that some can be held out.
        share: (i, n): every n-th of its files, from the i-th on.
    """

    name: str
    folder: str
    suffixes: tuple[str, ...]
    files: int
    size: int
    alone: bool = False
    share: tuple[int, int] = (0, 1)

    @property
    def path(self) -> Path:
        """The folder to read."""
        return Path(self.folder, self.name)


def find_repositories(paths: list[str], suffixes: list[str], key: str) -> list[Repository]:
    """The folders that some names and glob patterns stand for, sorted, each once, a folder inside another left to it.

    Args:
        paths: Names or patterns, relative to the current folder; `~` and `**` are understood.
        suffixes: Endings of the files to take.
        key: The recipe key they come from, for messages.

    Raises:
        PrimerError: If a pattern matches no folder, or none with a file of these endings.
    """
    named: dict[Path, str] = {}
    for pattern in paths:
        expanded = Path(pattern).expanduser()
        names = [str(expanded)] if expanded.exists() else glob.glob(str(expanded), recursive=True)  # noqa: PTH207
        # A link that a pattern meets leads to what is there under its own name, or to what was not meant.
        folders = [n for n in names if Path(n).is_dir() and (n == str(expanded) or not Path(n).is_symlink())]
        if not folders:
            raise PrimerError(f"{key}: {_why_none(pattern, expanded)}", "Paths are relative to the current folder.")
        for name in sorted(folders):
            named.setdefault(Path(name).resolve(), Path(name).as_posix())
    outermost = sorted(name for path, name in named.items() if not named.keys() & set(path.parents))
    found = []
    for name in outermost:
        sizes = [size for _, size, _ in _listed(Path(name), suffixes) if size <= LARGEST_FILE]
        if sizes:
            found.append(Repository(name, str(Path.cwd()), tuple(suffixes), len(sizes), sum(sizes)))
    if not found:
        raise PrimerError(
            f"{key}: {', '.join(map(repr, paths))} {'hold' if len(outermost) > 1 else 'holds'} no file that ends in "
            f"{' or '.join(suffixes)} (of at most {LARGEST_FILE:,} bytes, outside hidden, vendored and built folders).",
            "Set source.suffixes to the endings of its source files, or name other folders.",
        )
    return [replace(found[0], alone=True)] if len(found) == 1 else found


def repositories_material(paths: list[str], suffixes: list[str], key: str) -> dict[str, str]:
    """A mark of the files' state that changes when they do: names, sizes and times, since they may be many."""
    found = find_repositories(paths, suffixes, key)
    return {"repositories": fingerprint([[r.name, [list(file) for file in _listed(r.path, suffixes)]] for r in found])}


def repository_parts(found: Sequence[Repository], characters: int, seed: int) -> tuple[tuple[Repository, ...], ...]:
    """Repositories dealt to parts of nearly equal size; only one that is larger than a part is divided."""
    total = sum(repository.size for repository in found)
    parts = parts_wanted(characters, total)
    pieces = []
    for repository in found:
        shares = -(-repository.size // largest_piece(total, parts)) if repository.size * parts > total else 1
        size = repository.size // shares
        pieces += [replace(repository, size=size, share=(i, shares)) for i in range(min(shares, repository.files))]
    return deal(pieces, [piece.size for piece in pieces], parts, f"{seed} repositories")


def read_repositories(pieces: Sequence[Repository], seed: int) -> Iterator[SourceText]:
    """The source files of repositories, one after the other, each in an order that the seed shuffles.

    Minified and generated files are left out; one that is not UTF-8 (or what its first lines declare, in Python) is
    an empty text, which is counted as too short: clones hold a few such files, and nobody can mend them all.

    Raises:
        PrimerError: If a file cannot be read.
    """
    for piece in pieces:
        first, step = piece.share
        files = [name for name, size, _ in _listed(piece.path, piece.suffixes) if size <= LARGEST_FILE]
        try:
            licence = licence_of(piece.path)
        except OSError as error:
            _unreadable(error)
        random.Random(f"{seed} {piece.name}").shuffle(files)
        for name in files[first::step]:
            yield from _file_texts(piece, name, licence)


def _file_texts(piece: Repository, name: str, licence: str | None) -> Iterator[SourceText]:
    text = _read(piece.path / name, f"{piece.name}/{name}")
    if _is_generated(text):
        return
    pieces = cut_definitions(text) if name.endswith(_PYTHON) else [text]
    for number, part in enumerate(pieces, 1):
        yield SourceText(
            text=part,
            group=f"{piece.name}/{name}" if piece.alone else piece.name,
            title=name if len(pieces) == 1 else f"{name} (part {number} of {len(pieces)})",
            origin=f"{piece.name}, {name}",
            licence=licence,
        )


def _listed(folder: Path, suffixes: Sequence[str]) -> list[tuple[str, int, int]]:
    """(path inside, bytes, time of change) of the files to take, sorted; links are not followed."""
    found = []
    try:
        for base, folders, files in os.walk(folder, onerror=_unreadable):
            if _VIRTUAL_ENVIRONMENT in files:
                folders.clear()
                continue
            folders[:] = [f for f in folders if not f.startswith(".") and f.lower() not in _SKIPPED_FOLDERS]
            for path in (Path(base, f) for f in files if f.endswith(tuple(suffixes)) and not _MINIFIED_NAME.search(f)):
                about = path.lstat()
                if stat.S_ISREG(about.st_mode):
                    found.append((path.relative_to(folder).as_posix(), about.st_size, about.st_mtime_ns))
    except OSError as error:
        _unreadable(error)
    return sorted(found)


def _read(path: Path, where: str) -> str:
    """A file's text; empty if it is not text."""
    try:
        if path.suffix in _PYTHON:
            with tokenize.open(path) as file:  # honours a coding cookie
                text = file.read()
        else:
            text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PrimerError(f"{where} cannot be read: {error}", "Mend or remove the file.") from None
    except (SyntaxError, LookupError, ValueError):
        return ""
    return "" if "\0" in text else text


def _is_generated(text: str) -> bool:
    """Whether a program wrote it: it says so, its lines are too long for people, or it is mostly a literal table."""
    lines = text.splitlines()
    too_long = any(len(line) > _LONGEST_LINE for line in lines) or len(text) > _LONGEST_MEAN * max(1, len(lines))
    return too_long or is_table(text)


def _why_none(pattern: str, expanded: Path) -> str:
    if expanded.is_file():
        return f"{pattern!r} is a file; name the folder it lies in (or read single files by source.kind: files)."
    if glob.has_magic(pattern):
        return f"no folder matches {pattern!r}."
    return f"there is no folder {pattern!r}."


def _unreadable(error: OSError) -> NoReturn:
    raise PrimerError(f"{error.filename} cannot be read: {error.strerror}", "Mend its permissions or remove it.")
