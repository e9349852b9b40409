"""A model's text, token by token, as it is written.

A plain loop over the cached keys and values, not `generate` with a streamer in a thread: it stops at once when its
reader does or when Ctrl-C comes, and its draws depend on the seed alone, the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eval.loading import end_tokens
from primer.errors import PrimerError


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: The smallest set of tokens with this much probability is drawn from (arXiv 1904.09751, section 3.1).
        tokens: At most so many.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    tokens: int = 200

    def __post_init__(self) -> None:
        for name, value, fits in (
            ("temperature", self.temperature, 0 <= self.temperature < math.inf),
            ("top_p", self.top_p, 0 <= self.top_p <= 1),
            ("tokens", self.tokens, self.tokens >= 1),
        ):
            if not fits:
                raise PrimerError(f"{name} cannot be {value}.", "A temperature is 0 or more, tokens 1 or more.")


class Writer:
    """A loaded model as something that continues texts.

    Args:
        model: Of `eval.loading.load_model`.
        tokenizer: Its tokenizer.
        seed: Of the draws.
    """

    def __init__(self, model: Any, tokenizer: Any, seed: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.context = _context(model, tokenizer)
        self._ends = end_tokens(model, tokenizer)
        self._generator = torch.Generator()  # on the CPU, where it draws the same for every device
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin the draws again.

        Raises:
            PrimerError: If torch takes no such seed.
        """
        if not 0 <= seed < 2**63:
            raise PrimerError(f"The seed cannot be {seed}.", "A seed is a whole number from 0 to 2^63 - 1.")
        self._generator.manual_seed(seed)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt.

        Raises:
            PrimerError: If the text is no valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PrimerError("The text has bytes that are no UTF-8.", "Type or send it as UTF-8.") from None
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        return ids

    @torch.inference_mode()
    def write(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[str]:
        """Continue a prompt.

        Args:
            prompt: Its tokens, at least one.
            sampling: How to.

        Yields:
            All that is written so far, after each token; an incomplete character is held back until the end. Ends with
            the end-of-text token, after `sampling.tokens`, or where the context does.

        Raises:
            PrimerError: If the prompt leaves no room, or the model's logits are not numbers.
        """
        room = self.context - len(prompt)
        if room < 1:
            raise PrimerError(
                f"The prompt has {len(prompt):,} tokens, and the model's context is {self.context:,}.",
                "Shorten it.",
            )
        tokens: list[int] = []
        step = torch.tensor([list(prompt)], device=self._model.device)
        cache = None
        for _ in range(min(sampling.tokens, room)):
            out = self._model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            token = _choose(out.logits[0, -1].float().cpu(), sampling, self._generator)
            if token in self._ends:
                break
            tokens.append(token)
            yield self._decode(tokens).rstrip("\ufffd")
            step = torch.tensor([[token]], device=self._model.device)
        yield self._decode(tokens)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token of logits (vocabulary,)."""
    if not torch.isfinite(logits).all():
        raise PrimerError("The model's logits are not finite numbers: it has diverged.", "Take another model.")
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / sampling.temperature  # never above 0, however small the temperature
    probabilities, order = scaled.softmax(-1).sort(descending=True, stable=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities[1:][before[1:] >= sampling.top_p] = 0  # the likeliest always stays
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])


def _context(model: Any, tokenizer: Any) -> int:
    """Tokens that a model was trained to see at once."""
    for key in ("max_position_embeddings", "n_positions", "n_ctx"):
        length = getattr(model.config, key, None)
        if isinstance(length, int):
            return length
    return int(min(tokenizer.model_max_length, 2048))  # the tokenizer's is 10^30 where it says nothing
