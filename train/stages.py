"""The stages of training: `tokens`, then `models/<variant>` for each variant of the recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from primer.fingerprint import stage_settings
from primer.recipe import Recipe, Variant
from primer.run import Built, RunFolder, Stage


def train_variants(recipe: Recipe, run: RunFolder) -> None:
    """Tokenise the corpora and train every variant; what is complete is skipped, what is half done continues.

    All variants start from the same weights (one seed) and see the same number of tokens, and the n-th sequence of a
    source is the same for all: their differences come of the mixture of the data alone.

    Raises:
        PrimerError: If a corpus is missing or too small for the budget, or the machine cannot train this model.
        KeyboardInterrupt: If a signal asked to stop; a checkpoint has been saved.
    """
    run.complete(
        Stage(
            name="tokens",
            settings=stage_settings(recipe, "tokens"),
            reads=tuple(f"corpus/{source}" for source in recipe.used_sources()),
            build=partial(_tokens, recipe, run),
        )
    )
    for variant in recipe.variants:
        run.complete(
            Stage(
                name=f"models/{variant.name}",
                settings={**stage_settings(recipe, "train"), "variant": variant.model_dump(mode="json")},
                reads=("tokens",),
                build=partial(_model, recipe, variant, run),
            )
        )


# PyTorch and tokenizers are imported only where there is something to build.
def _tokens(recipe: Recipe, run: RunFolder, folder: Path) -> Built:
    from train.build import build_tokens

    return build_tokens(recipe, run, folder)


def _model(recipe: Recipe, variant: Variant, run: RunFolder, folder: Path) -> Built:
    from train.build import build_model

    return build_model(recipe, variant, run, folder)
