"""The corpora of a recipe: web text, code, and the synthetic textbooks, each a stage of the run.

They are made in this order, because prompts carry passages of the web corpus, and because each corpus leaves out
texts that an earlier one holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from primer.fingerprint import stage_settings
from primer.recipe import Recipe, SourceName
from primer.run import Built, RunFolder, Stage

if TYPE_CHECKING:
    from prompts.stream import PromptStream


def make_corpora(recipe: Recipe, run: RunFolder) -> None:
    """Make every corpus that some variant trains on, or that the prompts take passages from.

    Raises:
        PrimerError: If a source cannot be read, or the teacher cannot be used.
    """
    made: list[str] = []
    if needs_web(recipe):
        run.complete(_web_stage(recipe))
        made.append("corpus/web")
    if "code" in recipe.used_sources():
        run.complete(_code_stage(recipe, run, tuple(made)))
        made.append("corpus/code")
    if "synthetic" in recipe.used_sources():
        run.complete(_synthetic_stage(recipe, run, tuple(made)))


def prompt_stream(recipe: Recipe, run: RunFolder) -> PromptStream:
    """The prompts of a recipe, with passages from the run's web corpus.

    Raises:
        PrimerError: If prompts carry passages and the web corpus is not there yet.
    """
    from synth.synthetic import make_stream

    if recipe.prompts.snippet_share == 0:
        return make_stream(recipe, None)
    run.require("corpus/web")
    return make_stream(recipe, run.folder("corpus/web"))


def needs_web(recipe: Recipe) -> bool:
    """Whether the web corpus is trained on, or prompts carry passages of it."""
    used: list[SourceName] = recipe.used_sources()
    return "web" in used or ("synthetic" in used and recipe.prompts.snippet_share > 0)


def _web_stage(recipe: Recipe) -> Stage:
    def build(folder: Path) -> Built:
        from synth.web import build_web

        return build_web(recipe, folder)

    return Stage("corpus/web", stage_settings(recipe, "corpus/web"), build)


def _code_stage(recipe: Recipe, run: RunFolder, reads: tuple[str, ...]) -> Stage:
    def build(folder: Path) -> Built:
        from primer.documents import corpus_hashes
        from synth.code import build_code

        return build_code(recipe, folder, corpus_hashes(run.folder(stage) for stage in reads))

    return Stage("corpus/code", stage_settings(recipe, "corpus/code"), build, reads)


def _synthetic_stage(recipe: Recipe, run: RunFolder, reads: tuple[str, ...]) -> Stage:
    from prompts.stream import material

    def build(folder: Path) -> Built:
        from primer.documents import corpus_hashes
        from synth.synthetic import build_synthetic

        web = run.folder("corpus/web") if "corpus/web" in reads else None
        known = corpus_hashes(run.folder(stage) for stage in reads)
        return build_synthetic(recipe, folder, run.path / "journal" / "replies.jsonl", web, known)

    return Stage("corpus/synthetic", stage_settings(recipe, "corpus/synthetic"), build, reads, material())
