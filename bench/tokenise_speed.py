"""Tokenising measured: a corpus to token shards by Primer and by datatrove's DocumentTokenizer, in turns.

    python bench/tokenise_speed.py --write

The same Parquet files (code and documentation of Python's standard library and of the packages installed beside this
program, and the Wikipedia sample), the same tokenizer.json, the same cores, each round a process of its own that reads,
tokenises and writes. datatrove reads no metadata, does not shuffle, and gets one task a core; beside that, it is
measured with one task whose tokenizer has threads. That the ids are equal is checked. `--write` puts the figures into
bench/results/tokenise-speed.json.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from primer.documents import Document, ShardWriter
from primer.words import text_hash
from train.build_tokens import encode_blocks, split_blocks
from train.shards import read_header, write_encoded
from train.tokenizer import END_OF_TEXT, codegen_tokenizer, load_tokenizer, save_tokenizer, trained_tokenizer

RESULT = Path(__file__).parent / "results" / "tokenise-speed.json"
PROGRAMS = ("primer", "datatrove", "datatrove, threads")
VOCABULARY = 16_384
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def texts(megabytes: int) -> dict[str, list[str]]:
    """Prose and code, so many megabytes of each at most, in an order that does not follow the files' names."""
    from synth.wikipedia import read_wikipedia

    places = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    endings = {".py": "code", ".md": "prose", ".rst": "prose", ".txt": "prose"}
    files = {path for place in places for path in place.rglob("*") if path.suffix in endings or path.name == "METADATA"}
    chosen: dict[str, list[str]] = {"prose": [text.text for text in read_wikipedia(0)], "code": []}
    sizes = {kind: sum(map(len, items)) for kind, items in chosen.items()}
    for path in sorted(files, key=lambda path: hashlib.sha256(path.name.encode() + bytes([len(path.parts)])).digest()):
        kind = endings.get(path.suffix, "prose")
        if sizes[kind] >= 1e6 * megabytes or not 500 < path.stat().st_size < 200_000:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if END_OF_TEXT not in text:  # which datatrove takes for the end of a document
            chosen[kind].append(text)
            sizes[kind] += len(text)
    return chosen


def write_corpus_files(folder: Path, items: list[str], files: int) -> None:
    """A corpus in Primer's layout, its training text in so many files of about equal size."""
    for number, part in enumerate([*(items[place::files] for place in range(files)), items[:1]]):
        writer = ShardWriter(folder, "part")
        for place, text in enumerate(part):
            mark = text_hash(text)
            writer.add(Document(id=f"{number}-{place}", text=text, source="web", hash=mark, group=mark))
        writer.finish()
        name = f"train-{number:05d}.parquet" if number < files else "held_out-00000.parquet"
        (folder / "part-00000.parquet").rename(folder / name)


def by_primer(corpus: Path, tokenizer: Path, out: Path, cores: int) -> None:
    """Tokenise as the stage `tokens` does."""
    loaded = load_tokenizer(tokenizer)
    write_encoded(out, "web", encode_blocks(split_blocks(corpus, "train"), loaded, cores), loaded)


