"""What a run folder can tell of a generation that is planned: figures of its journal and its corpus. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from primer.fingerprint import changed_keys, fingerprint, stage_settings
from primer.recipe import Recipe
from primer.recipe_file import load_recipe
from primer.run import RunFolder

_STAGE = "corpus/synthetic"

# A journal of many gigabytes is read from its end: this many bytes say enough.
_MOST_BYTES = 64_000_000

# How much is collected, or how the prompts are numbered, does not change what one of them brings.
_MAY_DIFFER = ("synth.tokens", "synth.documents", "seed", "corpus.held_out_share")


@dataclass(frozen=True)
class Answers:
    """What the journal was answered by the recipe's teacher with its settings.

    Attributes:
        replies: How many answers were read.
        prompt_tokens: In all of them together.
        completion_tokens: In all of them together.
        seconds: Spent on them; 0 where it was not recorded.
        whole: Whether these are all, or the newest of a long journal.
    """

    replies: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    whole: bool


@dataclass(frozen=True)
class Judged:
    """What became of the units of a finished corpus: units, documents, and the documents' tokens."""

    units: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class Measured:
    """What was found in a run folder; None where there is nothing, or it was made in another way.

    Attributes:
        note: Why something that is there was not used, for people; "" where all was.
    """

    answers: Answers | None = None
    judged: Judged | None = None
    note: str = ""


def measured(recipe: Recipe, run: RunFolder) -> Measured:
    """Find what an earlier generation with the same settings measured.

    Raises:
        PrimerError: If the manifest of the corpus is damaged, or the journal cannot be read.
    """
    journal, manifest = run.path / "journal" / "replies.jsonl", run.manifest(_STAGE)
    if manifest is None and not journal.is_file():
        return Measured()
    try:
        frozen = load_recipe(run.path / "recipe.yaml")
    except PrimerError:
        return Measured(note=f"{run.path} holds answers, but no recipe that can be read: they are not used here.")
    was, now = stage_settings(frozen, _STAGE), stage_settings(recipe, _STAGE)
    changed = [key for key in changed_keys(was, now) if key not in _MAY_DIFFER]
    if changed:
        return Measured(note=f"{run.path} holds answers to other settings ({', '.join(changed)}): they are not used.")
    judged = None
    # The frozen recipe may be newer than the corpus.
    made_so = manifest and manifest.fingerprint == fingerprint(
        {"stage": _STAGE, "settings": was, "inputs": manifest.inputs}
    )
    if manifest and made_so:
        facts = manifest.facts
        counts = [int(facts.get(name, 0)) for name in ("units", "accepted", "tokens")]
        judged = Judged(*counts) if all(counts) else None
    return Measured(_answers(journal, recipe), judged)


def _answers(path: Path, recipe: Recipe) -> Answers | None:
    """The answers to prompts for textbooks: the journal also holds scores and what was written for code."""
    from synth.journal import answer_tag
    from synth.teachers import teacher_identity

    if not path.is_file():
        return None
    tag = answer_tag(teacher_identity(recipe.synth.teacher), recipe.synth.sampling)
    try:
        size = path.stat().st_size
        return _sum(_records(path, size), tag, whole=size <= _MOST_BYTES)
    except OSError as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Mend its permissions, or choose --run.") from None


def _sum(records: Iterable[dict[str, Any]], tag: str, *, whole: bool) -> Answers | None:
    replies = prompts = completions = 0
    seconds = 0.0
    for record in records:
        if record["tag"] != tag:
            continue
        reply = record.get("reply")
        if isinstance(reply, Mapping) and reply.get("completion_tokens") is not None:
            replies += 1
            prompts += reply.get("prompt_tokens") or 0
            completions += reply["completion_tokens"]
        else:
            seconds += record.get("elapsed", 0.0)
    return Answers(replies, prompts, completions, seconds, whole) if completions else None


def _records(path: Path, size: int) -> Iterator[dict[str, Any]]:
    if not size:
        return
    with path.open("rb") as file:
        if size > _MOST_BYTES:
            file.seek(size - _MOST_BYTES)
            file.readline()  # the rest of a line
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a journal that is being written; `primer synth` names damaged ones
            if isinstance(record, dict) and isinstance(record.get("tag"), str):
                yield record
