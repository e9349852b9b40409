"""How well items of benchmarks are found in documents, how often clean documents are taken for copies, and how fast.

    python bench/contamination.py --data ../evaldata --clean FOLDER

The folder holds documents without benchmark items, as far as anybody knows: .jsonl files (column "text") or text
files, at any depth. Long documents are cut at paragraphs to about 1,000 words. 10,000 of them, drawn at random, are
searched; then real items are planted in them, word for word and disguised. Results: bench/results/contamination.json;
with --flagged FILE what was found in clean documents is written there, to be read by a person.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy

from primer.benchmarks import Question, read_every_benchmark
from primer.contamination import Contamination
from primer.environment import usable_cores
from primer.run import write_json
from primer.words import text_words

RESULTS = Path(__file__).parent / "results" / "contamination.json"
LONGEST, PIECE, SHORTEST = 1500, 1000, 40
_TEXT_FILES = {".txt", ".md", ".rst", ".py"}


def documents(folder: Path) -> Iterator[tuple[str, str]]:
    """Every document of a folder: the name of its file, and its text or a piece of it."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".jsonl":
            texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        elif path.suffix in _TEXT_FILES:
            texts = [path.read_text(encoding="utf-8", errors="replace")]
        else:
            continue
        for text in texts:
            yield from ((path.stem, piece) for piece in pieces(text) if len(piece.split()) >= SHORTEST)


def pieces(text: str) -> Iterator[str]:
    """A text, or if it is long its paragraphs, about a thousand words together."""
    if len(text.split()) <= LONGEST:
        yield text
        return
    held: list[str] = []
    for paragraph in text.split("\n"):
        held.append(paragraph)
        if sum(len(part.split()) for part in held) >= PIECE:
            yield "\n".join(held)
            held = []
    yield "\n".join(held)


def short_texts(row: Question) -> list[str]:
    """The answers of a row, as far as they are short."""
    return [text for text in row.texts if text not in row.text and len(text_words(text)) < 20]


