"""What the recipe names as a source, opened: parts that any process can read, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from primer.fingerprint import file_hash
from primer.recipe_corpora import HubDataset, LocalFiles, PythonLibrary, Repositories, WebSample
from synth.text import SourceText

AnySource = WebSample | PythonLibrary | HubDataset | LocalFiles | Repositories


@dataclass(frozen=True)
class OpenedSource:
    """A source ready to be read.

    Attributes:
        origin: What it is, for people.
        licence: The licence of its texts, if one is known for all.
        facts: What else the manifest should say of it.
        parts: In how many parts it is read, at least 1; they depend on the recipe and the source alone.
        read: The texts of a part, counted from 0, in an order that the seed decides. It can be pickled and called in
            another process; reading may raise PrimerError, which can be pickled as well.
    """

    origin: str
    licence: str | None
    facts: dict[str, Any]
    parts: int
    read: Callable[[int], Iterator[SourceText]]


def open_source(source: AnySource, key: str, seed: int, characters: int) -> OpenedSource:
    """Open a source of the recipe.

    Args:
        source: The source.
        key: Its key in the recipe (`web.source`), for messages.
        seed: Seed of the order of its texts.
        characters: How much will be taken in all; it decides the number of parts, no more.

    Raises:
        PrimerError: If it is missing, unreachable or unknown.
    """
    match source:
        case WebSample():
            from synth import wikipedia

            wikipedia.dump_path()
            read = partial(_whole, wikipedia.read_wikipedia, seed)
            return OpenedSource(wikipedia.ORIGIN, wikipedia.LICENCE, {}, 1, read)
        case PythonLibrary():
            from synth import python_library

            read = partial(_whole, python_library.read_python_library, seed)
            return OpenedSource(python_library.origin(), python_library.LICENCE, {}, 1, read)
        case HubDataset():
            from synth import hub

            info = hub.probe_hub(source, key)
            number = hub.hub_parts(source, info, key, characters)
            read = partial(hub.read_hub, source, info, key, seed, number)
            return OpenedSource(hub.describe(source), info.licence, {"revision": info.revision}, number, read)
        case LocalFiles():
            from synth import local_files

            files = local_files.find_files(source.paths, key)
            parts = local_files.file_parts(files, characters, key, seed)
            read = partial(_files, parts, source.text_column, key)
            return OpenedSource(", ".join(source.paths), None, {"files": len(files)}, len(parts), read)
        case Repositories():
            from synth import repositories

            found = repositories.find_repositories(source.paths, source.suffixes, key)
            dealt = repositories.repository_parts(found, characters, seed)
            read = partial(_repositories, dealt, seed)
            facts = {"repositories": len(found), "files": sum(repository.files for repository in found)}
            return OpenedSource(", ".join(source.paths), None, facts, len(dealt), read)


def source_material(source: AnySource, key: str) -> dict[str, str]:
    """Marks of what a source reads, for `Stage.material`: when they change, the corpus is made again.

    Raises:
        PrimerError: If a packaged or local file is missing.
    """
    match source:
        case WebSample():
            from synth import wikipedia

            return {"wikipedia_sample": file_hash(wikipedia.dump_path())}
        case PythonLibrary():
            from synth import python_library

            return {"python_library": python_library.origin()}
        case LocalFiles():
            from synth import local_files

            return local_files.files_material(source.paths, key)
        case Repositories():
            from synth import repositories

            return repositories.repositories_material(source.paths, source.suffixes, key)
        case HubDataset() if Path(source.path).is_dir():  # a local folder that `datasets` reads
            from synth import local_files

            return local_files.states_of([path for path in Path(source.path).rglob("*") if path.is_file()])
        case HubDataset():
            return {}  # the hub is not asked before it is needed; the manifest's facts name the revision


def _whole(read: Callable[[int], Iterator[SourceText]], seed: int, _part: int) -> Iterator[SourceText]:
    """The only part of a source that is not divided."""
    return read(seed)


def _files(parts: tuple[tuple[Any, ...], ...], text_column: str, key: str, part: int) -> Iterator[SourceText]:
    from synth import local_files

    return local_files.read_files(parts[part], text_column, key)


def _repositories(parts: tuple[tuple[Any, ...], ...], seed: int, part: int) -> Iterator[SourceText]:
    from synth import repositories

    return repositories.read_repositories(parts[part], seed)
