"""What a model answered, item by item, as one Parquet file: its columns, and reading and writing it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from primer.errors import PrimerError

ITEMS = "items.parquet"

# An item has the columns of its kind ("choice", "generation", "held_out", "toxicity", "open"); the others are null.
ITEM_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("suite", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("acc", pa.float64()),  # 0 or 1; of generated answers, the share that is right
        pa.field("acc_norm", pa.float64()),
        pa.field("gold", pa.int64()),
        pa.field("choice", pa.int64()),
        pa.field("choice_norm", pa.int64()),
        pa.field("loglikelihoods", pa.list_(pa.float64())),
        pa.field("cut", pa.bool_()),  # whether the context was cut from the left to fit
        pa.field("samples", pa.int64()),
        pa.field("correct", pa.int64()),
        pa.field("answers", pa.list_(pa.string())),
        pa.field("reasons", pa.list_(pa.string())),  # why each answer is wrong; "" where it is right
        pa.field("bits", pa.float64()),
        pa.field("bytes", pa.int64()),
        pa.field("groups", pa.list_(pa.string())),  # the groups of people that a sentence is about
        pa.field("hostile", pa.bool_()),
        pa.field("log_perplexity", pa.float64()),
        pa.field("toxicity", pa.float64()),  # ToxiGen's scale, 1 to 5
        pa.field("pair", pa.string()),  # what matched sentences share
    ]
)

_REMEDY = "Delete it and run `primer eval` to make it again."


def write_items(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    """Write items, in their order; the file is whole or not there.

    Raises:
        PrimerError: If an item has a key that is no column, or a value of another type.
    """
    known = set(ITEM_SCHEMA.names)
    for item in items:
        if unknown := sorted(set(item) - known):
            raise PrimerError(
                f"{path}: the item {item.get('item')!r} of {item.get('suite')!r} has the unknown {unknown}.",
                f"The columns are {', '.join(ITEM_SCHEMA.names)}.",
            )
    try:
        write_table(path, pa.Table.from_pylist([dict(item) for item in items], schema=ITEM_SCHEMA))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise PrimerError(
            f"{path}: an item does not fit its columns: {error}.", "ITEM_SCHEMA in eval/item_files.py has their types."
        ) from None


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, whole or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_items(path: Path) -> list[dict[str, Any]]:
    """Read items in their order, each with the columns that are not null.

    Raises:
        PrimerError: If the file is missing, damaged, or lacks a column.
    """
    try:
        with pq.ParquetFile(path) as file:
            for column in ITEM_SCHEMA:
                place = file.schema_arrow.get_field_index(column.name)
                found = file.schema_arrow.field(place).type if place >= 0 else None
                if found != column.type:
                    has = f"holds {found}" if found is not None else "is missing"
                    raise PrimerError(f"{path}: the column {column.name!r} {has}; expected {column.type}.", _REMEDY)
            table = file.read(columns=ITEM_SCHEMA.names)
        # Column by column: rows of 21 columns, of which most are null, take four times as long.
        items: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
        for name in ITEM_SCHEMA.names:
            column = table.column(name)
            if column.null_count < len(column):
                for item, value in zip(items, column.to_pylist(), strict=True):
                    if value is not None:
                        item[name] = value
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", _REMEDY) from None
    return items
