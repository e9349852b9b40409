"""Samples to label: kept on the disk while they are asked about, because a hundred thousand may not fit in memory."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from synth.text import SourceText, clean


class Samples:
    """Texts by number, as long as the context lasts.

    Args:
        folder: Where the file lies that holds them; it has no name, and goes with the process, however that ends.
        samples: The texts, clean; titles and origins are made single lines.
    """

    def __init__(self, folder: Path, samples: Iterable[SourceText]) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with this object
        self._ends = array("Q", [0])
        for sample in samples:
            fields = [sample.text, _line(sample.title), _line(sample.origin)]
            data = json.dumps(fields).encode()
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))
        self._file.flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> SourceText:
        start, end = self._ends[number], self._ends[number + 1]
        text, title, origin = json.loads(os.pread(self._file.fileno(), end - start, start))
        return SourceText(text, title=title, origin=origin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _line(value: str | None) -> str | None:
    return None if value is None else " ".join(clean(value).split())[:500]
