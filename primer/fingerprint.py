"""What makes a stage run again: which recipe fields enter its fingerprint, and which never do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from primer.recipe import Recipe

_TEACHERS = ("synth.teacher", "web.quality.teacher", "code.quality.teacher")

# The teacher's identity enters instead, by which answers are kept: the hash of a file, not its path.
_ANYWHERE = (
    *("threads", "model", "base_url", "service", "arguments", "context", "environment", "mode", "batch"),
    *("requests_per_minute", "tokens_per_minute", "startup_seconds", "api_key_env", "price_input", "price_output"),
)

_QUALITY = ("rubric", "samples", "repeated", "words", "teacher", "sampling")
_LABELS = ("seed", "synth.accept.retries")
_WRITTEN = ("synth.sampling", "synth.accept", "corpus.duplicates", "corpus.decontaminate")

# The one place that says which fields each room's result depends on. A test holds every field of the recipe
# to be either here or in NEVER.
FIELDS: dict[str, tuple[str, ...]] = {
    "labels/web": (*_LABELS, "web.source", "web.min_words", "web.rules", *(f"web.quality.{key}" for key in _QUALITY)),
    "labels/code": (*_LABELS, "code.source", *(f"code.quality.{key}" for key in _QUALITY)),
    "filter/web": ("seed", *(f"web.quality.{key}" for key in ("good", "keep", "classifier"))),
    "filter/code": ("seed", *(f"code.quality.{key}" for key in ("good", "keep", "classifier"))),
    "refined/web": (
        *("seed", "web.source", "web.characters", "web.min_words", "web.rules", "web.screens"),
        *("corpus.decontaminate", "corpus.duplicates.words"),
    ),
    "refined/code": (
        *("seed", "code.source", "code.characters", "code.screens", "corpus.decontaminate", "corpus.duplicates.words"),
    ),
    "written/textbooks": ("seed", "code.textbooks", *_WRITTEN),
    "written/exercises": ("seed", "code.exercises", *_WRITTEN),
    "corpus/web": ("seed", "web.characters", "corpus.held_out_share", "corpus.duplicates"),
    "corpus/code": ("seed", "code.characters", "corpus.held_out_share", "corpus.duplicates"),
    "corpus/synthetic": ("seed", "topics", "prompts", "synth", "corpus"),
    "corpus/diversity": ("name", "seed"),
    "tokenizer": ("tokenizer",),
    "tokens": (),
    "train": ("seed", "model", "train"),
    "eval": ("seed", *(f"eval.{key}" for key in ("suites", "limit", "samples", "temperature", "backend"))),
    "report": ("name", "description", "seed", "variants", "eval"),
}

# Where and how fast, not what: changing these never repeats work.
NEVER: frozenset[str] = frozenset(
    {
        "synth.concurrency",
        "synth.timeout",
        "synth.patience",
        "synth.budget",
        "corpus.workers",
        # The files that a trained filter is made of enter instead.
        "web.quality.trained",
        "code.quality.trained",
        *(f"{who}.{key}" for who in _TEACHERS for key in _ANYWHERE),
        *(f"train.{key}" for key in ("device", "engine", "threads", "compile", "micro_batch", "hang_seconds")),
        *(f"train.{key}" for key in ("checkpoint_seconds", "keep_checkpoints", "keep_every", "trackers")),
        *(f"train.{key}" for key in ("validations", "validation_tokens", "prompts")),  # watched, not followed
        "train.max_epochs",  # a warning, not a result
        "train.seeds",  # each seed's model is a stage of its own
        "eval.data",  # the hashes of the files in it enter instead
        "eval.hub",  # likewise
        "eval.weak_isolation",
        "plan",  # what is foretold, not what is done
    }
)


def stage_settings(recipe: Recipe, room: str) -> dict[str, Any]:
    """The part of a recipe that the result of a room depends on, as plain JSON values."""
    data = recipe.model_dump(mode="json")
    settings: dict[str, Any] = {}
    for key in FIELDS[room]:
        value = data
        for part in key.split("."):
            value = value[part] if value is not None else None  # a section that is left out
        settings[key] = _without_never(value, key)
    return settings


def fingerprint(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()  # names of files may hold any byte


def file_hash(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two trees of plain values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(set(old) | set(new))
        return [k for key in keys for k in changed_keys(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [prefix.rstrip(".")]


def _without_never(value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without_never(v, f"{key}.{k}") for k, v in value.items() if f"{key}.{k}" not in NEVER}
