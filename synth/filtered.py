"""The stages that make a corpus out of a source: labels, a filter, the refined source, and the corpus itself.

    labels/web     a teacher scores samples of the source          only where the recipe has web.quality
    filter/web     a classifier learns the scores                  and names no trained filter
    refined/web    the source read, filtered, screened, in parallel tasks
    corpus/web     without duplicates, divided into training and held-out text

Code has the same, and beside its refined source what the teacher wrote: written/textbooks, written/exercises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from primer.benchmarks import benchmark_material, data_folder
from primer.documents import LAYOUT
from primer.errors import PrimerError
from primer.fingerprint import file_hash, fingerprint, stage_settings
from primer.progress import say
from primer.recipe import Recipe
from primer.recipe_corpora import Quality
from primer.recipe_synth import Synth
from primer.run import Built, Manifest, RunFolder, Stage
from synth.refine import CorpusName, section

if TYPE_CHECKING:
    from synth.engine import Asker
    from synth.executors import Execute


@dataclass(frozen=True)
class Work:
    """What every stage needs.

    Attributes:
        recipe: The experiment.
        run: Its folder.
        ask: How a section's teacher is asked, with the folder for notes of batches.
        execute: Where the tasks of a source run; None: on this machine.
    """

    recipe: Recipe
    run: RunFolder
    ask: Callable[[Synth, Path], Asker]
    execute: Execute | None = None


def complete_corpus(work: Work, name: CorpusName, earlier: tuple[str, ...]) -> Manifest:
    """Bring a corpus to completion, with all the stages before it.

    Args:
        work: What to do.
        name: The corpus.
        earlier: Stages of the corpora whose texts it must not repeat.

    Raises:
        PrimerError: If the source cannot be read, or the teacher cannot be used.
    """
    complete_refined(work, name)
    parts = [f"refined/{name}"]
    if name == "code":
        parts += _complete_written(work)
    return work.run.complete(_corpus_stage(work, name, tuple(parts), earlier))


def complete_refined(work: Work, name: CorpusName) -> Manifest:
    """Bring the refined source of a corpus to completion, with its filter if it has one."""
    quality = section(work.recipe, name).quality
    if quality is not None and quality.trained is None:
        complete_filter(work, name)
    return work.run.complete(_refined_stage(work, name))


def complete_filter(work: Work, name: CorpusName) -> Manifest:
    """Bring the filter of a corpus to completion, with its labels."""
    complete_labels(work, name)
    return work.run.complete(_filter_stage(work, name))


def complete_labels(work: Work, name: CorpusName) -> Manifest:
    """Bring the labels of a corpus's samples to completion."""
    return work.run.complete(_labels_stage(work, name))


def quality_of(recipe: Recipe, name: CorpusName) -> Quality:
    """The recipe's filter of a corpus, which must be one that is trained here.

    Raises:
        PrimerError: If the recipe has none, or names one that is trained already.
    """
    quality = section(recipe, name).quality
    if quality is None:
        raise PrimerError(
            f"The recipe has no {name}.quality: no filter is trained for {name}.",
            f"Add it, for example: --set {name}.quality.samples=1000 --set {name}.quality.keep=0.3",
        )
    if quality.trained is not None:
        raise PrimerError(
            f"{name}.quality.trained names a filter that is trained already ({quality.trained}).",
            "Leave it out to train one from this recipe's source.",
        )
    return quality


def _labels_stage(work: Work, name: CorpusName) -> Stage:
    from prompts.rubrics import rubric_material
    from synth.plan import scoring
    from synth.sources import source_material
    from synth.teachers import teacher_identity

    recipe, run, quality = work.recipe, work.run, quality_of(work.recipe, name)
    teacher = scoring(recipe.synth, quality, f"{name}.quality")

    def build(folder: Path) -> Built:
        from synth.annotate import build_labels
        from synth.refine import sample_texts

        return build_labels(recipe, name, sample_texts(recipe, name), folder, run.path, work.ask(teacher, run.path))

    source = section(recipe, name).source
    material = source_material(source, f"{name}.source") | rubric_material(quality, name)
    material |= {"teacher": teacher_identity(teacher.teacher)}
    return Stage(f"labels/{name}", stage_settings(recipe, f"labels/{name}"), build, (), material)


