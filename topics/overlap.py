"""Whether a seed was copied from a benchmark: its words in a row, or nearly its meaning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from primer.benchmarks import Question
from primer.words import text_words
from topics.audit import Check, Finding, Listed
from topics.embedding import Vectors, embed
from topics.similarity import NEAR_DUPLICATE, nearest

# So many words in a row, shared with any text of a benchmark, are a copy; a title of fewer is one if a text holds all
# of it, and a title of the fewest only if it is the whole question or answer: "Paying by card" is in many texts.
_RUN = 8
_WHOLE_TITLE_IN_TEXT = 5


def embed_questions(questions: Mapping[str, Sequence[Question]]) -> dict[str, Vectors]:
    """Embeddings of the questions, by suite."""
    return {suite: embed([row.text for row in rows], f"questions-{suite}") for suite, rows in questions.items()}


def check_overlap(
    listed: Sequence[Listed],
    vectors: Vectors,
    questions: Mapping[str, Sequence[Question]],
    asked: Mapping[str, Vectors],
) -> Check:
    """Compare the seeds with every text of the benchmarks, and with the meaning of the questions.

    Args:
        listed: The seeds.
        vectors: Their embeddings.
        questions: Rows by suite.
        asked: `embed_questions(questions)`.
    """
    findings = _copied(listed, questions)
    for suite, rows in questions.items():
        places, cosines = nearest(vectors, asked[suite])
        for at, place, cosine in zip(listed, places[:, 0], cosines[:, 0], strict=True):
            if cosine >= NEAR_DUPLICATE:
                problem = f"{at.topic.title!r} is close to the question in {rows[place].where}: cosine {cosine:.2f}"
                findings.append(Finding(at.where, problem))
    copies = len({finding.where for finding in findings})
    rows_count = sum(map(len, questions.values()))
    result = f"{copies:,d} of {len(listed):,d} seeds, against {rows_count:,d} rows of {len(questions)} suites"
    return Check("no seed copies a question or an answer of a benchmark", result, not findings, findings)


def _copied(listed: Sequence[Listed], questions: Mapping[str, Sequence[Question]]) -> list[Finding]:
    # Runs of words by their first three: one look-up a word of the benchmarks decides nearly always.
    runs: dict[tuple[str, ...], list[tuple[list[str], bool, Listed]]] = defaultdict(list)
    for at in listed:
        words = text_words(at.topic.title)
        length = min(_RUN, len(words))
        for start in range(len(words) - length + 1):
            runs[tuple(words[start : start + 3])].append(
                (words[start : start + length], length < _WHOLE_TITLE_IN_TEXT, at)
            )
    found: dict[str, Finding] = {}
    for rows in questions.values():
        for row in rows:
            for text in row.texts:
                words = text_words(text)
                for place in range(len(words) - 2):
                    for run, whole_text, at in runs.get(tuple(words[place : place + 3]), ()):
                        same = words[place : place + len(run)] == run
                        if same and (not whole_text or len(words) == len(run)):
                            problem = f"{at.topic.title!r} shares {' '.join(run)!r} with {row.where}"
                            found.setdefault(at.where, Finding(at.where, problem))
    return list(found.values())
