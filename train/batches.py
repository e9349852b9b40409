"""What one process computes of each step: its share of the batch, cut into passes, on the device in time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.world import World

_Cut = tuple[int, int, bool]  # first place, the place after the last, whether the step ends there


@dataclass(frozen=True)
class Pass:
    """What goes through the model at once.

    Attributes:
        tokens, targets: Token ids and what follows each, (sequences, context).
        documents: Number of each token's document in its row, (sequences, context); None where nobody asks.
        last: Whether the step ends with it.
    """

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None
    last: bool


class Sequences(Protocol):
    """Where sequences come from: `train.mixture.Mixture`."""

    def sequences(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Token ids of the sequences at places `start` to `stop`: (stop - start, context + 1)."""

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Number of the document in its row of each input token: (stop - start, context)."""


class Batches:
    """The passes of a process.

    A step's sequences are divided evenly: rank r of w takes those at r n / w to (r + 1) n / w. So every number of
    processes sees the same sequences in a step.

    Args:
        mixture: The data.
        sequences: Of a step, on all processes; the world's size divides it.
        world: Which share is this process's.
        device: Where to.
        documents: Whether passes carry the documents' numbers.
    """

    def __init__(self, mixture: Sequences, sequences: int, world: World, device: torch.device, documents: bool) -> None:
        self.mixture, self.sequences, self.device, self.documents = mixture, sequences, device, documents
        self.share = sequences // world.size
        self._offset = world.rank * self.share
        # A GPU must not wait for a copy: the next pass is fetched while this one is computed. A CPU computes both.
        # Its thread would pin memory by way of GPU 0, and so take some of that GPU's, whichever this process has.
        ours = partial(torch.cuda.set_device, device)
        self._fetcher = ThreadPoolExecutor(1, "batches", initializer=ours) if device.type == "cuda" else None
        self._ahead: tuple[_Cut, Future[Pass]] | None = None

    def passes(self, batch: int, micro_batch: int) -> Iterator[Pass]:
        """The passes of this process in a batch, counted from 0, of at most `micro_batch` sequences."""
        cuts = self._cuts(batch, micro_batch)
        following = self._cuts(batch + 1, micro_batch)[0]  # most likely what comes after this batch
        for cut, ahead in zip(cuts, [*cuts[1:], following], strict=True):
            yield self._take(cut, ahead)

    def trial(self, sequences: int) -> Pass:
        """A pass of the first sequences of all, to see whether it fits."""
        return self._fetch(0, sequences, False)

    def _cuts(self, batch: int, micro_batch: int) -> list[_Cut]:
        first = batch * self.sequences + self._offset
        end = first + self.share
        return [
            (start, min(start + micro_batch, end), start + micro_batch >= end)
            for start in range(first, end, micro_batch)
        ]

    def _take(self, cut: _Cut, ahead: _Cut) -> Pass:
        if self._fetcher is None:
            return self._fetch(*cut)
        expected, future = self._ahead or (None, None)
        if expected != cut or future is None:  # the first one, or data is left out
            future = self._fetcher.submit(self._fetch, *cut)
        self._ahead = ahead, self._fetcher.submit(self._fetch, *ahead)
        return future.result()

    def _fetch(self, start: int, stop: int, last: bool) -> Pass:
        rows = torch.from_numpy(self.mixture.sequences(start, stop))
        documents = torch.from_numpy(self.mixture.documents(start, stop)) if self.documents else None
        if self.device.type == "cuda":
            rows = rows.pin_memory().to(self.device, non_blocking=True)
            documents = documents.pin_memory().to(self.device, non_blocking=True) if documents is not None else None
        return Pass(rows[:, :-1], rows[:, 1:], documents, last)
