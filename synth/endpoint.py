"""The client of every teacher: one answer from an OpenAI-compatible endpoint, and what its failures mean."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from primer.errors import PrimerError, require
from primer.progress import say
from primer.recipe_synth import Sampling
from synth.backend import Messages, RequestError, Trouble
from synth.journal import Failure, Reply

if TYPE_CHECKING:
    import httpx2
    import openai

_CONNECT_SECONDS = 10.0
_CONNECTIONS = 10_000  # more than the largest synth.concurrency
# The same request would fail again: a later run does not ask it.
_PERMANENT = (400, 413, 422)
# No reply is this long; and of what is no reply, what is looked at for its reason, before keys are taken out of it.
_LONGEST_BODY = 8_000_000
_LONGEST_REASON = 2_000

_FINISH = re.compile(r"[a-z_]{1,24}")
_LEAST_KEY = 16  # characters
_NO_KEY = "none"  # the client insists on one; servers that want no key ignore it


def read_key(base_url: str, variable: str) -> str | None:
    """The key from the environment; None where it is unset and the endpoint may do without.

    Raises:
        PrimerError: If OpenAI itself is asked without a key.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise PrimerError(
            f"The key in the environment variable {variable} has characters that no key has.",
            "Set it again: letters, digits and signs in one line, without typographic quotes.",
        )
    parts = urlsplit(base_url)
    if key:
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            say(f"[yellow]the key in {variable} goes to {parts.hostname} unencrypted (http, not https)[/]")
        return key
    if parts.hostname == "api.openai.com":
        raise PrimerError(
            f"The endpoint {base_url} wants a key, and the environment variable {variable} is not set.",
            f"Set it (export {variable}=...), or name another variable in synth.teacher.api_key_env.",
        )
    return None


@asynccontextmanager
async def open_endpoint(
    base_url: str,
    model: str,
    timeout: float | None,
    *,
    key: str | None = None,
    key_variable: str | None = None,
) -> AsyncIterator[EndpointBackend]:
    """A client for one address; nothing is asked yet."""
    openai = require("openai", install="make setup (or: pip install openai)", purpose="A teacher")
    http = _http_client(openai, base_url, timeout)
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key=key or _NO_KEY, timeout=timeout, max_retries=0, http_client=http
    ) as api:
        yield EndpointBackend(api, http, base_url, model, timeout, key, key_variable)


