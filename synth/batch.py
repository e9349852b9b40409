"""Asking in batches, through OpenAI's Batch API: half the price, and answers within a day.

The questions that are known now go out as batches; what comes back goes into the journal, is judged there, and shows
what to ask next: further steps of a unit, another try, more units. Whatever happens on the way, the same command goes
on: batches under way are collected first, and no request is made twice that may still be answered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from primer.errors import PrimerError
from primer.progress import say
from primer.recipe_synth import EndpointTeacher, Synth
from synth.backend import RequestError
from synth.batch_api import ENDED, FINAL, BatchApi, Pace, TooLargeError
from synth.batch_collect import NEW_LIMIT, OLD_LIMIT, Collector
from synth.batch_log import Batch, BatchLog
from synth.batch_wave import Bundle, Limits, Wave, Waves
from synth.endpoint import EndpointBackend, open_endpoint, read_key
from synth.engine import Asker, Generation
from synth.pool import LaneState
from synth.units import Question

if TYPE_CHECKING:
    from openai.types import Batch as RemoteBatch

_OVERLOADED = "token_limit_exceeded"  # OpenAI's code where the tokens of all batches under way are too many


def asking_in_batches(synth: Synth, state: Path, pace: Pace | None = None) -> Asker:
    """Ask an endpoint through its Batch API.

    Args:
        synth: The recipe's section.
        state: Where to keep which batches are under way.
        pace: How patiently they are watched.
    """

    def ask(generation: Generation) -> None:
        asking = _Asking(generation, synth, BatchLog(state), pace or Pace())
        try:
            asyncio.run(asking.ask())
        except (KeyboardInterrupt, PrimerError):
            asking.say_what_goes_on()
            raise

    return ask


@dataclass
class _UnderWay:
    """A batch at the provider: the keys that it is to answer, and what is set aside of the budget for it."""

    batch: Batch
    keys: set[str]
    aside: ExitStack
    seen: RemoteBatch | None = None  # when it was last looked at


class _Asking:
    """One generation, asked in batches; see `asking_in_batches`."""

    def __init__(self, generation: Generation, synth: Synth, log: BatchLog, pace: Pace) -> None:
        assert isinstance(synth.teacher, EndpointTeacher)
        self._generation, self._synth, self._teacher = generation, synth, synth.teacher
        self._log, self._pace = log, pace
        self._journal, self._plan = generation.journal, generation.plan
        self._spending, self._view = generation.spending, generation.view
        self._under_way: dict[str, _UnderWay] = {}
        self._limits = Limits()
        self._limit_name = log.limits.get(self._journal.tag, OLD_LIMIT)
        self._overdrawn = False  # what is under way from earlier runs may cost more than the budget of this one
        self._queue_full = False  # no more fits beside what is under way
        self._wanted: set[str] = set()  # labels of batches that were to serve this generation
        self._asked: set[int] = set()  # units that this run has asked for and not judged
        self._backend: EndpointBackend
        self._api: BatchApi
        self._collector: Collector
        self._waves: Waves

    async def ask(self) -> None:
        """Ask until the target is reached.

        Raises:
            PrimerError: If the budget or the provider ends it before.
        """
        address, variable = self._teacher.addresses[0], self._teacher.api_key_env
        key = read_key(address, variable)
        async with open_endpoint(
            address, self._teacher.model, self._synth.timeout, key=key, key_variable=variable
        ) as self._backend:
            try:
                await self._backend.check()
            except RequestError as error:
                raise self._backend.explain(error) from None
            self._api = BatchApi(self._backend, self._synth.patience, self._pace)
            self._collector = Collector(self._api, self._backend, self._journal, self._log)
            self._waves = Waves(self._generation, self._plan, self._spending, self._journal.get, self._body)
            self._journal.start_clock()
            self._journal.introduce()  # the answers may come in another run, of another recipe
            self._generation.progress.start(self)
            await self._take_up()
            await self._send_and_collect()
            await self._wind_up()

    def states(self) -> list[LaneState]:
        """How each batch is doing, for the view."""
        return [_state(under_way) for under_way in self._under_way.values()]

    def say_what_goes_on(self) -> None:
        """Tell what the provider does while nobody watches."""
        if self._under_way:
            requests = sum(under_way.batch.requests for under_way in self._under_way.values())
            say(
                f"  {_batches(len(self._under_way))} with {requests:,d} requests go on at "
                f"{escape(self._teacher.addresses[0])}, and will be paid for; the same command collects them, "
                "tomorrow as well as now"
            )

    async def _take_up(self) -> None:
        """See what earlier runs have left under way."""
        others = [batch for batch in self._log.pending.values() if self._is_other(batch)]
        if others:
            say(
                f"  {_batches(len(others))} with other settings of the teacher or its sampling: collected when done, "
                "and not waited for"
            )
        for batch in list(self._log.pending.values()):
            if batch.address != self._backend.name:
                if self._is_other(batch):
                    self._set_aside(batch)  # it is paid for from the same budget
                    continue
                raise PrimerError(
                    f"A batch of {batch.requests:,d} requests is under way at {batch.address}, and "
                    f"synth.teacher.base_url is {self._backend.name}.",
                    f"Run with that address once, which collects it, or {self._log.give_up(batch)}",
                )
            if batch.id is None and not await self._found(batch):
                self._log.ended(batch, "never made")
                continue
            self._under_way[batch.label] = self._set_aside(batch)
        self._overdrawn = self._spending.over

    def _is_other(self, batch: Batch) -> bool:
        """Whether another teacher was asked, or with other settings: its answers serve this generation nothing."""
        return batch.tag != self._journal.tag

    def _awaited(self) -> bool:
        return any(not self._is_other(under_way.batch) for under_way in self._under_way.values())

    def _set_aside(self, batch: Batch) -> _UnderWay:
        under_way = _UnderWay(batch, set(), ExitStack())
        for key, question in self._log.questions(batch):
            self._waves.set_aside(question, under_way.aside)
            under_way.keys.add(key)
        return under_way

    async def _found(self, batch: Batch) -> bool:
        """Whether a batch was made just before a process ended that could not note it any more."""
        if batch.file is None:
            return False
        age = max(0.0, datetime.now().timestamp() - batch.at)
        await asyncio.sleep(max(0.0, self._pace.settling - age))
        identity = await self._api.find(batch.label, batch.at)
        if identity is not None:
            self._log.created(batch, identity)
        return identity is not None

    async def _send_and_collect(self) -> None:
        news, pause = True, self._pace.first
        if self._under_way:
            say(f"  {_batches(len(self._under_way))} under way from an earlier run")
            self._form().drop()  # to see which of them this generation waits for
            news = await self._look()
        while not self._generation.complete:
            if news or not self._awaited():
                self._judge()
                if self._generation.complete:
                    return
                if await self._send():
                    pause = self._pace.first
                elif not self._awaited():
                    outcome = self._generation.outcome
                    raise self._spending.explain(outcome.tokens, outcome.accepted, self._plan.within(outcome))
            news = await self._look()
            if not news:
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, self._pace.longest)

    async def _wind_up(self) -> None:
        """Let what is not needed any more end with the answers that it has, which are paid."""
        mine = self._wanted & self._under_way.keys()
        if mine:
            say(f"  {_batches(len(mine))} more than needed: cancelled; what is answered by now is kept")
        while mine:
            for label in mine:
                under_way = self._under_way[label]
                if under_way.seen is None or under_way.seen.status != "cancelling":
                    await self._api.cancel(under_way.batch.id or "")
            if not await self._look(mine):
                await asyncio.sleep(self._pace.first)
            mine &= self._under_way.keys()
        self.say_what_goes_on()

    def _judge(self) -> None:
        """Judge what has come. Of the units that were waited for, the journal did not know every answer before."""
        self._journal.settle()
        self._generation.replay()
        outcome = self._generation.outcome
        judged = {unit for unit in self._asked if unit < outcome.units}
        outcome.reused -= len(judged)
        self._asked -= judged
        self._view.update()

    async def _send(self) -> bool:
        """Ask what can be asked now; whether there was anything."""
        if (self._overdrawn or self._queue_full) and self._awaited():
            return False
        wave = self._form()
        if not wave.worth_sending(sum(len(under_way.keys) for under_way in self._under_way.values())):
            wave.drop()
            return False
        for number, bundle in enumerate(wave.bundles):
            try:
                await self._send_bundle(bundle)
            except TooLargeError as error:
                self._limits.shrink(len(bundle.keys), str(error))
                for unsent in wave.bundles[number:]:
                    unsent.aside.close()
                return await self._send()
        return True

    def _form(self) -> Wave:
        keys = set().union(*(under_way.keys for under_way in self._under_way.values()))
        wave = self._waves.next(keys, len(self._under_way), self._limits)
        self._asked |= wave.units
        self._wanted |= {label for label, u in self._under_way.items() if not u.keys.isdisjoint(wave.awaited)}
        return wave

    async def _send_bundle(self, bundle: Bundle) -> None:
        batch = self._log.intend(bundle.lines, self._journal.tag, self._backend.name, self._limit_name)
        bundle.lines.clear()
        try:
            file = await self._api.upload(self._log.requests(batch.label))
        except (PrimerError, TooLargeError):
            self._log.ended(batch, "not taken")
            raise
        self._log.uploaded(batch, file)
        self._log.created(batch, await self._api.create(file, batch.label, batch.at))
        self._under_way[batch.label] = _UnderWay(batch, set(bundle.keys), bundle.aside)
        self._wanted.add(batch.label)
        say(f"  batch {escape(batch.id or '')}: {batch.requests:,d} requests sent")

    async def _look(self, labels: Iterable[str] | None = None) -> bool:
        """Look at every batch under way, and collect what has ended; whether something has."""
        news = False
        for label in list(self._under_way if labels is None else self._under_way.keys() & set(labels)):
            under_way = self._under_way[label]
            batch = under_way.batch
            under_way.seen = await self._api.look(batch.id or "", self._log.give_up(batch))
            if under_way.seen.status in ENDED:
                news = True
                await self._end(under_way, under_way.seen)
        self._view.update()
        return news

    async def _end(self, under_way: _UnderWay, seen: RemoteBatch) -> None:
        batch = under_way.batch
        if seen.status == "failed":
            self._forget(under_way, "failed")
            if not self._is_other(batch):
                self._explain_failed(batch, seen)
            return
        answers = await self._collector.collect(batch, under_way.keys, seen)
        self._queue_full = False
        telling = self._collector.telling(answers)
        if telling is None:
            self._collector.keep(batch, answers)
        if answers.refuses_limit and not self._is_other(batch):
            self._limit_name = NEW_LIMIT
        self._forget(under_way, "collected")
        ended = "" if seen.status == "completed" else f" ({seen.status}: what it lacks is asked again if needed)"
        say(f"  batch {escape(seen.id)}: {answers.replies:,d} of {batch.requests:,d} answers{ended}")
        if self._is_other(batch):
            return
        if telling is not None:
            raise self._backend.explain(telling)
        if answers.unmetered is not None:
            self._spending.check(answers.unmetered)

    def _explain_failed(self, batch: Batch, seen: RemoteBatch) -> None:
        """Send less, or under the other name, where that helps.

        Raises:
            PrimerError: If a person has to mend the cause.
        """
        errors = (seen.errors.data if seen.errors else None) or []
        shown = "; ".join(f"line {e.line}: {e.message}" if e.line else str(e.message or e.code) for e in errors[:3])
        codes = {error.code for error in errors}
        explained = self._api.error(400, {"message": shown or "no reason given", "code": next(iter(codes), None)})
        reason = explained.failure.reason.removeprefix("HTTP 400: ")
        if _OVERLOADED in codes:
            self._queue_full = True
            if not self._awaited():
                self._limits.shrink(batch.requests, reason)
            then = "waiting for the others" if self._awaited() else "smaller batches are sent"
            say(f"  batch {escape(seen.id)}: {escape(reason)}; {then}")
        elif batch.limit == OLD_LIMIT and NEW_LIMIT in reason:
            self._limit_name = NEW_LIMIT
        elif explained.trouble in FINAL:
            raise self._backend.explain(explained)
        else:
            raise PrimerError(
                f"The endpoint {self._backend.name} refused the batch {seen.id} (file {batch.file}): {reason}",
                "Mend what it names (a setting of synth.sampling, the model) and run the same command again.",
            )

    def _forget(self, under_way: _UnderWay, how: str) -> None:
        self._log.ended(under_way.batch, how)
        under_way.aside.close()
        del self._under_way[under_way.batch.label]

    def _body(self, question: Question) -> dict[str, Any]:
        body = self._backend.request(question.messages, self._plan.sampling, question.seed)
        if self._limit_name == NEW_LIMIT:
            body[NEW_LIMIT] = body.pop(OLD_LIMIT)
        return body


def _state(under_way: _UnderWay) -> LaneState:
    """A batch as the view shows an address."""
    batch, seen = under_way.batch, under_way.seen
    counts = seen.request_counts if seen else None
    done, failed = (counts.completed or 0, counts.failed or 0) if counts else (0, 0)
    begun = datetime.fromtimestamp(batch.at).strftime("%d %b %H:%M")
    expires = f", expires {datetime.fromtimestamp(seen.expires_at):%d %b %H:%M}" if seen and seen.expires_at else ""
    name = f"batch {batch.id}, {seen.status.replace('_', ' ') if seen else 'sent'}, begun {begun}{expires}"
    errors = Counter({"failed": failed} if failed else {})
    return LaneState(name, max(0, batch.requests - done - failed), batch.requests, False, done, errors)


def _batches(count: int) -> str:
    return "1 batch" if count == 1 else f"{count} batches"
