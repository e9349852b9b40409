"""Texts from files on this machine: Parquet, JSON Lines (also compressed), plain text, HTML pages and WARC archives."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from synth.parts import deal, equal_spans, largest_piece, parts_wanted
from synth.text import SourceText

# One line or one text file must fit in memory several times over.
LONGEST_TEXT = 64 * 2**20  # bytes

_LINES = {".jsonl", ".ndjson"}
_PAGES = {".html", ".htm", ".xhtml"}
_COMPRESSED = {".gz", ".bz2", ".zst"}
_PLAIN = {
    ".txt", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".java", ".jl",
    ".js", ".kt", ".lua", ".php", ".pl", ".r", ".rb", ".rs", ".scala", ".sh", ".sql", ".swift", ".ts",
}  # fmt: skip


@dataclass(frozen=True)
class FilePiece:
    """A file or a part of one.

    Attributes:
        name: The file, as the recipe names it; it is what texts are grouped by, on whatever machine they are read.
        folder: Where a relative name starts, since a worker process may run elsewhere.
        size: Bytes of the piece.
        span: The first and last (exclusive) row group of a Parquet file or byte of a JSON Lines file; None for all.
    """

    name: str
    folder: str
    size: int
    span: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """The file to open."""
        return Path(self.folder, self.name)


_Reader = Callable[[FilePiece, str], Iterator[SourceText]]


def find_files(paths: list[str], key: str) -> list[Path]:
    """The files that some names and glob patterns stand for, sorted, each once.

    Args:
        paths: Names or patterns, relative to the current folder; `~` and `**` are understood.
        key: The recipe key they come from, for messages.

    Raises:
        PrimerError: If one matches nothing, is a folder, or is a file of a kind that cannot be read.
    """
    found: set[Path] = set()
    for pattern in paths:
        expanded = Path(pattern).expanduser()
        names = [str(expanded)] if expanded.exists() else glob.glob(str(expanded), recursive=True)  # noqa: PTH207
        matches = {Path(name) for name in names if Path(name).is_file()}
        if not matches:
            raise PrimerError(f"{key}: {_why_none(pattern, expanded)}", "Paths are relative to the current folder.")
        found |= matches
    for path in found:
        _reader(path, key)
    return sorted(found)


def files_material(paths: list[str], key: str) -> dict[str, str]:
    """A mark of the state of the files that some names and patterns stand for."""
    return states_of(find_files(paths, key))


def states_of(files: Sequence[Path]) -> dict[str, str]:
    """A mark of some files' state that changes when they do: names, sizes and times, since they may be huge."""
    return {"files": fingerprint([[str(p), (stat := p.stat()).st_size, stat.st_mtime_ns] for p in sorted(files)])}


def file_parts(files: Sequence[Path], characters: int, key: str, seed: int) -> tuple[tuple[FilePiece, ...], ...]:
    """Files dealt to parts of nearly equal size; large ones in Parquet and JSON Lines are divided.

    Args:
        files: Files that can be read, sorted (`find_files`).
        characters: How much text will be taken in all.
        key: The recipe key they come from, for messages.
        seed: Seed of the order.

    Raises:
        PrimerError: If a large Parquet file is damaged.
    """
    folder = str(Path.cwd())
    whole = [FilePiece(str(path), folder, path.stat().st_size) for path in files]
    total = sum(piece.size for piece in whole)
    parts = parts_wanted(characters, total)
    largest = largest_piece(total, parts)
    pieces = [part for piece in whole for part in _divide(piece, largest, key)]
    return deal(pieces, [piece.size for piece in pieces], parts, f"{seed} files")


def read_files(pieces: Sequence[FilePiece], text_column: str, key: str) -> Iterator[SourceText]:
    """The texts of files, in their order.

    Raises:
        PrimerError: If a file is missing, damaged, not UTF-8, or lacks the column; it names file and line or row.
    """
    for piece in pieces:
        reader = _reader(Path(piece.name), key)
        try:
            yield from reader(piece, text_column)
        except (OSError, pa.ArrowException) as error:
            raise PrimerError(f"{piece.name} cannot be read: {error}", "Mend or remove the file.") from None


