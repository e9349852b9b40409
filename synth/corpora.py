"""The corpora of a recipe: web text, code, and the synthetic textbooks, each a stage of the run.

Their order is `primer.recipe.CORPUS_ORDER`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from primer.benchmarks import benchmark_material, data_folder
from primer.documents import LAYOUT
from primer.errors import PrimerError
from primer.fingerprint import stage_settings
from primer.recipe import Recipe
from primer.recipe_synth import EndpointTeacher, Synth
from primer.run import Built, RunFolder, Stage, locked
from synth.card import write_cards
from synth.corpus_report import report_corpora
from synth.shards import Shard, copy_shards, report_shards, shard_folder

if TYPE_CHECKING:
    from prompts.stream import PromptStream
    from synth.engine import Asker
    from synth.pool import Pool

    OpenPool = Callable[[Synth], AbstractAsyncContextManager[Pool]]


def make_corpora(recipe: Recipe, run: RunFolder, open_pool: OpenPool | None = None) -> None:
    """Make every corpus that some variant trains on, or that the prompts take passages from, and report on them.

    Args:
        recipe: The experiment.
        run: Its folder.
        open_pool: Opens the teacher; null means on this machine (`synth.teachers.open_teacher`).

    Raises:
        PrimerError: If a source cannot be read, or the teacher cannot be used.
    """
    if "synthetic" in recipe.needed_sources():
        _check_prompts(recipe)
    made: list[str] = []
    for source in recipe.needed_sources():
        if source == "synthetic":
            stage = _synthetic_stage(recipe, run, tuple(made), open_pool)
        else:
            stage = (_web_stage if source == "web" else _code_stage)(recipe, run, tuple(made))
        run.complete(stage)
        made.append(stage.name)
        write_cards(recipe, run, [stage.name])
    report_corpora(recipe, run, made)
    write_cards(recipe, run, made)  # now with what was measured of them


def make_shard(recipe: Recipe, path: Path, shard: Shard) -> None:
    """Ask for one shard's units, into a journal below the run folder; passages need the web corpus first.

    Args:
        recipe: The experiment.
        path: The run folder, which all shards may share.
        shard: Which of them.

    Raises:
        PrimerError: See `make_corpora`; and if another process works on the same shard.
    """
    from synth.synthetic import build_shard

    _check_prompts(recipe)
    with RunFolder.opened(path, recipe, wait=True) as run:
        if recipe.prompts.snippet_share > 0:
            run.complete(_web_stage(recipe, run, ()))
    web = path / "corpus" / "web" if recipe.prompts.snippet_share > 0 else None
    folder = shard_folder(path, shard)
    with locked(folder):
        build_shard(recipe, folder, shard, web, _asker(recipe, folder, None))


def merge_shards(recipe: Recipe, run: RunFolder, folders: Sequence[Path] = ()) -> None:
    """Make the corpora out of what shards were answered; what they lack is asked for here.

    Args:
        recipe: The experiment.
        run: Its folder.
        folders: Run folders of other machines, whose shards are copied into this one.

    Raises:
        PrimerError: If there is no shard, or one is being worked on.
    """
    for folder in folders:
        copy_shards(folder, run.path)
    report_shards(run.path)
    make_corpora(recipe, run)


def _asker(recipe: Recipe, folder: Path, open_pool: OpenPool | None) -> Asker:
    """How the recipe's teacher is asked."""
    from synth.engine import asking
    from synth.teachers import open_teacher

    synth = recipe.synth
    if isinstance(synth.teacher, EndpointTeacher) and synth.teacher.batch:
        from synth.batch import asking_in_batches

        return asking_in_batches(synth, folder / "journal" / "batches.jsonl")
    return asking(lambda: (open_pool or open_teacher)(synth))


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

    material = source_material(recipe.web.source, "web.source") | LAYOUT
    return Stage("corpus/web", stage_settings(recipe, "corpus/web"), build, reads, material)


def _code_stage(recipe: Recipe, run: RunFolder, reads: tuple[str, ...]) -> Stage:
    from synth.sources import source_material

    def build(folder: Path) -> Built:
        from primer.documents import corpus_hashes
        from synth.code import build_code

        return build_code(recipe, folder, corpus_hashes(run.folder(stage) for stage in reads))

    material = source_material(recipe.code.source, "code.source") | LAYOUT
    return Stage("corpus/code", stage_settings(recipe, "corpus/code"), build, reads, material)


def _synthetic_stage(recipe: Recipe, run: RunFolder, reads: tuple[str, ...], open_pool: OpenPool | None) -> Stage:
    from prompts.stream import material
    from synth.teachers import teacher_identity

    def build(folder: Path) -> Built:
        from primer.documents import corpus_hashes
        from synth.synthetic import build_synthetic

        web = run.folder("corpus/web") if "corpus/web" in reads else None
        known = corpus_hashes(run.folder(stage) for stage in reads)
        return build_synthetic(recipe, folder, run.path, web, known, _asker(recipe, run.path, open_pool))

    made_of = material(recipe) | LAYOUT | {"teacher": teacher_identity(recipe.synth.teacher)}
    if recipe.prompts.snippet_share > 0:  # the passages are compared with the benchmarks
        made_of |= benchmark_material(data_folder(recipe.eval.data))
    return Stage("corpus/synthetic", stage_settings(recipe, "corpus/synthetic"), build, reads, made_of)
