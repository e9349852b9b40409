"""The held-out loss of a model by source, while it is trained and without changing anything in that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from primer.recipe import SourceName
from train.hardware import Hardware
from train.model import Phi
from train.shards import Shard

# Tokens of a pass, at least one sequence: without gradients so many need less memory than a sequence in training.
_PASS_TOKENS = 4096


class Validation:
    """Held-out text of some sources, cut into windows as training text is.

    Args:
        shards: Token shards of the held-out splits, by source.
        context: Tokens of a window.
        tokens: How many of each source the loss is measured on: the first ones, or all where there are fewer.
        mask_documents: Whether attention stays within a document, as in training.
    """

    def __init__(
        self, shards: Mapping[SourceName, Shard], context: int, tokens: int, mask_documents: bool = False
    ) -> None:
        self.shards, self.context, self.tokens, self.mask_documents = shards, context, tokens, mask_documents

    def losses(self, model: Phi, hardware: Hardware) -> dict[SourceName, float]:
        """Mean cross-entropy of every source, in nats a token; a source of less than two tokens is left out.

        Args:
            model: On the hardware's device; it is left in the mode in which it came.
            hardware: Says in which precision to compute.
        """
        with (
            undisturbed(model),
            torch.autocast(hardware.device.type, hardware.dtype, enabled=hardware.precision != "fp32"),
        ):
            return {
                source: self._total(model, shard, hardware.device) / predicted
                for source, shard in self.shards.items()
                if (predicted := self._predicted(shard))
            }

    def bits_per_byte(self, losses: Mapping[SourceName, float]) -> dict[SourceName, float]:
        """The same in bits per byte of text, which compares models with different tokenizers.

        Tokens are taken to have the bytes that they have in the whole held-out split, on average.
        """
        headers = {source: self.shards[source].header for source in losses}
        return {
            source: loss / math.log(2) * headers[source].tokens / headers[source].bytes
            for source, loss in losses.items()
        }

    def _predicted(self, shard: Shard) -> int:
        return max(0, min(self.tokens, len(shard) - 1))  # the first token is predicted by none

    def _total(self, model: Phi, shard: Shard, device: torch.device) -> float:
        total = torch.zeros((), dtype=torch.float64, device=device)
        for starts, length in self._passes(shard):
            rows = torch.from_numpy(shard.windows(starts, length + 1)).to(device)
            documents = None
            if self.mask_documents:
                documents = torch.from_numpy(shard.document_numbers(starts, length)).to(device)
            total += model.loss(rows[:, :-1], rows[:, 1:], documents)
        return float(total)

    def _passes(self, shard: Shard) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """Where the windows of each pass begin, and how many tokens each of them predicts."""
        whole, rest = divmod(self._predicted(shard), self.context)
        starts = np.arange(whole, dtype=np.int64) * self.context
        together = max(1, _PASS_TOKENS // self.context)
        for first in range(0, whole, together):
            yield starts[first : first + together], self.context
        if rest:
            yield np.array([whole * self.context]), rest


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Look at what a model computes in the midst of its training.

    Nothing is dropped, so nothing random is drawn; no gradients; and what was compiled for the training's passes is
    not compiled again for others, which would take longer than they do.
    """
    was_training, compiled = model.training, model._compiled_call_impl
    model._compiled_call_impl = None
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
        model._compiled_call_impl = compiled
