"""A generation against the mock endpoint, as the tests drive it: made-up units, real everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mock_endpoint import Endpoint

from primer.recipe_corpora import Duplicates
from primer.recipe_synth import EndpointTeacher, Synth
from synth.accept import Judge
from synth.engine import Asker, Outcome, Units, asking, generate
from synth.plan import make_plan, open_journal
from synth.teachers import open_teacher
from synth.units import Attempt
from synth.view import View


@dataclass
class Question:
    """A unit of as many steps as there are contents; a later step repeats what was answered to the first."""

    contents: list[str]
    seed: int
    snippet: None = None
    language: str = "english"

    @property
    def kept(self) -> tuple[bool, ...]:
        return (True,) * len(self.contents)

    def messages(self, replies: Sequence[str] = ()) -> list[dict[str, str]]:
        return [{"role": "user", "content": " ".join([self.contents[len(replies)], *replies[:1]])}]


class Questions:
    """A stand-in for the prompt stream; `words` mark some prompts."""

    def __init__(self, words: dict[int, str] | None = None, every: str = "") -> None:
        self.words, self.every = words or {}, every

    def __getitem__(self, index: int) -> Question:
        mark = self.words.get(index, "")
        return Question([f"Question {index} {self.every} {mark}"], index)


def settings(endpoint: Endpoint, tokens: int | None = 2000, **changes: Any) -> Synth:
    about = {"base_url": endpoint.address, "model": changes.pop("model", "mock"), "api_key_env": "PRIMER_TEST_KEY"}
    teacher = EndpointTeacher(kind="openai", **(about | changes.pop("teacher", {})))
    return Synth(teacher=teacher, tokens=tokens, **{"concurrency": 8, "timeout": 30.0, "patience": 5.0, **changes})


@dataclass
class Collected(Outcome):
    documents: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


def collect(
    endpoint: Endpoint, journal: Path, units: Units | None = None, ask: Asker | None = None, **changes: Any
) -> Collected:
    synth = settings(endpoint, **changes)
    attempts: list[Attempt] = []
    with open_journal(journal, synth) as opened:
        outcome = generate(
            units or Questions(),
            make_plan(synth),
            Judge(synth.accept, Duplicates()),
            opened,
            ask or asking(lambda: open_teacher(synth)),
            attempts.append,
            View(None, None),
        )
    return Collected(**vars(outcome), documents=[attempt.document for attempt in attempts], attempts=attempts)


def texts(outcome: Collected) -> list[str]:
    return outcome.documents
