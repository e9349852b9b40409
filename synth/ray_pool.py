"""Generation on a Ray cluster: workers on its nodes ask, and are the backends of the ordinary pool.

The engine, its journal and its judge stay in the command's own process. So a corpus from a cluster is the same as one
from this machine, and a worker that is lost loses nothing but the answers that it was waiting for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from primer.progress import bar, say
from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher, Sampling, Synth
from synth.backend import Messages, RequestError
from synth.endpoint import read_key
from synth.journal import Failure, Reply
from synth.pool import Pool
from synth.ray_cluster import check_installed, connected, free_nodes
from synth.ray_room import Layout, lay_out
from synth.ray_worker import Asker, Opened, Refusal, Stopped

# A worker keeps the recipe's timeout itself; after so many seconds more it is taken to be out of reach.
_GRACE_SECONDS = 30.0

# Calls beside the requests: check, close.
_SPARE_CALLS = 8

_START_SECONDS = 120.0  # for a worker's process and its imports; a vLLM server has its own limit besides
_CLOSE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # before a worker that was lost is replaced again


class RayRequestError(RequestError):
    """A failure with its explanation, which only the worker knew."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.trouble, refusal.failure, refusal.retry_after)
        self.explained = PrimerError(refusal.problem, refusal.remedy)


class RayWorker:
    """One worker, replaced as often as it is lost.

    Ray's own restarts and retries are off: Ray would ask again what may have been paid already, and a process that it
    restarts has no teacher yet.

    Args:
        number: Tells it from the others.
        start: Makes a new actor of `Asker`.
        opening: What `Asker.open` takes.
    """

    def __init__(self, number: int, start: Callable[[], Any], opening: tuple[Any, ...]) -> None:
        self.name = f"worker {number}"
        self.actor: Any = None
        self.problem: PrimerError | None = None
        self.backends: list[str] = []
        self._number, self._start, self._opening = number, start, opening
        self._lost = asyncio.Event()

    async def keep(self) -> None:
        """Keep a worker open until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            actor = self._start()
            opened = False
            try:
                if opened := await self._open(actor):
                    pause = _FIRST_PAUSE
                    await self._lost.wait()
            finally:
                self.actor = None
                await _end(actor, opened)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def error(self) -> RayRequestError:
        """What a request brings that meets no worker."""
        explained = self.problem or PrimerError(
            f"The Ray {self.name} is not ready.", "It is being started; `ray status` shows what the cluster has."
        )
        failure = Failure(None, f"Ray {self.name}: {_line(explained.problem)}", False)
        return RayRequestError(Refusal("connection", failure, None, explained.problem, explained.remedy))

    async def call(self, method: str, *arguments: Any, timeout: float | None) -> Any:
        """What a method of the worker returns.

        Raises:
            RequestError: If the worker is not there, or does not answer.
        """
        from ray.exceptions import ActorDiedError, RayError

        actor = self.actor
        if actor is None:
            raise self.error()
        try:
            async with asyncio.timeout(timeout):
                result = await getattr(actor, method).remote(*arguments)
        except TimeoutError:
            raise RequestError("timeout", Failure(None, f"no reply from Ray {self.name}", False)) from None
        except ActorDiedError as error:
            raise self._lose(actor, _died(self.name, error)) from None
        except RayError as error:  # out of reach for now, or an error in it
            raise RequestError("connection", Failure(None, f"Ray {self.name}: {_line(str(error))}", False)) from None
        if isinstance(result, Stopped):
            raise self._lose(actor, PrimerError(result.problem, result.remedy))
        if isinstance(result, Refusal):
            raise RayRequestError(result)
        return result

    def _lose(self, actor: Any, problem: PrimerError) -> RayRequestError:
        if actor is self.actor:
            self.actor, self.problem = None, problem
            self._lost.set()
        return self.error()

    async def _open(self, actor: Any) -> bool:
        from ray.exceptions import RayError

        self._lost.clear()
        try:
            result = await actor.open.remote(*self._opening)
        except RayError as error:
            self.problem = _died(self.name, error)
            return False
        if not isinstance(result, Opened):
            self.problem = PrimerError(f"Ray {self.name}: {result.problem}", result.remedy)
            return False
        self.name = f"worker {self._number} on {result.host}"
        self.backends, self.problem, self.actor = result.backends, None, actor
        return True


class RayBackend:
    """One of a worker's backends; see :class:`synth.backend.Backend`."""

    def __init__(self, worker: RayWorker, number: int, several: bool, timeout: float | None) -> None:
        self._worker, self._number, self._several = worker, number, several
        self._timeout = None if timeout is None else timeout + _GRACE_SECONDS

    @property
    def name(self) -> str:
        """The worker's name and, where it asks several addresses, which."""
        known = self._several and self._worker.backends
        return f"{self._worker.name}, {known[self._number]}" if known else self._worker.name

    async def check(self) -> None:
        """See whether the worker is there, and what it asks.

        Raises:
            RequestError: If not, or the key is refused.
        """
        await self._worker.call("check", self._number, timeout=_START_SECONDS)

    async def complete(self, messages: Messages, sampling: Sampling, seed: int) -> Reply:
        """One try at an answer.

        Raises:
            RequestError: If there is none.
        """
        reply = await self._worker.call("complete", self._number, messages, sampling, seed, timeout=self._timeout)
        assert isinstance(reply, Reply)
        return reply

    def explain(self, error: RequestError) -> PrimerError:
        """What a failure that stops the run means, for people."""
        if isinstance(error, RayRequestError):
            return error.explained
        return PrimerError(
            f"The Ray {self._worker.name} fails: {error.failure.reason}",
            "See `ray status` and the worker's log on its node. What was answered is kept; the same command goes on.",
        )


