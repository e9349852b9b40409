"""Text from a causal language model, many prompts at a time: what one by one would give, sooner.

Prompts of similar length make a batch, padded on the left. Tokens that all of them begin with (the examples of a
few-shot prompt) are computed once, and so is a prompt of which several answers are drawn. A row that has ended leaves
its batch. Position numbers and a mask make each row what it is alone; its draws come from the prompt and the number of
the sample, so no answer depends on its neighbours.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch

from eval.language_model import Progress, Writing
from eval.loading import end_tokens
from primer.errors import PrimerError

# Tokens of a batch, those to be written among them: on a CPU what stays near the caches, on a GPU 26 GB of keys and
# values at phi-1.5's size (24 layers of 2,048 in two bytes), twice that for the moment in which they grow.
_BATCH_TOKENS = {"cpu": 16_384, "cuda": 131_072}
# Rows of a batch: beyond, the probabilities of a large vocabulary take more memory than the model.
_BATCH_ROWS = {"cpu": 64, "cuda": 512}

# How often a token is drawn that must lie in the nucleus: with a top-p of 0.95 once in 10^10 none of them does.
_TRIES = 8


@dataclass(frozen=True)
class _Job:
    """A prompt, and which of its samples are to be written."""

    prompt: int
    tokens: tuple[int, ...]
    samples: tuple[int, ...]


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    writing: Writing,
    context: int,
    progress: Progress | None = None,
) -> list[list[str]]:
    """Continue each prompt.

    Args:
        model: A Hugging Face causal language model, or what is called and answers as one (`eval.phi`).
        tokenizer: Its tokenizer.
        prompts: Texts; of one that is too long the end is kept, so that `writing.tokens` more fit into the context.
        writing: How.
        context: Tokens of the model's context.
        progress: Told the share of work that is done.

    Returns:
        For each prompt `writing.samples` texts, without the stop text and what follows it.

    Raises:
        PrimerError: If the context has no room for so many new tokens, the memory none for one row, or the model's
            logits are not finite.
    """
    if not 1 <= writing.tokens < context:
        raise PrimerError(
            f"{writing.tokens:,} tokens are to be written, but the model's context is {context:,}.",
            "Ask for shorter answers, or train with a longer model.context.",
        )
    writer = _Writer(model, tokenizer, writing)
    answers: dict[tuple[int, int], str] = {}
    jobs = _jobs(tokenizer, prompts, writing, context - writing.tokens)
    total = len(prompts) * writing.samples
    batch_tokens, batch_rows = _BATCH_TOKENS[writer.device.type], _BATCH_ROWS[writer.device.type]
    while jobs:
        batch: list[_Job] = []
        try:
            for batch in _batches(jobs, writing.tokens, batch_tokens, batch_rows):
                for row, text in writer.write(batch, [prompts[job.prompt] for job in batch]):
                    answers[row] = text
                    if progress is not None:
                        progress(len(answers) / total)
        except torch.OutOfMemoryError:
            if sum(len(job.samples) for job in batch) == 1:
                raise PrimerError(
                    f"The memory of {writer.device} does not hold one prompt of {len(batch[0].tokens):,} tokens.",
                    "Free some of it, or evaluate on the CPU.",
                ) from None
            batch_tokens, batch_rows = batch_tokens // 2, max(1, batch_rows // 2)
        jobs = [left for job in jobs if (left := _without(job, answers)).samples]
    return [[answers[number, sample] for sample in range(writing.samples)] for number in range(len(prompts))]


def _jobs(tokenizer: Any, prompts: Sequence[str], writing: Writing, room: int) -> list[_Job]:
    encoded = tokenizer(list(prompts), return_attention_mask=False, verbose=False)["input_ids"] if prompts else []
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    samples = tuple(range(writing.samples))
    return [_Job(number, tuple(ids[-room:]) or (first,), samples) for number, ids in enumerate(encoded)]


def _without(job: _Job, answers: Container[tuple[int, int]]) -> _Job:
    """What of a job is left to do."""
    return replace(job, samples=tuple(sample for sample in job.samples if (job.prompt, sample) not in answers))


def _batches(jobs: Sequence[_Job], new_tokens: int, most_tokens: int, most_rows: int) -> Iterator[list[_Job]]:
    """Jobs of similar length together, the longest first."""
    batch: list[_Job] = []
    rows, width = 0, 0
    # Equal beginnings side by side: the tokens break ties.
    for job in sorted(jobs, key=lambda job: (-len(job.tokens), job.tokens)):
        width = width if batch else len(job.tokens) + new_tokens
        capacity = max(1, min(most_rows, most_tokens // width))
        for start in range(0, len(job.samples), capacity):
            piece = replace(job, samples=job.samples[start : start + capacity])
            if batch and rows + len(piece.samples) > capacity:
                yield batch
                batch, rows, width = [], 0, len(job.tokens) + new_tokens
            batch.append(piece)
            rows += len(piece.samples)
    if batch:
        yield batch


class _Writer:
    """Writes batches with one model."""

    def __init__(self, model: Any, tokenizer: Any, writing: Writing) -> None:
        self._model, self._tokenizer, self._writing = model, tokenizer, writing
        self.device: torch.device = model.device
        # Some architectures number positions by the mask alone, and some have no shorter way than all logits.
        known = inspect.signature(getattr(model, "forward", model)).parameters
        several = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        self._optional = {name for name in ("position_ids", "logits_to_keep") if name in known or several}
        self._ends = torch.tensor(sorted(end_tokens(model, tokenizer)), dtype=torch.long, device=self.device)
        # A stop text ends among the newest tokens, each of which is a byte at least.
        self._tail = max((len(stop.encode()) for stop in writing.stops), default=0) + 1

    def write(self, batch: Sequence[_Job], prompts: Sequence[str]) -> Iterator[tuple[tuple[int, int], str]]:
        """The rows of a batch as (prompt, sample), each with its text, as they end."""
        rows = [(job.prompt, sample) for job in batch for sample in job.samples]
        numbers = self._numbers([(text, n) for job, text in zip(batch, prompts, strict=True) for n in job.samples])
        written: list[list[int]] = [[] for _ in rows]
        logits, cache, mask = self._read([job.tokens for job in batch])
        repeats = torch.tensor([len(job.samples) for job in batch], device=self.device)
        index = torch.repeat_interleave(torch.arange(len(batch), device=self.device), repeats)
        if len(rows) > len(batch):
            cache.batch_select_indices(index)
            logits, mask = logits[index], mask[index]
        alive = list(range(len(rows)))  # numbers in `rows` of those still in the batch
        for step in range(self._writing.tokens):
            tokens = self._take(logits, None if numbers is None else numbers[alive, step])
            for number, token in zip(alive, tokens.tolist(), strict=True):
                written[number].append(token)
            ended = torch.isin(tokens, self._ends).tolist()
            last = step + 1 == self._writing.tokens
            stays = [
                place
                for place, number in enumerate(alive)
                if not (last or ended[place] or self._stopped(written[number]))
            ]
            left = set(stays)
            for place, number in enumerate(alive):
                if place not in left:
                    yield rows[number], self._text(written[number])
            if not stays:
                return
            if len(stays) < len(alive):
                kept = torch.tensor(stays, device=self.device)
                cache.batch_select_indices(kept)
                mask, tokens = mask[kept], tokens[kept]
                alive = [alive[place] for place in stays]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            logits, cache = self._forward(tokens[:, None], mask, cache)

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Logits after each prompt, the cache and the mask of what is in it; what all begin with is read once."""
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False)))
        shared = min(shared, min(map(len, prompts)) - 1)
        cache = None
        if shared and len(prompts) > 1:
            beginning = torch.tensor([prompts[0][:shared]], device=self.device)
            _, cache = self._forward(beginning, torch.ones_like(beginning), None)
            cache.batch_repeat_interleave(len(prompts))
        else:
            shared = 0
        rests = [prompt[shared:] for prompt in prompts]
        width = max(map(len, rests))
        # Any token will do where the mask hides it.
        ids = torch.tensor([[0] * (width - len(rest)) + list(rest) for rest in rests], device=self.device)
        seen = [[1] * shared + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests]
        mask = torch.tensor(seen, device=self.device)
        logits, cache = self._forward(ids, mask, cache)
        if not torch.isfinite(logits).all():
            raise PrimerError(
                "The model's logits are not finite numbers: it has diverged.",
                "Train it again with a lower train.learning_rate, or in train.precision fp32.",
            )
        return logits, cache, mask

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        optional = {"position_ids": positions, "logits_to_keep": 1}
        arguments = {name: value for name, value in optional.items() if name in self._optional}
        found = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **arguments)
        return found.logits[:, -1].float(), found.past_key_values

    def _numbers(self, rows: Sequence[tuple[str, int]]) -> torch.Tensor | None:
        """For every row its random numbers, one a step; None where nothing is drawn."""
        if self._writing.temperature == 0:
            return None
        return torch.stack([_uniform(self._writing, text, sample) for text, sample in rows]).to(self.device)

    def _take(self, logits: torch.Tensor, uniform: torch.Tensor | None) -> torch.Tensor:
        """The next token of each row."""
        if uniform is None:
            return logits.argmax(-1)
        return _draw(logits / self._writing.temperature, self._writing.top_p, uniform)

    def _stopped(self, tokens: list[int]) -> bool:
        if not self._writing.stops:
            return False
        tail = self._decode(tokens[-self._tail :])
        return any(stop in tail for stop in self._writing.stops)

    def _text(self, tokens: list[int]) -> str:
        text = self._decode(tokens)
        return text[: min((at for stop in self._writing.stops if (at := text.find(stop)) >= 0), default=len(text))]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _uniform(writing: Writing, prompt: str, sample: int) -> torch.Tensor:
    """A row's numbers from 0 to 1: for each step some tries and one more."""
    digest = hashlib.sha256(f"{writing.seed}\0{sample}\0{prompt}".encode("utf-8", "surrogatepass")).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], signed=True))
    return torch.rand(writing.tokens, _TRIES + 1, generator=generator, dtype=torch.float64)


