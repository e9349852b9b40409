"""Whether a text holds words of a benchmark: what must never be found in anything that a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from primer.benchmarks import Question
from primer.words import text_words, word_runs

# So many words in a row, shared with any text of a benchmark's row, are a copy. GPT-3 and others took 13 (arXiv
# 2005.14165, appendix C), OLMo and Cosmopedia 8 to 10; a passage is cheap to replace, so ours is strict.
RUN = 8

# A text of fewer words is found whole; one of fewer than this says nothing of its own.
_SHORTEST = 5


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
