"""The run folder: one experiment on disk, its frozen recipe, its stages and their manifests.

A stage builds into a folder below `partial/` whose name carries its fingerprint, writes `manifest.json` last,
and the folder is then renamed to its final place. So a final folder is whole or absent; running again skips
what is complete, continues what is half done, and redoes what its settings or inputs changed.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from primer.fingerprint import NEVER, changed_keys, file_hash, fingerprint
from primer.progress import say
from primer.recipe import Recipe, SourceName
from primer.recipe_file import dump_recipe, load_recipe

# Packages whose version can change a result; those that are not installed are left out of the manifest.
_RECORDED_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "lm-eval",
    "openai",
    "xllamacpp",
    "vllm",
    "numpy",
    "scikit-learn",
    "datatrove",
)


# Which command makes the stages of a room; `synth` makes all the others.
_COMMANDS = {"tokenizer": "train", "tokens": "train", "models": "train", "eval": "eval"}


@dataclass(frozen=True)
class Built:
    """What a stage's build returns: one line for people, and facts for the manifest (JSON values)."""

    summary: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: Also its folder below the run folder, such as `corpus/web` or `models/mixed`.
        settings: What its result depends on in the recipe (`primer.fingerprint.stage_settings`).
        reads: Names of the stages whose output it reads; they must be complete.
        material: Hashes of what it reads beside those: templates, topic files, benchmark data.
        build: Fills an existing folder, which may hold what an interrupted build left there.
    """

    name: str
    settings: Mapping[str, Any]
    build: Callable[[Path], Built]
    reads: tuple[str, ...] = ()
    material: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What a complete stage says of itself (`manifest.json` in its folder)."""

    stage: str
    fingerprint: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    content: str
    summary: str
    facts: dict[str, Any]
    versions: dict[str, str]
    started: str
    seconds: float


def stage_names(recipe: Recipe) -> list[str]:
    """Names of a recipe's stages in the order in which they are made."""
    corpora = [stage for source in recipe.needed_sources() for stage in _corpus_stages(recipe, source)]
    models = [name for variant in recipe.variants for name in recipe.model_names(variant)]
    return [
        *corpora,
        "corpus/diversity",
        "tokenizer",
        "tokens",
        *(f"models/{name}" for name in models),
        *(f"eval/{name}" for name in models),
        "report",
    ]


def _corpus_stages(recipe: Recipe, source: SourceName) -> list[str]:
    """The stages that end in a corpus."""
    if source == "synthetic":
        return ["corpus/synthetic"]
    quality = recipe.web.quality if source == "web" else recipe.code.quality
    trained_here = quality is not None and quality.trained is None
    before = [f"labels/{source}", f"filter/{source}"] * trained_here
    written = []
    if source == "code":
        written = ["written/textbooks"] * bool(recipe.code.textbooks) + ["written/exercises"] * bool(
            recipe.code.exercises
        )
    return [*before, f"refined/{source}", *written, f"corpus/{source}"]


