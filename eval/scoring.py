"""Log-likelihoods of continuations by one pass over each shared beginning.

The answers of a question share its text. Laid out as a tree (the shared tokens once, then each answer's own), a row
costs one short sequence instead of one long sequence an answer. An attention mask lets each branch see the shared part
and itself; position numbers continue from the shared part in each. So the log-probabilities are those of separate
sequences. The vocabulary-wide logits are made for the scored positions alone, a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch

# Tokens of a batch and logits held at once: on a CPU what stays near the caches, on a GPU what keeps it busy.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 32_768}
_BLOCK_LOGITS = {"cpu": 2**22, "cuda": 2**28}

Score = tuple[float, bool]


@dataclass(frozen=True)
class Query:
    """A sequence of which the last `scored` tokens are asked for; the tokens before them are their context."""

    tokens: Sequence[int]
    scored: int


@dataclass
class _Tree:
    """Some queries in one sequence.

    Attributes:
        number: Position of the first query among all.
        inputs: Tokens, shape (length,).
        positions: Position number of each, as in a sequence of its query alone.
        branches: 0 for the shared part, then 1, 2, ... for each query's own.
        targets: For every scored token: (number of its query, index of the input that predicts it, the token).
    """

    inputs: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    targets: list[tuple[int, int, int]] = field(default_factory=list)


class Scorer:
    """Scores queries with a Hugging Face causal language model.

    Args:
        body: The decoder without its head: token ids, mask and positions in, hidden states out.
        head: Hidden states to logits.
        vocabulary: Number of logits.
        device: Where both are.
    """

    def __init__(self, body: torch.nn.Module, head: torch.nn.Module, vocabulary: int, device: torch.device) -> None:
        self._body, self._head, self._vocabulary, self._device = body, head, vocabulary, device
        self._dtype = next(body.parameters()).dtype

    def score(
        self, groups: Sequence[Sequence[Query]], progress: Callable[[float], None] | None = None
    ) -> list[list[Score]]:
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
        trees = [tree for group, start in zip(groups, starts, strict=False) for tree in _plant(group, start)]
        sums = torch.zeros(starts[-1], dtype=torch.float64)
        misses = torch.zeros(starts[-1], dtype=torch.int64)
        done, total = 0, sum(len(tree.inputs) for tree in trees)
        for batch in _batches(trees, _BATCH_TOKENS[self._device.type]):
            for owners, values, greedy in self._score_batch(batch):
                sums.index_add_(0, owners, values)
                misses.index_add_(0, owners, 1 - greedy)
            done += sum(len(tree.inputs) for tree in batch)
            if progress is not None:
                progress(done / total)
        flat = [(value, miss == 0) for value, miss in zip(sums.tolist(), misses.tolist(), strict=True)]
        return [flat[start : start + len(group)] for group, start in zip(groups, starts, strict=False)]

    @torch.inference_mode()
    def _score_batch(self, batch: Sequence[_Tree]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        length = max(len(tree.inputs) for tree in batch)
        hidden = self._body(**self._arguments(batch, length), use_cache=False).last_hidden_state
        flat = hidden.reshape(-1, hidden.shape[-1])
        targets = [
            (owner, row * length + at, token) for row, tree in enumerate(batch) for owner, at, token in tree.targets
        ]
        owners, places, tokens = torch.tensor(sorted(targets, key=lambda target: target[1])).T
        # Answers that branch at the same token are read off the same logits.
        unique, row_of = torch.unique_consecutive(places, return_inverse=True)
        block = max(1, _BLOCK_LOGITS[self._device.type] // self._vocabulary)
        for first in range(0, len(unique), block):
            logits = self._head(flat[unique[first : first + block].to(self._device)]).float()
            low, high = torch.searchsorted(row_of, torch.tensor([first, first + block])).tolist()
            row, token = (row_of[low:high] - first).to(self._device), tokens[low:high].to(self._device)
            values = logits[row, token] - logits.logsumexp(-1)[row]
            greedy = logits.argmax(-1)[row] == token
            yield owners[low:high], values.double().cpu(), greedy.long().cpu()

    def _arguments(self, batch: Sequence[_Tree], length: int) -> dict[str, Any]:
        tokens = torch.zeros(len(batch), length, dtype=torch.long)
        for row, tree in enumerate(batch):
            tokens[row, : len(tree.inputs)] = torch.tensor(tree.inputs)
        if all(tree.branches[-1] == 0 for tree in batch):
            # Padding follows what is scored, so the causal mask alone hides it: the fast attention kernels apply.
            return {"input_ids": tokens.to(self._device)}
        positions = torch.zeros(len(batch), length, dtype=torch.long)
        branches = torch.zeros(len(batch), length, dtype=torch.long)
        for row, tree in enumerate(batch):
            positions[row, : len(tree.inputs)] = torch.tensor(tree.positions)
            branches[row, : len(tree.inputs)] = torch.tensor(tree.branches)
        branches = branches.to(self._device)
        seen = ((branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])).tril()
        # Added to the attention scores. Torch would turn a mask of truth values into this in every layer.
        mask = torch.zeros(seen.shape, dtype=self._dtype, device=self._device).masked_fill_(~seen, float("-inf"))
        return {
            "input_ids": tokens.to(self._device),
            "position_ids": positions.to(self._device),
            "attention_mask": mask[:, None],
        }


def _plant(group: Sequence[Query], start: int) -> list[_Tree]:
    """The queries of a group as one tree, or one each where they share no beginning (cut contexts)."""
    inputs = [query.tokens[:-1] for query in group]
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*inputs, strict=False)))
    if shared == 0 and len(group) > 1:
        return [tree for number, query in enumerate(group) for tree in _plant([query], start + number)]
    tree = _Tree(list(inputs[0][:shared]), list(range(shared)), [0] * shared)
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
    """Trees of similar length together, the longest first; a batch with its padding holds at most `tokens` tokens."""
    batch: list[_Tree] = []
    # Trees without branches go together: they need no mask.
    for tree in sorted(trees, key=lambda tree: (tree.branches[-1] == 0, -len(tree.inputs))):
        width = max(len(batch[0].inputs), len(tree.inputs)) if batch else len(tree.inputs)
        mixed = batch and (batch[0].branches[-1] == 0) != (tree.branches[-1] == 0)
        if batch and (mixed or width * (len(batch) + 1) > tokens):
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch
