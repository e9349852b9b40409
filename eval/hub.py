"""Benchmarks from the Hugging Face hub, kept as JSON Lines in a cache that looks like a folder of benchmark data."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from primer.progress import say

# Seconds that the hub may take to answer at all.
_PATIENCE = 5.0

# Its client tries again and again where it answers with errors or stalls. A failure that took so many seconds is the
# last one of a command: there are fifteen more data sets.
_SLOW = 15.0
_troubles: list[str] = []


def cache_folder() -> Path:
    """Where fetched benchmarks lie: `$PRIMER_CACHE/benchmarks`, by default below ~/.cache/primer."""
    home = (
        os.environ.get("PRIMER_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "primer"
    )
    return Path(home) / "benchmarks"


def fetch_benchmark(folder: str, where: Mapping[str, str]) -> str | None:
    """Bring a benchmark into the cache.

    Args:
        folder: Its folder there.
        where: `path` of the data set, `split`, and perhaps `name`, `revision` and `examples`, a further split.

    Returns:
        None, or why it cannot be had.
    """
    obstacle = _troubles[0] if _troubles else _obstacle()
    if obstacle is not None:
        return obstacle
    started = time.monotonic()
    try:
        for split in (where["split"], where.get("examples")):
            if split is not None:
                _fetch_split(where, split, cache_folder() / folder / f"{split}.jsonl")
    except Exception as error:  # the hub's client raises dozens of types, of the network, the data set and the disk
        first = str(error).strip().splitlines() or [""]
        reason = f"{where['path']} cannot be fetched from the hub ({type(error).__name__}: {first[0][:200]})"
        if time.monotonic() - started > _SLOW:
            _troubles.append(reason)
        return reason
    return None


@cache
def _obstacle() -> str | None:
    """Why there is no use in asking the hub, found out once."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE forbids to ask the hub"
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_PATIENCE):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # it answers
    except (OSError, ValueError) as error:
        return f"the Hugging Face hub does not answer ({getattr(error, 'reason', error)})"


def _fetch_split(where: Mapping[str, str], split: str, path: Path) -> None:
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    say(f"Fetching {where['path']}, {split}, from the Hugging Face hub.")
    disable_progress_bar()
    rows = load_dataset(where["path"], where.get("name"), split=split, revision=where.get("revision"))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
