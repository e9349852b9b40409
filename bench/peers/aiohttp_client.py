"""The floor: a bare aiohttp loop. No journal, no checks, no retries, the replies kept in memory."""

from __future__ import annotations

import asyncio

import aiohttp
from measured import SAMPLING, arguments, measured, prompts, report


async def ask_all(address: str, questions: list[str], concurrency: int) -> list[str]:
    """The replies to all questions, so many requests in flight."""
    waiting = iter(questions)
    replies: list[str] = []

    async def ask(session: aiohttp.ClientSession) -> None:
        for question in waiting:
            body = {"model": "mock", "messages": [{"role": "user", "content": question}], **SAMPLING}
            async with session.post(f"{address}/v1/chat/completions", json=body) as response:
                if response.status == 200:
                    replies.append((await response.json())["choices"][0]["message"]["content"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        await asyncio.gather(*(ask(session) for _ in range(concurrency)))
    return replies


def main() -> None:
    """Ask every question once and report."""
    options = arguments(__doc__)
    questions = prompts(options.requests)
    with measured() as figures:
        replies = asyncio.run(ask_all(options.base_url, questions, options.concurrency))
    report(figures, "aiohttp", len(replies))


if __name__ == "__main__":
    main()