def _draw(logits: torch.Tensor, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    """One token a row, of the likeliest that have `top_p` together.

    A token is drawn from all, and again if the likelier ones alone have as much: that needs no sorting, which takes a
    vocabulary of 51,200 thirty times as long.

    Args:
        logits: Shape (rows, vocabulary).
        top_p: Greater than 0, at most 1.
        uniform: Numbers from 0 to 1, one a try and one for what no try has settled, shape (rows, tries + 1).
    """
    probabilities = logits.softmax(-1)
    sums = probabilities.double().cumsum(-1)
    if top_p == 1:
        return _invert(sums, uniform[:, 0])
    tokens, waiting = logits.argmax(-1), torch.arange(len(logits), device=logits.device)
    for number in range(uniform.shape[1] - 1):
        drawn, known = _invert(sums[waiting], uniform[waiting, number]), probabilities[waiting]
        likelier = known.masked_fill(known <= known.gather(-1, drawn[:, None]), 0.0).sum(-1)
        settled = likelier < top_p
        tokens[waiting[settled]] = drawn[settled]
        waiting = waiting[~settled]
        if len(waiting) == 0:
            return tokens
    values, order = probabilities[waiting].sort(-1, descending=True)
    sums = values.double().cumsum(-1)
    sums = sums.where(sums - values < top_p, 0.0).cummax(-1).values
    tokens[waiting] = order.gather(-1, _invert(sums, uniform[waiting, -1])[:, None])[:, 0]
    return tokens


def _invert(sums: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first place of each row whose sum exceeds the share `uniform` of the last one."""
    place = torch.searchsorted(sums, (uniform * sums[:, -1])[:, None], right=True)[:, 0]
    return place.clamp(max=sums.shape[-1] - 1)