class EndpointBackend:
    """Asks one model at one address; see :class:`synth.backend.Backend`."""

    def __init__(
        self,
        api: openai.AsyncOpenAI,
        http: httpx2.AsyncClient,
        base_url: str,
        model: str,
        timeout: float | None,
        key: str | None,
        key_variable: str | None,
    ) -> None:
        self.name = base_url
        self.api = api
        self._http, self._url = http, f"{base_url.rstrip('/')}/chat/completions"
        headers = {**api.default_headers, **api.auth_headers}
        self._headers = {name: value for name, value in headers.items() if isinstance(value, str)}
        self._model, self._timeout = model, timeout
        self._key, self._key_variable = key, key_variable
        self._limit_name = "max_tokens"
        self._answered = False

    async def check(self) -> None:
        """Ask for the list of models; endpoints that have none are taken at their word.

        Raises:
            RequestError: If the endpoint cannot be reached or refuses the key.
        """
        try:
            await self.api.with_options(max_retries=2, timeout=_CONNECT_SECONDS).models.with_raw_response.list()
        except Exception as error:  # the client lets errors of its transport through, too
            explained = self.error_of(error)
            # Some keys may ask questions and not list models (403).
            refused = explained.trouble == "authentication" and explained.failure.status == 401
            if refused or explained.trouble == "connection":
                raise explained from None

    async def complete(self, messages: Messages, sampling: Sampling, seed: int) -> Reply:
        """One try at an answer.

        Raises:
            RequestError: If there is none within the timeout.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._create(messages, sampling, seed)
        except Exception as error:
            raise self.error_of(error) from None
        reply = self.read(body, time.monotonic() - started)
        self._answered = True
        return reply

    def explain(self, error: RequestError) -> PrimerError:
        """What a failure that stops the run means, for people."""
        where, reason = self.name, error.failure.reason
        if error.trouble == "connection":
            return PrimerError(
                f"The endpoint {where} cannot be reached: {reason}",
                "Check synth.teacher.base_url and that the server runs; what was answered before is kept.",
            )
        if error.trouble == "authentication":
            variable = self._key_variable
            held = f"the key in {variable}" if self._key else f"a request without a key ({variable} is not set)"
            return PrimerError(
                f"The endpoint {where} refused {held}: {reason}",
                f"Put a valid key in the environment variable {variable}, or name it in synth.teacher.api_key_env.",
            )
        if error.trouble == "quota":
            return PrimerError(
                f"The account at {where} has no money or quota left: {reason}",
                "Top it up, then run the same command again: every answer so far is kept, none is paid for twice.",
            )
        if error.trouble == "model":
            return PrimerError(
                f"The endpoint {where} does not know the model {self._model!r}: {reason}",
                "Check synth.teacher.model, and that base_url ends where the API begins (usually /v1).",
            )
        if error.trouble == "garbage":
            return PrimerError(
                f"The endpoint {where} does not answer in OpenAI's format: {reason}",
                "Check synth.teacher.base_url: it must be the address of an OpenAI-compatible API (usually .../v1).",
            )
        return PrimerError(
            f"The endpoint {where} fails again and again: {reason}",
            "Mend what it names (a setting of synth.sampling, a rate limit, the server) and run the same command "
            "again: it continues where it stopped. synth.patience says how long to hold out.",
        )

    def request(self, messages: Messages, sampling: Sampling, seed: int) -> dict[str, Any]:
        """The body of a chat completion.

        Standard fields alone, and penalties only where they are set: some endpoints refuse what they do not know.
        """
        request: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            self._limit_name: sampling.max_tokens,
        }
        for name in ("frequency_penalty", "presence_penalty"):
            if value := getattr(sampling, name):
                request[name] = value
        return request

    async def _create(self, messages: Messages, sampling: Sampling, seed: int) -> bytes:
        request = self.request(messages, sampling, seed)
        try:
            return await self._post(request)
        except RequestError as error:
            if "max_tokens" not in request or "max_completion_tokens" not in error.failure.reason:
                raise
            # OpenAI's newer models take the limit under its newer name alone; older servers know the older one.
            self._limit_name = "max_completion_tokens"
            return await self._post(self.request(messages, sampling, seed))

    async def _post(self, request: dict[str, Any]) -> bytes:
        # Over the openai client's own connections and with its headers, but not through its methods: building the
        # request there, and an object of the answer, takes 0.6 of the 1.05 ms that a request then costs this process.
        response = await self._http.post(self._url, content=json.dumps(request).encode(), headers=self._headers)
        body = bytes(response.content)
        if len(body) > _LONGEST_BODY:
            raise RequestError("garbage", self._failure(200, f"an answer of {len(body):,d} bytes", False))
        if response.status_code != 200:
            raise self._refusal(response.status_code, body, response.headers)
        return body

    def _refusal(self, status: int, body: bytes, headers: Mapping[str, str]) -> RequestError:
        """What an answer with another status than 200 means."""
        try:
            stated = json.loads(body)["error"]
            message, code = (stated["message"], stated.get("code")) if isinstance(stated, dict) else (stated, None)
        except (ValueError, LookupError, TypeError, RecursionError):
            message, code = body[:_LONGEST_REASON].decode(errors="replace") or "no reason given", None
        trouble = "quota" if code == "insufficient_quota" else _meaning(status, self._answered)
        failure = self._failure(status, f"HTTP {status}: {message}", status in _PERMANENT)
        return RequestError(trouble, failure, _retry_after(headers))

    def read(self, body: bytes, seconds: float) -> Reply:
        """A chat completion as a reply.

        Raises:
            RequestError: If it is none.
        """
        try:
            completion = json.loads(body)
            choice = completion["choices"][0]
            text, finish = choice["message"]["content"] or "", choice.get("finish_reason") or "unknown"
            usage = completion.get("usage") or {}
            paid, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            shown = self._without_key(body[:_LONGEST_REASON].decode(errors="replace"))[:80]
            raise RequestError("garbage", self._failure(200, f"no chat completion in {shown!r}", False)) from None
        if not (isinstance(text, str) and isinstance(finish, str)):
            raise RequestError("garbage", self._failure(200, "the reply's text is no text", False))
        # A short key is a word like any other: taking it out of a text would do harm and protect nothing.
        told = self._without_key(text) if self._key and len(self._key) >= _LEAST_KEY else text
        told = told.encode("utf-8", "replace").decode()  # a lone surrogate is no text: nothing could be written with it
        finish = finish if _FINISH.fullmatch(finish) else "unknown"
        return Reply(told, finish, _count(paid, True), _count(written, bool(told.strip())), round(seconds, 3))

    def error_of(self, error: Exception) -> RequestError:
        """What an exception of the client means."""
        import httpx2
        import openai

        if isinstance(error, RequestError):
            return error
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error.status_code, error.response.content, error.response.headers)
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
        # Over aiohttp, every failure to connect arrives as this.
        if isinstance(cause, httpx2.ConnectTimeout):
            return RequestError("connection", self._failure(None, str(cause) or "no connection", False))
        if isinstance(cause, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError):
            waited = self._timeout or _CONNECT_SECONDS
            return RequestError("timeout", self._failure(None, f"no reply within {waited:g} s", False))
        if isinstance(cause, httpx2.TransportError | openai.APIConnectionError | OSError):
            return RequestError("connection", self._failure(None, str(cause) or type(cause).__name__, False))
        return RequestError("garbage", self._failure(None, f"{type(error).__name__}: {error}", False))

    def _failure(self, status: int | None, reason: str, permanent: bool) -> Failure:
        # Shown on terminals: one line, and nothing in it that a terminal would obey.
        printable = "".join(c for c in " ".join(self._without_key(reason).split()) if c.isprintable())
        return Failure(status, printable[:300], permanent)

    def _without_key(self, text: str) -> str:
        """Servers quote keys in their messages; what is recorded never holds one."""
        return text.replace(self._key, "[key]") if self._key else text


def _meaning(status: int, answered: bool) -> Trouble:
    """What an HTTP status says, of an endpoint that has answered before or not."""
    if status == 401 or (status == 403 and not answered):
        return "authentication"
    if status == 402:
        return "quota"
    if status == 404 and not answered:
        return "model"
    if status == 429:
        return "rate_limit"
    if status in (408, 409, 504):
        return "timeout"
    return "request" if status < 500 else "server"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as OpenAI (milliseconds) or HTTP (RFC 9110, section 10.2.3: seconds, or a date) say it."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            seconds = float(headers[name]) * unit
            return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


def _count(value: Any, some: bool) -> int | None:
    """A number of tokens, if it is one and can be true of `some` text."""
    return value if type(value) is int and some <= value < 2**31 else None


def _http_client(openai: Any, base_url: str, timeout: float | None) -> Any:
    import httpx2

    # Over aiohttp a request costs a third of what it does over httpx, whose connection pool is slow when it is large.
    return openai.DefaultAioHttpClient(
        # The engine alone bounds the requests in flight (None would mean aiohttp's default, 100).
        limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        timeout=httpx2.Timeout(timeout, connect=_CONNECT_SECONDS),
        trust_env=not _is_loopback(
            urlsplit(base_url).hostname or ""
        ),  # a proxy never stands between Primer and this machine
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
