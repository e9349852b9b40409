"""Texts from a data set on the Hugging Face hub, streamed: nothing is stored but the corpus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from primer.recipe_corpora import HubDataset
from synth.local_files import missing_column, wrong_type
from synth.parts import parts_wanted
from synth.text import SourceText

# Rows among which the stream is shuffled; shards are shuffled too.
SHUFFLE_BUFFER = 1_000
_PROBE_SECONDS = 10.0
# The library's own 20 tries at 5 to 60 seconds keep a person waiting for minutes for a line that is down.
_STREAM_TRIES = 5


@dataclass(frozen=True)
class HubInfo:
    """What the hub says of a data set: its commit and its licence, where known."""

    revision: str | None = None
    licence: str | None = None


def describe(source: HubDataset) -> str:
    """The data set in a few words, such as `HuggingFaceFW/fineweb (sample-10BT), split train`."""
    name = f" ({source.name})" if source.name else ""
    return f"{source.path}{name}, split {source.split}"


def probe_hub(source: HubDataset, key: str) -> HubInfo:
    """Ask the hub for a data set, once and with a short timeout, before anything that retries.

    Raises:
        PrimerError: If the hub cannot be reached, or does not have the data set.
    """
    if Path(source.path).is_dir():
        return HubInfo()  # a local folder that `datasets` reads as a data set
    import huggingface_hub
    from huggingface_hub import errors

    try:
        info = huggingface_hub.HfApi().dataset_info(source.path, timeout=_PROBE_SECONDS)
    except errors.GatedRepoError:
        raise PrimerError(
            f"{key}: the data set {source.path!r} is gated.",
            "Ask for access on its page, log in with `hf auth login`, and run again.",
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise PrimerError(
            f"{key}: the hub has no data set {source.path!r} (or it is private, and you are not logged in).",
            "Check source.path on huggingface.co/datasets.",
        ) from None
    except errors.OfflineModeIsEnabled:
        raise PrimerError(
            f"{key}: the data set {source.path!r} is on the hub, and HF_HUB_OFFLINE forbids asking it.",
            "Unset HF_HUB_OFFLINE, or use local files (source.kind: files).",
        ) from None
    except Exception as error:
        raise _unreachable(source, key, error) from error
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    return HubInfo(revision=info.sha, licence=str(licence) if licence else None)


def hub_parts(source: HubDataset, info: HubInfo, key: str, characters: int) -> int:
    """The number of parts that a data set is read in, no more than its files and their row groups allow.

    Raises:
        PrimerError: If the configuration, split or column is unknown, or the hub does not answer.
    """
    wanted = parts_wanted(characters)
    with _short_retries():
        try:
            stream = _open(source, info, wanted)
            columns = stream.column_names
        except Exception as error:
            raise _load_error(source, key, error) from error
    if columns and source.text_column not in columns:
        raise missing_column(source.text_column, columns, f"{key}: {describe(source)}")
    return min(wanted, int(stream.num_shards))


def read_hub(source: HubDataset, info: HubInfo, key: str, seed: int, parts: int, part: int) -> Iterator[SourceText]:
    """Stream one part of a data set in an order that the seed shuffles.

    Args:
        source: The data set.
        info: The commit to read.
        key: The recipe key it comes from, for messages.
        seed: Seed of the order.
        parts: The number of parts (`hub_parts`).
        part: Which of them, from 0.

    Raises:
        PrimerError: If the configuration, split or column is unknown, or the stream breaks off.
    """
    with _short_retries():
        try:
            # Every so-many-th file, for a data set may be sorted (by date, by length). Files are dealt before they are
            # shuffled, as the library needs it.
            stream = _open(source, info, parts).shard(num_shards=parts, index=part, contiguous=False)
            rows = iter(stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER))
            first = next(rows, None)
        except Exception as error:
            raise _load_error(source, key, error) from error
        if first is None:
            return
        if source.text_column not in first:
            raise missing_column(source.text_column, list(first), f"{key}: {describe(source)}")
        for row in _guarded(itertools.chain([first], rows), source, key):
            yield _row_text(row, source, info, key)


def _open(source: HubDataset, info: HubInfo, parts: int) -> Any:
    """The data set as a stream of at least this many shards (files, or parts of files), if it has them."""
    import datasets

    stream = datasets.load_dataset(source.path, source.name, split=source.split, revision=info.revision, streaming=True)
    return stream if stream.num_shards >= parts else stream.reshard()


def _row_text(row: dict[str, Any], source: HubDataset, info: HubInfo, key: str) -> SourceText:
    text, title, url = row.get(source.text_column), row.get("title"), row.get("url")
    if text is not None and not isinstance(text, str):
        raise wrong_type(source.text_column, text, f"{key}: {describe(source)}")
    return SourceText(
        text=text or "",
        title=title if isinstance(title, str) else None,
        origin=url if isinstance(url, str) else describe(source),
        licence=info.licence,
    )


def _guarded(rows: Iterator[dict[str, Any]], source: HubDataset, key: str) -> Iterator[dict[str, Any]]:
    """The same rows; what the library raises on the way becomes an error for people."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise _load_error(source, key, error) from error
        yield row


def _load_error(source: HubDataset, key: str, error: Exception) -> PrimerError:
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and ("BuilderConfig" in text or "Config name is missing" in text):
        return PrimerError(
            f"{key}: {source.path} has no configuration {source.name!r}: {text}", "Set source.name to one of them."
        )
    if isinstance(error, ValueError) and ("Bad split" in text or "Unknown split" in text):
        return PrimerError(
            f"{key}: {describe(source)}: {text}", "Set source.split to one of them (slices cannot be streamed)."
        )
    if isinstance(error, FileNotFoundError | ValueError | RuntimeError):
        return PrimerError(
            f"{key}: {describe(source)} cannot be read: {text}", "Check the data set's files and source.path."
        )
    return _unreachable(source, key, error)


def _unreachable(source: HubDataset, key: str, error: Exception) -> PrimerError:
    detail = " ".join(str(error).split())[:300]
    return PrimerError(
        f"{key}: {describe(source)} cannot be read from the hub ({type(error).__name__}: {detail}).",
        "Check the connection (HF_ENDPOINT names the hub, if it is set) and run again, "
        "or use local files (source.kind: files).",
    )


@contextmanager
def _short_retries() -> Iterator[None]:
    """Let the library try again a few times, for seconds rather than minutes."""
    from datasets import config

    names = ("STREAMING_READ_MAX_RETRIES", "STREAMING_OPEN_MAX_RETRIES")
    before = {name: getattr(config, name) for name in names}
    for name in names:
        setattr(config, name, _STREAM_TRIES)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
