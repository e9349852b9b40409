"""The generation engine: from a prompt stream and a teacher to accepted documents.

Requests finish in any order; replies are judged strictly in the order of their prompts. So the corpus is the
shortest prefix of the stream whose accepted text reaches the target, however fast each answer came, however often
the run was interrupted, and whatever the number of requests in flight. Documents are handed on as they are accepted:
what stays in memory does not grow with the corpus, but for what the judge remembers of each.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from primer.errors import PrimerError
from primer.recipe_synth import Budget, Sampling
from synth.backend import RequestError
from synth.journal import Failure, Journal, Reply, answer_key
from synth.pool import Pool
from synth.spending import Spending
from synth.units import Attempt, Judging, Question, Unit
from synth.view import Progress, View

# A request that takes long must not let the others run away from it: at most this many times `concurrency` units
# (and at least _LEAST_AHEAD) are asked beyond the first one that is not judged yet.
_AHEAD = 4
_LEAST_AHEAD = 64

# Refused requests one after another, without a reply between them, after which going on is a waste of time or money.
_MOST_FAILURES_IN_A_ROW = 20

# Judged units after which their mean length is good enough to see the end coming, and to ask no more than it takes.
_UNITS_BEFORE_FORESIGHT = 20

# Identities of requests and times in what servers say: they would make every failure a kind of its own.
_NUMBERS = re.compile(r"\b(?=[\w-]*\d)[\w-]{8,}\b")

# Seconds of judging after which the others have a turn.
_LONGEST_HOLD = 0.01

# Seconds between two looks at the view while nothing moves.
_TICK = 1.0

# The share of accepted replies below which something is wrong with the teacher or the rules, not with a reply.
_LEAST_ACCEPTED = 0.03
_UNITS_BEFORE_COMPLAINT = 200


class Units(Protocol):
    """What the engine needs of `prompts.stream.PromptStream`: units by number."""

    def __getitem__(self, index: int) -> Unit: ...


Asker = Callable[["Generation"], None]
"""What goes on with a generation whose journal does not hold enough, to its target."""


@dataclass
class Outcome:
    """What a generation came to.

    Attributes:
        accepted: Units that became documents.
        tokens: Length of the accepted texts together, in the teacher's tokens.
        units: Units that were judged: 0 to units - 1.
        rejected: Number of rejected units by reason (`synth.accept.REASONS`).
        failed: Units without an answer to one of their prompts, by the failure's reason.
        reused: Units whose answers all came from the journal.
        tries: Replies that were asked for again with another seed.
        continuations: Requests that continued a reply cut short.
    """

    accepted: int = 0
    tokens: int = 0
    units: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    reused: int = 0
    tries: int = 0
    continuations: int = 0


@dataclass(frozen=True)
class Plan:
    """What to generate, and how fast; it ends with the tokens, documents or units, whichever are reached first.

    Attributes:
        units: Units to judge, whatever comes of them; none beyond is asked.
        section: Of the recipe that says how much, for messages.
    """

    identity: str
    sampling: Sampling
    tokens: int | None
    concurrency: int
    documents: int | None = None
    budget: Budget = field(default_factory=Budget)
    merge_system: bool = False
    units: int | None = None
    section: str = "synth"

    def done(self, outcome: Outcome) -> float:
        """Share of the target that is reached."""
        by_tokens = outcome.tokens / self.tokens if self.tokens else 0.0
        by_documents = outcome.accepted / self.documents if self.documents else 0.0
        return max(by_tokens, by_documents, outcome.units / self.units if self.units else 0.0)

    def within(self, outcome: Outcome) -> str:
        """How to ask for no more than there is, for people; "" where nothing was accepted."""
        if not outcome.accepted:
            return ""
        if self.units:
            return f"Or lower the numbers in {self.section}."
        smaller = f"tokens={outcome.tokens}" if self.tokens else f"documents={outcome.accepted}"
        return f"Or take what there is: --set {self.section}.{smaller}"


def generate(
    units: Units,
    plan: Plan,
    judge: Judging,
    journal: Journal,
    ask: Asker,
    accept: Callable[[Attempt], None],
    view: View,
    *,
    title: str = "corpus/synthetic",
    fields: int = 0,
) -> Outcome:
    """Collect accepted documents until the plan's target is reached.

    The teacher is asked only if the journal does not hold enough.

    Args:
        units: What to ask.
        plan: How much, and how.
        judge: Decides what is accepted.
        journal: Answers known, and where new ones go.
        ask: Asks for the rest: `asking(open_teacher)`, or in batches (:mod:`synth.batch`).
        accept: Takes each accepted document, in their order.
        view: Shows how it goes.
        title: What it is called there.
        fields: Number of topic fields that there are, for the view.

    Raises:
        PrimerError: If the teacher cannot be opened or used, hardly any reply is accepted, the budget is reached, or
            the journal cannot be written. What was answered is in the journal.
    """
    generation = Generation(units, plan, judge, journal, accept, view, title, fields)
    with view.watch(generation.progress):
        generation.replay()
        if not generation.complete:
            ask(generation)
    return generation.outcome


def asking(open_teacher: Callable[[], AbstractAsyncContextManager[Pool]]) -> Asker:
    """Ask a teacher that answers at once, many requests side by side."""
    return lambda generation: asyncio.run(generation.ask_all(open_teacher))


class Generation:
    """One generation under way; see `generate`."""

    def __init__(
        self,
        units: Units,
        plan: Plan,
        judge: Judging,
        journal: Journal,
        accept: Callable[[Attempt], None],
        view: View,
        title: str,
        fields: int,
    ) -> None:
        self.outcome = Outcome()
        self.progress, self.view = Progress(title, plan, self.outcome, journal, fields), view
        self._units, self.plan, self._judge, self.journal, self._accept = units, plan, judge, journal, accept
        self._ahead = max(_AHEAD * plan.concurrency, _LEAST_AHEAD)
        self._next = 0  # the first unit that nobody has taken
        self._waiting: dict[int, Attempt] = {}  # those that have ended and whose turn has not come
        self._moved = asyncio.Event()  # set when a unit was judged
        self._stopped_by: PrimerError | None = None
        self._ended = asyncio.Event()  # set when a request has ended
        self._judging = False
        self._failures_in_a_row = 0
        self._doubtful: list[tuple[str, Failure]] = []  # refusals since the latest answer
        self.spending = Spending(plan.budget, plan.sampling, journal)

    @property
    def complete(self) -> bool:
        """Whether the target is reached."""
        return self.plan.done(self.outcome) >= 1

    def replay(self) -> None:
        """Judge what the journal holds, up to the first unit that it does not."""
        while not self.complete:
            attempt = self.attempt(self._next)
            while (question := attempt.next_question()) is not None:
                known = self.journal.get(self.key(question))
                if known is None:
                    return
                attempt.take(known)
            self.outcome.reused += 1
            self._next += 1
            self._judge_unit(attempt)
            self.view.update()

    def attempt(self, index: int) -> Attempt:
        """A unit of the stream, nothing of it asked yet."""
        return Attempt(self._units[index], self._judge, self.plan.merge_system)

    def key(self, question: Question) -> str:
        """Under which a question's answer is kept."""
        return answer_key(self.plan.identity, question.messages, self.plan.sampling, question.seed)

    async def ask_all(self, open_teacher: Callable[[], AbstractAsyncContextManager[Pool]]) -> None:
        """Ask until the target is reached."""
        async with open_teacher() as pool:
            self.journal.start_clock()
            self.progress.start(pool)
            workers = [asyncio.create_task(self._work(pool)) for _ in range(self.plan.concurrency)]
            ticker = asyncio.create_task(self._tick())
            try:
                # Every worker ends by itself once the target is reached; the first to see it ends the others. Where the
                # budget is the end, every answer under way is waited for: it is paid.
                finished, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
                if self.spending.over and not self.complete:
                    await asyncio.gather(*workers)
            finally:
                for task in (*workers, ticker):
                    task.cancel()
                await asyncio.gather(*workers, ticker, return_exceptions=True)
        if self._stopped_by is not None:
            raise self._stopped_by
        for worker in finished:
            worker.result()
        if not self.complete:
            raise self.spending.explain(self.outcome.tokens, self.outcome.accepted, self.plan.within(self.outcome))

    async def _tick(self) -> None:
        """Keep log and file up to date while no answer comes."""
        while True:
            await asyncio.sleep(_TICK)
            self.view.update()

    async def _work(self, pool: Pool) -> None:
        try:
            await self._ask_and_deliver(pool)
        except PrimerError as error:
            self._stopped_by = self._stopped_by or error  # the others may still trip over the same before they end

    async def _ask_and_deliver(self, pool: Pool) -> None:
        while not self.complete and self._stopped_by is None and not self.spending.over:
            if self._next >= self.outcome.units + self._ahead or self._enough_is_under_way():
                self._moved.clear()
                await self._moved.wait()
                continue
            index = self._next
            self._next += 1
            attempt = self.attempt(index)
            all_known = await self._carry_out(pool, attempt)
            if self.spending.over and attempt.next_question() is not None:
                self._moved.set()  # nobody waits for what will not come
                return
            self.outcome.reused += all_known
            self._waiting[index] = attempt
            await self._judge_waiting()

    def _enough_is_under_way(self) -> bool:
        """Whether the units taken but not judged should bring what is missing, with a quarter and two to spare."""
        if self._next == self.plan.units:
            return True
        if self.outcome.units < _UNITS_BEFORE_FORESIGHT:
            return False
        done = self.plan.done(self.outcome)
        a_unit = done / self.outcome.units
        return done < 1 and (self._next - self.outcome.units) * a_unit >= 1.25 * (1 - done) + 2 * a_unit

    async def _carry_out(self, pool: Pool, attempt: Attempt) -> bool:
        """Ask what a unit asks until it has ended, or the budget has; whether the journal knew every answer."""
        all_known = True
        while (question := attempt.next_question()) is not None:
            key = self.key(question)
            result = self.journal.get(key)
            if result is None:
                all_known = False
                result = await self._ask_within_budget(pool, question, key)
                if result is None:
                    break
            attempt.take(result)
        await asyncio.sleep(0)  # a long row of known answers must not keep the others from theirs
        return all_known

    async def _ask_within_budget(self, pool: Pool, question: Question, key: str) -> Reply | Failure | None:
        """The answer to a question, in the journal; None if the budget does not hold it."""
        while self.spending.must_wait(question):
            self._ended.clear()
            await self._ended.wait()
        try:
            with self.spending.on(question) as allowed:
                if not allowed:
                    return None
                result = await self._ask(pool, question)
                self.journal.put(key, result)
        finally:
            self._ended.set()
        if isinstance(result, Reply):
            self.spending.check(result)
        return result

    async def _ask(self, pool: Pool, question: Question) -> Reply | Failure:
        try:
            reply = await pool.complete(question.messages, self.plan.sampling, question.seed)
        except RequestError as error:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
                raise pool.explain(error) from None
            if not error.failure.permanent:
                return error.failure
            # A backend may refuse everything for a reason of its own: that it was the question's fault shows in that
            # others are answered afterwards.
            self._doubtful.append((self.key(question), error.failure))
            return replace(error.failure, permanent=False)
        self._failures_in_a_row = 0
        while self._doubtful:
            self.journal.put(*self._doubtful.pop())
        self.progress.answered(reply)
        return reply

    async def _judge_waiting(self) -> None:
        """Judge every unit whose turn has come. One worker does it for all, and lets the others ask meanwhile."""
        if self._judging:
            return
        self._judging, since = True, time.monotonic()
        try:
            while not self.complete and self._stopped_by is None and self.outcome.units in self._waiting:
                self._judge_unit(self._waiting.pop(self.outcome.units))
                self._moved.set()
                self.view.update()
                if time.monotonic() - since > _LONGEST_HOLD:
                    await asyncio.sleep(0)
                    since = time.monotonic()
        finally:
            self._judging = False

    def _judge_unit(self, attempt: Attempt) -> None:
        outcome = self.outcome
        outcome.units += 1
        outcome.tries += attempt.tries
        outcome.continuations += attempt.continuations
        if attempt.failure is not None:
            outcome.failed[_NUMBERS.sub("...", attempt.failure.reason)] += 1
        elif reason := attempt.reason or self._place(attempt):
            outcome.rejected[reason] += 1
        else:
            outcome.accepted += 1
            outcome.tokens += attempt.tokens
            self.progress.accepted(attempt)
            self._accept(attempt)
        if outcome.units >= _UNITS_BEFORE_COMPLAINT and outcome.accepted < _LEAST_ACCEPTED * outcome.units:
            self._stopped_by = _hardly_any(outcome)
            raise self._stopped_by

    def _place(self, attempt: Attempt) -> str | None:
        snippet = attempt.unit.snippet
        return self._judge.place(attempt.document, snippet.text if snippet else None, joined=attempt.joined)


def _hardly_any(outcome: Outcome) -> PrimerError:
    reasons = outcome.rejected + Counter({f"failed ({reason})": n for reason, n in outcome.failed.items()})
    lines = "\n".join(f"  {count:6,d}  {reason}" for reason, count in reasons.most_common())
    return PrimerError(
        f"Of {outcome.units:,d} prompts only {outcome.accepted} brought an acceptable document:\n{lines}",
        "Use a better teacher, change its sampling (max_tokens, temperature), or relax synth.accept. "
        "The replies are kept; after a change of synth.accept alone they are judged again at no cost.",
    )
