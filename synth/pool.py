"""Backends side by side: the least loaded one is asked, at its pace, and asked again where another try can help."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape

from primer.errors import PrimerError
from primer.progress import say
from primer.recipe_synth import Sampling
from synth.backend import Backend, Messages, RequestError, Trouble
from synth.journal import Reply
from synth.limits import Lane

# How often a request is tried where the trouble is not its pace. A time-out has cost its whole wait already.
# A refusal for the pace is nobody's fault, until others are answered again and again and this one never.
_TRIES: dict[Trouble, int] = {"server": 6, "connection": 6, "model": 6, "garbage": 3, "timeout": 2, "rate_limit": 20}

# Between two tries of one request: half a second, twice as long each time, and never in step with the others.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

# Trouble that no other try can help: always; where no backend has answered anything and each said so; where there is
# but one, it has answered nothing, and this has happened some times, to a tenth of what may be in flight.
_FINAL: frozenset[Trouble] = frozenset({"authentication", "quota"})
_FINAL_EVERYWHERE: frozenset[Trouble] = frozenset({"model"})
_FINAL_ALONE: frozenset[Trouble] = frozenset({"garbage", "connection"})
_SOME_TIMES = 3

_LOOK_AGAIN = 60.0


@dataclass(frozen=True)
class LaneState:
    """One backend as the live view shows it."""

    name: str
    in_flight: int
    limit: int
    broken: bool
    answers: int
    errors: Counter[str]


class Pool:
    """A teacher that is ready to answer.

    Args:
        backends: Where to ask; each must give the same answers as the others.
        concurrency: Most requests in flight, at all backends together and at each.
        timeout: Longest wait for one answer, in seconds; None if there is no limit.
        patience: Seconds without any answer after which the run stops.
        requests_per_minute, tokens_per_minute: Limits of each backend, if it has any.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        concurrency: int,
        timeout: float | None,
        patience: float,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self._generator = random.Random()
        self._lanes = [
            (b, Lane(concurrency, timeout, patience, requests_per_minute, tokens_per_minute, self._generator))
            for b in backends
        ]
        self._patience, self._concurrency = patience, concurrency
        self._turn = asyncio.Lock()  # requests go out in the order in which they came
        self._changed = asyncio.Event()
        self._told: set[str] = set()
        self._asking = 0  # requests that are here
        self._sound_at = 0.0  # when the latest try began that was answered
        self._failing_since: float | None = None  # the first failure after the latest answer

    async def check(self) -> None:
        """See which backends are there; those that are not are tried again later.

        Raises:
            PrimerError: If none is, or one refuses the key.
        """
        results = await asyncio.gather(*(self._check(backend) for backend, _ in self._lanes))
        failed = [(b, lane, e) for (b, lane), e in zip(self._lanes, results, strict=True) if e is not None]
        for backend, lane, error in failed:
            if error.trouble in _FINAL or len(failed) == len(self._lanes):
                raise backend.explain(error)
            lane.shut(time.monotonic())
            self._tell_of(backend, error)

    def states(self) -> list[LaneState]:
        """How each backend is doing."""
        return [
            LaneState(b.name, lane.in_flight, int(lane.limit), lane.broken, lane.answers, Counter(lane.errors))
            for b, lane in self._lanes
        ]

    def explain(self, error: RequestError) -> PrimerError:
        """What a failure that stops the run means, for people."""
        return self._lanes[0][0].explain(error)

    async def complete(self, messages: Messages, sampling: Sampling, seed: int) -> Reply:
        """One answer, from whichever backend.

        Raises:
            RequestError: If this request cannot be answered.
            PrimerError: If none can.
        """
        self._asking += 1
        try:
            return await self._complete(messages, sampling, seed)
        finally:
            self._asking -= 1

    async def _complete(self, messages: Messages, sampling: Sampling, seed: int) -> Reply:
        tries: Counter[Trouble] = Counter()
        failures, failed_at, avoid = 0, -1.0, None
        while True:
            backend, lane = await self._admitted(avoid)
            reserved, began = lane.enter(messages, sampling), time.monotonic()
            try:
                reply = await backend.complete(messages, sampling, seed)
            except RequestError as error:
                lane.failed(error, reserved, time.monotonic())
                if lane.broken:
                    self._tell_of(backend, error)
                self._changed.set()
                if self._hopeless(lane, error):
                    raise backend.explain(error) from None
                # It is the request's fault if others, asked since its last failure, were answered; else the backend's.
                # Where only a few are left, nobody else could be: then it is the request's if the backend is there.
                few = self._asking <= max(1, self._concurrency // 4)
                if self._sound_at > failed_at or (few and await self._check(backend) is None):
                    tries[error.trouble] += 1
                failures, failed_at, avoid = failures + 1, time.monotonic(), lane
                if tries[error.trouble] >= _TRIES.get(error.trouble, 1):
                    raise error
                await self._pause(error, failures)
            except BaseException:
                lane.left(reserved)
                self._changed.set()
                raise
            else:
                lane.answered(reply, reserved)
                self._sound_at = max(self._sound_at, began)
                self._failing_since = None
                self._changed.set()
                return reply

    def _tell_of(self, backend: Backend, error: RequestError) -> None:
        """Say once that a backend does not answer: the others hide it."""
        if backend.name not in self._told:
            self._told.add(backend.name)
            say(f"  [yellow]{escape(backend.name)} does not answer and is tried now and then:[/] {escape(str(error))}")

    async def _check(self, backend: Backend) -> RequestError | None:
        try:
            await backend.check()
        except RequestError as error:
            return error
        return None

    async def _admitted(self, avoid: Lane | None) -> tuple[Backend, Lane]:
        """The least loaded backend that may be asked, as soon as there is one; another than `avoid` if there is."""
        async with self._turn:
            while True:
                self._changed.clear()
                now, soonest = time.monotonic(), _LOOK_AGAIN
                best: tuple[bool, float, int] | None = None
                for number, (_, lane) in enumerate(self._lanes):
                    wait = lane.wait(now)
                    if wait == 0:
                        rank = lane is avoid, lane.load, number
                        best = rank if best is None else min(best, rank)
                    elif wait:
                        soonest = min(soonest, wait)
                if best is not None:
                    return self._lanes[best[2]]
                try:
                    async with asyncio.timeout(soonest):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _hopeless(self, lane: Lane, error: RequestError) -> bool:
        """Whether going on is pointless: what failed will fail again, or nothing was answered for too long."""
        if error.trouble == "request":
            return False
        if error.trouble in _FINAL:
            return True
        if error.trouble in _FINAL_EVERYWHERE and all(
            each.errors[error.trouble] and not each.answers for _, each in self._lanes
        ):
            return True
        often = lane.errors[error.trouble] >= max(_SOME_TIMES, lane.limit / 10)
        if error.trouble in _FINAL_ALONE and len(self._lanes) == 1 and not lane.answers and often:
            return True
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        return now - self._failing_since > self._patience

    async def _pause(self, error: RequestError, failures: int) -> None:
        """Wait before another try: as long as the backend says, or longer each time."""
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10)) * self._generator.uniform(0.5, 1.0)
        await asyncio.sleep(max(pause, min(error.retry_after or 0.0, self._patience)))
