"""The report: one self-contained page that answers a run's question, the same as Markdown, and all its numbers as JSON.

Everything is read once (`eval.report_material`), laid out in sections (`eval.report_score_sections`,
`eval.report_run_sections`), and written three times (`eval.report_html`, `eval.report_markdown`, JSON).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from primer.fingerprint import file_hash, fingerprint, stage_settings
from primer.recipe import Recipe
from primer.run import Built, Manifest, RunFolder, Stage, write_json, write_text

if TYPE_CHECKING:
    from eval.report_material import Material
    from eval.report_page import Page
    from eval.subjects import Subject

PAGE, MARKDOWN, NUMBERS = "report.html", "report.md", "results.json"


def write_report(recipe: Recipe, run: RunFolder) -> Path:
    """Compare the variants of a run: the stage `report`, with `report.html`, `report.md` and `results.json`.

    Returns:
        The path of the page.

    Raises:
        PrimerError: If a stage before it is missing or its files are damaged, or if the variants were not asked the
            same items.
    """
    from eval.grades import FOLDER
    from eval.quoted import QUOTED
    from eval.report_html import FILES
    from eval.run_facts import complete_stages

    for stage in _needed(recipe):
        run.require(stage)
    manifests = complete_stages(recipe, run)
    # The page shows the facts of the manifests, which the hashes of the stages' files do not cover.
    material = {f"facts of {stage}": _facts(manifest) for stage, manifest in manifests.items()}
    material |= {path.name: file_hash(path) for path in (*FILES, QUOTED)}
    material |= {f"grades by {path.stem}": file_hash(path) for path in sorted((run.path / FOLDER).glob("*.jsonl"))}
    run.complete(
        Stage(
            name="report",
            settings={**stage_settings(recipe, "report"), "train.max_epochs": recipe.train.max_epochs},
            reads=tuple(manifests),
            material=material,
            build=partial(_build, recipe, run),
        )
    )
    return run.folder("report") / PAGE


def write_comparison(subjects: Sequence[Subject], folder: Path, seed: int, samples: int, command: str = "") -> Path:
    """Compare variants of several runs, or models from anywhere, in a folder of its own.

    Args:
        subjects: What is compared.
        folder: Where the page, the Markdown and the numbers go; created if absent.
        seed: Of resampling, and of the choice of documents.
        samples: Bootstrap resamples of each interval.
        command: What makes the comparison again, as typed in a shell.

    Returns:
        The path of the page.

    Raises:
        PrimerError: If a file is missing or damaged, or the folder cannot be written.
    """
    from eval.report_material import gather
    from primer.errors import PrimerError

    material = gather(subjects, seed, samples, command)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(material, folder)
    except OSError as error:
        raise PrimerError(f"{folder} cannot be written: {error}", "Choose another folder with --output.") from None
    return folder / PAGE


def lay_out(material: Material) -> Page:
    """The whole report: what a reader wants first stands first; sections without data are left out."""
    from eval import report_run_sections as runs
    from eval import report_score_sections as scores
    from eval.report_page import Page

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


def _needed(recipe: Recipe) -> list[str]:
    corpora = [f"corpus/{source}" for source in recipe.used_sources()]
    names = [name for variant in recipe.variants for name in recipe.model_names(variant)]
    return [*corpora, "tokens", *(f"{room}/{name}" for room in ("models", "eval") for name in names)]


def _facts(manifest: Manifest) -> str:
    shown = ("facts", "inputs", "seconds", "versions")
    return fingerprint({name: getattr(manifest, name) for name in shown})


def _build(recipe: Recipe, run: RunFolder, folder: Path) -> Built:
    from eval.report_material import gather
    from eval.subjects import subjects_of_run

    material = gather(subjects_of_run(recipe, run), recipe.seed, recipe.eval.bootstrap_samples)
    _write(material, folder)
    comparison = material.comparison
    found = sum(d.beyond_noise for d in comparison.differences)
    summary = f"{len(comparison.differences)} paired comparisons, {found} beyond noise"
    if not comparison.differences:
        summary = f"{len(comparison.suites)} suites of one variant"
    return Built(
        summary, {"differences": len(comparison.differences), "beyond_noise": found, "tests": comparison.tests}
    )


def _write(material: Material, folder: Path) -> None:
    from eval.report_html import render_html
    from eval.report_markdown import render_markdown
    from eval.report_material import as_data
    from eval.run_facts import clean

    page = lay_out(material)
    write_json(folder / NUMBERS, as_data(material))
    write_text(folder / MARKDOWN, clean(render_markdown(page)))
    write_text(folder / PAGE, render_html(page))
