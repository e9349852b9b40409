"""What the teacher writes for the code corpus: textbook sections on Python, and exercises whose solutions were run.

As in phi-1's recipe (arXiv 2306.11644, sections 2.2 and 2.3). Both come from prompt streams of their own, over the
topics that are about programming, and end as folders like those of a refined source: `part-00000-<shard>.parquet` and
`part-00000.signatures.npy`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from primer.benchmarks import benchmark_material, data_folder
from primer.documents import LAYOUT, ShardWriter
from primer.fingerprint import stage_settings
from primer.progress import say
from primer.recipe import Prompts, Recipe, Topics
from primer.recipe_corpora import CodeExercises, CodeTextbooks
from primer.run import Built, Stage
from primer.sandbox import Sandbox
from prompts.stream import PromptStream, material
from prompts.tables import PROMPTS_FOLDER
from synth.engine import Asker, Outcome, generate
from synth.exercises import REASONS
from synth.exercises_judge import ExerciseJudge, Verdicts
from synth.plan import generation_facts, make_plan, open_journal
from synth.provenance import document
from synth.screened import Screened, judging
from synth.shards import shard_journals
from synth.signatures import SignatureWriter, signature
from synth.teachers import teacher_identity
from synth.units import Attempt, Judging
from synth.view import View

if TYPE_CHECKING:
    from synth.filtered import Work

FORMS_FOLDER = PROMPTS_FOLDER / "code_forms"
FIELDS = ["python-programming", "computing"]

_TEXTBOOK_FORMS = {"python-textbook-section": 3.0, "python-lesson": 1.0, "python-mistake": 1.0, "python-trace": 1.0}
_EXERCISE_FORMS = {"python-exercise": 1.0}

# A function with a docstring is short, and its tests do not count.
_EXERCISE_WORDS = 20

# Why an exercise that has passed its tests is left out all the same.
_AFTER_PASSING = ("too_short", "contaminated", "duplicate", "near_duplicate")


def written_stages(work: Work) -> list[Stage]:
    """The stages of what the teacher writes for the code corpus; none for what the recipe leaves out."""
    recipe, run = work.recipe, work.run.path
    stages = []
    if recipe.code.textbooks is not None:
        asked = textbooks_recipe(recipe, recipe.code.textbooks)

        def textbooks(folder: Path) -> Built:
            return build_textbooks(asked, folder, run, work.ask(asked.synth, run))

        stages.append(_stage("textbooks", recipe, asked, textbooks))
    if recipe.code.exercises is not None:
        settings = recipe.code.exercises
        tried = exercises_recipe(recipe, settings)

        def exercises(folder: Path) -> Built:
            return build_exercises(tried, settings, folder, run, work.ask(tried.synth, run))

        stages.append(_stage("exercises", recipe, tried, exercises))
    return stages


def textbooks_recipe(recipe: Recipe, settings: CodeTextbooks) -> Recipe:
    """The recipe of the prompt stream that textbook sections on Python come from."""
    return _derived(recipe, settings, Prompts(forms=_TEXTBOOK_FORMS))


def exercises_recipe(recipe: Recipe, settings: CodeExercises) -> Recipe:
    """The recipe of the prompt stream that exercises come from."""
    prompts = Prompts(forms=_EXERCISE_FORMS, lengths={"usual": 1.0}, registers={"plain": 1.0, "terse": 1.0})
    derived = _derived(recipe, settings, prompts)
    accept = derived.synth.accept
    # Half a function is none; and whether a reply was cut short is seen by whether it runs.
    accept = accept.model_copy(update={"truncated": "drop", "min_words": min(accept.min_words, _EXERCISE_WORDS)})
    return derived.model_copy(update={"synth": derived.synth.model_copy(update={"accept": accept})})


def build_textbooks(recipe: Recipe, folder: Path, run: Path, ask: Asker) -> Built:
    """Fill the folder of the stage `written/textbooks`.

    Args:
        recipe: What `textbooks_recipe` made of the experiment's.
        folder: The stage's folder.
        run: The run folder, for the journal of replies.
        ask: How the teacher is asked.

    Raises:
        PrimerError: See :func:`synth.engine.generate`.
    """
    with judging(recipe, folder, "textbook") as (judge, screened):
        outcome, facts = _write("textbook", recipe, folder, run, ask, judge, screened)
    return Built(_summary(outcome), facts)


def build_exercises(recipe: Recipe, settings: CodeExercises, folder: Path, run: Path, ask: Asker) -> Built:
    """Fill the folder of the stage `written/exercises` with those whose solutions pass their tests in the sandbox.

    Args:
        recipe: What `exercises_recipe` made of the experiment's.
        settings: Limits of a run.
        folder: The stage's folder.
        run: The run folder, for the journals of replies and of verdicts.
        ask: How the teacher is asked.

    Raises:
        PrimerError: See :func:`synth.engine.generate`; and if there is no sandbox on this machine.
    """
    with (
        Sandbox() as sandbox,
        Verdicts(run / "journal" / "verdicts.jsonl") as verdicts,
        judging(recipe, folder, "exercise") as (judge, screened),
    ):
        trying = ExerciseJudge(judge, settings, sandbox, verdicts)
        outcome, facts = _write("exercise", recipe, folder, run, ask, trying, screened)
    tried = outcome.accepted + outcome.rejected.total()
    passed = outcome.accepted + sum(outcome.rejected[reason] for reason in _AFTER_PASSING)
    by_reason = {reason: outcome.rejected[reason] for reason in REASONS if outcome.rejected[reason]}
    facts |= {"tried": tried, "passed": passed, "by_reason": by_reason}
    return Built(f"{_summary(outcome)}; {passed:,d} of {tried:,d} exercises passed their tests", facts)


def _derived(recipe: Recipe, amount: CodeTextbooks | CodeExercises, prompts: Prompts) -> Recipe:
    prompts = prompts.model_copy(update={"folders": [str(FORMS_FOLDER)], "snippet_share": 0.0})
    synth = recipe.synth.model_copy(update={"tokens": amount.tokens, "documents": amount.documents})
    return recipe.model_copy(update={"topics": Topics(fields=FIELDS), "prompts": prompts, "synth": synth})


def _stage(name: str, recipe: Recipe, derived: Recipe, build: Callable[[Path], Built]) -> Stage:
    made_of = material(derived) | LAYOUT | {"teacher": teacher_identity(recipe.synth.teacher)}
    if recipe.corpus.decontaminate:
        made_of |= benchmark_material(data_folder(recipe.eval.data))
    return Stage(f"written/{name}", stage_settings(recipe, f"written/{name}"), build, (), made_of)


def _write(
    kind: str, recipe: Recipe, folder: Path, run: Path, ask: Asker, judge: Judging, screened: Screened
) -> tuple[Outcome, dict[str, Any]]:
    """Generate documents into a folder, up to the recipe's tokens or documents; what came of it."""
    synth, stage = recipe.synth, f"written/{kind}s"
    plan = replace(make_plan(synth), section=f"code.{kind}s")
    stream = PromptStream(recipe, [])
    forms: Counter[str] = Counter()
    for path in folder.glob("part-*"):  # of a build that was interrupted
        path.unlink()
    shards = ShardWriter(folder, "part-00000")
    with (
        open_journal(run / "journal" / "replies.jsonl", synth, shard_journals(run), purpose=stage) as journal,
        SignatureWriter(folder / "part-00000.signatures.npy") as signatures,
    ):
        say(f"  the teacher is {escape(plan.identity)}")

        def accept(attempt: Attempt) -> None:
            row = screened.accepted(attempt.unit.index, document(attempt, plan.identity, synth.sampling))
            row["source"] = "code"
            shards.add(row)
            signatures.add(signature(row["text"], recipe.corpus.duplicates.words))
            forms[attempt.unit.form] += 1

        fields = len({topic.field for topic in stream.topics})
        view = View(run / "progress.json")
        outcome = generate(stream, plan, judge, journal, ask, accept, view, title=stage, fields=fields)
        shards.finish()
        facts = generation_facts(plan.identity, outcome, journal)
    return outcome, facts | screened.facts() | {
        "origin": f"Written by {plan.identity}",
        "tokens": outcome.tokens,
        "forms": dict(sorted(forms.items())),
    }


def _summary(outcome: Outcome) -> str:
    share = outcome.accepted / outcome.units
    return f"{outcome.accepted:,d} documents, {outcome.tokens:,d} tokens ({share:.0%} of {outcome.units:,d} prompts)"
