"""What an evaluation asks of a language model, whatever runs it: PyTorch (`eval.model`) or vLLM (`eval.vllm_model`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from primer.errors import PrimerError

# Told the share of work that is done, 0 to 1.
Progress = Callable[[float], None]

# The sum of the log-probabilities (natural logarithm) of some tokens, and whether each was the likeliest one there.
Score = tuple[float, bool]

# A context, and a continuation of which the log-probability is asked for.
Pair = tuple[str, str]


class CannotAskError(PrimerError):
    """A suite that cannot be asked of a model or on this machine: it is left out, and the rest is asked."""


@dataclass(frozen=True)
class Query:
    """A sequence of which the last `scored` tokens are asked for; the tokens before them are their context."""

    tokens: Sequence[int]
    scored: int


@dataclass(frozen=True)
class RowScores:
    """The scores of a row's continuations, and whether its context was cut from the left to fit."""

    scores: list[Score]
    cut: bool


@dataclass(frozen=True)
class Writing:
    """How text is generated.

    Attributes:
        tokens: At most so many new ones.
        stops: Texts that end the answer; neither they nor what follows belongs to it.
        samples: Answers to each prompt.
        temperature: 0 takes the likeliest token each time.
        top_p: The smallest set of tokens with this much probability is drawn from (arXiv 1904.09751, section 3.1).
        seed: Of the draws.
    """

    tokens: int
    stops: tuple[str, ...] = ()
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class LanguageModel(Protocol):
    """A model that is loaded and can be asked."""

    max_length: int  # tokens of the context

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context follows."""

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of corpus text, as in training: nothing added, a spelled-out `<|endoftext|>` is ordinary text."""

    def score(self, groups: Sequence[Sequence[Query]], progress: Progress | None = None) -> list[list[Score]]:
        """Score queries; those of a group share a beginning."""

    def ask(self, rows: Sequence[Sequence[Pair]], progress: Progress | None = None) -> list[RowScores]:
        """Log-likelihoods of each row's continuations after their contexts, as the harness's `hf` backend has them."""

    def generate(self, prompts: Sequence[str], writing: Writing, progress: Progress | None = None) -> list[list[str]]:
        """Continue each prompt `writing.samples` times."""
