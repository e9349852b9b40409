"""The corpora of a recipe: web text, code, and the synthetic textbooks, each a stage of the run.

Their order is `primer.recipe.CORPUS_ORDER`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
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
from synth.filtered import Work, complete_corpus
from synth.shards import Shard, copy_shards, report_shards, shard_folder

if TYPE_CHECKING:
    from prompts.stream import PromptStream
    from synth.engine import Asker
    from synth.executors import Execute
    from synth.pool import Pool

    OpenPool = Callable[[Synth], AbstractAsyncContextManager[Pool]]


def make_corpora(
    recipe: Recipe, run: RunFolder, open_pool: OpenPool | None = None, execute: Execute | None = None
) -> None:
    """Make every corpus that some variant trains on, or that the prompts take passages from, and report on them.

    Args:
        recipe: The experiment.
        run: Its folder.
        open_pool: Opens the teacher; None means on this machine (`synth.teachers.open_teacher`).
        execute: Where sources are read and filtered; None means on this machine (`synth.executors.locally`).

    Raises:
        PrimerError: If a source cannot be read, or the teacher cannot be used.
    """
    if "synthetic" in recipe.needed_sources():
        _check_prompts(recipe)
    work = Work(recipe, run, partial(asker, open_pool=open_pool), execute)
    made: list[str] = []
    for source in recipe.needed_sources():
        if source == "synthetic":
            run.complete(_synthetic_stage(work, tuple(made)))
        else:
            complete_corpus(work, source, tuple(made))
        made.append(f"corpus/{source}")
        write_cards(recipe, run, made[-1:])
    report_corpora(recipe, run, made)
    write_cards(recipe, run, made)  # now with what was measured of them


def filtering(recipe: Recipe, run: RunFolder, execute: Execute | None = None) -> Work:
    """What the stages of one corpus need, for commands that take them singly (:mod:`synth.filtered`)."""
    return Work(recipe, run, asker, execute)


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
            complete_corpus(Work(recipe, run, asker), "web", ())
    web = path / "corpus" / "web" if recipe.prompts.snippet_share > 0 else None
    folder = shard_folder(path, shard)
    with locked(folder):
        build_shard(recipe, folder, shard, web, asker(recipe.synth, folder))


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


def asker(synth: Synth, folder: Path, open_pool: OpenPool | None = None) -> Asker:
    """How a section's teacher is asked.

    Args:
        synth: The section.
        folder: A run folder, or a shard's, where batches under way are noted.
        open_pool: Opens a teacher that answers at once; None means on this machine.
    """
    from synth.engine import asking
    from synth.teachers import open_teacher

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


def _synthetic_stage(work: Work, reads: tuple[str, ...]) -> Stage:
    from prompts.stream import material
    from synth.teachers import teacher_identity

    recipe, run = work.recipe, work.run

    def build(folder: Path) -> Built:
        from synth.merge import INDEX
        from synth.synthetic import build_synthetic

        web = run.folder("corpus/web") if "corpus/web" in reads else None
        earlier = [run.folder(stage) / INDEX for stage in reads]
        return build_synthetic(recipe, folder, run.path, web, earlier, work.ask(recipe.synth, run.path))

    made_of = material(recipe) | LAYOUT | {"teacher": teacher_identity(recipe.synth.teacher)}
    made_of |= benchmark_material(data_folder(recipe.eval.data))  # passages and texts are compared with them
    return Stage("corpus/synthetic", stage_settings(recipe, "corpus/synthetic"), build, reads, made_of)
