"""The code corpus, which every variant shares (phi-1.5 kept its code share at 20%, arXiv 2309.05463, section 2.4)."""

from __future__ import annotations

from pathlib import Path

from primer.recipe import Recipe
from primer.run import Built
from synth.sources import build_corpus

# A file with fewer words teaches nothing about code (an empty `__init__.py`, a licence line).
MIN_WORDS = 10


def build_code(recipe: Recipe, folder: Path, exclude: set[str]) -> Built:
    """Fill the folder of the stage `corpus/code` from `code.source`.

    Args:
        recipe: The recipe.
        folder: The stage's folder.
        exclude: Hashes of documents that other corpora hold already.

    Raises:
        PrimerError: If the source cannot be read or holds too little.
    """
    return build_corpus(recipe, "code", folder, MIN_WORDS, exclude)
