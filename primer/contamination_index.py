"""An index of the items of benchmarks in flat arrays: which of them a text may hold, and the file it is kept in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from primer.alignment import BLOCK, SHARE, WORDS, is_number, is_telling
from primer.errors import PrimerError

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

# Runs of so many words point from a text to the items it may hold: with one word in ten replaced, two runs in three
# are whole. Runs that more items have than this point nowhere ("which of the following").
_RUN = 4
_COMMONEST = 64

# Words of a text that are looked up at a time, which bounds the memory of a long one.
_PART = 8192

# An item that stands at the very beginning may begin as many windows before it, and one for the overlap.
_SHIFT = 5

# The multiplier is 2^64 divided by the golden ratio; the second is splitmix64's.
_SPREAD, _FINISH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)

_FORMAT = "primer-contamination-1"
_ALIGNED = 64


class Item(NamedTuple):
    """One text to be found.

    Attributes:
        suite: Its benchmark.
        where: File and line of its row.
        text: As it is in the row, or put together from parts of it.
    """

    suite: str
    where: str
    text: str


class Candidate(NamedTuple):
    """An item that may be in a text between two places.

    Attributes:
        item: The item's number.
        start: First word of the text to look at.
        stop: The word after the last.
    """

    item: int
    start: int
    stop: int


@dataclass(frozen=True)
class Index:
    """Items, their words as numbers, and the places of every run of four words.

    Attributes:
        arrays: `words` (all items' words in a row), `starts` (of items in it, and its end), `need` (runs that a text
            must share to be looked at), `runs` (hashes, sorted), `seen` (a bit for each 25 leading bits of a hash: most
            look-ups end there), `firsts` (of each run in `places`, and its end),
            `places` (in `words`), `numbers` and `telling` (of each word's number), and in UTF-8 with their ends
            `vocabulary`, `texts`, `wheres`, `suites`; `suite_of` (of each item).
        numbers_of: Words to numbers; 0 is a word that no item has.
        longest: Words of the longest item.
    """

    arrays: Mapping[str, Array]
    numbers_of: Mapping[str, int]
    longest: int

    @classmethod
    def build(cls, items: Iterable[tuple[Item, Sequence[str]]]) -> Index:
        """Index items, given with their words; those of the same words are one, the first."""
        numbers_of: dict[str, int] = {}
        known: dict[tuple[int, ...], Item] = {}
        for item, words_of_item in items:
            key = tuple([numbers_of.setdefault(word, len(numbers_of) + 1) for word in words_of_item])
            known.setdefault(key, item)
        words = np.fromiter((number for item in known for number in item), np.uint32)
        starts = np.cumsum([0, *map(len, known)], dtype=np.int64)
        suites = list(dict.fromkeys(item.suite for item in known.values()))
        arrays: dict[str, Array] = {
            "words": words,
            "starts": starts,
            **_run_arrays(words, starts),
            "numbers": np.array([False, *map(is_number, numbers_of)]),
            "telling": np.array([False, *map(is_telling, numbers_of)]),
            "suite_of": np.array([suites.index(item.suite) for item in known.values()], np.uint16),
        }
        for name, texts in (
            ("vocabulary", list(numbers_of)),
            ("texts", [item.text for item in known.values()]),
            ("wheres", [item.where for item in known.values()]),
            ("suites", suites),
        ):
            arrays |= _packed(name, texts)
        return cls(arrays, numbers_of, int(np.diff(starts).max(initial=0)))

    def __len__(self) -> int:
        return len(self.arrays["starts"]) - 1

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def item(self, number: int) -> Item:
        """An item as it was given."""
        suite = int(self.arrays["suite_of"][number])
        return Item(self._text("suites", suite), self._text("wheres", number), self._text("texts", number))

    def words(self, number: int) -> npt.NDArray[np.uint32]:
        """The words of an item as numbers."""
        starts = self.arrays["starts"]
        found: npt.NDArray[np.uint32] = self.arrays["words"][starts[number] : starts[number + 1]]
        return found

    def numbers(self, words: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Words as numbers; 0 for those that no item has."""
        get = self.numbers_of.get
        return np.fromiter((get(word, 0) for word in words), np.uint32, len(words))

    def candidates(self, words: npt.NDArray[np.uint32]) -> Iterator[Candidate]:
        """The items that a text may hold, and where: those of which it shares enough runs at about the same distance.

        Args:
            words: The text's words as numbers.
        """
        overlap = 2 * self.longest + 64
        step = max(_PART, overlap)
        for start in range(0, max(1, len(words) - overlap), step):
            yield from self._candidates(words[start : start + step + overlap], start, len(words))

    def _candidates(self, words: npt.NDArray[np.uint32], offset: int, total: int) -> Iterator[Candidate]:
        arrays = self.arrays
        hashes = _hashes(words)
        if not len(hashes) or not len(arrays["runs"]):
            return
        maybe = np.flatnonzero(arrays["seen"][hashes >> 10] >> (hashes >> 7 & 7) & 1)
        rows = np.searchsorted(arrays["runs"], hashes[maybe])
        rows[rows == len(arrays["runs"])] = 0
        known = arrays["runs"][rows] == hashes[maybe]
        here, rows = maybe[known], rows[known]
        counts = arrays["firsts"][rows + 1].astype(np.int64) - arrays["firsts"][rows]
        if not len(counts):
            return
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places: Integers = arrays["places"][np.repeat(arrays["firsts"][rows], counts) + within].astype(np.int64)
        items = np.searchsorted(arrays["starts"], places, side="right") - 1
        starts = arrays["starts"][items]
        width = _width(arrays["starts"][items + 1] - starts)
        # How far apart text and item are, in windows that overlap by half: a cluster lies in one of them whole.
        windows = (np.repeat(here, counts) - (places - starts)) // width + _SHIFT
        pairs = np.unique(np.concatenate([windows << 32 | places, (windows - 1) << 32 | places]))
        items = np.searchsorted(arrays["starts"], pairs & 0xFFFFFFFF, side="right") - 1
        keys, counts = np.unique(pairs >> 32 << 32 | items, return_counts=True)
        items = keys & 0xFFFFFFFF
        enough = counts >= arrays["need"][items]
        for item, window in zip(items[enough].tolist(), ((keys >> 32) - _SHIFT)[enough].tolist(), strict=True):
            length = int(arrays["starts"][item + 1] - arrays["starts"][item])
            begin = offset + window * int(_width(length))
            yield Candidate(item, max(0, begin), min(total, begin + 2 * int(_width(length)) + length))

    def save(self, path: Path) -> None:
        """Write the index to a file, whole or not at all; `load` maps it into memory.

        Raises:
            PrimerError: If it cannot be written.
        """
        heads: dict[str, tuple[str, int, int]] = {}
        at = 0
        for name, array in self.arrays.items():
            heads[name] = (array.dtype.str, len(array), at)
            at += -(-array.nbytes // _ALIGNED) * _ALIGNED
        head = json.dumps({"format": _FORMAT, "longest": self.longest, "bytes": at, "arrays": heads}).encode()
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(len(head).to_bytes(8, "little") + head + b" " * (-(len(head) + 8) % _ALIGNED))
                for array in self.arrays.values():
                    file.write(array.tobytes() + bytes(-array.nbytes % _ALIGNED))
            temporary.replace(path)
        except OSError as error:
            raise PrimerError(f"{path} cannot be written: {error}", "Name another folder, or free the disk.") from None
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Map a saved index into memory; processes that do share one copy.

        Raises:
            PrimerError: If it cannot be read or is none.
        """
        try:
            data = np.asarray(np.memmap(path, np.uint8, "r"))  # a plain view: a memmap's own slices are slow
            length = int.from_bytes(data[:8].tobytes(), "little")
            head = json.loads(data[8 : 8 + length].tobytes())
            begin = -(-(length + 8) // _ALIGNED) * _ALIGNED
            if head["format"] != _FORMAT or begin + head["bytes"] != len(data):
                raise ValueError("another format, or cut short")
            arrays: dict[str, Array] = {}
            for name, (dtype, count, at) in head["arrays"].items():
                size = count * np.dtype(dtype).itemsize
                arrays[name] = data[begin + at : begin + at + size].view(dtype)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PrimerError(f"{path} is no index of benchmarks: {error}", "Remove it; it is made again.") from None
        vocabulary = _unpacked(arrays, "vocabulary")
        return cls(arrays, {word: number for number, word in enumerate(vocabulary, start=1)}, head["longest"])

    def _text(self, name: str, number: int) -> str:
        ends = self.arrays[f"{name}_ends"]
        start = int(ends[number - 1]) if number else 0
        return str(self.arrays[name][start : int(ends[number])].tobytes(), "utf-8", "surrogatepass")


def _run_arrays(words: npt.NDArray[np.uint32], starts: Integers) -> dict[str, Array]:
    """The places of every run within an item, by the run's hash, without the commonest; and what each item needs."""
    lengths = np.diff(starts)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    hashes = _hashes(words)
    places = np.flatnonzero(owners[: len(hashes)] == owners[_RUN - 1 :]) if len(hashes) else np.zeros(0, np.int64)
    places = places[np.argsort(hashes[places], kind="stable")]
    runs, counts = np.unique(hashes[places], return_counts=True)
    rare = counts <= _COMMONEST
    places = places[np.repeat(rare, counts)]
    have = np.bincount(owners[places], minlength=len(lengths))
    # A word that is another breaks four runs; where words are evenly replaced one run in five is left. A long block
    # has enough whatever the item's length.
    need = np.maximum(have - _RUN * np.where(lengths < 14, 1, (1 - SHARE) * lengths), have // 5)
    seen = np.zeros(1 << 25, np.bool_)
    seen[runs[rare] >> 7] = True
    return {
        "runs": runs[rare],
        "seen": np.packbits(seen, bitorder="little"),
        "firsts": np.cumsum([0, *counts[rare]], dtype=np.uint32),
        "places": places.astype(np.uint32),
        "need": np.clip(need, 1, BLOCK // 2).astype(np.uint16),
    }


def _hashes(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Hashes of every run of words. Two runs in some thousands share one, which costs a look, not a mistake."""
    count = len(words) - _RUN + 1
    if count <= 0:
        return np.zeros(0, np.uint32)
    wide = words.astype(np.uint64)
    mixed = np.zeros(count, np.uint64)
    for place in range(_RUN):
        mixed = mixed * _SPREAD + wide[place : place + count]
        mixed ^= mixed >> np.uint64(29)
    return (mixed * _FINISH >> np.uint64(32)).astype(np.uint32)


def _width(length: Any) -> Any:
    """How far words may be from their places: letters before choices, words inserted or left out."""
    return WORDS + length // 4


def _packed(name: str, texts: Sequence[str]) -> dict[str, Array]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return {
        name: np.frombuffer(b"".join(encoded), np.uint8),
        f"{name}_ends": np.cumsum([len(text) for text in encoded], dtype=np.uint32),
    }


def _unpacked(arrays: Mapping[str, Array], name: str) -> Iterator[str]:
    data, start = arrays[name].tobytes(), 0
    for end in arrays[f"{name}_ends"].tolist():
        yield str(data[start:end], "utf-8", "surrogatepass")
        start = end
