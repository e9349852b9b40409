"""A model directory in Hugging Face layout, run by vLLM: for GPUs, and for what its own engine writes sooner.

Requests share beginnings through vLLM's prefix cache. vLLM leaves the log-probabilities of tokens that it takes from
that cache undefined, so a request of which it has taken more than the context is asked again without the cache.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.encoding import load_tokenizer
from eval.language_model import Progress, Query, Score, Writing
from eval.tokenised import TokenisedModel
from primer.errors import PrimerError, require

_PURPOSE = "An evaluation by vLLM (eval.backend: vllm)"
_INSTALL = (
    "make vllm, which makes .venv-vllm with Primer and vLLM (docs/teachers.md); then run .venv-vllm/bin/primer, or set "
    "eval.backend to torch"
)

# Requests between two looks at how far the work is; the engine makes its own batches of them.
_REQUESTS = 1024

# vLLM always writes one token after a prompt, and a sequence is one token longer than the model's context: its last
# token is predicted, not read.
_BEYOND = 2


class VllmModel(TokenisedModel):
    """A loaded model (see `eval.language_model.LanguageModel`).

    Args:
        folder: The directory.

    Raises:
        PrimerError: If vLLM is not installed, or cannot load the directory.
    """

    def __init__(self, folder: str | Path) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        self._vllm = require("vllm", install=_INSTALL, purpose=_PURPOSE)
        path = Path(folder)
        config = _read(path / "config.json")
        context = _context(config, path)
        # Rotary positions go on beyond the context; learned ones have a table that ends there.
        rotary = any("rope" in key or "rotary" in key for key in config)
        super().__init__(path, load_tokenizer(path), context if rotary else context - _BEYOND)
        self._ends = _end_tokens(path)
        gc.collect()  # the engine of a model that was asked before gives its memory back when it is collected
        self._engine = self._start({"max_position_embeddings": context + _BEYOND} if rotary else {})

    def score(self, groups: Sequence[Sequence[Query]], progress: Progress | None = None) -> list[list[Score]]:
        """Score queries; the beginnings that they share are computed once.

        Raises:
            PrimerError: If a log-likelihood is not a finite number.
        """
        queries = [query for group in groups for query in group]
        outputs = self._request([query.tokens for query in queries], [_scoring(self._vllm)] * len(queries), progress)
        again = [
            number
            for number, (query, output) in enumerate(zip(queries, outputs, strict=True))
            if (output.num_cached_tokens or 0) > len(query.tokens) - query.scored - 1
        ]
        afresh = [_scoring(self._vllm, cached=False)] * len(again)
        for number, output in zip(again, self._request([queries[n].tokens for n in again], afresh), strict=True):
            outputs[number] = output
        scores = iter([_score(query, output) for query, output in zip(queries, outputs, strict=True)])
        return self._finite([[next(scores) for _ in group] for group in groups])

    def generate(self, prompts: Sequence[str], writing: Writing, progress: Progress | None = None) -> list[list[str]]:
        """Continue each prompt `writing.samples` times.

        Of a prompt that is too long the end is kept. An answer depends on the seed, its prompt and the number of the
        sample, as far as vLLM's batches change no logits.

        Raises:
            PrimerError: If the context has no room for so many new tokens.
        """
        if not 1 <= writing.tokens < self.max_length:
            raise PrimerError(
                f"{writing.tokens:,} tokens are to be written, but the model's context is {self.max_length:,}.",
                "Ask for shorter answers, or train with a longer model.context.",
            )
        room = self.max_length - writing.tokens
        ids = [tokens[-room:] or [self.prefix_token_id] for tokens in self._tokenise(prompts)]
        wanted = [self._writing(writing, prompt) for prompt in prompts]
        return [[answer.text for answer in output.outputs] for output in self._request(ids, wanted, progress)]

    def _writing(self, writing: Writing, prompt: str) -> Any:
        digest = hashlib.sha256(f"{writing.seed}\0{prompt}".encode("utf-8", "surrogatepass")).digest()
        return self._vllm.SamplingParams(
            n=writing.samples,
            temperature=writing.temperature,
            top_p=writing.top_p,
            # vLLM adds the number of the sample.
            seed=int.from_bytes(digest[:4]) if writing.temperature else None,
            max_tokens=writing.tokens,
            stop=list(writing.stops),
            stop_token_ids=self._ends,
        )

    def _start(self, overrides: dict[str, int]) -> Any:
        import torch

        on_gpu = torch.cuda.is_available()
        try:
            return self._vllm.LLM(
                model=str(self.folder),
                dtype="auto" if on_gpu else "float32",  # as PyTorch runs it
                max_model_len=self.max_length + _BEYOND,
                hf_overrides=overrides,
                enable_prefix_caching=True,
                enforce_eager=not on_gpu,
                generation_config="vllm",  # the model's own sampling settings are not the evaluation's
                disable_log_stats=True,
                use_tqdm_on_load=False,
            )
        except Exception as error:  # whatever an engine raises that does not start
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> PrimerError:
        return PrimerError(
            f"vLLM cannot run the model in {self.folder}: {' '.join(str(error).split())[:300]}",
            "Mend what it names (VLLM_LOGGING_LEVEL=INFO shows more), or set eval.backend to torch.",
        )

    def _request(
        self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any], progress: Progress | None = None
    ) -> list[Any]:
        """vLLM's outputs, in order.

        Raises:
            PrimerError: If the engine fails.
        """
        outputs: list[Any] = []
        for start in range(0, len(prompts), _REQUESTS):
            some = slice(start, start + _REQUESTS)
            tokens = [{"prompt_token_ids": list(ids)} for ids in prompts[some]]
            try:
                outputs += self._engine.generate(tokens, list(parameters[some]), use_tqdm=False)
            except Exception as error:  # an engine that has died says so in several ways
                raise self._failure(error) from error
            if progress is not None:
                progress(len(outputs) / len(prompts))
        return outputs


def _scoring(vllm: Any, *, cached: bool = True) -> Any:
    """Of every token of the prompt its own log-probability and rank."""
    return vllm.SamplingParams(
        max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, skip_reading_prefix_cache=not cached
    )


def _score(query: Query, output: Any) -> Score:
    found = [
        place[token]
        for place, token in zip(output.prompt_logprobs[-query.scored :], query.tokens[-query.scored :], strict=True)
    ]
    return sum(token.logprob for token in found), all(token.rank == 1 for token in found)


def _context(config: dict[str, Any], folder: Path) -> int:
    """Tokens of a model's context."""
    inner = config.get("text_config") or config
    for key in ("n_positions", "max_position_embeddings", "n_ctx"):
        if inner.get(key) is not None:
            return int(inner[key])
    raise PrimerError(f"{folder / 'config.json'} names no context.", "Add max_position_embeddings to it.")


def _end_tokens(folder: Path) -> list[int]:
    """Tokens that end a text beside the tokenizer's: what the model's generation settings name, one or several."""
    settings = folder / "generation_config.json"
    named = _read(settings).get("eos_token_id") if settings.is_file() else None
    return named if isinstance(named, list) else [] if named is None else [named]


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrimerError(
            f"{path} cannot be read: {error}", "Name a model directory; `primer train` makes them."
        ) from None
    return values
