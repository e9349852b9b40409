"""How fast the steps of web text are, one by one, in one process: documents and characters per CPU second, and memory.

    python bench/web_speed.py --texts articles.jsonl --write

Each step gets what the one before it kept. Texts are JSON Lines with a `text`; without `--texts` the Wikipedia sample.
The filter has learnt made-up labels: its speed does not depend on them, and here it keeps every text. `--write` puts
the figures into bench/results/web-speed.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from primer.benchmarks import data_folder, read_every_benchmark
from primer.contamination import Contamination
from primer.recipe_corpora import Quality, Screens, WebSample
from synth.annotate import SCHEMA
from synth.quality_training import build_filter
from synth.refine_steps import Decontaminate, KeepEducational, ReadSource, Screen, WriteDocuments, heuristic_filters
from synth.sources import open_source
from synth.text import SourceText

RESULT = Path(__file__).parent / "results" / "web-speed.json"
_PACKAGES = ("datatrove", "numpy", "rensa", "torch", "trafilatura")


def given(texts: list[str], _part: int) -> Iterator[SourceText]:
    """Some texts as a source hands them over."""
    return (SourceText(text) for text in texts)


def read_texts(path: Path | None) -> list[str]:
    """The texts to work on."""
    if path is None:
        source = open_source(WebSample(kind="wikipedia_sample"), "web.source", 0, 10_000_000)
        return [text.text for text in source.read(0)]
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def any_filter(texts: list[str], folder: Path, classifier: str) -> Path:
    """A filter that keeps every text, of labels that depend on a text's length."""
    chosen = texts[:200]
    middle = sorted(map(len, chosen))[len(chosen) // 2]
    blank = {"title": None, "origin": None, "reason": "", "repeated_scores": []}
    rows = [
        {"number": number, "text": text, "score": 4 * (len(text) > middle)} | blank
        for number, text in enumerate(chosen)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "labels.parquet")
    build_filter(folder / "labels.parquet", folder, Quality(keep=1.0, classifier=classifier), 0)  # type: ignore[arg-type]
    return folder


def measure(texts: list[str], folder: Path, data: Path | None) -> list[dict[str, Any]]:
    """The CPU seconds of each step."""
    Contamination(read_every_benchmark(data)).save(folder / "benchmarks")
    steps: list[tuple[str, Any]] = [("read and clean", ReadSource(partial(given, texts), 40))]
    rules = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
    steps += [(f"rules: {rule}", step) for rule, step in zip(rules, heuristic_filters(list(rules)), strict=True)]
    for classifier in ("random_forest", "linear"):
        steps.append((f"filter: {classifier}", KeepEducational(any_filter(texts, folder / classifier, classifier))))
    steps += [
        ("decontaminate", Decontaminate(folder / "benchmarks", folder)),
        ("screens", Screen(Screens(personal_data=True, toxicity=True))),
        ("sign and write", WriteDocuments(folder, folder, "web", 10**12, 5)),
    ]
    rows, kept = [], []
    for name, step in steps:
        before, started = (len(kept), sum(len(text.text) for text in kept)), time.process_time()
        result = step.run(iter(kept), 0, 1)
        kept = list(result) if result is not None else kept
        seconds = time.process_time() - started
        documents, characters = before if before[0] else (len(kept), sum(len(text.text) for text in kept))
        rows.append(
            {
                "step": name,
                "documents": documents,
                "kept": len(kept),
                "cpu_seconds": round(seconds, 3),
                "documents_per_cpu_second": round(documents / seconds, 1),
                "characters_per_cpu_second": round(characters / seconds),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
        print("{step:<28} {documents:>6,d} {documents_per_cpu_second:>10,.1f}/s {peak_mb:>6,d} MB".format(**rows[-1]))
    return rows


def main() -> None:
    """Measure, and print a line a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--data", type=Path, help="benchmark data, as for `primer eval --data`")
    parser.add_argument("--limit", type=int, default=1000, help="so many texts at most")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    texts = read_texts(arguments.texts)[: arguments.limit]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(texts, Path(folder), arguments.data or data_folder(None))
    if arguments.write:
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "command": "python bench/web_speed.py --texts TEXTS --data DATA --write",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores; load at the start {os.getloadavg()[0]:.1f}",
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "steps": rows,
        }
        RESULT.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