def on_ray(synth: Synth, address: str, workers: int | None) -> Callable[[Synth], AbstractAsyncContextManager[Pool]]:
    """What opens the pool for `synth.corpora.make_corpora`; see `open_ray`.

    Raises:
        PrimerError: If Ray is not installed, or the teacher answers in batches: known before any work begins.
    """
    if isinstance(synth.teacher, EndpointTeacher) and synth.teacher.batch:
        raise PrimerError(
            "The recipe's teacher answers in batches (synth.teacher.batch), for which there is nothing to do on a "
            "cluster.",
            "Leave out --ray, or set synth.teacher.batch to false.",
        )
    check_installed()
    return partial(open_ray, address=address, workers=workers)


@asynccontextmanager
async def open_ray(synth: Synth, address: str, workers: int | None) -> AsyncIterator[Pool]:
    """Start workers on a Ray cluster, and leave none there afterwards.

    Args:
        synth: The recipe's section.
        address: Of the cluster: `auto` (the one that this machine belongs to), `local` (a Ray on this machine, for as
            long as the context lasts), or host and port.
        workers: How many; null: as many as `synth.ray_room.lay_out` finds room for.

    Raises:
        PrimerError: If Ray is not installed or the cluster cannot be reached or has no room; or no worker can open
            the teacher.
    """
    timeout = None if isinstance(synth.teacher, EmbeddedTeacher) else synth.timeout
    key = _key(synth)
    with connected(address) as ray:
        layout = lay_out(synth.teacher, free_nodes(ray), workers)
        part = -(-synth.concurrency // layout.workers)  # llama.cpp sets memory aside for each request in flight
        opening = (layout.teacher, part, timeout, key)
        start = _starter(ray, layout, synth.concurrency)
        team = [RayWorker(number, start, opening) for number in range(1, layout.workers + 1)]
        kept = [asyncio.create_task(worker.keep()) for worker in team]
        try:
            await _ready(team, _START_SECONDS + getattr(synth.teacher, "startup_seconds", 0))
            pool = _pool(synth, team, timeout)
            await pool.check()
            yield pool
        finally:
            for task in kept:
                task.cancel()
            await asyncio.gather(*kept, return_exceptions=True)


def _key(synth: Synth) -> str | None:
    """The endpoint's key, read where the command runs.

    It goes to the workers as an argument of a method: from this process to theirs, and nowhere else. What Ray is told
    in `runtime_env` it writes into a log and shows in the process's environment; what an actor's constructor takes is
    kept by the cluster's head.

    Raises:
        PrimerError: If it is missing where one is needed.
    """
    if not isinstance(synth.teacher, EndpointTeacher):
        return None
    keys = [read_key(address, synth.teacher.api_key_env) for address in synth.teacher.addresses]
    return keys[0]


def _starter(ray: Any, layout: Layout, concurrency: int) -> Callable[[], Any]:
    actor = ray.remote(
        num_cpus=layout.cpus,
        num_gpus=layout.gpus,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=concurrency + _SPARE_CALLS,
        scheduling_strategy="SPREAD",
    )(Asker)
    folder = str(Path.cwd())
    return lambda: actor.remote(folder)


def _pool(synth: Synth, team: list[RayWorker], timeout: float | None) -> Pool:
    teacher = synth.teacher
    each = len(teacher.addresses) if isinstance(teacher, EndpointTeacher) else 1
    endpoint = teacher if isinstance(teacher, EndpointTeacher) else None
    return Pool(
        [RayBackend(worker, number, each > 1, timeout) for worker in team for number in range(each)],
        concurrency=synth.concurrency,
        timeout=timeout,
        patience=synth.patience,
        requests_per_minute=_part(endpoint.requests_per_minute, len(team)) if endpoint else None,
        tokens_per_minute=_part(endpoint.tokens_per_minute, len(team)) if endpoint else None,
    )


def _part(limit: int | None, workers: int) -> int | None:
    """A worker's part of an address's limit, which all of them share."""
    return None if limit is None else max(1, limit // workers)


async def _ready(team: list[RayWorker], limit: float) -> None:
    """Wait until every worker is ready or has failed once; those that failed are tried again all the while.

    Raises:
        PrimerError: If none is ready.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + limit
    with bar("starting Ray's workers", len(team), "workers ready") as shown:
        while any(worker.actor is None and worker.problem is None for worker in team) and loop.time() < until:
            shown.update(sum(worker.actor is not None for worker in team))
            await asyncio.sleep(_POLL_SECONDS)
    missing = [worker for worker in team if worker.actor is None]
    if len(missing) == len(team):
        raise team[0].problem or PrimerError(
            f"No Ray worker was ready within {limit:.0f} s.",
            "`ray status` says what the cluster waits for; what was free when the command began may be taken by now.",
        )
    say(f"  {len(team) - len(missing)} of {len(team)} Ray workers ready")
    for problem in {worker.error().explained.problem for worker in missing}:
        say(f"  not ready: {_line(problem)}")


async def _end(actor: Any, opened: bool) -> None:
    """Stop what a worker opened, then the worker."""
    import ray
    from ray.exceptions import RayError

    if opened:  # one that is not may have no process yet, to hear of it
        with suppress(RayError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await actor.close.remote()
    with suppress(RayError, ValueError):
        ray.kill(actor)


def _died(name: str, error: Exception) -> PrimerError:
    text = str(error)
    if "ModuleNotFoundError" in text or "ImportError" in text:
        return PrimerError(
            f"The Ray {name} cannot import Primer: {_line(text, last=True)}",
            "Install the same Primer in the environment from which each node runs `ray start`.",
        )
    return PrimerError(
        f"The Ray {name} died: {_line(text)}",
        "Its node's log says more (out of memory is the usual reason). What was answered is kept; the same command "
        "goes on.",
    )


def _line(text: str, last: bool = False) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    return lines[-1 if last else 0][:300]
