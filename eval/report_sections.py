"""The order of the report: what a reader wants first stands first."""

from __future__ import annotations

from eval import report_run_sections as runs
from eval import report_score_sections as scores
from eval.report_material import Material
from eval.report_page import Page


def lay_out(material: Material) -> Page:
    """The whole report; sections without data are left out."""
    found = [
        scores.accuracy(material),
        scores.published(material),
        scores.held_out(material),
        runs.training(material),
        scores.fields(material),
        scores.safety(material),
        scores.contamination(material),
        runs.corpora(material),
        runs.documents(material),
        runs.costs(material),
        scores.tests(material),
        runs.again(material),
        scores.limits(material),
    ]
    experiments = material.experiments
    alone = experiments[0].recipe if len(experiments) == 1 else None
    return Page(
        title=alone.name if alone else " and ".join(e.name for e in experiments) or "Comparison of models",
        about=alone.description if alone else "",
        date=material.date,
        variants=material.comparison.variants,
        verdict=material.verdict,
        sections=[section for section in found if section is not None],
    )