def by_datatrove(corpus: Path, tokenizer: Path, out: Path, tasks: int) -> None:
    """Tokenise with datatrove's pipeline."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    step = DocumentTokenizer(
        str(out), str(tokenizer / "tokenizer.json"), eos_token=END_OF_TEXT, shuffle_documents=False, batch_size=1000
    )
    reader = ParquetReader(str(corpus), glob_pattern="train-*.parquet", read_metadata=False)
    LocalPipelineExecutor([reader, step], tasks=tasks, workers=tasks, logging_dir=str(out / "logs")).run()


def work(program: str, corpus: Path, tokenizer: Path, out: Path, cores: int) -> None:
    """Run one program in this process, and print its seconds, and those of the processor for the imports before."""
    os.environ["TOKENIZERS_PARALLELISM"] = str("threads" in program).lower()
    os.environ["RAYON_NUM_THREADS"] = str(cores)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if program != "primer":  # imported before the clock starts, and not by Primer's processes
        importlib.import_module("datatrove.pipeline.tokens")
        importlib.import_module("datatrove.pipeline.readers")
        importlib.import_module("datatrove.executor")
    imports, started = time.process_time(), time.perf_counter()
    if program == "primer":
        by_primer(corpus, tokenizer, out, cores)
    else:
        by_datatrove(corpus, tokenizer, out, 1 if "threads" in program else cores)
    print(json.dumps({"wall": time.perf_counter() - started, "imports": imports}))


def measure(program: str, corpus: Path, tokenizer: Path, out: Path, cores: int) -> dict[str, float]:
    """What one program takes in a process of its own, with all that descend from it."""
    command = [sys.executable, __file__, "--work", program, str(corpus), str(tokenizer), str(out), str(cores)]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=said, stderr=errors)
        cpu = most = 0.0
        while True:  # orphans too, such as the servers that fork: this process is their reaper
            try:
                pid, status, used = os.wait4(-1, 0)
            except ChildProcessError:
                break
            cpu, most = cpu + used.ru_utime + used.ru_stime, max(most, used.ru_maxrss / 1e3)
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(errors.read())
        found = json.loads(said.read().splitlines()[-1])
    return {"wall": found["wall"], "cpu": cpu - found["imports"], "megabytes": most}


def read_ids(out: Path) -> np.ndarray:
    """All ids that a program wrote."""
    if (out / "web.bin").exists():
        return np.fromfile(out / "web.bin", dtype=read_header(out / "web.json").dtype)
    return np.concatenate([np.fromfile(path, dtype="<u2") for path in sorted(out.glob("*.ds"))])


def compare(corpus: Path, tokenizer: Path, cores: int, rounds: int) -> dict[str, Any]:
    """Medians of some rounds, the programs in turns; their ids must be equal."""
    found: dict[str, list[dict[str, float]]] = {}
    programs = PROGRAMS if cores > 1 else PROGRAMS[:2]
    tokens = 0
    for _ in range(rounds):
        ids = {}
        for program in random.sample(programs, len(programs)):
            with tempfile.TemporaryDirectory() as out:
                found.setdefault(program, []).append(measure(program, corpus, tokenizer, Path(out), cores))
                ids[program] = read_ids(Path(out))
            tokens = len(ids[program])
        assert all(np.array_equal(each, ids["primer"]) for each in ids.values()), "ids differ"
    return {
        program: {
            "wall_seconds": round(statistics.median(each["wall"] for each in runs), 2),
            "cpu_seconds": round(statistics.median(each["cpu"] for each in runs), 2),
            "tokens_per_wall_second": round(tokens / statistics.median(each["wall"] for each in runs)),
            "tokens_per_cpu_second": round(tokens / statistics.median(each["cpu"] for each in runs)),
            "largest_process_megabytes": round(max(each["megabytes"] for each in runs)),
        }
        for program, runs in sorted(found.items())
    } | {"tokens": tokens}


def all_measured(megabytes: int, rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each case with its figures."""
    cores = len(os.sched_getaffinity(0))
    found = texts(megabytes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {"codegen": codegen_tokenizer()}
        samples = {kind: partial(iter, items[::4]) for kind, items in found.items()}
        kinds["trained"] = trained_tokenizer(samples, VOCABULARY)
        for kind, tokenizer in kinds.items():
            (folder / kind).mkdir()
            save_tokenizer(tokenizer, folder / kind)
        for text, items in found.items():
            corpus = folder / text
            corpus.mkdir()
            write_corpus_files(corpus, items, cores)
            size = sum(len(item.encode()) for item in items)
            for kind, number in (("codegen", 1), ("codegen", cores), ("trained", cores)):
                figures = compare(corpus, folder / kind, number, rounds)
                yield f"{text}, {kind}, {number} cores", {"documents": len(items), "bytes": size, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=40, help="of prose and of code, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write bench/results/tokenise-speed.json")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        program, corpus, tokenizer, out, cores = options.work
        work(program, Path(corpus), Path(tokenizer), Path(out), int(cores))
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    names = ("datatrove", "tokenizers", "numpy", "pyarrow")
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": "python bench/tokenise_speed.py " + " ".join(sys.argv[1:]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; load at the start {os.getloadavg()[0]:.1f}",
        "versions": {name: importlib.metadata.version(name) for name in names} | {"python": platform.python_version()},
        "cases": {},
    }
    for case, figures in all_measured(options.megabytes, options.rounds):
        result["cases"][case] = figures
        print(f"{case}: {json.dumps(figures)}", flush=True)
    if options.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