def _filter_stage(work: Work, name: CorpusName) -> Stage:
    recipe, run, quality = work.recipe, work.run, quality_of(work.recipe, name)
    labels = f"labels/{name}"

    def build(folder: Path) -> Built:
        from synth.annotate import LABELS
        from synth.quality_training import build_filter

        return build_filter(run.folder(labels) / LABELS, folder, quality, recipe.seed)

    return Stage(f"filter/{name}", stage_settings(recipe, f"filter/{name}"), build, (labels,))


def _refined_stage(work: Work, name: CorpusName) -> Stage:
    from synth.sources import source_material

    recipe, run = work.recipe, work.run
    settings = section(recipe, name)
    material = source_material(settings.source, f"{name}.source") | LAYOUT
    reads: tuple[str, ...] = ()
    filter_folder: Path | None = None
    if settings.quality is not None and settings.quality.trained is not None:
        filter_folder = Path(settings.quality.trained).expanduser()
        material |= {"filter": _filter_hash(filter_folder, f"{name}.quality.trained")}
    elif settings.quality is not None:
        filter_folder, reads = run.folder(f"filter/{name}"), (f"filter/{name}",)
    if recipe.corpus.decontaminate:
        material |= benchmark_material(data_folder(recipe.eval.data))

    def build(folder: Path) -> Built:
        from synth.executors import locally
        from synth.refine import build_refined

        if settings.quality is not None and filter_folder is not None:
            _warn_of_other_rubric(filter_folder, settings.quality, name)
        execute = work.execute or locally(recipe.corpus.workers)
        return build_refined(recipe, name, folder, filter_folder, execute)

    return Stage(f"refined/{name}", stage_settings(recipe, f"refined/{name}"), build, reads, material)


def _corpus_stage(work: Work, name: CorpusName, parts: tuple[str, ...], earlier: tuple[str, ...]) -> Stage:
    recipe, run = work.recipe, work.run

    def build(folder: Path) -> Built:
        from synth.merge import build_corpus

        return build_corpus(recipe, name, folder, run, parts, earlier)

    return Stage(f"corpus/{name}", stage_settings(recipe, f"corpus/{name}"), build, (*parts, *earlier), LAYOUT)


def _complete_written(work: Work) -> list[str]:
    """The stages of what the teacher writes for the code corpus, those that the recipe has."""
    from synth.code_writing import written_stages

    stages = written_stages(work)
    for stage in stages:
        work.run.complete(stage)
    return [stage.name for stage in stages]


def _warn_of_other_rubric(folder: Path, quality: Quality, name: CorpusName) -> None:
    from prompts.rubrics import rubric_of
    from synth.quality_filter import other_rubric

    wanted = rubric_of(quality, name).name
    if (rubric := other_rubric(folder, wanted)) is not None:
        say(
            f"  [yellow]The filter in {escape(str(folder))} was trained by the rubric {escape(rubric)}[/], and "
            f"{name} is to be filtered by {wanted}. If that is meant, set {name}.quality.rubric to {escape(rubric)}."
        )


def _filter_hash(folder: Path, key: str) -> str:
    """A hash of a trained filter's files.

    Raises:
        PrimerError: If they are not there.
    """
    from synth.quality_filter import FILES

    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise PrimerError(
            f"{key} names {str(folder)!r}, which holds no trained filter (there is no {missing[0]}).",
            "Name the folder filter/web (or filter/code) of a run, or a copy of it.",
        )
    return fingerprint({name: file_hash(folder / name) for name in FILES})
