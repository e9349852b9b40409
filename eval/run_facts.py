"""What a run folder says beside its scores: manifests, training logs, sample documents, and the machine."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primer.documents import read_documents
from primer.environment import usable_cores
from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_file import load_recipe
from primer.run import Manifest, RunFolder, stage_names

# Where sample documents are looked for: a corpus of millions need not be read for a handful.
_LOOKED_AT = 50_000

# Control characters but for tab and line ends, and lone surrogates.
_UNWELCOME = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_REMEDY = "Run `primer train` to make the model again."

# Longest text of a sample that is shown, in characters.
_SHOWN = 4_000


@dataclass(frozen=True)
class Sample:
    """One document of a corpus as the report shows it.

    Attributes:
        heading: Its title or topic.
        facts: (label, value) pairs: where it comes from, how it was made.
        prompt: The whole prompt, for a synthetic document.
        text: Its beginning.
        left_out: Characters that are not shown.
    """

    heading: str
    facts: list[tuple[str, str]]
    prompt: str | None
    text: str
    left_out: int


@dataclass(frozen=True)
class TrainingLog:
    """A model's loss by training tokens; steps without a finite loss are only counted."""

    points: list[tuple[float, float]]
    not_finite: int


def complete_stages(recipe: Recipe, run: RunFolder) -> dict[str, Manifest]:
    """The manifests of all complete stages but the report, in the order in which they are made."""
    models = [name for variant in recipe.variants for name in recipe.model_names(variant)]
    before = [name for name in stage_names(recipe) if name.split("/")[0] not in ("models", "eval", "report")]
    order = [*before, *(f"{room}/{name}" for room in ("models", "eval") for name in models)]
    found = {name: run.manifest(name) for name in order}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def read_training_log(path: Path) -> TrainingLog:
    """Read a model's `training.jsonl`.

    Raises:
        PrimerError: If it is missing or a line is malformed; the message names the line.
    """
    points, not_finite = [], 0
    for number, row in enumerate(_lines(path), start=1):
        try:
            tokens, loss = float(row["tokens"]), float("nan" if row["loss"] is None else row["loss"])
        except (ValueError, TypeError, KeyError) as error:
            raise PrimerError(f"{path}, line {number}: no step with tokens and loss ({error!r}).", _REMEDY) from None
        if math.isfinite(loss) and tokens > 0:
            points.append((tokens, loss))
        else:
            not_finite += 1
    return TrainingLog(sorted(points), not_finite)


