"""The vLLM teacher inside Primer: vLLM's engine asked directly, without a server between.

Questions become tokens here, by the model's chat template, as a server would make them; the same sampling settings
and seed reach the same engine.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from primer.errors import PrimerError, require
from primer.progress import say
from primer.recipe_synth import Sampling, VllmTeacher
from synth.backend import Backend, Messages, RequestError
from synth.journal import Failure, Reply
from synth.presets import ResolvedTeacher, resolve

_PURPOSE = "A vllm teacher in this process (synth.teacher.mode: in_process)"
_INSTALL = (
    "make vllm, which makes .venv-vllm with Primer and vLLM; then run .venv-vllm/bin/primer, or set "
    "synth.teacher.mode to server"
)
_REASON_LENGTH = 300

# Flags of the HTTP server among Primer's defaults; an engine has no use for them.
_OF_SERVER = ("--disable-uvicorn-access-log",)


@asynccontextmanager
async def open_vllm_engine(teacher: VllmTeacher) -> AsyncIterator[Backend]:
    """Run vLLM's engine in this process (its workers are processes of their own) for as long as the context lasts.

    Raises:
        PrimerError: If vLLM is not installed here, does not know an argument, or cannot load the model.
    """
    resolved = resolve(teacher)
    # Before vLLM is first imported. Spawned, not forked: Primer has threads and an event loop, which no fork survives.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")
    arg_utils = require("vllm.engine.arg_utils", install=_INSTALL, purpose=_PURPOSE)
    async_llm = require("vllm.v1.engine.async_llm", install=_INSTALL, purpose=_PURPOSE)
    settings, template = _settings(arg_utils, resolved)
    say("  starting vLLM's engine in this process")
    try:
        engine = await asyncio.to_thread(async_llm.AsyncLLM.from_engine_args, settings)
    except Exception as error:  # of whatever kind: of CUDA, of the hub, of a configuration
        raise PrimerError(
            f"vLLM's engine did not start with {resolved.model}: {_line(error)}",
            "What vLLM wrote above says more. Mend what it names; synth.teacher.arguments are passed on to it.",
        ) from None
    try:
        yield EngineBackend(engine, resolved.model, template)
    finally:
        await asyncio.to_thread(engine.shutdown)
        # It shuts down once more when Python takes it apart, after the modules that it needs for that.
        engine.shutdown = lambda *_arguments, **_named: None


class EngineBackend:
    """Asks an engine of this process; see :class:`synth.backend.Backend`."""

    def __init__(self, engine: Any, model: str, template: str | None) -> None:
        self.name = f"vLLM engine, {model}"
        self._engine, self._template = engine, template
        self._tokenizer = engine.get_tokenizer()
        self._numbers = itertools.count()

    async def check(self) -> None:
        """See whether the engine runs.

        Raises:
            PrimerError: If it has stopped.
        """
        try:
            await self._engine.check_health()
        except Exception as error:
            raise self.explain(_request_error(error)) from None

    async def complete(self, messages: Messages, sampling: Sampling, seed: int) -> Reply:
        """One try at an answer.

        Raises:
            RequestError: If there is none, as where the prompt is too long.
            PrimerError: If the engine has stopped: it does not come back.
        """
        started = time.monotonic()
        try:
            prompt = {"prompt_token_ids": self._tokens(messages)}
            result = await self._generated(prompt, sampling, seed)
        except Exception as error:
            failure = _request_error(error)
            if getattr(self._engine, "errored", False):
                raise self.explain(failure) from None
            raise failure from None
        [answer] = result.outputs
        return Reply(
            text=answer.text,
            finish_reason=answer.finish_reason or "unknown",
            prompt_tokens=len(result.prompt_token_ids),
            completion_tokens=len(answer.token_ids),
            seconds=round(time.monotonic() - started, 3),
        )

    def explain(self, error: RequestError) -> PrimerError:
        """What a failure that stops the run means, for people."""
        return PrimerError(
            f"The {self.name}, fails: {error.failure.reason}",
            "Mend what it names (a setting of synth.sampling, the GPU's memory: synth.teacher.arguments) and run the "
            "same command again: it continues where it stopped.",
        )

    async def _generated(self, prompt: dict[str, list[int]], sampling: Sampling, seed: int) -> Any:
        """The engine's one output, whole: nothing is streamed."""
        outputs = self._engine.generate(prompt, _parameters(sampling, seed), f"primer-{next(self._numbers)}")
        return [output async for output in outputs][-1]

    def _tokens(self, messages: Messages) -> list[int]:
        tokens: list[int] = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return tokens


def _settings(arg_utils: Any, resolved: ResolvedTeacher) -> tuple[Any, str | None]:
    """The engine's settings from `vllm serve`'s arguments, and the text of a chat template if they name one."""
    parsing = require("vllm.utils.argparse_utils", install=_INSTALL, purpose=_PURPOSE)

    class Parser(parsing.FlexibleArgumentParser):  # type: ignore[misc, name-defined]
        def error(self, message: str) -> NoReturn:
            raise PrimerError(
                f"vLLM does not take the teacher's arguments: {message}", "Check synth.teacher.arguments."
            )

    parser = arg_utils.AsyncEngineArgs.add_cli_args(Parser())
    parser.add_argument("--chat-template")
    arguments = [argument for argument in resolved.arguments if argument not in _OF_SERVER]
    parsed, unknown = parser.parse_known_args(["--model", resolved.model, *arguments])
    if unknown:
        raise PrimerError(
            f"synth.teacher.arguments holds what vLLM's engine does not know: {' '.join(unknown)}",
            "Check its spelling; an argument of the HTTP server alone has no place with mode: in_process.",
        )
    parsed.disable_log_stats = True
    parsed.use_tqdm_on_load = False
    return arg_utils.AsyncEngineArgs.from_cli_args(parsed), _template(parsed.chat_template)


def _template(value: str | None) -> str | None:
    """vLLM takes a file, or the template itself."""
    if value is None or "{" in value:
        return value
    try:
        return Path(value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(
            f"The chat template {value} cannot be read: {error}", "Check --chat-template in synth.teacher.arguments."
        ) from None


def _parameters(sampling: Sampling, seed: int) -> Any:
    vllm = import_module("vllm.sampling_params")
    return vllm.SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        max_tokens=sampling.max_tokens,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        output_kind=vllm.RequestOutputKind.FINAL_ONLY,
    )


def _request_error(error: Exception) -> RequestError:
    """What an exception of the engine means. vLLM refuses a request by a ValueError or a kind of its own."""
    import jinja2

    exceptions = import_module("vllm.exceptions")
    if isinstance(error, exceptions.GracefulHTTPError):  # it has too much to do
        return RequestError("rate_limit", Failure(None, _line(error), False))
    if isinstance(error, exceptions.VLLMClientError | ValueError | jinja2.TemplateError):
        return RequestError("request", Failure(None, _line(error), True))
    return RequestError("server", Failure(None, _line(error.__cause__ or error), False))


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_REASON_LENGTH]
