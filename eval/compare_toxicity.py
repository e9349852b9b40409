"""Hostile and neutral sentences: how well each variant tells them apart, and every pair's test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eval import statistics
from eval.comparison import Safety, Toxicity
from eval.paired import Randomness, Tested, contrast, pairs, score
from eval.scored_items import SubjectScores
from eval.separation import (
    SAFETY_LEVEL,
    Group,
    Sentence,
    auroc,
    find_groups,
    kernels,
    resample,
    safety_kernels,
    safety_scores,
    swap_contributions,
)
from eval.statistics import percentile_interval

if TYPE_CHECKING:
    from eval.statistics import Array


def compare_toxicity(
    subjects: Sequence[SubjectScores], name: str, randomness: Randomness
) -> tuple[Toxicity, list[Tested]] | None:
    """Compare within-group AUROCs: bootstrap over clusters of sentences, permutation of the two models' ranks.

    Returns:
        None where no group of people has both hostile and neutral sentences.
    """
    found = next(t for t in subjects[0].models[0].results.toxicity if t.set == name)
    items = list(subjects[0].models[0].toxicity[name].values())
    sentences = [Sentence(i.groups, i.hostile, i.pair, i.toxicity) for i in items]
    groups = find_groups(sentences)
    if not groups:
        return None
    values = {
        s.name: np.array([[i.log_perplexity for i in m.toxicity[name].values()] for m in s.models]) for s in subjects
    }
    raw = {v: [kernels(x, groups) for x in rows] for v, rows in values.items()}
    seeds = {v: [auroc(k, groups) for k in of_seeds] for v, of_seeds in raw.items()}
    scaled = {
        v: [k for x in rows if (k := safety_kernels(x, sentences, groups)) is not None] for v, rows in values.items()
    }
    averaged = [_averaged(of_seeds) for kind in (raw, scaled) for of_seeds in kind.values() if of_seeds]
    pooled, mean = resample(averaged, groups, randomness.samples, randomness.stream("toxicity", name))
    draws = dict(zip(values, pooled, strict=False))
    scores = {
        v: score(percentile_interval(float(np.mean(seeds[v])), draws[v]), seeds[v]).estimate.within(0, 1)
        for v in values
    }
    safety = None
    if scaled[subjects[0].name]:
        drawn = dict(zip(values, mean[len(values) :], strict=True))
        by_seed = {v: [float(np.mean([g.mean() for g in k])) for k in of_seeds] for v, of_seeds in scaled.items()}
        safety = _safety(values, sentences, groups, drawn, by_seed)

    def test(a: str, b: str) -> Tested:
        return contrast(
            ("toxicity", name, a, b),
            percentile_interval(float(np.mean(seeds[a]) - np.mean(seeds[b])), draws[a] - draws[b]),
            lambda: statistics.sign_flip(
                swap_contributions(values[a][0], values[b][0], groups), randomness.stream("toxicity_p", name, a, b)
            ),
            (seeds[a], seeds[b]),
        )

    toxicity = Toxicity(
        name=name,
        title=found.title,
        rows=len(items),
        scores=scores,
        groups={
            g.name: {v: float(np.mean([k[at].mean() for k in of_seeds])) for v, of_seeds in raw.items()}
            for at, g in enumerate(groups)
        },
        sizes={g.name: (len(g.hostile), len(g.neutral)) for g in groups},
        safety=safety,
        protocol=found.protocol,
    )
    return toxicity, [test(a, b) for a, b in pairs(values)]


def _safety(
    values: Mapping[str, Array],
    sentences: Sequence[Sentence],
    groups: Sequence[Group],
    draws: Mapping[str, Array],
    by_seed: Mapping[str, Sequence[float]],
) -> Safety:
    found = {v: [safety_scores(x, sentences, groups) for x in rows] for v, rows in values.items()}
    by_rule: dict[str, float | None] = {}
    for v, of_seeds in found.items():
        kept = [[u for u, p in scores.values() if p <= SAFETY_LEVEL] for scores in of_seeds]
        by_rule[v] = float(np.mean([np.mean(k) for k in kept])) if all(kept) else None
    return Safety(
        scores={
            v: score(percentile_interval(float(np.mean(x)), draws[v]), x).estimate.within(0, 1)
            for v, x in by_seed.items()
        },
        by_rule=by_rule,
        left_out={
            v: tuple(g.name for g in groups if any(scores[g.name][1] > SAFETY_LEVEL for scores in of_seeds))
            for v, of_seeds in found.items()
        },
        groups={
            g.name: {v: float(np.mean([scores[g.name][0] for scores in of_seeds])) for v, of_seeds in found.items()}
            for g in groups
        },
    )


def _averaged(of_seeds: Sequence[Sequence[Array]]) -> list[Array]:
    return [np.mean(of_group, axis=0) for of_group in zip(*of_seeds, strict=True)]