class RunFolder:
    """One experiment's folder.

    Args:
        path: The folder; created if absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def opened(cls, path: Path, recipe: Recipe, *, wait: bool = False) -> Iterator[RunFolder]:
        """Hold the folder for this process, with the recipe frozen into it.

        Args:
            path: The folder.
            recipe: The experiment.
            wait: Wait for another process that holds it, where it would be an error.

        Raises:
            PrimerError: If the folder belongs to another recipe, is no run folder, or is in use.
        """
        run = cls(path)
        run._check_owner(recipe)
        with locked(path, wait=wait):
            run._freeze(recipe)
            yield run

    def folder(self, stage: str) -> Path:
        """Where a complete stage's files lie."""
        return self.path / stage

    def manifest(self, stage: str) -> Manifest | None:
        """The manifest of a stage, or None if it is not complete."""
        path = self.folder(stage) / "manifest.json"
        try:
            return Manifest(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise PrimerError(
                f"{path} is damaged: {error}", f"Delete {path.parent}; the stage will be made again."
            ) from None

    def has_partial(self, stage: str) -> bool:
        """Whether an interrupted build of a stage has left work to continue."""
        return any((self.path / "partial").glob(f"{stage.replace('/', '-')}-????????????"))

    def require(self, stage: str) -> Manifest:
        """The manifest of a stage that must be complete.

        Raises:
            PrimerError: If it is not; the message names the command that makes it.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            command = _COMMANDS.get(stage.split("/")[0], "synth")
            raise PrimerError(
                f"{self.folder(stage)} is not there yet.", f"Run `primer {command}` with this recipe first."
            )
        return manifest

    def complete(self, stage: Stage) -> Manifest:
        """Bring a stage to completion and say so in one line: skip it, continue it, or build it."""
        inputs = {name: self.require(name).content for name in stage.reads} | dict(stage.material)
        mark = fingerprint({"stage": stage.name, "settings": stage.settings, "inputs": inputs})
        final = self.folder(stage.name)
        existing = self.manifest(stage.name)
        if existing is not None and existing.fingerprint == mark:
            self._drop_stale_partials(stage.name)  # a kill may have left what the build had no more use for
            say(f"[green]✓[/] {stage.name}: {existing.summary} [dim]({final}, already complete)[/]")
            return existing
        partial = self.path / "partial" / f"{stage.name.replace('/', '-')}-{mark[:12]}"
        partial.mkdir(parents=True, exist_ok=True)
        started, clock = datetime.now(UTC), time.monotonic()
        built = stage.build(partial)
        manifest = _describe(stage.name, mark, inputs, partial, built, started, time.monotonic() - clock)
        write_json(partial / "manifest.json", asdict(manifest))
        _replace_folder(partial, final)
        self._drop_stale_partials(stage.name)
        say(f"[green]✓[/] {stage.name}: {built.summary} [dim]({final}, {manifest.seconds:.0f} s)[/]")
        return manifest

    def _check_owner(self, recipe: Recipe) -> None:
        frozen = self.path / "recipe.yaml"
        if frozen.exists():
            owner = load_recipe(frozen).name
            if owner != recipe.name:
                raise PrimerError(
                    f"The run folder {self.path} belongs to the recipe {owner!r}, not to {recipe.name!r}.",
                    "Choose another folder with --run, or leave --run out.",
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise PrimerError(
                f"{self.path} exists and is not a run folder (it has no recipe.yaml).",
                "Choose a new or empty folder with --run.",
            )

    def _freeze(self, recipe: Recipe) -> None:
        frozen = self.path / "recipe.yaml"
        if frozen.exists():
            every = changed_keys(load_recipe(frozen).model_dump(mode="json"), recipe.model_dump(mode="json"))
            changed = [key for key in every if not any(f"{key}.".startswith(f"{never}.") for never in NEVER)]
            if changed:
                say(f"The recipe changed since the last run ({', '.join(changed)}): what depends on it is made again.")
        write_text(frozen, dump_recipe(recipe))

    def _drop_stale_partials(self, stage: str) -> None:
        """Remove half-done work of the same stage under earlier settings, and what a finished build left behind."""
        stale = re.compile(re.escape(stage.replace("/", "-")) + r"-[0-9a-f]{12}(\.old|\.tasks)?")
        for path in (self.path / "partial").glob("*"):
            if stale.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)  # a job elsewhere may still write there


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, which is created if absent, for this process.

    Args:
        folder: The folder.
        wait: Wait for another process that holds it, where it would be an error.

    Raises:
        PrimerError: If it is in use, or cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise PrimerError(f"{folder} cannot be written: {error}", "Choose another folder.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            if not wait:
                raise PrimerError(
                    f"Another process (pid {holder}) is working in {folder}.",
                    "Wait for it to end, or choose another folder.",
                ) from None
            say(f"waiting for another process (pid {holder}) to finish its work in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: a temporary name, flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _describe(
    name: str, mark: str, inputs: dict[str, str], folder: Path, built: Built, started: datetime, seconds: float
) -> Manifest:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    outputs = {str(p.relative_to(folder)): file_hash(p) for p in files}
    return Manifest(
        stage=name,
        fingerprint=mark,
        inputs=inputs,
        outputs=outputs,
        content=fingerprint(outputs),
        summary=built.summary,
        facts=built.facts,
        versions=_versions(),
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _replace_folder(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`; a reader sees the old folder, none, or the new one, never a mixture."""
    target.parent.mkdir(parents=True, exist_ok=True)
    retired = source.with_name(f"{source.name}.old")
    if target.exists():
        target.rename(retired)
    source.rename(target)
    shutil.rmtree(retired, ignore_errors=True)
