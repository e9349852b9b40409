"""What a teacher is asked beside the textbooks: scores for quality filters, and what it writes for the code corpus."""

from __future__ import annotations

from dataclasses import dataclass

from primer.recipe import Recipe
from primer.recipe_corpora import Quality
from synth.estimate import ASSUMED, SAMPLED, Work, estimate_work
from synth.estimate_measured import Measured
from synth.refine import CorpusName, section

# A rubric asks for one sentence and a digit.
_SCORE_WORDS = 35


@dataclass(frozen=True)
class Further:
    """One more stage that asks a teacher.

    Attributes:
        stage: Its name.
        recipe: The experiment, with the teacher and the sampling of this stage as those of `synth`.
        work: What it takes.
    """

    stage: str
    recipe: Recipe
    work: Work


def estimate_further(recipe: Recipe) -> list[Further]:
    """The stages that ask a teacher before the textbooks are written, in the order in which they are made.

    Raises:
        PrimerError: If the prices of a filter's teacher are not known and `synth.budget` is in dollars.
    """
    found = []
    for name in recipe.needed_sources():
        if name == "synthetic":
            continue
        quality = section(recipe, name).quality
        if quality is not None and quality.trained is None:
            found.append(_labels(recipe, name, quality))
        if name == "code":
            found += _written(recipe)
    return found


def _labels(recipe: Recipe, name: CorpusName, quality: Quality) -> Further:
    """Every text is as long as the teacher is shown at most, and every sample is there: an upper bound."""
    from prompts.rubrics import rubric_of
    from synth.plan import scoring

    plan, synth = recipe.plan, scoring(recipe.synth, quality, f"{name}.quality")
    rubric = rubric_of(quality, name).messages("", quality.words)[0]["content"]
    units = quality.samples + min(quality.repeated, quality.samples)
    usable = 1 - (1 - plan.accepted) ** (synth.accept.retries + 1)
    requests = round(units * usable / plan.accepted)
    prompt = len(rubric) / plan.characters_per_token + quality.words * plan.tokens_per_word
    reply = min(_SCORE_WORDS * plan.tokens_per_word, synth.sampling.max_tokens)
    work = Work(
        units=units,
        requests=requests,
        documents=0,
        tokens=0,
        prompt_tokens=round(requests * prompt),
        completion_tokens=round(requests * reply),
        accepted=usable,
        most_steps=1,
        passages=0.0,
        origin={"accepted": ASSUMED, "prompt_tokens": SAMPLED, "completion_tokens": ASSUMED},
    )
    return Further(f"labels/{name}", recipe.model_copy(update={"synth": synth}), work)


def _written(recipe: Recipe) -> list[Further]:
    """Documents come out as `estimate_work` says; how many exercises pass their tests is assumed with the rest."""
    from synth.code_writing import exercises_recipe, textbooks_recipe

    asked = []
    if recipe.code.textbooks is not None:
        asked.append(("written/textbooks", textbooks_recipe(recipe, recipe.code.textbooks)))
    if recipe.code.exercises is not None:
        asked.append(("written/exercises", exercises_recipe(recipe, recipe.code.exercises)))
    return [Further(stage, derived, estimate_work(derived, Measured())) for stage, derived in asked]