def rendered(row: Question, answers: list[str]) -> str:
    """A row as it stands where people write down tests: passage, question, answers with letters."""
    passages = [text for text in row.texts if text not in row.text and len(text_words(text)) >= 20]
    lettered = [f"{letter}. {answer}" for letter, answer in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", answers, strict=False)]
    return "\n".join([*passages[:1], row.text, *lettered])


def other_letters(text: str) -> str:
    """Another case, other punctuation, other white space; a gap stays one, or nothing says that it is one."""
    changed = re.sub(r"[^\w\s]", " -- ", text.upper()) if re.search(r"\w [^\w\s]+ \w", text) is None else text.upper()
    return changed.replace(" ", "  \n").replace("O", "Ó").replace("\u2019", "'")


def disguised(text: str, words: list[str], rng: random.Random, how: str) -> str:
    """A text of which one word in ten is replaced by a real word, deleted, or followed by another word."""
    parts = re.split(r"(\s+)", text)
    places = [place for place in range(0, len(parts), 2) if parts[place]]
    for place in rng.sample(places, max(1, round(len(places) / 10))):
        other = rng.choice(words)
        parts[place] = {"replaced": other, "deleted": "", "inserted": f"{parts[place]} {other}"}[how]
    return "".join(parts)


Disguise = Callable[[Question, list[str], random.Random], str]


def _worded(how: str, alone: bool = False) -> Disguise:
    return lambda row, words, rng: disguised(_alone(row) if alone else _whole(row), words, rng, how)


def _whole(row: Question) -> str:
    return rendered(row, short_texts(row))


def _alone(row: Question) -> str:
    """The question, a gap filled as it stands in a text."""
    before, gap, after = row.text.partition("_")
    filled = [
        text for text in row.texts if gap and "_" not in text and text.startswith(before) and text.endswith(after)
    ]
    return (filled or [row.text])[0]


def _shuffled(row: Question, _words: list[str], rng: random.Random) -> str:
    answers = short_texts(row)
    rng.shuffle(answers)
    return rendered(row, answers)


DISGUISES: dict[str, Disguise] = {
    "verbatim": lambda row, _words, _rng: _whole(row),
    "case, punctuation, white space": lambda row, _words, _rng: other_letters(_whole(row)),
    "one word in ten replaced": _worded("replaced"),
    "one word in ten deleted": _worded("deleted"),
    "one word in ten inserted": _worded("inserted"),
    "answers shuffled": _shuffled,
    "question alone": lambda row, _words, _rng: _alone(row),
    "question alone, replaced": _worded("replaced", alone=True),
}


def recall(
    contamination: Contamination, questions: dict[str, list[Question]], clean: list[str], count: int
) -> dict[str, dict[str, float]]:
    """Share of planted items that are found, by suite and disguise."""
    words = [word for text in clean[:200] for word in text.split() if word.isalpha()]
    found: dict[str, dict[str, float]] = {}
    for suite, rows in questions.items():
        rng = random.Random(suite)
        chosen = rng.sample(rows, min(count, len(rows)))
        found[suite] = {"planted": len(chosen)}
        for name, disguise in DISGUISES.items():
            hits = 0
            for row in chosen:
                host = rng.choice(clean).split("\n")
                host.insert(len(host) // 2, disguise(row, words, rng))
                hits += contamination.find("\n".join(host)) is not None
            found[suite][name] = round(hits / len(chosen), 4)
    return found


def false_positives(contamination: Contamination, clean: list[tuple[str, str]]) -> tuple[dict[str, Any], list[Any]]:
    """What is found in documents that nobody planted anything in."""
    flagged = []
    for source, text in clean:
        if match := contamination.find(text):
            flagged.append({"source": source, **asdict(match)})
    by_source = Counter(entry["source"] for entry in flagged)
    return {
        "documents": len(clean),
        "words": sum(len(text.split()) for _, text in clean),
        "sources": dict(sorted(Counter(source for source, _ in clean).items())),
        "flagged": len(flagged),
        "flagged_by_source": dict(by_source),
        "flagged_by_suite": dict(Counter(entry["suite"] for entry in flagged)),
    }, flagged


def speed(questions: dict[str, list[Question]], clean: list[str]) -> dict[str, Any]:
    """Seconds to build, save and load the index, its size, and documents of 500 words a CPU second."""
    clock = time.process_time()
    contamination = Contamination(questions)
    built = time.process_time() - clock
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        contamination.save(path)
        size = path.stat().st_size
        clock = time.process_time()
        loaded = Contamination.load(path)
        load = time.process_time() - clock
        texts = [" ".join(text.split(" ")[:500]) for text in clean if len(text.split(" ")) >= 500][:1500]
        rates = []
        for _ in range(3):
            clock = time.process_time()
            for text in texts:
                loaded.find(text)
            rates.append(len(texts) / (time.process_time() - clock))
    return {
        "items": len(contamination.index),
        "index_bytes": size,
        "build_cpu_seconds": round(built, 2),
        "load_cpu_seconds": round(load, 4),
        "documents": len(texts),
        "documents_of_500_words_per_cpu_second": [round(rate, 1) for rate in rates],
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """Recall as a Markdown table."""
    lines = ["| suite | items | " + " | ".join(DISGUISES) + " |", "|---" * (len(DISGUISES) + 2) + "|"]
    for suite, row in found.items():
        lines.append(
            f"| {suite} | {row['planted']:.0f} | " + " | ".join(f"{row[name]:.3f}" for name in DISGUISES) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of benchmark data; without it Primer's own items alone")
    parser.add_argument("--clean", type=Path, required=True, help="folder of clean documents")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--planted", type=int, default=300, help="items of each suite and disguise")
    parser.add_argument("--flagged", type=Path, metavar="FILE", help="file for what is found in clean documents")
    options = parser.parse_args()
    questions = read_every_benchmark(options.data)
    clean = list(documents(options.clean))
    random.Random(0).shuffle(clean)
    clean = clean[: options.documents]
    contamination = Contamination(questions)
    counts, flagged = false_positives(contamination, clean)
    if options.flagged:
        options.flagged.write_text(json.dumps(flagged, indent=1, ensure_ascii=False), encoding="utf-8")
    texts = [text for _, text in clean if contamination.find(text) is None]
    found = recall(contamination, questions, texts, options.planted)
    rates = speed(questions, texts)
    print(table(found))
    print(f"{counts['flagged']} of {counts['documents']:,d} clean documents ({counts['words']:,d} words) are flagged")
    median = statistics.median(rates["documents_of_500_words_per_cpu_second"])
    print(f"{median:,.0f} documents of 500 words per CPU second, index {rates['index_bytes'] / 2**20:.1f} MiB: {rates}")
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": f"{usable_cores()} cores, {platform.machine()}, no GPU",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "command": f"python bench/contamination.py --data FOLDER --clean FOLDER --documents {options.documents} "
        f"--planted {options.planted}",
        "rows": {suite: len(rows) for suite, rows in questions.items()},
    }
    write_json(RESULTS, {"about": about, "recall": found, "clean": counts, "speed": rates})


if __name__ == "__main__":
    main()
