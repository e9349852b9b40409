"""Whether a text holds words of a benchmark: what must never be found in anything that a model is trained on.

Two questions. A passage for a prompt is cheap to replace, so any eight words that it shares with a benchmark bar it
(`BenchmarkText`). A document is dropped if it holds an item (`Contamination`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from primer.alignment import enough_to_tell, is_copy, shared
from primer.benchmarks import Question
from primer.contamination_index import Index, Item
from primer.words import text_words, word_runs

# So many words in a row, shared with any text of a benchmark's row, are a copy. GPT-3 and others took 13 (arXiv
# 2005.14165, appendix C), OLMo and Cosmopedia 8 to 10; a passage is cheap to replace, so ours is strict.
RUN = 8

# A text of fewer words is found whole; one of fewer than this says nothing of its own.
_SHORTEST = 5

# A text of a row other than the question that has so many words is looked for alone: a passage, a solution, a long
# answer. Shorter ones mean something after the question alone.
_ALONE = 20

# A question of fewer words is also looked for with each of its answers.
_SHORT_QUESTION = 14


@dataclass(frozen=True, slots=True)
class Match:
    """An item of a benchmark in a text.

    Attributes:
        suite: The benchmark.
        where: File and line of the item.
        item: Its text; a short question with its answers, a line each.
        passage: The stretch of the text that holds it.
        ratio: Share of the item's words that are there in their order.
        longest: Words of the longest block without a gap.
    """

    suite: str
    where: str
    item: str
    passage: str
    ratio: float
    longest: int


class Contamination:
    """Finds items of benchmarks in texts, changed ones too; see docs/contamination.md.

    Args:
        questions: Rows by suite (`primer.benchmarks.read_every_benchmark`).
    """

    def __init__(self, questions: Mapping[str, Sequence[Question]]) -> None:
        self.index = Index.build(
            (Item(suite, row.where, text), words)
            for suite, rows in questions.items()
            for row in rows
            for text, words in _items(row)
            if enough_to_tell(words)
        )

    def find(self, text: str) -> Match | None:
        """The item of which a text holds most words, if it holds any as `primer.alignment.is_copy` says; or None."""
        index = self.index
        words = index.numbers(text_words(text))
        best, best_words, place = None, 0, range(0)
        for candidate in index.candidates(words):
            item = index.words(candidate.item)
            found = shared(item.tolist(), words[candidate.start : candidate.stop].tolist())
            if found is None or found.words <= best_words:
                continue
            numbers, telling = (index.arrays[name][item].tolist() for name in ("numbers", "telling"))
            if is_copy(found, numbers, telling):
                best, best_words = (candidate.item, found), found.words
                place = range(candidate.start + found.start, candidate.start + found.stop)
        if best is None:
            return None
        number, found = best
        item_found = index.item(number)
        ratio = found.words / len(index.words(number))
        return Match(*item_found, _stretch(text, place), ratio, found.longest)

    def save(self, path: Path) -> None:
        """Write the index to a file, whole or not at all.

        Raises:
            PrimerError: If it cannot be written.
        """
        self.index.save(path)

    @classmethod
    def load(cls, path: Path) -> Contamination:
        """Map a saved index into memory: some milliseconds, and one copy for all processes.

        Raises:
            PrimerError: If it cannot be read or is none.
        """
        found = cls.__new__(cls)
        found.index = Index.load(path)
        return found


def _items(row: Question) -> Iterator[tuple[str, list[str]]]:
    """What of a row is looked for, with its words: the question, long texts, and the question with its answers."""
    words = {text: text_words(text) for text in (row.text, *row.texts)}
    asked, answers = words[row.text], []
    before, gap, after = row.text.partition("_")
    for text in words:
        filled = gap and text.startswith(before) and text.endswith(after)
        if text == row.text or filled or len(words[text]) >= _ALONE:
            yield text, words[text]
        elif text not in row.text:
            answers.append(text)
    if answers:
        yield "\n".join([row.text, *answers]), sum((words[answer] for answer in answers), asked)
    if len(asked) < _SHORT_QUESTION:
        yield from ((f"{row.text}\n{answer}", asked + words[answer]) for answer in answers)


def _stretch(text: str, place: range) -> str:
    """The part of a text in which certain of its words are."""
    at = 0
    start = stop = None
    for piece in re.finditer(r"\S+", text):
        at += len(text_words(piece.group()))
        if start is None and at > place.start:
            start = piece.start()
        if at >= place.stop:
            stop = piece.end()
            break
    return text[start:stop]


class BenchmarkText:
    """The runs of words in the questions, answers and passages of benchmarks.

    Args:
        questions: Rows by suite (`primer.benchmarks.read_benchmarks`).
    """

    def __init__(self, questions: Mapping[str, Sequence[Question]]) -> None:
        self.suites = list(questions)
        hashes: list[int] = []  # Python's own, which hold within this process
        owners: list[int] = []
        for number, suite in enumerate(self.suites):
            before = len(hashes)
            for row in questions[suite]:
                for text in row.texts:
                    words = text_words(text)
                    if len(words) >= _SHORTEST:
                        hashes.extend(map(hash, word_runs(words, min(RUN, len(words)))))
            owners.extend([number] * (len(hashes) - before))
        found = np.array(hashes, dtype=np.int64)
        self._hashes, first = np.unique(found, return_index=True)
        self._owners: NDArray[np.int64] = np.array(owners, dtype=np.int64)[first]

    def suite_of(self, text: str) -> str | None:
        """The suite that shares a run of words with a text, the first of them if there are several; or None."""
        words = text_words(text)
        runs = [hash(run) for length in range(_SHORTEST, RUN + 1) for run in word_runs(words, length)]
        if not runs or not len(self._hashes):
            return None
        sought = np.array(runs, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._hashes, sought), len(self._hashes) - 1)
        owners = self._owners[places[self._hashes[places] == sought]]
        return self.suites[int(owners.min())] if len(owners) else None
