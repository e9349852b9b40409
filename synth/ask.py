"""A few questions to a teacher, answered at once: for tools, not for corpora (those have :mod:`synth.engine`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from primer.progress import bar
from primer.recipe_synth import Sampling, Synth
from synth.backend import Messages, RequestError
from synth.journal import Reply
from synth.pool import Pool
from synth.teachers import merge_system_prompt, merges_system_prompt, open_teacher


def ask_teacher(
    synth: Synth, sampling: Sampling, conversations: Sequence[Messages], seed: int
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
        PrimerError: If the teacher cannot be used.
    """
    return asyncio.run(_ask(synth, sampling, conversations, seed))


async def _ask(
    synth: Synth, sampling: Sampling, conversations: Sequence[Messages], seed: int
) -> list[Reply | RequestError]:
    merge = merges_system_prompt(synth.teacher)
    places = asyncio.Semaphore(synth.concurrency)
    done = 0
    with bar("asking the teacher", len(conversations), "questions") as progress:
        async with open_teacher(synth) as pool:

            async def one(number: int) -> Reply | RequestError:
                nonlocal done
                messages = merge_system_prompt(conversations[number]) if merge else conversations[number]
                async with places:
                    reply = await _reply(pool, messages, sampling, seed + number)
                done += 1
                progress.update(done)
                return reply

            return list(await asyncio.gather(*map(one, range(len(conversations)))))


async def _reply(pool: Pool, messages: Messages, sampling: Sampling, seed: int) -> Reply | RequestError:
    try:
        return await pool.complete(messages, sampling, seed)
    except RequestError as error:
        return error
