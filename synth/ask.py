"""A few questions to a teacher, answered at once: for tools, not for corpora (those have :mod:`synth.engine`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from primer.progress import bar
from primer.recipe import Sampling, Synth
from synth.endpoint import RequestError
from synth.journal import Reply
from synth.teachers import Client, open_teacher, teacher_identity


def ask_teacher(
    synth: Synth, sampling: Sampling, conversations: Sequence[list[dict[str, str]]], seed: int
) -> list[Reply | RequestError]:
    """Ask a teacher some things.

    Args:
        synth: The recipe's section: teacher, concurrency, timeout.
        sampling: How to sample.
        conversations: Chat messages, one list a question.
        seed: Question i is asked with `seed + i`.

    Returns:
        The replies in the order of the questions, or why there was none.

    Raises:
        PrimerError: If the teacher cannot be used, and nothing was answered.
    """
    return asyncio.run(_ask(synth, sampling, conversations, seed))


async def _ask(
    synth: Synth, sampling: Sampling, conversations: Sequence[list[dict[str, str]]], seed: int
) -> list[Reply | RequestError]:
    identity = teacher_identity(synth.teacher)
    places = asyncio.Semaphore(synth.concurrency)
    done = 0
    with bar("asking the teacher", len(conversations), "questions") as progress:
        async with open_teacher(synth.teacher, identity, synth.concurrency, synth.timeout) as client:

            async def one(number: int) -> Reply | RequestError:
                nonlocal done
                async with places:
                    reply = await _reply(client, conversations[number], sampling, seed + number)
                done += 1
                progress.update(done)
                return reply

            replies = await asyncio.gather(*map(one, range(len(conversations))))
            failures = [reply for reply in replies if isinstance(reply, RequestError)]
            fatal = [failure for failure in failures if failure.trouble in ("connection", "authentication", "model")]
            if fatal and len(failures) == len(replies):
                raise client.fatal(fatal[0])
            return list(replies)


async def _reply(client: Client, messages: list[dict[str, str]], sampling: Sampling, seed: int) -> Reply | RequestError:
    try:
        return await client.complete(messages, sampling, seed)
    except RequestError as error:
        return error
