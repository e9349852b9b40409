"""Held-out loss: how many bits a model needs for a byte of text that no variant was trained on.

Bits per byte of UTF-8 compares models whatever their tokenizer. Every variant is measured on every source of the
recipe, also on those it never saw.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.language_model import LanguageModel, Progress, Query
from primer.documents import read_documents

# Enough for an interval of about one per cent; a whole web corpus would take longer than the training did.
LARGEST_BYTES = 400_000


def choose_documents(corpus: Path, largest: int = LARGEST_BYTES) -> list[dict[str, Any]]:
    """Whole held-out documents of a corpus, in an order that depends on their ids alone, up to `largest` bytes.

    A document that would go beyond is left out, but one is always taken.

    Returns:
        Rows with `id` and `text`.

    Raises:
        PrimerError: If the corpus cannot be read.
    """
    rows = [row for row in read_documents(corpus, "held_out", ["id", "text"]) if row["text"]]
    rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    chosen: list[dict[str, Any]] = []
    total = 0
    for row in rows:
        size = len(row["text"].encode())
        if not chosen or total + size <= largest:
            chosen.append(row)
            total += size
    return chosen


def windows(tokens: Sequence[int], context: int) -> list[Query]:
    """A document as windows of the model's context: each token after the first is predicted exactly once.

    Args:
        tokens: The document with <|endoftext|> before it.
        context: Inputs of a window. The next window begins with the last token that the one before it predicted.
    """
    starts = range(0, len(tokens) - 1, context)
    return [Query(tokens[at : at + context + 1], len(tokens[at : at + context + 1]) - 1) for at in starts]


def total_loglikelihoods(
    model: LanguageModel, documents: Sequence[Sequence[int]], progress: Progress | None = None
) -> list[float]:
    """Log-likelihood (natural logarithm) of all tokens but the first of each document."""
    parts = [windows(tokens, model.max_length) for tokens in documents]
    scores = iter(model.score([[query] for part in parts for query in part], progress))
    return [sum(next(scores)[0][0] for _ in part) for part in parts]


def ask_held_out(
    source: str, documents: Sequence[Mapping[str, Any]], model: LanguageModel, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """The bits that a model needs for each document of a source (rows with `id` and `text`)."""
    encoded = [[model.prefix_token_id, *ids] for ids in model.encode_text([row["text"] for row in documents])]
    loglikelihoods = total_loglikelihoods(model, encoded, progress)
    return [
        {
            "kind": "held_out",
            "suite": source,
            "item": row["id"],
            "bits": max(0.0, -loglikelihood / math.log(2)),
            "bytes": len(row["text"].encode()),
        }
        for row, loglikelihood in zip(documents, loglikelihoods, strict=True)
    ]


def held_out_totals(source: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For `results.json`; bits per byte is all bits over all bytes."""
    size = sum(item["bytes"] for item in items)
    bits = sum(item["bits"] for item in items)
    return {"source": source, "documents": len(items), "bytes": size, "bits_per_byte": bits / size}
