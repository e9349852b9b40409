"""Deduplication measured: what it finds at each rate of edits beside the theory, and its speed beside datatrove's.

    python bench/deduplication.py --texts articles.jsonl --documents 100000 --write

Texts are JSON Lines with a `text`. For recall, the first 300 words of each are edited: so many of them replaced, at
random places, by words of other texts. For speed, documents are put together from passages of the texts, a fifth of
them copies or edits of earlier ones, and deduplicated by Primer and by datatrove's four MinHash stages, each a process
of its own, in turns. `--write` puts the figures into bench/results/deduplication.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from primer.recipe_corpora import Duplicates
from primer.words import text_words
from synth.duplicates import find_duplicates
from synth.signatures import HASHES, SignatureWriter, least_agreeing, signature

RESULT = Path(__file__).parent / "results" / "deduplication.json"
WORK = Path(__file__).with_name("deduplication_work.py")

RATES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)
WORDS = 300

# Of the documents for the speed, what follows an earlier one: a copy with other case and white space, or an edit.
COPIES, EDITS = 0.1, 0.1
EDIT_RATES = (0.01, 0.02, 0.05, 0.1)
PASSAGES, PASSAGE_WORDS = 5, (40, 80)


def expected(similarity: float, settings: Duplicates) -> tuple[float, float]:
    """Chance that a pair of this Jaccard similarity shares a band, and that it is found: by theory.

    A byte agrees with probability p = s + (1 - s) / 256, all of a band of r with p^r, and so one of b bands with
    1 - (1 - p^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.2). To be found, enough of
    the 128 bytes must agree, too; given how many do, that a band is whole follows by inclusion and exclusion.
    """
    rows, bands = settings.rows, HASHES // settings.rows
    p = similarity + (1 - similarity) / 256
    found = 0.0
    for agreeing in range(least_agreeing(settings.threshold), HASHES + 1):
        none = sum(
            (-1) ** whole * comb(bands, whole) * comb(HASHES - rows * whole, agreeing - rows * whole)
            for whole in range(min(bands, agreeing // rows) + 1)
        )
        among = comb(HASHES, agreeing)
        found += among * p**agreeing * (1 - p) ** (HASHES - agreeing) * (1 - none / among)
    return 1 - (1 - p**rows) ** bands, found


def edited(generator: random.Random, words: Sequence[str], rate: float, vocabulary: Sequence[str]) -> list[str]:
    """A text in which so many words are others."""
    other = list(words)
    for place in generator.sample(range(len(words)), round(rate * len(words))):
        other[place] = generator.choice(vocabulary)
    return other


def jaccard(one: str, other: str, shingle: int) -> float:
    """The similarity that is estimated."""
    ours, theirs = (
        {tuple(w[n : n + shingle]) for n in range(len(w) - shingle + 1)} for w in map(text_words, (one, other))
    )
    return len(ours & theirs) / max(1, len(ours | theirs))


def recall(texts: Sequence[list[str]], settings: Duplicates) -> list[dict[str, float]]:
    """What is found of pairs at each rate of edits, and whether what is found is as alike as the threshold asks."""
    generator = random.Random(0)
    originals = [words[:WORDS] for words in texts if len(words) >= WORDS]
    vocabulary = [word for words in originals for word in words]
    rows = []
    for rate in RATES:
        others = [edited(generator, words, rate, vocabulary) for words in originals]
        both = [" ".join(words) for words in (*originals, *others)]
        with tempfile.TemporaryDirectory() as folder:
            with SignatureWriter(Path(folder) / "all.npy") as writer:
                for text in both:
                    writer.add(signature(text, settings.words))
            removals = find_duplicates([Path(folder) / "all.npy"], settings, [], Path(folder) / "scratch")
            found = [removals.kept_by(number) for number in range(len(both))]
        count = len(originals)
        true = [jaccard(one, other, settings.words) for one, other in zip(both, both[count:], strict=False)]
        theory = np.array([expected(similarity, settings) for similarity in true])
        kept = [place for place, match in enumerate(found[:count]) if match is None]
        right = [match is not None and kept[match.number] == place for place, match in enumerate(found[count:])]
        rows.append(
            {
                "edited": rate,
                "pairs": count,
                "jaccard": float(np.mean(true)),
                "band_theory": float(theory[:, 0].mean()),
                "found_theory": float(theory[:, 1].mean()),
                "found": float(np.mean(right)),
                "alike": float(np.mean([similarity > settings.threshold for similarity in true])),
                "strangers": sum(match is not None for match in found) - sum(right),
                "estimate_off": float(
                    np.mean(
                        [abs(m.similarity - s) for m, s, r in zip(found[count:], true, right, strict=True) if m and r]
                    )
                )
                if any(right)
                else None,
            }
        )
    return rows


def documents(texts: Sequence[list[str]], count: int) -> Iterator[dict[str, str]]:
    """Documents of passages of the texts; `id` says what each is: a new one, a copy, or an edit and its rate."""
    generator = random.Random(0)
    made: list[list[str]] = []
    for number in range(count):
        kind, chance = "new", generator.random()
        if made and chance < COPIES:
            kind, words = "copy", generator.choice(made)
            text = "\n".join(words).title()
        elif made and chance < COPIES + EDITS:
            rate = generator.choice(EDIT_RATES)
            kind, words = f"edit {rate:g}", edited(generator, generator.choice(made), rate, generator.choice(texts))
            text = " ".join(words)
        else:
            words = []
            for _ in range(PASSAGES):
                source, length = generator.choice(texts), generator.randint(*PASSAGE_WORDS)
                start = generator.randrange(max(1, len(source) - length))
                words += source[start : start + length]
            made.append(words)
            text = " ".join(words)
        yield {"text": text, "id": f"{kind} {number}"}


def speed(texts: Sequence[list[str]], count: int) -> dict[str, Any]:
    """Time, memory and what was removed, by program."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents" / "documents.parquet"
        path.parent.mkdir()
        schema = pa.schema([("text", pa.string()), ("id", pa.string())])
        with pq.ParquetWriter(path, schema) as file:
            rows = documents(texts, count)
            while some := list(islice(rows, 1000)):
                file.write_table(pa.Table.from_pylist(some, schema=schema))
        planted = _kinds([path])
        for which, band in (("primer", 8), ("datatrove", 8), ("primer", 4)):
            place = Path(folder) / f"{which}-{band}"
            place.mkdir()
            command = [sys.executable, str(WORK), which, str(path), str(place), "--rows", str(band)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
            remaining = _kinds((place / "kept").glob("*.parquet"))
            found["removed"] = {kind: planted[kind] - remaining[kind] for kind in sorted(planted)}
            figures[f"{which}, {HASHES // band} bands of {band}"] = found
            print(f"{which}, {HASHES // band} bands of {band}: {json.dumps(found)}", flush=True)
        figures["documents"], figures["bytes"] = dict(sorted(planted.items())), path.stat().st_size
    return figures


def _kinds(files: Iterable[Path]) -> Counter[str]:
    """How many documents of each kind some files hold."""
    names = (name for path in files for name in pq.read_table(path, columns=["id"])["id"].to_pylist())
    return Counter(name.rpartition(" ")[0] for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="JSON Lines of real text")
    parser.add_argument("--documents", type=int, default=100_000, help="for the speed; 0: recall alone")
    parser.add_argument("--write", action="store_true", help="write bench/results/deduplication.json")
    options = parser.parse_args()
    with options.texts.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"].split() for line in lines]
    result: dict[str, Any] = {
        "date": "2026-11-22",
        "command": "python bench/deduplication.py " + " ".join(sys.argv[1:]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; load at the start {os.getloadavg()[0]:.1f}",
        "versions": {name: importlib.metadata.version(name) for name in ("datatrove", "numpy", "rensa", "xxhash")}
        | {"python": platform.python_version()},
        "settings": Duplicates().model_dump(),
    }
    print(" edited  jaccard  a band: theory  found: theory  found  above the threshold  strangers")
    result["recall"] = recall(texts, Duplicates())
    for row in result["recall"]:
        print(
            f"{row['edited']:7.0%} {row['jaccard']:8.3f} {row['band_theory']:15.4f} {row['found_theory']:14.4f}"
            f" {row['found']:6.3f} {row['alike']:20.3f} {row['strangers']:10d}"
        )
    if options.documents:
        result["speed"] = speed(texts, options.documents)
    if options.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
