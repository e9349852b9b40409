"""Teachers: one small interface over every way to get text written.

A teacher is opened for as long as it is needed and gives a client. All kinds are asked through the same
OpenAI-compatible client (:mod:`synth.endpoint`); they differ in where the server comes from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from primer.errors import PrimerError
from primer.fingerprint import file_hash
from primer.recipe import EmbeddedTeacher, EndpointTeacher, Sampling, Teacher
from synth.journal import Reply

if TYPE_CHECKING:
    from synth.endpoint import RequestError


class Client(Protocol):
    """A teacher that is ready to answer."""

    @property
    def identity(self) -> str:
        """Model and endpoint, or model and settings: whatever decides the answers; never a key."""
        ...

    async def complete(self, messages: list[dict[str, str]], sampling: Sampling, seed: int) -> Reply:
        """One answer.

        Raises:
            synth.endpoint.RequestError: If there is none.
        """
        ...

    def fatal(self, error: RequestError) -> PrimerError:
        """What a failure that stops everything means, for people."""
        ...


def teacher_identity(teacher: Teacher) -> str:
    """What an answer depends on beside the question: known without starting anything.

    Raises:
        PrimerError: If the embedded teacher's file is missing, or the endpoint's address is unusable.
    """
    if isinstance(teacher, EmbeddedTeacher):
        from synth.embedded import find_model

        path = find_model(teacher.model)
        return f"embedded:{path.name}@sha256:{file_hash(path)[:16]}, context {teacher.context}"
    if isinstance(teacher, EndpointTeacher):
        from synth.endpoint import check_address

        return f"openai:{teacher.model}@{check_address(teacher.base_url)}"
    return " ".join([f"vllm:{teacher.model}", *teacher.arguments])


@asynccontextmanager
async def open_teacher(teacher: Teacher, identity: str, concurrency: int, timeout: float) -> AsyncIterator[Client]:
    """Start or reach a teacher, and leave nothing running afterwards.

    Args:
        teacher: The recipe's section.
        identity: `teacher_identity(teacher)`.
        concurrency: Requests in flight at most.
        timeout: Longest wait for one answer of a server, in seconds.

    Raises:
        PrimerError: If it cannot be started or reached, or refuses the key.
    """
    from synth.endpoint import endpoint_client, read_key

    if isinstance(teacher, EmbeddedTeacher):
        from synth.embedded import find_model, serve

        # No timeout: nothing is lost on the way to this process, and on a slow machine a reply cut off is work wasted.
        async with (
            serve(find_model(teacher.model), teacher, concurrency) as address,
            endpoint_client(address, "embedded", identity, None) as client,
        ):
            yield client
    elif isinstance(teacher, EndpointTeacher):
        key = read_key(teacher.base_url, teacher.api_key_env)
        async with endpoint_client(
            teacher.base_url, teacher.model, identity, timeout, key=key, key_variable=teacher.api_key_env
        ) as client:
            yield client
    else:
        from synth.vllm_server import serve_vllm

        async with (
            serve_vllm(teacher) as address,
            endpoint_client(address, teacher.model, identity, timeout) as client,
        ):
            yield client
