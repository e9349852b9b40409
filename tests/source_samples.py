"""Recipes, files and texts for the tests of the sources."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from primer.documents import SPLITS, read_documents
from primer.errors import PrimerError
from primer.recipe import Code, Corpus, HubDataset, LocalFiles, Recipe, Web, WebSample
from synth.web import build_web

WIKIPEDIA = WebSample(kind="wikipedia_sample")


def recipe(source: WebSample | HubDataset | LocalFiles, seed: int = 0, held_out: float = 0.3, **web: Any) -> Recipe:
    return Recipe(
        name="x", seed=seed, web=Web(source=source, **web), corpus=Corpus(held_out_share=held_out), code=Code()
    )


def files(*paths: Path | str, column: str = "text") -> LocalFiles:
    return LocalFiles(kind="files", paths=[str(p) for p in paths], text_column=column)


def prose(n: int, words: int = 50) -> str:
    return f"Document number {n} " + " ".join(f"word{n}x{i}" for i in range(words)) + "."


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    return [row for s in ([split] if split else SPLITS) for row in read_documents(folder, s)]


def problem(source: LocalFiles | HubDataset, folder: Path) -> str:
    """The message of the error that building from a source gives; no corpus file may be left behind."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(PrimerError) as caught:
        build_web(recipe(source), folder)
    assert not list(folder.iterdir())
    return f"{caught.value}"
