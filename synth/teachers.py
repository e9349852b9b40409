"""Teachers: one small interface over every way to get text written.

A teacher is opened for as long as it is needed and gives a client. Behind it is a pool of backends: addresses of
OpenAI-compatible servers, Primer's own among them, or an engine in this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from primer.fingerprint import file_hash
from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher, Synth, Teacher, VllmTeacher
from synth.backend import Backend, Messages
from synth.pool import Pool

# What the Batch API costs of the usual price (OpenAI's pricing page, and those of others who offer it).
BATCH_PRICE = 0.5


def teacher_identity(teacher: Teacher) -> str:
    """What an answer depends on beside the question: known without starting anything.

    Raises:
        PrimerError: If the embedded teacher's file is missing.
    """
    if isinstance(teacher, EmbeddedTeacher):
        from synth.embedded import find_model

        path = find_model(teacher.model)
        return f"embedded:{path.name}@sha256:{file_hash(path)[:16]}, context {teacher.context}"
    if isinstance(teacher, EndpointTeacher):
        addresses = sorted(address.rstrip("/") for address in teacher.addresses)
        return f"openai:{teacher.model}@{teacher.service or ','.join(addresses)}"
    from synth.presets import vllm_identity

    return vllm_identity(teacher)


def teacher_prices(teacher: Teacher) -> tuple[float, float] | None:
    """US dollars per million tokens, in and out; None where the recipe gives none."""
    if not isinstance(teacher, EndpointTeacher) or teacher.price_input is None or teacher.price_output is None:
        return None
    share = BATCH_PRICE if teacher.batch else 1.0
    return share * teacher.price_input, share * teacher.price_output


def merges_system_prompt(teacher: Teacher) -> bool:
    """Whether the system prompt goes before the question, because the model knows no system role."""
    if isinstance(teacher, VllmTeacher):
        from synth.presets import resolve

        return resolve(teacher).system_prompt == "merge"
    return isinstance(teacher, EndpointTeacher) and teacher.system_prompt == "merge"


def merge_system_prompt(messages: Messages) -> Messages:
    """The same messages with the system prompt at the head of the first question."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, question, *rest = messages
    return [{**question, "content": f"{system['content']}\n\n{question['content']}"}, *rest]


@asynccontextmanager
async def open_teacher(synth: Synth) -> AsyncIterator[Pool]:
    """Start or reach a teacher, and leave nothing running afterwards.

    Args:
        synth: The recipe's section: the teacher, its limits, requests in flight, time-out and patience.

    Raises:
        PrimerError: If it cannot be started or reached, or refuses the key.
    """
    teacher = synth.teacher
    # No timeout where it is this process: nothing is lost on the way, and a reply cut off is work wasted.
    within = isinstance(teacher, EmbeddedTeacher) or (isinstance(teacher, VllmTeacher) and teacher.mode == "in_process")
    timeout = None if within else synth.timeout
    async with AsyncExitStack() as stack:
        pool = Pool(
            await open_backends(teacher, synth.concurrency, timeout, stack),
            concurrency=synth.concurrency,
            timeout=timeout,
            patience=synth.patience,
            requests_per_minute=teacher.requests_per_minute if isinstance(teacher, EndpointTeacher) else None,
            tokens_per_minute=teacher.tokens_per_minute if isinstance(teacher, EndpointTeacher) else None,
        )
        await pool.check()
        yield pool


async def open_backends(
    teacher: Teacher, concurrency: int, timeout: float | None, stack: AsyncExitStack
) -> list[Backend]:
    """What a teacher's requests go to, kept open by the stack.

    Raises:
        PrimerError: If it cannot be started, or has no key.
    """
    from synth.endpoint import open_endpoint, read_key

    if isinstance(teacher, EmbeddedTeacher):
        from synth.embedded import find_model, serve

        address = await stack.enter_async_context(serve(find_model(teacher.model), teacher, concurrency))
        return [await stack.enter_async_context(open_endpoint(address, "embedded", timeout))]
    if isinstance(teacher, VllmTeacher) and teacher.mode == "in_process":
        from synth.vllm_engine import open_vllm_engine

        return [await stack.enter_async_context(open_vllm_engine(teacher))]
    if isinstance(teacher, VllmTeacher):
        from synth.vllm_server import serve_vllm

        address = await stack.enter_async_context(serve_vllm(teacher))
        return [await stack.enter_async_context(open_endpoint(address, teacher.model, timeout))]
    variable = teacher.api_key_env
    return [
        await stack.enter_async_context(
            open_endpoint(address, teacher.model, timeout, key=read_key(address, variable), key_variable=variable)
        )
        for address in teacher.addresses
    ]
