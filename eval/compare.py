"""From scored items to a typed comparison of the variants: estimates, intervals, paired tests, Holm's correction.

All tests of a comparison, those of differences and those against chance, are one family for Holm's correction; gaps
between benchmarks and their twins, and gains by field of topics, are two more. docs/statistics.md says what is computed
and what it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from eval import statistics
from eval.compare_suites import compare_mean, compare_suite
from eval.compare_texts import compare_held_out, held_out_texts
from eval.compare_toxicity import compare_toxicity
from eval.comparison import (
    LEVEL,
    Accuracy,
    Comparison,
    Detectable,
    HeldOut,
    Measure,
    Toxicity,
)
from eval.fields import compare_fields
from eval.gaps import compare_gaps
from eval.paired import Randomness, Tested
from eval.scored_items import ChoiceItem, SubjectScores, read_scores, share_items
from eval.subjects import Subject
from primer.documents import read_documents
from primer.recipe import SOURCES

_MEANS = (("built-in", "Mean of the built-in suites"), ("benchmark", "Mean of the benchmarks"))


@dataclass(frozen=True)
class Documents:
    """What is known of held-out documents.

    Attributes:
        clusters: For a source, the group of each document; a document not named is a group of its own.
        fields: The field of topics of each synthetic document.
    """

    clusters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


def compare_subjects(subjects: Sequence[Subject], seed: int, samples: int) -> Comparison:
    """Compare variants or models from their files.

    Args:
        subjects: At least one.
        seed: Of the bootstrap and the permutations.
        samples: Bootstrap resamples of each interval.

    Raises:
        PrimerError: If an evaluation is missing or damaged, or the models of one run were not asked the same items.
    """
    scores = read_scores(subjects)
    return compare(scores, _documents(subjects, scores), seed, samples)


def compare(scores: Sequence[SubjectScores], documents: Documents, seed: int, samples: int) -> Comparison:
    """Compare variants by the items that they share."""
    randomness = Randomness(seed, samples)
    questions, without = share_items(scores, "questions")
    found = [compare_suite(subjects, suite, randomness) for suite, subjects in questions.items()]
    suites = [accuracy for accuracy, _ in found]
    tests = [test for _, of_suite in found for test in of_suite]
    means: list[Accuracy] = []
    for origin, title in _MEANS:
        parts = _independent([s for s in suites if s.origin == origin and len(s.scores) == len(scores)], scores)
        if len(parts) > 1:
            mean, of_mean = compare_mean(scores, origin, title, parts, randomness)
            means.append(mean)
            tests += of_mean
    texts, lines = share_items(scores, "held_out")
    without += lines
    held_out: list[HeldOut] = []
    for source in sorted(texts, key=_source_order):
        clusters = documents.clusters.get(source, {})
        text, of_text = compare_held_out(source, held_out_texts(texts[source], source, clusters), randomness)
        held_out.append(text)
        tests += of_text
    sentences, lines = share_items(scores, "toxicity")
    without += lines
    toxicity: list[Toxicity] = []
    for name, subjects in sentences.items():
        separated = compare_toxicity(subjects, name, randomness)
        if separated:
            toxicity.append(separated[0])
            tests += separated[1]
    gaps, gap_differences = compare_gaps(questions, randomness)
    synthetic = texts.get("synthetic")
    skipped = {(s.suite, s.reason): s.model_dump() for subject in scores for s in subject.models[0].results.skipped}
    return _adjusted(
        Comparison(
            variants=tuple(s.name for s in scores),
            seeds={s.name: len(s.models) for s in scores},
            suites=suites,
            means=means,
            held_out=held_out,
            toxicity=toxicity,
            differences=[test.difference for test in tests],
            gaps=gaps,
            gap_differences=gap_differences,
            fields=compare_fields(synthetic, documents.clusters.get("synthetic", {}), documents.fields, randomness)
            if synthetic
            else None,
            skipped=list(skipped.values()),
            not_shared=without,
        ),
        tests,
    )


def _documents(subjects: Sequence[Subject], scores: Sequence[SubjectScores]) -> Documents:
    """Groups and fields of the documents that were measured, from the corpora of the subjects' runs."""
    clusters: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for subject, scored in zip(subjects, scores, strict=True):
        for source, items in scored.models[0].held_out.items():
            run = subject.run
            if run is None or source in clusters or run.manifest(f"corpus/{source}") is None:
                continue
            columns = ["id", "group", "provenance.field"]
            clusters[source] = {}
            for row in read_documents(run.folder(f"corpus/{source}"), "held_out", columns):
                if row["id"] in items:
                    clusters[source][row["id"]] = row["group"]
                    if source == "synthetic" and row["provenance"] and row["provenance"]["field"]:
                        fields[row["id"]] = row["provenance"]["field"]
    return Documents(clusters, fields)


def _independent(suites: Sequence[Accuracy], scores: Sequence[SubjectScores]) -> list[Accuracy]:
    """The suites without those that ask the items of an earlier one in another way, such as with more examples."""
    asked: dict[tuple[tuple[str, int | None], ...], Accuracy] = {}
    for suite in suites:
        items = scores[0].models[0].questions[suite.name].values()
        asked.setdefault(tuple((i.item, i.gold if isinstance(i, ChoiceItem) else None) for i in items), suite)
    return list(asked.values())


def _source_order(source: str) -> int:
    return [*SOURCES, source].index(source)


def _adjusted(c: Comparison, tests: Sequence[Tested]) -> Comparison:
    """The comparison with Holm's correction over every test in its main family, and what that leaves detectable."""
    accuracies = [*c.suites, *c.means]
    p = [d.p for d in c.differences] + [s.p for a in accuracies for s in a.scores.values() if s.p is not None]
    adjusted = iter(statistics.holm(p))
    differences = [replace(d, p_adjusted=next(adjusted)) for d in c.differences]
    corrected = [
        replace(
            a,
            scores={v: s if s.p is None else replace(s, p_adjusted=next(adjusted)) for v, s in a.scores.items()},
        )
        for a in accuracies
    ]
    n = len(c.suites)
    return replace(
        c,
        differences=differences,
        suites=corrected[:n],
        means=corrected[n:],
        detectable=_detectable(tests, LEVEL / max(1, len(p))),
    )


def _detectable(tests: Sequence[Tested], level: float) -> list[Detectable]:
    by_measure: dict[tuple[Measure, str], list[Tested]] = {}
    for test in tests:
        by_measure.setdefault((test.difference.measure, test.difference.subject), []).append(test)
    found = []
    for place, of_pairs in by_measure.items():
        known = [test for test in of_pairs if test.known]
        if known:
            least = (max(test.detectable(at) for test in known) for at in (level, LEVEL))
            found.append(Detectable(*place, *least))
    return found
