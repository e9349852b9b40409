"""What runs on a Ray cluster: a process on some node that opens the recipe's teacher there and asks it.

Results are values, failures too: an exception of ours would not survive Ray's pickling, and Ray logs those that it
carries.
"""

from __future__ import annotations

import os
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from primer.errors import PrimerError
from primer.recipe_synth import EndpointTeacher, Sampling, Teacher
from synth.backend import Backend, Messages, RequestError, Trouble
from synth.journal import Failure, Reply
from synth.teachers import open_backends


@dataclass(frozen=True)
class Opened:
    """A worker is ready: where it is, and what it asks."""

    host: str
    process: int
    backends: list[str]


@dataclass(frozen=True)
class Stopped:
    """A worker has no teacher: it could not be opened, or it died."""

    problem: str
    remedy: str


@dataclass(frozen=True)
class Refusal:
    """A `RequestError`, with the explanation that only its backend can give."""

    trouble: Trouble
    failure: Failure
    retry_after: float | None
    problem: str
    remedy: str


class Asker:
    """One worker; Ray makes it an actor. What it opens ends with it.

    Args:
        folder: The command's working folder, from which relative paths of the recipe are meant. A node that has no
            such folder stays where Ray put it.
    """

    def __init__(self, folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)
        self._stack = AsyncExitStack()
        self._backends: list[Backend] = []
        self._own = False

    async def open(
        self, teacher: Teacher, concurrency: int, timeout: float | None, key: str | None
    ) -> Opened | Stopped:
        """Start or reach the teacher.

        Args:
            teacher: The recipe's.
            concurrency: Requests in flight to be ready for, here.
            timeout: Longest wait for one answer, in seconds.
            key: The endpoint's, if it has one; it stays in this process.
        """
        self._own = not isinstance(teacher, EndpointTeacher)
        if isinstance(teacher, EndpointTeacher) and key is not None:
            os.environ[teacher.api_key_env] = key
        try:
            self._backends = await open_backends(teacher, concurrency, timeout, self._stack)
        except PrimerError as error:
            return Stopped(error.problem, error.remedy)
        return Opened(socket.gethostname(), os.getpid(), [backend.name for backend in self._backends])

    async def check(self, number: int) -> Refusal | Stopped | None:
        """See whether one of the worker's backends is there."""
        try:
            await self._backends[number].check()
        except RequestError as error:
            return self._refusal(number, error)
        except PrimerError as error:
            return Stopped(error.problem, error.remedy)
        return None

    async def complete(
        self, number: int, messages: Messages, sampling: Sampling, seed: int
    ) -> Reply | Refusal | Stopped:
        """One try at an answer, by one of the worker's backends."""
        try:
            return await self._backends[number].complete(messages, sampling, seed)
        except RequestError as error:
            refusal = self._refusal(number, error)
            if self._own and error.trouble == "connection":
                return await self._gone(number) or refusal
            return refusal
        except PrimerError as error:
            return Stopped(error.problem, error.remedy)

    async def close(self) -> None:
        """Stop what was opened."""
        await self._stack.aclose()

    async def _gone(self, number: int) -> Stopped | None:
        """Whether the server that this worker started has died: nobody else would start it again."""
        found = await self.check(number)
        if isinstance(found, Refusal) and found.trouble == "connection":
            return Stopped(f"The teacher on {socket.gethostname()} stopped: {found.failure.reason}", found.remedy)
        return None

    def _refusal(self, number: int, error: RequestError) -> Refusal:
        explained = self._backends[number].explain(error)
        return Refusal(error.trouble, error.failure, error.retry_after, explained.problem, explained.remedy)
