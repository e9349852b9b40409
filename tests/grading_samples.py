"""Answers to the 86 prompts as an evaluation leaves them, for the tests of grading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.boundaries import SUITE, prompts
from eval.item_files import ITEMS, write_items

Answering = Callable[[dict[str, Any]], str]


def write_answers(run: Path, models: Mapping[str, Answering], rows: Sequence[dict[str, Any]] | None = None) -> Path:
    """Fill `run/eval/<model>/` with what each model answers to the prompts (all of them, if no others are given)."""
    for name, answering in models.items():
        folder = run / "eval" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text("{}", encoding="utf-8")
        items = [
            {"kind": "open", "suite": SUITE, "item": row["id"], "answers": [answering(row)]}
            for row in (prompts() if rows is None else rows)
        ]
        other = {"kind": "held_out", "suite": "web", "item": "w-1", "bits": 2.0, "bytes": 1}
        write_items(folder / ITEMS, [other, *items])
    return run
