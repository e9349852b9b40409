"""The corpora of a recipe: web text, code, and the synthetic textbooks, each a stage of the run.

Their order is `primer.recipe.CORPUS_ORDER`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from primer.benchmarks import benchmark_material, data_folder
from primer.errors import PrimerError
from primer.fingerprint import stage_settings
from primer.recipe import Recipe
from primer.run import Built, RunFolder, Stage
from synth.corpus_report import report_corpora

if TYPE_CHECKING:
    from prompts.stream import PromptStream


def make_corpora(recipe: Recipe, run: RunFolder) -> None:
    """Make every corpus that some variant trains on, or that the prompts take passages from, and report on them.

    Raises:
        PrimerError: If a source cannot be read, or the teacher cannot be used.
    """
    if "synthetic" in recipe.needed_sources():
        _check_prompts(recipe)
    stages = {"web": _web_stage, "code": _code_stage, "synthetic": _synthetic_stage}
    made: list[str] = []
    for source in recipe.needed_sources():
        stage = stages[source](recipe, run, tuple(made))
        run.complete(stage)
        made.append(stage.name)
    report_corpora(recipe, run, made)


def prompt_stream(recipe: Recipe, run: RunFolder) -> PromptStream:
    """The prompts of a recipe, with passages from the run's web corpus.

    Raises:
        PrimerError: If prompts carry passages and the web corpus is not there yet.
    """
    from synth.synthetic import make_stream

    if recipe.prompts.snippet_share == 0:
        return make_stream(recipe, None)
    _check_prompts(recipe)
    try:
        run.require("corpus/web")
    except PrimerError as missing:
        raise PrimerError(
            missing.problem, f"{missing.remedy} Prompts without passages need none: --set prompts.snippet_share=0"
        ) from None
    return make_stream(recipe, run.folder("corpus/web"))


def _check_prompts(recipe: Recipe) -> None:
    """Name a mistake in a form or a table of weights before any work begins: passages need a corpus, they do not."""
    from prompts.stream import PromptStream

    prompts = recipe.prompts.model_copy(update={"snippet_share": 0.0})
    PromptStream(recipe.model_copy(update={"prompts": prompts}), [])


def _web_stage(recipe: Recipe, _run: RunFolder, reads: tuple[str, ...]) -> Stage:
    from synth.sources import source_material

    def build(folder: Path) -> Built:
        from synth.web import build_web

        return build_web(recipe, folder)

    material = source_material(recipe.web.source, "web.source")
    return Stage("corpus/web", stage_settings(recipe, "corpus/web"), build, reads, material)


def _code_stage(recipe: Recipe, run: RunFolder, reads: tuple[str, ...]) -> Stage:
    from synth.sources import source_material

    def build(folder: Path) -> Built:
        from primer.documents import corpus_hashes
        from synth.code import build_code

        return build_code(recipe, folder, corpus_hashes(run.folder(stage) for stage in reads))

    material = source_material(recipe.code.source, "code.source")
    return Stage("corpus/code", stage_settings(recipe, "corpus/code"), build, reads, material)


def _synthetic_stage(recipe: Recipe, run: RunFolder, reads: tuple[str, ...]) -> Stage:
    from prompts.stream import material

    def build(folder: Path) -> Built:
        from primer.documents import corpus_hashes
        from synth.synthetic import build_synthetic

        web = run.folder("corpus/web") if "corpus/web" in reads else None
        known = corpus_hashes(run.folder(stage) for stage in reads)
        return build_synthetic(recipe, folder, run.path / "journal" / "replies.jsonl", web, known)

    made_of = material(recipe)
    if recipe.prompts.snippet_share > 0:  # the passages are compared with the benchmarks
        made_of |= benchmark_material(data_folder(recipe.eval.data))
    return Stage("corpus/synthetic", stage_settings(recipe, "corpus/synthetic"), build, reads, made_of)
