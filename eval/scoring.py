"""Log-likelihoods of continuations, each beginning computed once.

The answers of a question share its text. Laid out as a tree (the shared tokens once, then each answer's own), a row
costs one short sequence instead of one long sequence an answer. An attention mask lets each branch see the shared part
and itself; position numbers continue from the shared part in each. Rows share text too: the examples of a few-shot
prompt. Such a stem (`eval.stems`) is read once, and its keys and values serve all rows that begin with it. So the
log-probabilities are those of separate sequences. Logits are made for the scored positions alone, a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from eval.language_model import Progress, Query, Score
from eval.stems import Stem, find_stems, shared_length

# Tokens of a batch and logits held at once: on a CPU what stays near the caches, on a GPU what keeps it busy.
_BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
_BLOCK_LOGITS = {"cpu": 2**22, "cuda": 2**28}


class Decoder(Protocol):
    """A model as scoring uses it.

    Attributes:
        shares: Whether a mask and kept keys and values are all that its answers depend on; without, every sequence is
            computed alone.
    """

    device: torch.device
    dtype: torch.dtype
    shares: bool

    def begin(self, tokens: Tensor) -> Any:
        """What `read` needs to know of a beginning, shape (1, length)."""

    def read(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        past: Any = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Hidden states, shape (batch, length or wanted, width) (see `eval.phi.Phi.read`)."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states to logits, shape (..., vocabulary)."""


@dataclass
class _Tree:
    """Some queries in one sequence.

    Attributes:
        inputs: Tokens, shape (length,).
        positions: Position number of each, as in a sequence of its query alone.
        branches: 0 for the shared part, then 1, 2, ... for each query's own.
        shared: Length of the shared part.
        targets: For every scored token: (number of its query, index of the input that predicts it, the token).
        stem: Number of the stem that it begins with, and its length; none is (-1, 0).
    """

    inputs: list[int]
    positions: list[int]
    branches: list[int]
    shared: int
    targets: list[tuple[int, int, int]] = field(default_factory=list)
    stem: tuple[int, int] = (-1, 0)

    @property
    def plain(self) -> bool:
        """Whether it has no branches."""
        return self.shared == len(self.inputs)

    @property
    def length(self) -> int:
        """Tokens after the stem."""
        return len(self.inputs) - self.stem[1]

    def own_beginning(self) -> list[int]:
        """The tokens that other rows may share: seen by all queries, and predicting nothing that is scored."""
        return self.inputs[: min(self.shared, *(at for _, at, _ in self.targets))]


