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
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from mock_batches import Batches

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
    refusal: str = "The prompt was refused"  # what it says then
    hang: str | None = None  # never answers
    always_500: str | None = None
    always_429: str | None = None
    wait_an_hour: str | None = None  # the first time 429 with Retry-After: 3600
    garbage: str | None = None  # HTTP 200 with HTML
    echo_key: str | None = None  # HTTP 400 with the key in the message
    short: str | None = None  # a two-word answer
    empty: str | None = None  # an answer without text
    answer_with: str = ""  # stands at the end of every answer
    limited_first: int = 0  # this many first requests get 429 with Retry-After
    broken_first: int = 0  # this many first requests get 500
    broken: bool = False  # every request gets 500
    new_limit_name: bool = False  # max_tokens is refused in favour of max_completion_tokens
    language: str | None = None  # this sentence, again and again, is the answer
    # Shares of the requests, drawn by question and by how often it was asked.
    rate_limited: float = 0.0  # 429 without Retry-After
    told_to_wait: float = 0.0  # 429 with Retry-After: 1
    failing: float = 0.0  # 500
    reset: float = 0.0  # the connection is closed without an answer
    cut: float = 0.0  # JSON that ends half-way
    filtered: float = 0.0  # finish_reason content_filter
    mislabelled: float = 0.0  # JSON that says it is HTML
    dripping: float = 0.0  # sent in ten pieces over half a second
    most_in_flight: int | None = None  # more get 429
    no_quota: bool = False  # 429 with OpenAI's code for an empty account
    no_usage: bool = False  # answers do not say how many tokens they took


@dataclass
class Endpoint:
    """The state of a running mock."""

    faults: Faults
    asked: Counter[str] = field(default_factory=Counter)  # by question
    requests: int = 0
    in_flight: int = 0
    most_seen_in_flight: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""
    batches: Batches = field(init=False)

    def application(self) -> web.Application:
        from mock_batches import Batches

        application = web.Application()
        self.batches = Batches(self)
        self.batches.add_routes(application)
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

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_seen_in_flight = max(self.most_seen_in_flight, self.in_flight)
        try:
            return await self._answer(request, await request.json())
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        faults = self.faults
        self.requests += 1
        question = question_of(body)
        self.asked[question] += 1
        if len(self.bodies) < 1000:
            self.bodies.append(body)
        text = " ".join(message["content"] for message in body["messages"])
        if (refusal := self._refusal(request, body, text)) is not None:
            return refusal
        draw = random.Random(f"fault {question} {self.asked[question]}").random
        if faults.rate_limited and draw() < faults.rate_limited:
            return _error(429, "Too many requests")
        if faults.told_to_wait and draw() < faults.told_to_wait:
            return _error(429, "Too many requests", {"Retry-After": "1"})
        if faults.failing and draw() < faults.failing:
            return _error(500, "The server broke")
        if faults.reset and draw() < faults.reset and request.transport is not None:
            request.transport.close()
        if faults.hang and faults.hang in text:
            await asyncio.sleep(3600)
        if faults.garbage and faults.garbage in text:
            return web.Response(text="<html>Welcome to the proxy</html>", content_type="text/html")
        if faults.delay:
            await asyncio.sleep(faults.delay * random.Random(f"delay {question}").uniform(0.5, 1.5))
        reply = completion(self._text(question, text), body)
        if faults.filtered and draw() < faults.filtered:
            reply["choices"][0]["finish_reason"] = "content_filter"
        if faults.no_usage:
            del reply["usage"]
        if faults.cut and draw() < faults.cut:
            return web.Response(body=json.dumps(reply)[:-100].encode(), content_type="application/json")
        if faults.mislabelled and draw() < faults.mislabelled:
            return web.Response(text=json.dumps(reply), content_type="text/html")
        if faults.dripping and draw() < faults.dripping:
            return await _drip(request, json.dumps(reply).encode())
        return web.json_response(reply)

    def _refusal(self, request: web.Request, body: dict[str, Any], text: str) -> web.Response | None:
        faults = self.faults
        if not self._allowed(request):
            return _error(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
        if faults.no_quota:
            return _error(429, "You exceeded your current quota", code="insufficient_quota")
        if faults.model is not None and body["model"] != faults.model:
            return _error(404, f"The model {body['model']} does not exist")
        if faults.new_limit_name and "max_tokens" in body:
            return _error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if faults.refuse and faults.refuse in text:
            return _error(400, faults.refusal)
        if faults.echo_key and faults.echo_key in text:
            return _error(400, f"Refused for {request.headers.get('Authorization')}")
        if faults.always_500 and faults.always_500 in text:
            return _error(500, "The server trips over this one")
        if faults.always_429 and faults.always_429 in text:
            return _error(429, "Request too large")
        if faults.wait_an_hour and faults.wait_an_hour in text and self.asked[question_of(body)] == 1:
            return _error(429, "Too many requests", {"Retry-After": "3600"})
        if faults.broken or self.requests <= faults.broken_first:
            return _error(500, "The server broke")
        if self.requests <= faults.limited_first:
            return _error(429, "Too many requests", {"Retry-After": "1"})
        if faults.most_in_flight is not None and self.in_flight > faults.most_in_flight:
            return _error(429, "Too many at once")
        return None

    def _text(self, question: str, asked: str) -> str:
        faults = self.faults
        if faults.empty and faults.empty in asked:
            return " "
        if faults.language is not None:
            return " ".join([faults.language] * 12)
        if faults.short and faults.short in asked:
            return "Two words."
        return f"{prose(random.Random(question), faults.words)} {faults.answer_with}".strip()

    def _allowed(self, request: web.Request) -> bool:
        return self.faults.key is None or request.headers.get("Authorization") == f"Bearer {self.faults.key}"


def question_of(body: dict[str, Any]) -> str:
    """Identity of a question: its messages and seed."""
    return hashlib.sha256(json.dumps([body["messages"], body.get("seed")]).encode()).hexdigest()[:16]


def completion(answer: str, body: dict[str, Any]) -> dict[str, Any]:
    """A chat completion as OpenAI sends it; a token is a word here, and an answer has as many as were allowed."""
    words, most = answer.split(" "), body.get("max_tokens") or body.get("max_completion_tokens") or 10_000
    asked, written = sum(len(m["content"].split()) for m in body["messages"]), min(len(words), most)
    message = {"role": "assistant", "content": " ".join(words[:most])}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if len(words) > most else "stop"}],
        "usage": {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written},
    }


async def _drip(request: web.Request, data: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for start in range(0, len(data), len(data) // 9):
        await response.write(data[start : start + len(data) // 9])
        await asyncio.sleep(0.05)
    return response


def prose(generator: random.Random, words: int) -> str:
    sentences: list[str] = []
    written = 0
    while written < words:
        chosen = generator.choices(_WORDS, k=generator.randint(6, 14))
        written += len(chosen)
        sentences.append(" ".join(chosen).capitalize() + ".")
    return " ".join(sentences)


def _error(status: int, message: str, headers: dict[str, str] | None = None, code: str | None = None) -> web.Response:
    body = {"error": {"message": message, "type": "mock", "param": None, "code": code}}
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
    parser.add_argument("--rate-limit-share", type=float, default=0.0, help="share of requests that get 429")
    arguments = parser.parse_args()
    faults = Faults(
        delay=arguments.delay, words=arguments.words, key=arguments.key, told_to_wait=arguments.rate_limit_share
    )
    endpoint = Endpoint(faults)
    web.run_app(endpoint.application(), host="127.0.0.1", port=arguments.port, print=None)


if __name__ == "__main__":
    main()
