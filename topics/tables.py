"""Tables of seeds that people bring: CSV, TSV, JSONL, Parquet, or a data set for the `datasets` library."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primer.errors import PrimerError, did_you_mean

COLUMNS = ("title", "field", "subfield", "kind", "levels")
_FORMATS = ".csv, .tsv, .jsonl, .parquet, or a data set (owner/name[:split], or a folder that datasets saved)"


@dataclass(frozen=True)
class TableRow:
    """One row: where it stands, and its values by column; a value that is missing is empty."""

    where: str
    values: dict[str, str]


def read_table(source: str) -> list[TableRow]:
    """Every row of a table.

    Args:
        source: A file, a folder saved by `datasets`, or a data set's name on the hub.

    Raises:
        PrimerError: If it cannot be read, has no column `title`, or a value is no text.
    """
    rows = list(_rows(source))
    if not rows:
        raise PrimerError(f"{source} has no rows.", "Give a table with a column `title` and a row a seed.")
    return [TableRow(where, _texts(where, values)) for where, values in rows]


def _rows(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(source).expanduser()
    try:
        if path.suffix in (".csv", ".tsv") and path.is_file():
            yield from _delimited(path)
        elif path.suffix == ".jsonl" and path.is_file():
            yield from _json_lines(path)
        elif path.suffix == ".parquet" and path.is_file():
            yield from _parquet(path)
        elif path.is_dir():
            yield from _saved_dataset(path)
        elif re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.\[\]%-]+)?", source) and not path.suffix:
            yield from _hub_dataset(source)
        else:
            problem = f"{source} is not a table that can be read" if path.exists() else f"there is no {source}"
            raise PrimerError(f"{problem}.", f"Give {_FORMATS}.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PrimerError(f"{source} cannot be read: {error}", f"Give {_FORMATS}, in UTF-8.") from None


def _delimited(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".tsv":  # a seed file has no quoting: quotation marks belong to the title
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.DictReader(file, strict=True)
        _check_header(path.name, reader.fieldnames or ())
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if None in values:
                raise PrimerError(
                    f"{where}: has more values than the header has columns.", "Quote values that hold the separator."
                )
            yield where, {key: value for key, value in values.items() if value is not None}


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise PrimerError(f"{where}: is no JSON: {error}", "Write one JSON object a line.") from None
            if not isinstance(values, dict):
                raise PrimerError(f"{where}: is no JSON object: {line.strip()!r}", "Write one JSON object a line.")
            _check_header(where, values)
            yield where, values


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise PrimerError(f"{path} is no Parquet file: {error}", "Write it again.") from None
    _check_header(path.name, table.column_names)
    for number, values in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", values


def _saved_dataset(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises what its file systems raise
        raise PrimerError(f"{path} is no folder saved by the datasets library: {error}", f"Give {_FORMATS}.") from None
    if isinstance(loaded, datasets.DatasetDict):
        if len(loaded) > 1:
            raise PrimerError(f"{path} holds the splits {', '.join(loaded)}.", "Name the folder of one split.")
        loaded = next(iter(loaded.values()))
    yield from _dataset_rows(str(path), loaded)


def _hub_dataset(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    name, _, split = source.partition(":")
    try:
        loaded = datasets.load_dataset(name, split=split or "train", streaming=True)
        yield from _dataset_rows(source, loaded)
    except PrimerError:
        raise
    except Exception as error:  # whatever hub, network and builder raise
        raise PrimerError(
            f"The data set {source!r} cannot be read: {error}", "Check its name, its split and the network."
        ) from None


def _dataset_rows(source: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, values in enumerate(rows, start=1):
        if number == 1:
            _check_header(source, values)
        yield f"{source}, row {number}", values


def _check_header(where: str, columns: Iterable[str]) -> None:
    known = list(columns)
    if "title" not in known:
        close = did_you_mean("title", known)
        raise PrimerError(
            f"{where}: has no column 'title', but {', '.join(map(str, known)) or 'none at all'}.",
            f"{close}Name the columns {', '.join(COLUMNS)}; only title is needed in each row.",
        )


def _texts(where: str, values: dict[str, Any]) -> dict[str, str]:
    """The columns of a seed as text; levels may be a list."""
    texts: dict[str, str] = {}
    for column in COLUMNS:
        value = values.get(column)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = ",".join(value)
        if value is not None and not isinstance(value, str):
            raise PrimerError(f"{where}, column {column}: is {value!r}.", "Write text.")
        texts[column] = (value or "").strip()
    return texts
