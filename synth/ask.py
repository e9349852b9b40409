"""A few questions to a teacher, answered at once: for tools, not for corpora (those have :mod:`synth.engine`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from primer.progress import bar
from primer.recipe import Sampling, Synth
from synth.endpoint import RequestError
from synth.teachers import Client, open_teacher, teacher_identity


def ask_teacher(
    synth: Synth, sampling: Sampling, conversations: Sequence[list[dict[str, str]]], seed: int
) -> list[str | None]:
    """Ask a teacher some things.

    Args:
        synth: The recipe's section: teacher, concurrency, timeout.
        sampling: How to sample.
        conversations: Chat messages, one list a question.
        seed: Question i is asked with `seed + i`.

    Returns:
        The replies in the order of the questions; None where there was none.

    Raises:
        PrimerError: If the teacher cannot be used at all.
    """
    return asyncio.run(_ask(synth, sampling, conversations, seed))


async def _ask(
    synth: Synth, sampling: Sampling, conversations: Sequence[list[dict[str, str]]], seed: int
) -> list[str | None]:
    identity = teacher_identity(synth.teacher)
    places = asyncio.Semaphore(synth.concurrency)
    done = 0
    with bar("asking the teacher", len(conversations), "questions") as progress:
        async with open_teacher(synth.teacher, identity, synth.concurrency, synth.timeout) as client:

            async def one(number: int) -> str | None:
                nonlocal done
                async with places:
                    text = await _reply(client, conversations[number], sampling, seed + number)
                done += 1
                progress.update(done)
                return text

            return list(await asyncio.gather(*map(one, range(len(conversations)))))


async def _reply(client: Client, messages: list[dict[str, str]], sampling: Sampling, seed: int) -> str | None:
    try:
        return (await client.complete(messages, sampling, seed)).text
    except RequestError as error:
        if error.trouble in ("connection", "authentication", "model"):
            raise client.fatal(error) from None
        return None
