"""Texts from files on this machine: Parquet, JSON Lines (also compressed) and plain text."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from synth.text import SourceText

# One line or one text file must fit in memory several times over.
LONGEST_TEXT = 64 * 2**20  # bytes

_LINES = {".jsonl", ".ndjson"}
_COMPRESSED = {".gz", ".bz2", ".zst"}
_PLAIN = {
    ".txt", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".java", ".jl",
    ".js", ".kt", ".lua", ".php", ".pl", ".r", ".rb", ".rs", ".scala", ".sh", ".sql", ".swift", ".ts",
}  # fmt: skip
_Reader = Callable[[Path, str], Iterator[SourceText]]


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
    """A mark of the files' state that changes when they do: names, sizes and times, since they may be huge."""
    states = [[str(p), (stat := p.stat()).st_size, stat.st_mtime_ns] for p in find_files(paths, key)]
    return {"files": fingerprint(states)}


def read_files(paths: list[str], text_column: str, key: str, seed: int) -> Iterator[SourceText]:
    """The texts of some files; the files come in an order that the seed shuffles.

    Raises:
        PrimerError: If a file is missing, damaged, not UTF-8, or lacks the column; it names file and line or row.
    """
    files = find_files(paths, key)
    random.Random(f"{seed} files").shuffle(files)
    for path in files:
        reader = _reader(path, key)
        try:
            yield from reader(path, text_column)
        except (OSError, pa.ArrowException) as error:
            raise PrimerError(f"{path} cannot be read: {error}", "Mend or remove the file.") from None


def _why_none(pattern: str, expanded: Path) -> str:
    if expanded.is_dir():
        return f"{pattern!r} is a folder; name the files in it, such as {pattern.rstrip('/')}/**/*.txt."
    if glob.has_magic(pattern):
        return f"no file matches {pattern!r}."
    return f"there is no file {pattern!r}."


def _reader(path: Path, key: str) -> _Reader:
    suffixes = [suffix.lower() for suffix in path.suffixes] or [""]
    if suffixes[-1] == ".parquet":
        return _read_parquet
    if suffixes[-1] in _LINES or (suffixes[-1] in _COMPRESSED and suffixes[-2:-1] and suffixes[-2] in _LINES):
        return _read_lines
    if suffixes[-1] in _PLAIN:
        return _read_plain
    raise PrimerError(
        f"{key}: {path} is of a kind that Primer does not read.",
        f"It reads .parquet, .jsonl (also .gz, .bz2, .zst) and plain text ({' '.join(sorted(_PLAIN))}).",
    )


def _read_plain(path: Path, _text_column: str) -> Iterator[SourceText]:
    if (size := path.stat().st_size) > LONGEST_TEXT:
        raise PrimerError(
            f"{path} has {size:,} bytes; one text file is one document, of at most {LONGEST_TEXT:,} bytes.",
            "Divide it into several files, or write it as JSON Lines.",
        )
    data = path.read_bytes()
    if b"\0" in data:
        raise PrimerError(f"{path} is not text: byte {data.index(0):,} is NUL.", "Remove the file from web/code paths.")
    yield SourceText(text=_decode(data, str(path)), group=str(path), title=path.name, origin=str(path))


def _read_lines(path: Path, text_column: str) -> Iterator[SourceText]:
    number = 0
    try:
        with _open_bytes(path) as file:
            while line := file.readline(LONGEST_TEXT + 1):
                number += 1
                if row := _parse_line(line, f"{path}, line {number}"):
                    yield _row_text(row, text_column, f"{path}, line {number}")
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise PrimerError(
            f"{path}, after line {number}: the file cannot be read further: {error}", "Mend or remove the file."
        ) from None


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


def _read_parquet(path: Path, text_column: str) -> Iterator[SourceText]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if text_column not in names:
            raise missing_column(text_column, names, str(path))
        columns = [text_column, *({"title", "url"} & set(names) - {text_column})]
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=columns):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError as error:
                raise PrimerError(
                    f"{path}, rows {number + 1} to {number + batch.num_rows}: not UTF-8: {error}", "Mend the file."
                ) from None
            for row in rows:
                number += 1
                yield _row_text(row, text_column, f"{path}, row {number}")


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
