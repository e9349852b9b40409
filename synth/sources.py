"""From what the recipe names as a source to a corpus: reading, cleaning, exact deduplication, counting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from primer.documents import Document, write_corpus
from primer.errors import PrimerError
from primer.fingerprint import file_hash
from primer.progress import bar
from primer.recipe import HubDataset, LocalFiles, PythonLibrary, Recipe, WebSample
from primer.run import Built
from primer.words import text_hash
from synth.text import SourceText, clean

AnySource = WebSample | PythonLibrary | HubDataset | LocalFiles


@dataclass(frozen=True)
class OpenedSource:
    """A source ready to be read.

    Attributes:
        texts: The texts, in an order that the seed decides; reading may raise PrimerError.
        origin: What it is, for people.
        licence: The licence of its texts, if known.
        facts: What else the manifest should say of it.
    """

    texts: Iterator[SourceText]
    origin: str
    licence: str | None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Take:
    """What was taken from a source, and what was left out and why."""

    read: int = 0
    too_short: int = 0
    duplicates: int = 0
    documents: int = 0
    characters: int = 0
    exhausted: bool = True
    groups: set[str] = field(default_factory=set)


def open_source(source: AnySource, key: str, seed: int) -> OpenedSource:
    """Open a source of the recipe.

    Args:
        source: The source.
        key: Its key in the recipe (`web.source`), for messages.
        seed: Seed of the order of its texts.

    Raises:
        PrimerError: If it is missing, unreachable or unknown.
    """
    if isinstance(source, WebSample):
        from synth import wikipedia

        wikipedia.dump_path()
        return OpenedSource(wikipedia.read_wikipedia(seed), wikipedia.ORIGIN, wikipedia.LICENCE)
    if isinstance(source, PythonLibrary):
        from synth import python_library

        texts = python_library.read_python_library(seed)
        return OpenedSource(texts, python_library.origin(), python_library.LICENCE)
    if isinstance(source, HubDataset):
        from synth import hub

        info = hub.probe_hub(source, key)
        texts = hub.read_hub(source, info, key, seed)
        return OpenedSource(texts, hub.describe(source), info.licence, {"revision": info.revision})
    from synth import local_files

    files = local_files.find_files(source.paths, key)
    texts = local_files.read_files(source.paths, source.text_column, key, seed)
    return OpenedSource(texts, ", ".join(source.paths), None, {"files": len(files)})


def source_material(source: AnySource, key: str) -> dict[str, str]:
    """Marks of what a source reads, for `Stage.material`: when they change, the corpus is made again.

    Raises:
        PrimerError: If a packaged or local file is missing.
    """
    if isinstance(source, WebSample):
        from synth import wikipedia

        return {"wikipedia_sample": file_hash(wikipedia.dump_path())}
    if isinstance(source, PythonLibrary):
        from synth import python_library

        return {"python_library": python_library.origin()}
    if isinstance(source, LocalFiles):
        from synth import local_files

        return local_files.files_material(source.paths, key)
    return {}  # the hub is not asked before it is needed; the manifest's facts name the revision


def build_corpus(
    recipe: Recipe, name: Literal["web", "code"], folder: Path, min_words: int, exclude: set[str]
) -> Built:
    """Fill a stage's folder with the web or the code corpus.

    Args:
        recipe: The recipe.
        name: Which of the two.
        folder: The stage's folder; what an interrupted build left there is replaced.
        min_words: Shorter documents are left out.
        exclude: Hashes of documents that other corpora hold (`primer.words.text_hash`).

    Raises:
        PrimerError: If the source cannot be read, or holds no document that can be used.
    """
    section = recipe.web if name == "web" else recipe.code
    key = f"{name}.source"
    opened = open_source(section.source, key, recipe.seed)
    take = Take()
    documents = _documents(opened.texts, name, section.characters, min_words, exclude, take)
    first = next(documents, None)
    if first is None:
        raise _nothing_usable(name, opened.origin, min_words, take, section.characters)
    counts = write_corpus(folder, chain([first], documents), recipe.corpus.held_out_share, recipe.seed)
    facts = counts | opened.facts
    facts |= {
        "documents": take.documents,
        "characters": take.characters,
        "groups": len(take.groups),
        "duplicates_removed": take.duplicates,
        "too_short": take.too_short,
        "exhausted": take.exhausted,
        "origin": opened.origin,
        "licence": opened.licence,
    }
    return Built(_summary(take, opened.origin), facts)


def _documents(
    texts: Iterator[SourceText], name: str, characters: int, min_words: int, exclude: set[str], take: Take
) -> Iterator[Document]:
    """Clean documents, each text once, up to a number of characters; `take` keeps the count."""
    seen = set(exclude)
    with bar(f"corpus/{name}", characters, "characters") as progress:
        for source_text in texts:
            take.read += 1
            text = clean(source_text.text)
            if len(text.split()) < min_words:
                take.too_short += 1
                continue
            digest = text_hash(text)
            if digest in seen:
                take.duplicates += 1
                continue
            if take.characters + len(text) > characters:
                take.exhausted = False
                return
            seen.add(digest)
            group = source_text.group or digest
            document = Document(
                id=f"{name}-{take.documents:06d}",
                text=text,
                source=name,
                hash=digest,
                group=group,
                title=_plain(source_text.title),
                origin=_plain(source_text.origin),
                licence=source_text.licence,
                provenance=None,
            )
            take.documents += 1
            take.characters += len(text)
            take.groups.add(group)
            progress.update(take.characters, f"{take.documents:,} documents")
            yield document


def _plain(value: str | None) -> str | None:
    """A title or address on one line, without what Parquet or a terminal cannot take."""
    return None if value is None else " ".join(clean(value).split())[:500]


def _nothing_usable(name: str, origin: str, min_words: int, take: Take, characters: int) -> PrimerError:
    problem = f"{name}.source ({origin}) holds no usable document"
    if take.read == 0:
        return PrimerError(f"{problem}: it is empty.", "Choose another source.")
    if not take.exhausted:
        return PrimerError(
            f"{problem}: the first one is longer than {name}.characters ({characters:,}).",
            f"Raise {name}.characters or divide the texts.",
        )
    return PrimerError(
        f"{problem}: of {take.read:,} texts, {take.too_short:,} have fewer than {min_words} words and "
        f"{take.duplicates:,} are duplicates.",
        "Lower web.min_words or choose another source." if name == "web" else "Choose another source.",
    )


def _summary(take: Take, origin: str) -> str:
    left_out = [f"{take.duplicates:,} duplicates"] * bool(take.duplicates)
    left_out += [f"{take.too_short:,} too short"] * bool(take.too_short)
    ending = f" ({', '.join(left_out)} left out)" if left_out else ""
    return f"{take.documents:,} documents, {take.characters:,} characters from {origin}{ending}"
