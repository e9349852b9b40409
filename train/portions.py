"""How much of each source a variant trains on, and how often that source comes back: arithmetic alone, no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from primer.errors import PrimerError
from primer.recipe import Recipe, SourceName, Variant

_REMEDIES: dict[SourceName, str] = {
    "synthetic": "collect more (synth.tokens)",
    "web": "take more (web.characters)",
    "code": "take more (code.characters)",
}


@dataclass(frozen=True)
class Portion:
    """What one source gives to the training of one variant.

    Attributes:
        source: The source.
        asked: Share of the tokens that the recipe asks for.
        share: Share of the tokens that it will be: whole sequences.
        tokens: It is trained on, repetitions included.
        available: Tokens there are.
        passes: How often each of them is seen.
    """

    source: SourceName
    asked: float
    share: float
    tokens: int
    available: int
    passes: float


def budget_sequences(recipe: Recipe) -> int:
    """Sequences that every variant trains on, whatever its sources: `train.tokens` in whole batches."""
    return recipe.train.tokens // recipe.train.batch_tokens * (recipe.train.batch_tokens // recipe.model.context)


def apportion(shares: Mapping[SourceName, float], sequences: int) -> dict[SourceName, int]:
    """Divide a number of sequences among sources: each exact share rounded up or down, by the largest remainders.

    No division into whole sequences is nearer to the shares. With m sources none is further from its share than
    1 - 1/m of a sequence: of 1,000 sequences and three sources, 0.07 percentage points.
    """
    total = sum(shares.values())
    exact = {source: sequences * share / total for source, share in shares.items() if share > 0}
    found = {source: int(number) for source, number in exact.items()}
    rest = sequences - sum(found.values())
    for source in sorted(exact, key=lambda source: (found[source] - exact[source], source))[:rest]:
        found[source] += 1
    assert sum(found.values()) == sequences
    return found


def portions(recipe: Recipe, variant: Variant, available: Mapping[SourceName, int]) -> list[Portion]:
    """What each source gives to a variant, in the order of its mixture.

    Args:
        recipe: The experiment.
        variant: One of its variants.
        available: Tokens of each source's training split.

    Raises:
        PrimerError: If a source is shorter than one sequence.
    """
    sequences, context = budget_sequences(recipe), recipe.model.context
    found = []
    for source, count in apportion(variant.mixture, sequences).items():
        windows = windows_in(available[source], context)
        if not windows:
            raise PrimerError(
                f"The training text of corpus/{source} comes to {available[source]:,} tokens, fewer than one sequence "
                f"of {context + 1:,} (model.context + 1).",
                f"For {source}, {_REMEDIES[source]}, or lower model.context.",
            )
        passes = count / windows
        share = count / sequences
        found.append(Portion(source, variant.mixture[source], share, count * context, available[source], passes))
    return found


def mixed_portions(recipe: Recipe, available: Mapping[SourceName, int]) -> dict[str, list[Portion]]:
    """The portions of every variant, by its name.

    Raises:
        PrimerError: If a source is shorter than one sequence.
    """
    return {variant.name: portions(recipe, variant, available) for variant in recipe.variants}


def windows_in(tokens: int, context: int) -> int:
    """Sequences that so many tokens hold. Neighbours share a token: one's last target is the next one's first input."""
    return max(0, tokens - 1) // context


def repetition_warnings(recipe: Recipe, mixed: Mapping[str, Sequence[Portion]]) -> dict[str, list[str]]:
    """By variant, a sentence for each source that would be seen more often than `train.max_epochs`.

    Args:
        recipe: The experiment.
        mixed: The portions of every variant (`mixed_portions`).
    """
    most = recipe.train.max_epochs
    fits = largest_budget(recipe, mixed)
    fewer = f", or lower train.tokens to {fits:,} for every variant" if fits else ""
    return {
        name: [
            f"{part.source} is seen {part.passes:.1f} times, more than train.max_epochs ({most:g}): "
            f"{part.tokens:,} tokens out of {part.available:,}. {_REMEDIES[part.source].capitalize()}{fewer}."
            for part in parts
            if part.passes > most
        ]
        for name, parts in mixed.items()
    }


def largest_budget(recipe: Recipe, mixed: Mapping[str, Sequence[Portion]]) -> int:
    """The `train.tokens`, in whole batches, with which no variant sees a source more often than allowed; 0 if none."""
    context, batch = recipe.model.context, recipe.train.batch_tokens
    sequences = min(
        (int(windows_in(part.available, context) * recipe.train.max_epochs) - 1) / part.asked
        for parts in mixed.values()
        for part in parts
    )
    return max(0, int(sequences * context) // batch * batch)
