"""Recipes, files and texts for the tests of the sources."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from primer.documents import SPLITS, read_documents
from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_corpora import Code, Corpus, HubDataset, LocalFiles, Repositories, Web, WebSample
from synth.sources import AnySource, open_source
from synth.text import SourceText

WIKIPEDIA = WebSample(kind="wikipedia_sample")


def recipe(source: WebSample | HubDataset | LocalFiles, seed: int = 0, held_out: float = 0.3, **web: Any) -> Recipe:
    return Recipe(
        name="x", seed=seed, web=Web(source=source, **web), corpus=Corpus(held_out_share=held_out), code=Code()
    )


def files(*paths: Path | str, column: str = "text") -> LocalFiles:
    return LocalFiles(kind="files", paths=[str(p) for p in paths], text_column=column)


def repositories(*paths: Path | str, suffixes: tuple[str, ...] = (".py",)) -> Repositories:
    return Repositories(kind="repositories", paths=[str(p) for p in paths], suffixes=list(suffixes))


def prose(n: int, words: int = 50) -> str:
    return f"Document number {n} " + " ".join(f"word{n}x{i}" for i in range(words)) + "."


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    return [row for s in ([split] if split else SPLITS) for row in read_documents(folder, s)]


def parts_of(source: AnySource, seed: int = 0, characters: int = 3_000_000) -> list[list[SourceText]]:
    """Every text of a source, part by part."""
    opened = open_source(source, "web.source", seed, characters)
    return [list(opened.read(part)) for part in range(opened.parts)]


def texts_of(source: AnySource, seed: int = 0, characters: int = 3_000_000) -> list[str]:
    return [text.text for part in parts_of(source, seed, characters) for text in part]


def problem(source: AnySource) -> str:
    """The message of the error that reading a source gives."""
    with pytest.raises(PrimerError) as caught:
        parts_of(source)
    return f"{caught.value}"
