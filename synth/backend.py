"""One place that answers requests: the interface behind every kind of teacher, and how a request can fail."""

from __future__ import annotations

from typing import Literal, Protocol

from primer.errors import PrimerError
from primer.recipe_synth import Sampling
from synth.journal import Failure, Reply

Messages = list[dict[str, str]]

# What a failure is a matter of:
#   request                      this one request: another try would fail again (HTTP 400)
#   rate_limit                   the pace: the same request succeeds later
#   server, timeout, connection  the backend, for now
#   garbage                      one answer that is none
#   quota, authentication, model  every request: going on is pointless until a person mends it
Trouble = Literal[
    "request", "rate_limit", "server", "timeout", "connection", "garbage", "quota", "authentication", "model"
]


class RequestError(Exception):
    """One try that brought no answer.

    Args:
        trouble: What it is a matter of; see `Trouble`.
        failure: As the journal records it.
        retry_after: Seconds to leave the backend alone, where it said so.
    """

    def __init__(self, trouble: Trouble, failure: Failure, retry_after: float | None = None) -> None:
        super().__init__(failure.reason)
        self.trouble: Trouble = trouble
        self.failure = failure
        self.retry_after = retry_after


class Backend(Protocol):
    """One address, engine or worker. `synth.pool.Pool` routes, paces and repeats; a backend tries once."""

    @property
    def name(self) -> str:
        """For messages and counts: an address or a worker's name; never a key."""
        ...

    async def check(self) -> None:
        """See whether it is there.

        Raises:
            RequestError: If it is not, or refuses the key.
        """
        ...

    async def complete(self, messages: Messages, sampling: Sampling, seed: int) -> Reply:
        """One try at an answer.

        Raises:
            RequestError: If there is none.
        """
        ...

    def explain(self, error: RequestError) -> PrimerError:
        """What a failure that stops the run means, for people."""
        ...
