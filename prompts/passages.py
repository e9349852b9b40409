"""Which passage of web text a prompt carries: any, or one of those nearest to its topic."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from topics import Topic

# A topic that comes a thousand times must not meet one passage every time, and the fortieth is no longer about it.
_NEAREST = 32


@dataclass(frozen=True, slots=True)
class Snippet:
    """A passage of web text that a prompt may carry."""

    id: str
    text: str


class Passages:
    """Passages to choose from, by draws that depend on the prompt alone.

    A barred passage is passed over and moves no other: prompts that did not carry it stay as they were.

    Args:
        snippets: At least one that is not barred. Their order counts.
        choice: How to choose; "relevant" ranks by BM25 between the topic's title and the passage.
        barred: Ids of passages that must not be used.
    """

    def __init__(
        self, snippets: Sequence[Snippet], choice: Literal["random", "relevant"], barred: Collection[str] = ()
    ) -> None:
        self._snippets, self._barred = snippets, barred
        self._everywhere = range(len(snippets))
        self._index = _Index(snippets) if choice == "relevant" else None
        self._nearest: dict[str, Sequence[int]] = {}

    def pick(self, topic: Topic, draw: int) -> Snippet:
        """The passage that a uniform 64-bit number falls on, among all or among the nearest.

        A topic that shares no word with any passage takes any.
        """
        for places in (self._near(topic), self._everywhere):
            for step in range(len(places)):
                snippet = self._snippets[places[(draw + step) % len(places)]]
                if snippet.id not in self._barred:
                    return snippet
        raise ValueError("every passage is barred")

    def _near(self, topic: Topic) -> Sequence[int]:
        if self._index is None:
            return ()
        if topic.id not in self._nearest:
            self._nearest[topic.id] = self._index.nearest(topic.title)
        return self._nearest[topic.id]


class _Index:
    """BM25 (Lucene's variant) over the passages, built once."""

    def __init__(self, snippets: Sequence[Snippet]) -> None:
        import bm25s  # here, because its import takes most of a second

        self._tokenize: Any = bm25s.tokenize
        self._bm25 = bm25s.BM25()
        self._bm25.index(self._words([snippet.text for snippet in snippets]), show_progress=False)

    def nearest(self, text: str) -> list[int]:
        """The places of the passages that share most with a text, best first; the earlier of two equal ones."""
        words = [word for word in self._words([text])[0] if word in self._bm25.vocab_dict]
        if not words:
            return []
        # Rounded, so that the order does not hang on the last bit of a machine's sum.
        scores = np.round(self._bm25.get_scores(words), 4)
        found = np.flatnonzero(scores > 0)
        if len(found) > _NEAREST:
            found = found[scores[found] >= np.partition(scores[found], -_NEAREST)[-_NEAREST]]
        best = np.argsort(-scores[found], kind="stable")[:_NEAREST]
        places: list[int] = found[best].tolist()
        return places

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._tokenize(texts, return_ids=False, show_progress=False)
        return words
