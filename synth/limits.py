"""How fast one backend may be asked: its rate limits, a number in flight that follows its answers, a circuit breaker.

Nothing here waits or reads a clock: the time is handed in, in seconds, so that every rule can be tested.
"""

from __future__ import annotations

import random
from collections import Counter

from primer.recipe_synth import Sampling
from synth.backend import Messages, RequestError, Trouble
from synth.journal import Reply

# Rate limits are kept in steps of this many seconds: a burst of one step, then the pace.
_BURST_SECONDS = 1.0

# The number in flight changes once in so many answers (and at least _LEAST_WINDOW): by 5% up, and by half the share of
# them that showed strain. So it settles where a tenth do, and a few stray errors cost nothing. The rule is that of
# DCTCP (RFC 8257, section 3.3), with the server's refusals as its marks.
_GROWTH = 0.05
_LEAST_WINDOW = 10

# An answer that took this share of the timeout is a sign of strain: with more in flight, requests would be lost.
_SLOW = 0.5

# Above this share of strained answers a refusal speaks for the backend, not for one unlucky request.
_STRAINED = 0.1

# The breaker opens after so many failures one after another, for so many seconds, twice as long each time.
_FAILURES_TO_OPEN = 5
_SHORTEST_BREAK, _LONGEST_BREAK = 1.0, 60.0
_SLOWEST_BREAK = 0.1  # of the timeout, where it hangs

# Of the mean number of completion tokens, the weight of the newest.
_NEWEST = 0.05

_STRAIN: frozenset[Trouble] = frozenset({"rate_limit", "timeout", "server"})
_BREAKING: frozenset[Trouble] = frozenset({"timeout", "server", "connection", "garbage"})


def estimate_tokens(messages: Messages) -> int:
    """Length of a prompt in tokens, at four characters each (OpenAI's rule of thumb for English)."""
    return sum(len(message["content"]) for message in messages) // 4 + 4 * len(messages)


class Bucket:
    """A rate per minute. What is taken may exceed what is there; the debt is waited for."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._capacity = max(1.0, self._rate * _BURST_SECONDS)
        self._level = self._capacity
        self._at: float | None = None

    def wait(self, now: float) -> float:
        """Seconds until something may be taken."""
        if self._at is not None:
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(1.0, self._capacity) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Take an amount, or give some back (negative)."""
        self._level = min(self._capacity, self._level - amount)


class Lane:
    """What is known of one backend, and whether another request may go to it now.

    Args:
        most: Most requests in flight.
        timeout: Longest wait for one answer, in seconds; None if there is no limit.
        patience: Longest pause that it may ask for, in seconds.
        requests_per_minute, tokens_per_minute: Its rate limits, if it has any.
        generator: For the jitter of its breaks.

    Attributes:
        limit: Requests that may be in flight now, as its answers showed.
        in_flight: Requests that are.
        answers: How many came.
        errors: How many came in their place, by trouble.
    """

    def __init__(
        self,
        most: int,
        timeout: float | None,
        patience: float,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        generator: random.Random,
    ) -> None:
        self.limit, self.in_flight = float(most), 0
        self.answers, self.errors = 0, Counter[str]()
        self._most, self._timeout, self._patience, self._generator = float(most), timeout, patience, generator
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._completion: float | None = None  # mean tokens of an answer
        self._results = self._strained = 0  # of the present window
        self._paused_until = 0.0
        self._failures = 0  # one after another
        self._breaks = 0  # one after another

    @property
    def load(self) -> float:
        """Share of what may be in flight that is."""
        return self.in_flight / max(1.0, self.limit)

    @property
    def broken(self) -> bool:
        """Whether the breaker is open, or waits for the answer that closes it."""
        return self._breaks > 0

    def wait(self, now: float) -> float | None:
        """Seconds until another request may go; 0 for now, None if only an answer under way can tell."""
        if self._paused_until > now:
            return self._paused_until - now
        if self.in_flight >= (1 if self.broken else max(1, int(self.limit))):
            return None
        return max(bucket.wait(now) for bucket in (self._requests, self._tokens) if bucket) if self._limited else 0.0

    def enter(self, messages: Messages, sampling: Sampling) -> float:
        """Count a request as under way; returns the tokens set aside for it."""
        self.in_flight += 1
        reserved = 0.0
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            expected = sampling.max_tokens if self._completion is None else self._completion
            reserved = estimate_tokens(messages) + expected
            self._tokens.take(reserved)
        return reserved

    def answered(self, reply: Reply, reserved: float) -> None:
        """A request was answered."""
        self.in_flight -= 1
        self.answers += 1
        self._failures = self._breaks = 0
        written = reply.completion_tokens if reply.completion_tokens is not None else len(reply.text) // 4
        self._completion = written if self._completion is None else (1 - _NEWEST) * self._completion + _NEWEST * written
        if self._tokens and reply.prompt_tokens is not None:
            self._tokens.take(reply.prompt_tokens + written - reserved)
        self._adapt(strained=self._timeout is not None and reply.seconds > _SLOW * self._timeout)

    def failed(self, error: RequestError, reserved: float, now: float) -> None:
        """A request brought an error."""
        self.in_flight -= 1
        self.errors[error.trouble] += 1
        if self._tokens:
            self._tokens.take(-reserved)
        if error.retry_after is not None and (self.broken or self._share_strained() > _STRAINED):
            self._paused_until = max(self._paused_until, now + min(error.retry_after, self._patience))
        self._adapt(strained=error.trouble in _STRAIN)
        if error.trouble == "model":  # of one that never answered: it serves another model
            self._break(now, error.trouble)
        if error.trouble in _BREAKING:
            self._failures += 1
            if self._failures >= _FAILURES_TO_OPEN or self.broken:
                self._break(now, error.trouble)

    def left(self, reserved: float) -> None:
        """A request was called off."""
        self.in_flight -= 1
        if self._tokens:
            self._tokens.take(-reserved)

    def shut(self, now: float) -> None:
        """Open the breaker: the backend was found unusable before it was asked anything."""
        self._break(now, "connection")

    @property
    def _limited(self) -> bool:
        return self._requests is not None or self._tokens is not None

    def _break(self, now: float, trouble: Trouble) -> None:
        """Leave the backend alone; afterwards one request at a time tries it, until one is answered."""
        if self._paused_until > now:
            return  # the failures of requests that were under way when the breaker opened
        # An address that lets requests time out costs each that tries it the whole wait: it is tried seldom.
        hanging = self._timeout * _SLOWEST_BREAK if trouble == "timeout" and self._timeout else 0.0
        first, longest = max(_SHORTEST_BREAK, hanging), max(_LONGEST_BREAK, hanging * _LONGEST_BREAK)
        seconds = min(longest, first * 2 ** min(self._breaks, 10))
        self._paused_until = now + seconds * self._generator.uniform(0.75, 1.25)
        self._breaks += 1
        self._failures = 0

    def _share_strained(self) -> float:
        return self._strained / self._results if self._results >= _LEAST_WINDOW else 0.0

    def _adapt(self, strained: bool) -> None:
        self._results += 1
        self._strained += strained
        if self._results >= max(_LEAST_WINDOW, self.limit):
            change = 1 + _GROWTH - self._strained / self._results / 2
            self.limit = min(self._most, max(1.0, self.limit * change))
            self._results = self._strained = 0
