"""The generation engine: from a prompt stream and a teacher to accepted documents.

Requests finish in any order; replies are judged strictly in the order of their prompts. So the corpus is the
shortest prefix of the stream whose accepted tokens reach the target, however fast each answer came, however
often the run was interrupted, and whatever the number of requests in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from primer.errors import PrimerError
from primer.progress import Bar, bar
from primer.recipe import Sampling
from synth.accept import Judge
from synth.endpoint import RequestError
from synth.journal import Failure, Journal, Reply, answer_key
from synth.teachers import Client
from synth.units import Attempt, Unit

# A request that takes long must not let the others run away from it: at most this many times `concurrency` units
# (and at least _LEAST_AHEAD) are asked beyond the first one that is not judged yet.
_AHEAD = 4
_LEAST_AHEAD = 64

# Failures one after another, without a reply between them, after which going on is a waste of time or money.
_MOST_FAILURES_IN_A_ROW = 20

# Judged units after which their mean length is good enough to see the end coming, and to ask no more than it takes.
_UNITS_BEFORE_FORESIGHT = 20

# The share of accepted replies below which something is wrong with the teacher or the rules, not with a reply.
_LEAST_ACCEPTED = 0.03
_UNITS_BEFORE_COMPLAINT = 200

# The tokens per second shown are those of about this many latest seconds.
_PACE_SECONDS = 20.0

# Failures that say that no request can succeed: they stop a run in which none has.
_HOPELESS = ("connection", "authentication", "model", "garbage")


class Units(Protocol):
    """What the engine needs of `prompts.stream.PromptStream`: units by number."""

    def __getitem__(self, index: int) -> Unit: ...


@dataclass
class Outcome:
    """What a generation came to.

    Attributes:
        accepted: The units that became documents, in their order.
        tokens: Length of the accepted texts together, in the teacher's tokens.
        units: Units that were judged: 0 to units - 1.
        rejected: Number of rejected units by reason (`synth.accept.REASONS`).
        failed: Units without an answer to one of their prompts, by the failure's reason.
        reused: Units whose answers all came from the journal.
    """

    accepted: list[Attempt] = field(default_factory=list)
    tokens: int = 0
    units: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    reused: int = 0


@dataclass(frozen=True)
class Plan:
    """What to generate, and how fast."""

    identity: str
    sampling: Sampling
    tokens: int
    concurrency: int


def generate(
    units: Units,
    plan: Plan,
    judge: Judge,
    journal: Journal,
    open_client: Callable[[], AbstractAsyncContextManager[Client]],
    title: str = "corpus/synthetic",
) -> Outcome:
    """Collect accepted documents until their tokens reach the plan's.

    The teacher is opened only if the journal does not hold enough.

    Raises:
        PrimerError: If the teacher cannot be opened or used, hardly any reply is accepted, or the journal cannot
            be written. What was answered is in the journal.
    """
    generation = _Generation(units, plan, judge, journal)
    with bar(title, plan.tokens, "tokens") as progress:
        generation.replay(progress)
    if not generation.complete:
        asyncio.run(generation.ask_all(open_client, title))
    return generation.outcome


class _Generation:
    def __init__(self, units: Units, plan: Plan, judge: Judge, journal: Journal) -> None:
        self.outcome = Outcome()
        self._units, self._plan, self._judge, self._journal = units, plan, judge, journal
        self._ahead = max(_AHEAD * plan.concurrency, _LEAST_AHEAD)
        self._next = 0  # the first unit that nobody has taken
        self._waiting: dict[int, Attempt] = {}  # those that have ended and whose turn has not come
        self._moved = asyncio.Event()  # set when a unit was judged
        self._stopped_by: PrimerError | None = None
        self._answered = False
        self._failures_in_a_row = 0
        self._pace = _Pace()

    @property
    def complete(self) -> bool:
        return self.outcome.tokens >= self._plan.tokens

    def replay(self, progress: Bar) -> None:
        """Judge what the journal holds, up to the first unit that it does not."""
        while not self.complete:
            attempt = Attempt(self._units[self._next], self._judge)
            while (messages := attempt.next_messages()) is not None:
                known = self._journal.get(self._key(messages, attempt))
                if known is None:
                    return
                attempt.take(messages, known)
            self.outcome.reused += 1
            self._next += 1
            self._deliver(self._next - 1, attempt)
            progress.update(self.outcome.tokens, "from the journal")

    async def ask_all(self, open_client: Callable[[], AbstractAsyncContextManager[Client]], title: str) -> None:
        async with open_client() as client:
            self._journal.start_clock()
            with bar(title, self._plan.tokens, "tokens") as progress:
                progress.update(self.outcome.tokens)
                workers = [asyncio.create_task(self._work(client, progress)) for _ in range(self._plan.concurrency)]
                try:
                    # Every worker ends by itself once the target is reached; the first to see it ends the others.
                    finished, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
                if self._stopped_by is not None:
                    raise self._stopped_by
                for worker in finished:
                    worker.result()

    async def _work(self, client: Client, progress: Bar) -> None:
        try:
            await self._ask_and_deliver(client, progress)
        except PrimerError as error:
            self._stopped_by = self._stopped_by or error  # the others may still trip over the same before they end

    async def _ask_and_deliver(self, client: Client, progress: Bar) -> None:
        while not self.complete and self._stopped_by is None:
            while self._next >= self.outcome.units + self._ahead or self._enough_is_under_way():
                self._moved.clear()
                await self._moved.wait()
            index = self._next
            self._next += 1
            attempt = Attempt(self._units[index], self._judge)
            self.outcome.reused += await self._carry_out(client, attempt)
            self._deliver(index, attempt)
            progress.update(min(self._foreseen(), self._plan.tokens), self._status())

    def _enough_is_under_way(self) -> bool:
        """Whether the units taken but not judged should bring what is missing, with a quarter and two to spare."""
        outcome = self.outcome
        if outcome.units < _UNITS_BEFORE_FORESIGHT:
            return False
        a_unit = outcome.tokens / outcome.units
        missing = self._plan.tokens - outcome.tokens
        return missing > 0 and (self._next - outcome.units) * a_unit >= 1.25 * missing + 2 * a_unit

    async def _carry_out(self, client: Client, attempt: Attempt) -> bool:
        """Ask what a unit asks until it has ended; whether the journal knew every answer."""
        all_known = True
        while (messages := attempt.next_messages()) is not None:
            key = self._key(messages, attempt)
            result = self._journal.get(key)
            if result is None:
                all_known = False
                result = await self._ask(client, messages, attempt.unit.seed)
                self._journal.put(key, result)
            attempt.take(messages, result)
        await asyncio.sleep(0)  # a long row of known answers must not keep the others from theirs
        return all_known

    async def _ask(self, client: Client, messages: list[dict[str, str]], seed: int) -> Reply | Failure:
        try:
            reply = await client.complete(messages, self._plan.sampling, seed)
        except RequestError as error:
            if error.trouble in _HOPELESS and not self._answered:
                raise client.fatal(error) from None
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
                raise client.fatal(error) from None
            return error.failure
        self._answered, self._failures_in_a_row = True, 0
        self._pace.count(reply.completion_tokens or len(reply.text) // 4)
        return reply

    def _key(self, messages: list[dict[str, str]], attempt: Attempt) -> str:
        return answer_key(self._plan.identity, messages, self._plan.sampling, attempt.unit.seed)

    def _deliver(self, index: int, attempt: Attempt) -> None:
        """Take in a unit that has ended, and judge every one whose turn has come."""
        self._waiting[index] = attempt
        while not self.complete and self._stopped_by is None and self.outcome.units in self._waiting:
            self._judge_unit(self._waiting.pop(self.outcome.units))
        self._moved.set()

    def _judge_unit(self, attempt: Attempt) -> None:
        outcome = self.outcome
        outcome.units += 1
        if attempt.failure is not None:
            outcome.failed[attempt.failure.reason] += 1
        elif reason := attempt.reason or self._place(attempt):
            outcome.rejected[reason] += 1
        else:
            outcome.accepted.append(attempt)
            outcome.tokens += attempt.tokens
        if outcome.units >= _UNITS_BEFORE_COMPLAINT and len(outcome.accepted) < _LEAST_ACCEPTED * outcome.units:
            self._stopped_by = _hardly_any(outcome)
            raise self._stopped_by

    def _place(self, attempt: Attempt) -> str | None:
        snippet = attempt.unit.snippet
        return self._judge.place(attempt.document, snippet.text if snippet else None, joined=attempt.joined)

    def _foreseen(self) -> int:
        """Accepted tokens, and what replies that wait for their turn should add: one slow reply is no standstill."""
        outcome = self.outcome
        a_unit = outcome.tokens / outcome.units if outcome.units else 0.0
        return round(outcome.tokens + len(self._waiting) * a_unit)

    def _status(self) -> str:
        share = len(self.outcome.accepted) / max(1, self.outcome.units)
        return f"{self._pace.per_second():,.0f} tokens/s, {share:.0%} accepted"


class _Pace:
    """Tokens per second over the latest seconds."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._sum = 0

    def count(self, tokens: int) -> None:
        now = time.monotonic()
        self._counts.append((now, tokens))
        self._sum += tokens
        while len(self._counts) > 2 and self._counts[1][0] < now - _PACE_SECONDS:
            self._counts.popleft()
            self._sum -= self._counts[0][1]  # the oldest entry marks the window's start; its tokens came before it

    def per_second(self) -> float:
        return self._sum / max(0.001, self._counts[-1][0] - self._counts[0][0])


def _hardly_any(outcome: Outcome) -> PrimerError:
    reasons = outcome.rejected + Counter({f"failed ({reason})": n for reason, n in outcome.failed.items()})
    lines = "\n".join(f"  {count:6,d}  {reason}" for reason, count in reasons.most_common())
    return PrimerError(
        f"Of {outcome.units:,d} prompts only {len(outcome.accepted)} brought an acceptable document:\n{lines}",
        "Use a better teacher, change synth.sampling (max_tokens, temperature), or relax synth.accept. "
        "The replies are kept; after a change of synth.accept alone they are judged again at no cost.",
    )