def read_validation_log(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read a model's `validation.jsonl`: bits per byte of held-out text by training tokens, for each source.

    Returns:
        Nothing where the loss was not watched in training.

    Raises:
        PrimerError: If a line is malformed; the message names it.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for number, row in enumerate(_lines(path) if path.is_file() else [], start=1):
        try:
            for source, value in row["bits_per_byte"].items():
                if value is not None and math.isfinite(value) and row["tokens"] > 0:
                    found.setdefault(source, []).append((float(row["tokens"]), float(value)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PrimerError(
                f"{path}, line {number}: no step with tokens and bits_per_byte ({error!r}).", _REMEDY
            ) from None
    return {source: sorted(points) for source, points in found.items()}


def choose_samples(corpus: Path, seed: int, count: int) -> list[Sample]:
    """A few documents of the training split, always the same ones for the same corpus and seed.

    They are those whose hashed id is smallest among the first 50,000, at most one of each form before any form comes
    twice: nobody picked them for their looks.

    Raises:
        PrimerError: If the corpus cannot be read.
    """
    rows = itertools.islice(read_documents(corpus, "train", ["id", "provenance.form"]), _LOOKED_AT)
    ranked = sorted((_rank(row["id"], seed), (row["provenance"] or {}).get("form") or "", row["id"]) for row in rows)
    seen: dict[str, int] = {}
    turns: list[tuple[int, int, str]] = []
    for rank, form, identity in ranked:
        turns.append((seen.get(form, 0), rank, identity))
        seen[form] = seen.get(form, 0) + 1
    wanted = [identity for _, _, identity in sorted(turns)[:count]]
    found: dict[str, dict[str, Any]] = {}
    for row in read_documents(corpus, "train"):
        if row["id"] in wanted:
            found[row["id"]] = row
            if len(found) == len(wanted):
                break
    return [_sample(found[identity]) for identity in wanted]


def clean(page: str) -> str:
    """A page without what it cannot hold: control characters and lone surrogates become replacement characters."""
    return _UNWELCOME.sub("\ufffd", page)


def versions(manifests: Sequence[Manifest]) -> list[tuple[str, str]]:
    """Every package that was recorded, with its version; with all of them where stages ran under several."""
    found: dict[str, list[str]] = {}
    for manifest in manifests:
        for package, version in manifest.versions.items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return [(package, ", ".join(each)) for package, each in found.items()]


def machine() -> list[tuple[str, str]]:
    """The machine that this process runs on: processor, cores, memory, GPUs, system."""
    facts = [("Processor", _processor()), ("Cores", str(usable_cores()))]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts.append(("Memory", f"{memory:.0f} GiB"))
    facts.append(("GPU", ", ".join(_gpus()) or "none"))
    facts.append(("System", f"{platform.system()} {platform.release()}, {platform.machine()}"))
    return facts


def reproduce_commands(recipe: Recipe) -> tuple[list[str], bool]:
    """Commands that make this report again, and whether they name a recipe that comes with Primer.

    A recipe of that name that says something else (another version, or `--set`) does not count.
    """
    shipped = Path(__file__).parent.parent / "recipes" / f"{recipe.name}.yaml"
    if shipped.exists() and _result_fields(load_recipe(shipped)) == _result_fields(recipe):
        shortcut = [f"make {recipe.name}"] if recipe.name in ("demo", "smoke") else []
        return [*shortcut, f"primer report recipes/{recipe.name}.yaml"], True
    return [f"primer report {recipe.name}.yaml"], False


def _result_fields(recipe: Recipe) -> dict[str, Any]:
    data = recipe.model_dump(mode="json")
    data["eval"]["data"] = None  # where benchmark rows lie on one machine
    return data


def _lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a log in JSON Lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", _REMEDY) from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise PrimerError(f"{path}, line {number}: no JSON ({error}).", _REMEDY) from None
    return rows


def _rank(identity: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{identity}".encode()).digest()[:8])


def _sample(row: dict[str, Any]) -> Sample:
    made = row["provenance"] or {}
    facts = [("Identity", row["id"]), *_named(made), *_sampling(made)]
    facts += [
        (label.capitalize(), row[label])
        for label in ("origin", "licence")
        if row.get(label) and row[label] != made.get("teacher")
    ]
    heading = row.get("title") or made.get("topic") or row["id"]
    text = row["text"]
    return Sample(
        heading=heading,
        facts=facts,
        prompt=made.get("prompt") or None,
        text=text[:_SHOWN],
        left_out=max(0, len(text) - _SHOWN),
    )


def _named(made: dict[str, Any]) -> list[tuple[str, str]]:
    labels = {
        "topic": "Topic",
        "topic_id": "Topic number",
        "field": "Field",
        "form": "Form",
        "audience": "Audience",
        "level": "Level",
        "snippet_id": "Web passage",
        "teacher": "Teacher",
    }
    return [(label, str(made[name])) for name, label in labels.items() if made.get(name)]


def _sampling(made: dict[str, Any]) -> list[tuple[str, str]]:
    settings = [
        f"{label} {made[name]:g}"
        for name, label in (
            ("temperature", "temperature"),
            ("top_p", "top-p"),
            ("max_tokens", "longest reply in tokens"),
        )
        if made.get(name) is not None
    ]
    facts = [("Sampling", ", ".join(settings))] if settings else []
    if made.get("prompt_index") is not None:
        facts.append(("Prompt index", f"{made['prompt_index']:,}"))
    if made.get("finish_reason"):
        facts.append(("Ended by", str(made["finish_reason"])))
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus() -> list[str]:
    """Names of NVIDIA GPUs, from the driver's own files: importing torch for them would take seconds."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return found
