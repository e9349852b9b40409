"""An OpenAI-compatible endpoint for tests and benchmarks: no model, the same answer to the same question.

The text of an answer depends on the messages and the seed alone. Faults are asked for by the configuration, or
by a word in the prompt. Every request is counted, by its messages and seed.

As a program: python tests/mock_endpoint.py --port 8000 [--delay 0.2] [--key secret]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

# A client that is killed, or ends while answers are under way, is no error of the server.
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)

_TEXT = """
the a water light river stone bread teacher child garden plant seed wheel engine number letter
market winter summer bridge kettle mirror shadow engine pulley lever candle cloud ocean island
forest animal friend promise question answer reason because therefore while after before slowly
quickly carries warms cools lifts shows explains measures counts divides shares keeps finds
learns grows turns moves holds opens closes and of in on
"""
_WORDS = _TEXT.split()


@dataclass
class Faults:
    """What goes wrong. Words act on requests whose prompt contains them."""

    delay: float = 0.0  # seconds before an answer, times 0.5 to 1.5 by the question
    key: str | None = None  # requests without this key get 401
    model: str | None = None  # other models get 404
    words: int = 80  # length of an answer
    refuse: str | None = None  # HTTP 400
    hang: str | None = None  # never answers
    garbage: str | None = None  # HTTP 200 with HTML
    echo_key: str | None = None  # HTTP 400 with the key in the message
    short: str | None = None  # a two-word answer
    empty: str | None = None  # an answer without text
    answer_with: str = ""  # stands at the end of every answer
    limited_first: int = 0  # this many first requests get 429 with Retry-After
    broken_first: int = 0  # this many first requests get 500
    broken: bool = False  # every request gets 500
    new_limit_name: bool = False  # max_tokens is refused in favour of max_completion_tokens


@dataclass
class Endpoint:
    """The state of a running mock."""

    faults: Faults
    asked: Counter[str] = field(default_factory=Counter)  # by question
    requests: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._complete)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/health", self._health)
        return application

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        if not self._allowed(request):
            return _error(401, "Incorrect API key provided")
        return web.json_response({"object": "list", "data": [{"id": self.faults.model or "mock", "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.Response:
        faults, body = self.faults, await request.json()
        self.requests += 1
        question = question_of(body)
        self.asked[question] += 1
        if len(self.bodies) < 1000:
            self.bodies.append(body)
        text = " ".join(message["content"] for message in body["messages"])
        if not self._allowed(request):
            return _error(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
        if faults.model is not None and body["model"] != faults.model:
            return _error(404, f"The model {body['model']} does not exist")
        if faults.new_limit_name and "max_tokens" in body:
            return _error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if faults.refuse and faults.refuse in text:
            return _error(400, "The prompt was refused")
        if faults.echo_key and faults.echo_key in text:
            return _error(400, f"Refused for {request.headers.get('Authorization')}")
        if faults.broken or self.requests <= faults.broken_first:
            return _error(500, "The server broke")
        if self.requests <= faults.limited_first:
            return _error(429, "Too many requests", {"Retry-After": "1"})
        if faults.hang and faults.hang in text:
            await asyncio.sleep(3600)
        if faults.garbage and faults.garbage in text:
            return web.Response(text="<html>Welcome to the proxy</html>", content_type="text/html")
        generator = random.Random(question)
        if faults.delay:
            await asyncio.sleep(faults.delay * random.Random(f"delay {question}").uniform(0.5, 1.5))
        answer = "Two words." if faults.short and faults.short in text else _prose(generator, faults.words)
        answer = f"{answer} {faults.answer_with}".strip()
        if faults.empty and faults.empty in text:
            answer = " "
        return web.json_response(completion(answer, body))

    def _allowed(self, request: web.Request) -> bool:
        return self.faults.key is None or request.headers.get("Authorization") == f"Bearer {self.faults.key}"


def question_of(body: dict[str, Any]) -> str:
    """Identity of a question: its messages and seed."""
    return hashlib.sha256(json.dumps([body["messages"], body.get("seed")]).encode()).hexdigest()[:16]


def completion(answer: str, body: dict[str, Any]) -> dict[str, Any]:
    """A chat completion as OpenAI sends it; a token is a word here."""
    asked, written = sum(len(m["content"].split()) for m in body["messages"]), len(answer.split())
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written},
    }


def _prose(generator: random.Random, words: int) -> str:
    sentences: list[str] = []
    written = 0
    while written < words:
        chosen = generator.choices(_WORDS, k=generator.randint(6, 14))
        written += len(chosen)
        sentences.append(" ".join(chosen).capitalize() + ".")
    return " ".join(sentences)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "type": "mock", "param": None, "code": None}}
    return web.json_response(body, status=status, headers=headers)


@contextmanager
def running(faults: Faults | None = None) -> Iterator[Endpoint]:
    """A mock endpoint on a free loopback port, in a thread of this process."""
    endpoint = Endpoint(faults or Faults())
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(endpoint.application(), shutdown_timeout=0.1, handler_cancellation=True)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        endpoint.address = f"http://{host}:{port}/v1"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="An OpenAI-compatible mock endpoint.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--words", type=int, default=80)
    parser.add_argument("--key")
    arguments = parser.parse_args()
    endpoint = Endpoint(Faults(delay=arguments.delay, words=arguments.words, key=arguments.key))
    web.run_app(endpoint.application(), host="127.0.0.1", port=arguments.port, print=None)


if __name__ == "__main__":
    main()
