"""The web corpus: one arm of the comparison, and where the passages inside prompts come from."""

from __future__ import annotations

from pathlib import Path

from primer.recipe import Recipe
from primer.run import Built
from synth.sources import build_corpus


def build_web(recipe: Recipe, folder: Path) -> Built:
    """Fill the folder of the stage `corpus/web` from `web.source`.

    Raises:
        PrimerError: If the source cannot be read or holds too little.
    """
    return build_corpus(recipe, "web", folder, recipe.web.min_words, exclude=set())