def _divide(piece: FilePiece, largest: int, key: str) -> list[FilePiece]:
    """Pieces of a file of about the largest size, if it is of a kind that can be divided."""
    number = -(-piece.size // largest)
    if number < 2:
        return [piece]
    reader = _reader(Path(piece.name), key)
    if reader is _read_parquet:
        sizes = _row_group_sizes(piece)
        spans = equal_spans(sizes, number)
        return [replace(piece, span=(a, b), size=piece.size * sum(sizes[a:b]) // sum(sizes)) for a, b in spans]
    if reader is _read_lines and piece.path.suffix.lower() in _LINES:
        cuts = [piece.size * n // number for n in range(number + 1)]
        return [replace(piece, span=(a, b), size=b - a) for a, b in pairwise(cuts)]
    return [piece]


def _row_group_sizes(piece: FilePiece) -> list[int]:
    """Bytes of each row group, before compression."""
    try:
        with pq.ParquetFile(piece.path) as file:
            groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
            return [group.total_byte_size + 1 for group in groups]
    except (OSError, pa.ArrowException) as error:
        raise PrimerError(f"{piece.name} cannot be read: {error}", "Mend or remove the file.") from None


def _why_none(pattern: str, expanded: Path) -> str:
    if expanded.is_dir():
        return f"{pattern!r} is a folder; name the files in it, such as {pattern.rstrip('/')}/**/*.txt."
    if glob.has_magic(pattern):
        return f"no file matches {pattern!r}."
    return f"there is no file {pattern!r}."


def _reader(path: Path, key: str) -> _Reader:
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    packed = last in _COMPRESSED
    kind = before if packed else last
    if kind in _LINES:
        return _read_lines
    if kind in _PAGES and (not packed or last == ".gz"):
        return _read_page
    if kind == ".warc" and (not packed or last == ".gz"):
        return _read_archive
    if kind == ".parquet" and not packed:
        return _read_parquet
    if kind in _PLAIN and not packed:
        return _read_plain
    raise PrimerError(
        f"{key}: {path} is of a kind that Primer does not read.",
        "It reads .parquet, .jsonl (also .gz, .bz2, .zst), .html and .warc (also .gz), and plain text "
        f"({' '.join(sorted(_PLAIN))}).",
    )


def _read_page(piece: FilePiece, _text_column: str) -> Iterator[SourceText]:
    from synth import html_text

    yield html_text.read_page(piece.path, piece.name)


def _read_archive(piece: FilePiece, _text_column: str) -> Iterator[SourceText]:
    from synth import warc

    return warc.read_warc(piece.path, piece.name)


def _read_plain(piece: FilePiece, _text_column: str) -> Iterator[SourceText]:
    name = piece.name
    if (size := piece.path.stat().st_size) > LONGEST_TEXT:
        raise PrimerError(
            f"{name} has {size:,} bytes; one text file is one document, of at most {LONGEST_TEXT:,} bytes.",
            "Divide it into several files, or write it as JSON Lines.",
        )
    data = piece.path.read_bytes()
    if b"\0" in data:
        raise PrimerError(f"{name} is not text: byte {data.index(0):,} is NUL.", "Remove the file from web/code paths.")
    yield SourceText(text=_decode(data, name), group=name, title=piece.path.name, origin=name)


def _read_lines(piece: FilePiece, text_column: str) -> Iterator[SourceText]:
    """The rows whose first byte lies in the piece: each line of a divided file belongs to one piece."""
    start, end = piece.span or (0, None)
    after = f" after byte {start:,}" if start else ""
    number = 0
    try:
        with _open_bytes(piece.path) as file:
            if start:
                file.seek(start - 1)
                _skip_line(file)
            while (end is None or file.tell() < end) and (line := file.readline(LONGEST_TEXT + 1)):
                number += 1
                where = f"{piece.name}, line {number}{after}"
                if row := _parse_line(line, where):
                    yield _row_text(row, text_column, where)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise PrimerError(
            f"{piece.name}, after line {number}{after}: the file cannot be read further: {error}",
            "Mend or remove the file.",
        ) from None


def _skip_line(file: IO[bytes]) -> None:
    """Go to the start of the next line."""
    while (chunk := file.readline(2**20)) and not chunk.endswith(b"\n"):
        pass


def _open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, unpacked if its name says that it is compressed."""
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        case ".bz2":
            return bz2.open(path, "rb")
        case ".zst":
            return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
        case _:
            return path.open("rb")


def _parse_line(line: bytes, where: str) -> dict[str, Any] | None:
    """One line as a JSON object; None if it is blank."""
    if len(line) > LONGEST_TEXT:
        raise PrimerError(f"{where}: the line is longer than {LONGEST_TEXT:,} bytes.", "Divide the text.")
    text = _decode(line, where).strip()
    if not text:
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PrimerError(f"{where}: not valid JSON: {error}", "Mend or remove the line.") from None
    if not isinstance(row, dict):
        raise PrimerError(
            f"{where}: holds a {type(row).__name__}, not an object.", 'A line must be like {"text": "..."}.'
        )
    return row


def _read_parquet(piece: FilePiece, text_column: str) -> Iterator[SourceText]:
    with pq.ParquetFile(piece.path) as file:
        names = file.schema_arrow.names
        if text_column not in names:
            raise missing_column(text_column, names, piece.name)
        columns = [text_column, *sorted({"title", "url"} & set(names) - {text_column})]
        first, last = piece.span or (0, file.num_row_groups)
        number = sum(file.metadata.row_group(index).num_rows for index in range(first))
        for batch in file.iter_batches(batch_size=256, row_groups=list(range(first, last)), columns=columns):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError as error:
                raise PrimerError(
                    f"{piece.name}, rows {number + 1} to {number + batch.num_rows}: not UTF-8: {error}",
                    "Mend the file.",
                ) from None
            for row in rows:
                number += 1
                yield _row_text(row, text_column, f"{piece.name}, row {number}")


def _row_text(row: dict[str, Any], text_column: str, where: str) -> SourceText:
    """The text of one row. A null text counts as an empty one (too short)."""
    if text_column not in row:
        raise missing_column(text_column, list(row), where)
    text = row[text_column]
    if text is not None and not isinstance(text, str):
        raise wrong_type(text_column, text, where)
    title, url = row.get("title"), row.get("url")
    return SourceText(
        text=text or "",
        title=title if isinstance(title, str) else None,
        origin=url if isinstance(url, str) else where,
    )


def missing_column(column: str, columns: list[str], where: str) -> PrimerError:
    """The error of a row or file that lacks the text column."""
    shown = ", ".join(map(repr, sorted(columns)[:30])) or "none"
    return PrimerError(f"{where}: there is no column {column!r}; there are {shown}.", "Set source.text_column to one.")


def wrong_type(column: str, value: Any, where: str) -> PrimerError:
    """The error of a text column that does not hold text."""
    return PrimerError(
        f"{where}: column {column!r} holds {type(value).__name__} ({str(value)[:40]}), not text.",
        "Set source.text_column to a column of text.",
    )


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PrimerError(
            f"{where}: not UTF-8: byte {error.start:,} is 0x{data[error.start]:02x}.",
            "Convert the file to UTF-8 (iconv does) or remove it.",
        ) from None
