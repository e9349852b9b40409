"""The whole audit of some lists: every check, the embeddings they share, and the coverage of benchmarks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from primer.benchmarks import Question
from primer.errors import PrimerError
from topics.allocation import Allocation, load_allocation
from topics.audit import (
    Check,
    Listed,
    check_ids,
    check_lines,
    check_plan,
    check_retired,
    check_subfields,
    check_titles,
    read_all,
)
from topics.coverage import Coverage, measure_coverage
from topics.embedding import Vectors, embed
from topics.overlap import check_overlap, embed_questions
from topics.retired import retired_ids
from topics.seeds import BUILT_IN
from topics.similarity import check_near_duplicates


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        listed: The seeds that can be read.
        vectors: Their embeddings.
        checks: What should be so, and is or is not.
        coverage: Of each suite of questions.
        plan: Of the built-in list; None for others.
    """

    listed: list[Listed]
    vectors: Vectors
    checks: list[Check]
    coverage: list[Coverage]
    plan: Allocation | None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def audit_lists(
    lists: Sequence[str], questions: Mapping[str, Sequence[Question]], not_questions: Collection[str] = ()
) -> Audit:
    """Audit some lists, together.

    Args:
        lists: `primer`, or paths of folders; the built-in list alone is held to its plan too.
        questions: Rows of benchmarks that no seed may copy, by suite.
        not_questions: Suites among them whose rows ask nothing, so that seeds need not cover them.

    Raises:
        PrimerError: If a list is not there, no line of it is a seed, or the embedding model is not installed.
    """
    listed, readable = read_all(lists)
    if not listed:
        raise PrimerError("No line of the list is a seed.", "See docs/topics.md for the form of a seed file.")
    checks = [readable, *check_lines(listed), check_subfields(listed), *check_titles(listed), check_ids(listed)]
    plan = load_allocation() if list(lists) == [BUILT_IN] else None
    if plan:
        checks += [check_retired(listed, retired_ids()), *check_plan(listed, plan)]
    vectors = embed([at.topic.title for at in listed], "topics")
    checks.append(check_near_duplicates(listed, vectors))
    asked = embed_questions(questions)
    checks.append(check_overlap(listed, vectors, questions, asked))
    coverage = [
        measure_coverage(suite, rows, asked[suite], vectors)
        for suite, rows in questions.items()
        if suite not in not_questions
    ]
    return Audit(listed, vectors, checks, coverage, plan)