class Scorer:
    """Scores queries with a decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._device = decoder, decoder.device

    @torch.inference_mode()
    def score(self, groups: Sequence[Sequence[Query]], progress: Progress | None = None) -> list[list[Score]]:
        """Score queries; those of a group share a beginning.

        Args:
            groups: Queries by group; each has at least one scored token and one before it.
            progress: Told the share of work that is done, 0 to 1.

        Returns:
            For each query the sum of the log-probabilities (natural logarithm) of its scored tokens, and whether each
            of them was the likeliest token there.
        """
        starts = [0]
        for group in groups:
            starts.append(starts[-1] + len(group))
        shares = self._decoder.shares
        trees = [tree for group, start in zip(groups, starts, strict=False) for tree in _plant(group, start, shares)]
        stems = self._place_on_stems(trees) if shares else []
        sums = torch.zeros(starts[-1], dtype=torch.float64)
        misses = torch.zeros(starts[-1], dtype=torch.int64)
        done, total = 0, sum(tree.length for tree in trees)
        number, past = -1, None
        for batch in _batches(trees, _BATCH_TOKENS[self._device.type]):
            if batch[0].stem[0] != number:
                number = batch[0].stem[0]
                past = self._decoder.begin(torch.tensor([stems[number].tokens], device=self._device))
            for owners, values, greedy in self._score_batch(batch, past):
                sums.index_add_(0, owners, values)
                misses.index_add_(0, owners, 1 - greedy)
            done += sum(tree.length for tree in batch)
            if progress is not None:
                progress(done / total)
        flat = [(value, miss == 0) for value, miss in zip(sums.tolist(), misses.tolist(), strict=True)]
        return [flat[start : start + len(group)] for group, start in zip(groups, starts, strict=False)]

    def _place_on_stems(self, trees: Sequence[_Tree]) -> list[Stem]:
        stems = find_stems([tree.own_beginning() for tree in trees])
        for number, stem in enumerate(stems):
            for member in stem.members:
                trees[member].stem = (number, len(stem.tokens))
        return stems

    def _score_batch(self, batch: Sequence[_Tree], past: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        length, skipped = max(tree.length for tree in batch), batch[0].stem[1]
        places = [sorted({at - skipped for _, at, _ in tree.targets}) for tree in batch]
        width = max(map(len, places))
        few = 4 * width < 3 * length  # otherwise looking them up costs more than it saves
        arguments = self._arguments(batch, length, skipped)
        if few:
            arguments["wanted"] = torch.tensor([own + [0] * (width - len(own)) for own in places], device=self._device)
        hidden = self._decoder.read(**arguments, past=past)
        flat = hidden.reshape(-1, hidden.shape[-1])
        targets = []
        for row, (tree, own) in enumerate(zip(batch, places, strict=True)):
            column = {at: number for number, at in enumerate(own)} if few else {at: at for at in own}
            start = row * hidden.shape[1]
            targets += [(owner, start + column[at - skipped], token) for owner, at, token in tree.targets]
        owners, flat_places, tokens = torch.tensor(sorted(targets, key=lambda target: target[1])).T
        # Answers that branch at the same token are read off the same logits.
        unique, row_of = torch.unique_consecutive(flat_places, return_inverse=True)
        wanted = flat[unique.to(self._device)]
        vocabulary = self._decoder.logits(wanted[:1]).shape[-1]
        block = max(1, _BLOCK_LOGITS[self._device.type] // vocabulary)
        for first in range(0, len(unique), block):
            logits = self._decoder.logits(wanted[first : first + block]).float()
            low, high = torch.searchsorted(row_of, torch.tensor([first, first + block])).tolist()
            chosen, token = (row_of[low:high] - first).to(self._device), tokens[low:high].to(self._device)
            best, likeliest = logits.max(-1)
            values = logits[chosen, token] - (best + logits.sub_(best[:, None]).exp_().sum(-1).log())[chosen]
            greedy = likeliest[chosen] == token
            yield owners[low:high], values.double().cpu(), greedy.long().cpu()

    def _arguments(self, batch: Sequence[_Tree], length: int, skipped: int) -> dict[str, Tensor]:
        tokens = self._table([tree.inputs[skipped:] for tree in batch], length)
        if batch[0].plain:
            if skipped == 0:
                # Padding follows what is scored, so the causal mask alone hides it: the fast attention kernels apply.
                return {"tokens": tokens}
            positions = torch.arange(skipped, skipped + length, device=self._device)[None]
            seen = torch.ones(1, length, length, dtype=torch.bool, device=self._device).tril()
        else:
            positions = self._table([tree.positions[skipped:] for tree in batch], length)
            branches = self._table([tree.branches[skipped:] for tree in batch], length)
            seen = ((branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])).tril()
        # Added to the attention scores. Torch would turn a mask of truth values into this in every layer.
        mask = torch.zeros(len(seen), 1, length, skipped + length, dtype=self._decoder.dtype, device=self._device)
        mask[:, 0, :, skipped:].masked_fill_(~seen, float("-inf"))
        return {"tokens": tokens, "positions": positions, "mask": mask}

    def _table(self, rows: Sequence[Sequence[int]], length: int) -> Tensor:
        padded = torch.zeros(len(rows), length, dtype=torch.long)
        for number, row in enumerate(rows):
            padded[number, : len(row)] = torch.tensor(row)
        return padded.to(self._device)


def _plant(group: Sequence[Query], start: int, branching: bool) -> list[_Tree]:
    """The queries of a group as one tree, or one each where they share no beginning or may not branch."""
    inputs = [query.tokens[:-1] for query in group]
    shared = min(shared_length(inputs[0], own) for own in inputs)
    alike = all(len(own) == shared for own in inputs)
    if len(group) > 1 and (shared == 0 or not (branching or alike)):
        return [tree for number, query in enumerate(group) for tree in _plant([query], start + number, branching)]
    tree = _Tree(list(inputs[0][:shared]), list(range(shared)), [0] * shared, shared)
    for number, (query, own) in enumerate(zip(group, inputs, strict=True)):
        offset = len(tree.inputs) - shared
        tree.inputs += own[shared:]
        tree.positions += range(shared, len(own))
        tree.branches += [number + 1] * (len(own) - shared)
        for index in range(len(query.tokens) - query.scored, len(query.tokens)):
            at = index - 1
            tree.targets.append((start + number, at if at < shared else at + offset, query.tokens[index]))
    return [tree]


def _batches(trees: Sequence[_Tree], tokens: int) -> Iterator[list[_Tree]]:
    """Trees of one kind and similar length together, the longest first, those without a stem at the beginning.

    A batch with its padding holds at most `tokens` tokens; each row has a copy of its stem's keys and values, which
    counts a quarter.
    """
    batch: list[_Tree] = []
    # Trees without branches go together: they need no mask of their own.
    for tree in sorted(trees, key=lambda tree: (tree.stem, tree.plain, -tree.length)):
        alike = bool(batch) and (batch[0].stem, batch[0].plain) == (tree.stem, tree.plain)
        if batch and (not alike or (batch[0].length + tree.stem[1] // 4) * (len(batch) + 1) > tokens):
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch
