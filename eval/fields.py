"""What textbooks teach about: the held-out loss on synthetic documents, field of topics by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eval.compare_texts import Texts, held_out_texts
from eval.comparison import Field, Fields
from eval.paired import Randomness
from eval.scored_items import SubjectScores
from eval.statistics import holm

# A field with fewer held-out topics than this has no interval worth showing, and is merged with others.
FEWEST_TOPICS = 5

OTHERS = "other fields"
_SOURCE = "synthetic"


def compare_fields(
    subjects: Sequence[SubjectScores],
    clusters: Mapping[str, str],
    topics: Mapping[str, str],
    randomness: Randomness,
) -> Fields | None:
    """Bits per byte by field of topics, and what each variant gains over a baseline.

    Args:
        subjects: Variants that were measured on the same held-out synthetic documents.
        clusters: The topic of each document.
        topics: The field of each document; one that is not named is left out.
        randomness: Of the bootstrap and the permutations.

    Returns:
        None with one variant, or where fewer than two rows remain after small fields were merged.
    """
    ids: dict[str, set[str]] = {}
    for item in subjects[0].models[0].held_out[_SOURCE]:
        if item in topics:
            ids.setdefault(topics[item], set()).add(item)
    small = tuple(sorted(name for name, of in ids.items() if len({clusters.get(i, i) for i in of}) < FEWEST_TOPICS))
    rows = {name: ids[name] for name in sorted(ids) if name not in small}
    if small:
        rows[OTHERS] = set().union(*(ids[name] for name in small))
    if len(subjects) < 2 or len(rows) < 2:
        return None
    baseline = next((s.name for s in subjects if s.name.rpartition("/")[2] == "web"), subjects[0].name)
    texts = {name: held_out_texts(subjects, _SOURCE, clusters, of) for name, of in rows.items()}
    differences = [
        texts[name].test(("field", name, s.name, baseline), randomness).difference
        for name in rows
        for s in subjects
        if s.name != baseline
    ]
    adjusted = holm([d.p for d in differences])
    return Fields(
        baseline=baseline,
        rows=[_row(name, of, randomness) for name, of in texts.items()],
        merged=small,
        differences=[replace(d, p_adjusted=p) for d, p in zip(differences, adjusted, strict=True)],
    )


def _row(name: str, texts: Texts, randomness: Randomness) -> Field:
    scores = {variant: texts.estimate(variant, randomness, "field", name) for variant in texts.bits}
    return Field(name, texts.documents, len(texts.size), int(texts.size.sum()), scores)
