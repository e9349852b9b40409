"""Published scores that stand beside the measured ones, quoted with their source (`quoted.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

QUOTED = Path(__file__).with_name("quoted.yaml")


@dataclass(frozen=True)
class QuotedModel:
    """A public model's scores by suite: shares of 1, or text where the source gives a bound such as "<0.03".

    Attributes:
        scores: Figures that a second source repeats.
        unchecked: Figures that no second source was found for.
    """

    name: str
    parameters: str
    about: str
    scores: dict[str, float | str] = field(default_factory=dict)
    unchecked: dict[str, float | str] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float | str]:
        """All of them."""
        return self.scores | self.unchecked


@dataclass(frozen=True)
class Quoted:
    """The scores that one source prints.

    Attributes:
        source: Its title.
        address: Where it is.
        tables: Where in it they stand.
        protocol: How it asked, in words.
        suites: The suites that correspond to its columns.
        models: Its models, as many as are quoted.
    """

    source: str
    address: str
    tables: str
    protocol: str
    suites: tuple[str, ...]
    models: tuple[QuotedModel, ...]


def read_quoted() -> list[Quoted]:
    """Everything that is quoted."""
    found = yaml.safe_load(QUOTED.read_text(encoding="utf-8"))
    return [
        Quoted(**{**one, "suites": tuple(one["suites"]), "models": tuple(QuotedModel(**m) for m in one["models"])})
        for one in found
    ]
