"""The stages of training: `tokenizer` and `tokens`, then `models/<variant>` for each variant of the recipe."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from primer.fingerprint import stage_settings
from primer.progress import console, say
from primer.recipe import Recipe, Variant
from primer.run import Built, Manifest, RunFolder, Stage
from train.portions import Portion, mixed_portions, repetition_warnings

if TYPE_CHECKING:
    from train.world import World


def complete_tokenizer(recipe: Recipe, run: RunFolder) -> None:
    """The stage `tokenizer`: the vocabulary of a recipe."""
    run.complete(
        Stage(
            name="tokenizer",
            settings=stage_settings(recipe, "tokenizer"),
            reads=tuple(f"corpus/{source}" for source in recipe.used_sources()) * (recipe.tokenizer.kind == "trained"),
            build=partial(_tokenizer, recipe, run),
        )
    )


def complete_tokens(recipe: Recipe, run: RunFolder) -> Manifest:
    """The stage `tokens`: every corpus as token shards."""
    complete_tokenizer(recipe, run)
    return run.complete(
        Stage(
            name="tokens",
            settings=stage_settings(recipe, "tokens"),
            reads=("tokenizer", *(f"corpus/{source}" for source in recipe.used_sources())),
            build=partial(_tokens, recipe, run),
        )
    )


def train_variants(recipe: Recipe, run: RunFolder, world: World | None = None) -> None:
    """Tokenise the corpora and train every variant; what is complete is skipped, what is half done continues.

    All variants start from the same weights (one seed) and see the same number of tokens, and the n-th sequence of a
    source is the same for all: their differences come of the mixture of the data alone. With `train.seeds` each variant
    has further models, whose weights and order of data come from other seeds, again the same for all variants.

    Args:
        recipe: The experiment.
        run: Its folder.
        world: The processes that train together, if there are more than this one; the others `follow`.

    Raises:
        PrimerError: If a corpus is missing or shorter than one sequence, or the machine cannot train this model.
        KeyboardInterrupt: If a signal asked to stop; a checkpoint has been saved.
    """
    tokens = complete_tokens(recipe, run)
    available = {source: tokens.facts["sources"][source]["train_tokens"] for source in recipe.used_sources()}

    @cache  # said once, of all variants, before the first one that is trained
    def introduce() -> None:
        print_mixtures(recipe, mixed_portions(recipe, available))

    for number, variant in itertools.product(range(recipe.train.seeds), recipe.variants):
        seeded = recipe.model_copy(update={"seed": recipe.seed + number})
        name = recipe.model_names(variant)[number]
        run.complete(
            Stage(
                name=f"models/{name}",
                settings={**stage_settings(seeded, "train"), "variant": variant.model_dump(mode="json")},
                reads=("tokens",),
                build=partial(_model, seeded, variant, run, world, introduce),
            )
        )


def print_mixtures(recipe: Recipe, mixed: Mapping[str, Sequence[Portion]]) -> None:
    """Print what every variant is trained on, and warn of sources that come back more often than the recipe allows."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("variant", overflow="fold")
    table.add_column("source")
    for heading in ("asked", "will be", "tokens", "there are", "passes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, parts in mixed.items():
        for number, part in enumerate(parts):
            style = "yellow" if part.passes > recipe.train.max_epochs else ""
            shares = (f"{100 * part.asked:.4g}%", f"{part.share:.2%}")
            figures = (*shares, f"{part.tokens:,}", f"{part.available:,}", f"{part.passes:.2f}")
            table.add_row(name if number == 0 else "", part.source, *figures, style=style)
    console.print(table)
    for name, sentences in repetition_warnings(recipe, mixed).items():
        for sentence in sentences:
            say(f"[yellow]{name}: {sentence}[/]")


# PyTorch and tokenizers are imported only where there is something to build.
def _tokenizer(recipe: Recipe, run: RunFolder, folder: Path) -> Built:
    from train.build_tokens import build_tokenizer

    return build_tokenizer(recipe, run, folder)


def _tokens(recipe: Recipe, run: RunFolder, folder: Path) -> Built:
    from train.build_tokens import build_tokens

    return build_tokens(recipe, run, folder)


def _model(
    recipe: Recipe,
    variant: Variant,
    run: RunFolder,
    world: World | None,
    introduce: Callable[[], None],
    folder: Path,
) -> Built:
    from train.build import build_model
    from train.world import World

    introduce()
    return build_model(recipe, variant, run, world or World(), folder)
