"""The budget of a run folder: what was spent, what is under way, and whether one more request fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from primer.errors import PrimerError
from primer.recipe_synth import Budget, Sampling
from synth.journal import Journal, Reply
from synth.units import Question

# Tokens are longer than this in languages written with letters: no request costs more than was set aside for it.
_CHARACTERS_PER_TOKEN = 2


class Spending:
    """Watches a budget.

    Args:
        budget: The recipe's section.
        sampling: How long a reply may be.
        journal: Knows what was paid, over all runs.

    Attributes:
        over: Whether a request was held back.
    """

    def __init__(self, budget: Budget, sampling: Sampling, journal: Journal) -> None:
        self._budget, self._sampling, self._journal = budget, sampling, journal
        self._dollars = self._tokens = 0.0  # of the requests under way, at most
        self.over = False

    @contextmanager
    def on(self, question: Question) -> Iterator[bool]:
        """Set aside what a request may cost, for as long as it is under way; whether the budget holds that much."""
        tokens, dollars = self._most(question)
        if not self._holds(tokens + self._tokens, dollars + self._dollars):
            self.over = True
            yield False
            return
        self._dollars += dollars
        self._tokens += tokens
        try:
            yield True
        finally:
            self._dollars -= dollars
            self._tokens -= tokens

    def must_wait(self, question: Question) -> bool:
        """Whether only what is set aside for requests under way keeps the budget from holding this one."""
        tokens, dollars = self._most(question)
        return self._holds(tokens, dollars) and not self._holds(tokens + self._tokens, dollars + self._dollars)

    def _most(self, question: Question) -> tuple[float, float]:
        """Tokens and dollars that a request may cost."""
        asked = sum(len(message["content"]) for message in question.messages) / _CHARACTERS_PER_TOKEN
        prices = self._journal.totals.prices or (0.0, 0.0)
        written = self._sampling.max_tokens
        return asked + written, (asked * prices[0] + written * prices[1]) / 1e6

    def _holds(self, tokens: float, dollars: float) -> bool:
        """Whether the budget holds so much beside what was paid."""
        if self._budget.dollars is None and self._budget.tokens is None:
            return True
        paid_dollars, paid_tokens = self._journal.spent()
        enough = self._budget.dollars is None or paid_dollars + dollars <= self._budget.dollars
        return enough and (self._budget.tokens is None or paid_tokens + tokens <= self._budget.tokens)

    def check(self, reply: Reply) -> None:
        """See whether the endpoint says what an answer cost.

        Raises:
            PrimerError: If it does not, and there is a budget to keep.
        """
        known = reply.prompt_tokens is not None and reply.completion_tokens is not None
        if not known and (self._budget.dollars is not None or self._budget.tokens is not None):
            raise PrimerError(
                "The endpoint does not say how many tokens an answer took, so synth.budget cannot be kept.",
                "Leave synth.budget out for this endpoint, or ask one that reports usage.",
            )

    def explain(self, tokens: int, documents: int, otherwise: str) -> PrimerError:
        """Why the run ended before its target.

        Args:
            tokens: Accepted so far.
            documents: Accepted so far.
            otherwise: How to ask for no more than that, for people; "" if nothing was accepted.
        """
        dollars, paid = self._journal.spent()
        limits = [f"${self._budget.dollars:,.4g}"] if self._budget.dollars is not None else []
        limits += [f"{self._budget.tokens:,d} tokens"] if self._budget.tokens is not None else []
        return PrimerError(
            f"The budget of {' or '.join(limits)} holds no further request: {paid:,d} tokens in and out"
            + f" (${dollars:,.4f})" * (dollars > 0)
            + f" were paid in this run folder, and {documents:,d} documents of {tokens:,d} tokens accepted.",
            "Raise synth.budget and run the same command again: it continues, and pays nothing twice. "
            + (otherwise or "Nothing was accepted yet."),
        )
