"""What to ask next, where answers come in batches: as much as is missing, as far as it can be foreseen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from primer.errors import PrimerError
from synth.engine import Generation, Plan
from synth.spending import Spending
from synth.units import Attempt, Question

# OpenAI takes 50,000 requests and 200 MB a file (API reference of batches). Smaller files end sooner and fail apart.
MOST_REQUESTS = 10_000
_MOST_BYTES = 50_000_000
MOST_FILES = 8  # under way at once

# Before anything was judged: a reply's length as a share of the longest, and the share of replies that is accepted.
_LENGTH_AT_FIRST = 0.6
_ACCEPTED_AT_FIRST = 0.8

# Judged units after which their mean is the better guess (few: a wave takes hours); until then no more than so many
# requests are under way, so that a setting which spoils every reply is found out for little.
_UNITS_BEFORE_FORESIGHT = 5
_MOST_AT_FIRST = 5_000

# As the engine has it: a quarter more than is missing, and two units.
_SPARE, _SPARE_UNITS = 1.25, 2

# A wave that is small beside what is under way waits for that: many small batches are no quicker than one.
_WORTH_SENDING = 0.05


@dataclass
class Limits:
    """How much to send: less, once the provider has said that it is too much."""

    requests: int = MOST_REQUESTS
    files: int = MOST_FILES

    def shrink(self, requests: int, reason: str) -> None:
        """Send less from now on.

        Args:
            requests: In the batch that was too large.
            reason: The provider's, for people.

        Raises:
            PrimerError: If it was a single request.
        """
        if requests <= 1:
            raise PrimerError(
                f"The provider does not take a batch of a single request: {reason}",
                "Where its queue is full, wait until other batches of this account have ended, and run the same "
                "command again. Or ask request by request: --set synth.teacher.batch=false",
            )
        self.files = max(1, self.files // 2)
        self.requests = min(self.requests, requests // 2)


@dataclass
class Bundle:
    """The requests of one batch.

    Attributes:
        lines: One request each, in the format of the Batch API.
        keys: Of their answers.
        aside: What is set aside of the budget for them.
    """

    lines: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    aside: ExitStack = field(default_factory=ExitStack)
    size: int = 0


@dataclass
class Wave:
    """What to ask now.

    Attributes:
        bundles: Each to be a batch.
        units: Units that wait for an answer of these, or of one under way.
        awaited: Keys under way that they wait for.
    """

    bundles: list[Bundle] = field(default_factory=list)
    units: set[int] = field(default_factory=set)
    awaited: set[str] = field(default_factory=set)

    @property
    def requests(self) -> int:
        """How many there are."""
        return sum(len(bundle.keys) for bundle in self.bundles)

    def drop(self) -> None:
        """Ask none of it."""
        for bundle in self.bundles:
            bundle.aside.close()
        self.bundles.clear()

    def worth_sending(self, under_way: int) -> bool:
        """Whether it should go now, beside so many requests under way."""
        return bool(self.requests) and self.requests >= _WORTH_SENDING * under_way


class Waves:
    """Forms waves for one generation.

    Args:
        generation: What is to be completed.
        plan: Its plan.
        spending: Its budget.
        known: The journal's answers.
        body: Makes a question the body of a request.
    """

    def __init__(
        self,
        generation: Generation,
        plan: Plan,
        spending: Spending,
        known: Callable[[str], Any],
        body: Callable[[Question], dict[str, Any]],
    ) -> None:
        self._generation, self._plan, self._spending = generation, plan, spending
        self._known, self._body = known, body
        self._limited = plan.budget.dollars is not None or plan.budget.tokens is not None

    def next(self, under_way: Set[str], files: int, limits: Limits) -> Wave:
        """The questions that are known now and not under way, of as many units as should bring what is missing.

        Args:
            under_way: Keys that are.
            files: In how many batches.
            limits: How much the provider takes.
        """
        outcome, wave = self._generation.outcome, Wave()
        room = (limits.files - files) * limits.requests
        if outcome.units < _UNITS_BEFORE_FORESIGHT:
            room = min(room, _MOST_AT_FIRST - len(under_way))
        missing, expected = 1 - self._plan.done(outcome), 0.0
        for index in itertools.count(outcome.units):
            if index == self._plan.units:
                break
            attempt = self._generation.attempt(index)
            question = self._first_unknown(attempt)
            if question is not None:
                key = self._generation.key(question)
                if key in under_way:
                    wave.awaited.add(key)
                elif wave.requests >= room or not self._add(wave, key, question, limits):
                    break
                wave.units.add(index)
            share = self._share(attempt, question is None)
            expected += share
            if expected >= _SPARE * missing + _SPARE_UNITS * share:
                break
        return wave

    def set_aside(self, question: Question, until: ExitStack) -> bool:
        """Set aside what a question may cost, if there is a budget; whether it holds that much."""
        return until.enter_context(self._spending.on(question)) if self._limited else True

    def _first_unknown(self, attempt: Attempt) -> Question | None:
        while (question := attempt.next_question()) is not None:
            known = self._known(self._generation.key(question))
            if known is None:
                return question
            attempt.take(known)
        return None

    def _add(self, wave: Wave, key: str, question: Question, limits: Limits) -> bool:
        """Take a question into the wave; whether the budget holds it."""
        request = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": self._body(question)}
        line = json.dumps(request).encode() + b"\n"
        bundle = wave.bundles[-1] if wave.bundles else None
        if bundle is None or len(bundle.keys) >= limits.requests or bundle.size + len(line) > _MOST_BYTES:
            bundle = Bundle()
        allowed = self.set_aside(question, bundle.aside)
        if allowed:
            bundle.lines.append(line)
            bundle.keys.append(key)
            bundle.size += len(line)
            if len(bundle.keys) == 1:
                wave.bundles.append(bundle)
        return allowed

    def _share(self, attempt: Attempt, ended: bool) -> float:
        """What a unit should bring of the whole target."""
        outcome = self._generation.outcome
        if ended:
            accepted = attempt.failure is None and attempt.reason is None
            return self._part(attempt.tokens, 1) if accepted else 0.0
        if outcome.units >= _UNITS_BEFORE_FORESIGHT and outcome.accepted:
            return self._plan.done(outcome) / outcome.units
        longest = self._plan.sampling.max_tokens * sum(attempt.unit.kept)
        return _ACCEPTED_AT_FIRST * self._part(_LENGTH_AT_FIRST * longest, 1)

    def _part(self, tokens: float, documents: int) -> float:
        by_tokens = tokens / self._plan.tokens if self._plan.tokens else 0.0
        return max(by_tokens, documents / self._plan.documents if self._plan.documents else 0.0)
