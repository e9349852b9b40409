"""One deduplication of a file of documents, as a process of its own: what bench/deduplication.py times.

    python bench/deduplication_work.py primer documents.parquet folder --rows 8
    python bench/deduplication_work.py datatrove documents.parquet folder --rows 8

Both read Parquet, make signatures, find duplicates and write what remains as Parquet, in one process. Prints the CPU
seconds of each stage and of all, the seconds by the clock and the peak memory as JSON. Both count 128 hashes over five
words; datatrove splits at white space after it has removed punctuation, which is faster than its own word tokenizers.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HASHES = 128
SHINGLE = 5


def primer(documents: Path, folder: Path, rows: int) -> list[tuple[str, Callable[[], Any]]]:
    """The stages of Primer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from primer.recipe_corpora import Duplicates
    from synth.duplicates import Removals, find_duplicates
    from synth.signatures import SignatureWriter, signature

    settings = Duplicates.model_validate({"rows": rows, "words": SHINGLE})
    file, found = folder / "signatures.npy", list[Removals]()

    def batches() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(documents) as opened:
            yield from opened.iter_batches(1000)

    def sign() -> None:
        with SignatureWriter(file) as writer:
            for batch in batches():
                for text in batch["text"].to_pylist():
                    writer.add(signature(text, SHINGLE))

    def find() -> None:
        found.append(find_duplicates([file], settings, [], folder / "scratch"))

    def write() -> None:
        schema, number = pq.read_schema(documents), 0
        (folder / "kept").mkdir()
        with pq.ParquetWriter(folder / "kept" / "all.parquet", schema) as kept:
            for batch in batches():
                stays = [found[0].kept_by(number + place) is None for place in range(len(batch))]
                kept.write_batch(batch.filter(pa.array(stays)))
                number += len(batch)

    return [("signatures", sign), ("duplicates", find), ("writing", write)]


def datatrove(documents: Path, folder: Path, rows: int) -> list[tuple[str, Callable[[], Any]]]:
    """The four stages of datatrove, one task after the other."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.word_tokenizers import WordTokenizer
    from xxhash import xxh64_intdigest

    class Words(WordTokenizer):  # type: ignore[misc]
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    config = MinhashConfig(n_grams=SHINGLE, num_buckets=HASHES // rows, hashes_per_bucket=rows)
    sig, buckets, remove, kept = (str(folder / name) for name in ("sig", "buckets", "remove", "kept"))

    def sign() -> Any:
        step = MinhashDedupSignature(sig, config, language=Words())
        step._hash_func = lambda words: xxh64_intdigest(words.encode())  # xxhash 4 takes no strings
        return step

    def run(name: str, tasks: int, *steps: Any) -> None:
        logs = str(folder / "logs" / name)
        LocalPipelineExecutor(pipeline=list(steps), tasks=tasks, workers=1, logging_dir=logs).run()

    def reader() -> Any:
        return ParquetReader(str(documents.parent), glob_pattern=documents.name)

    return [
        ("signatures", lambda: run("1", 1, reader(), sign())),
        ("buckets", lambda: run("2", HASHES // rows, MinhashDedupBuckets(sig, buckets, config=config))),
        ("clusters", lambda: run("3", 1, MinhashDedupCluster(buckets, remove, config=config))),
        ("writing", lambda: run("4", 1, reader(), MinhashDedupFilter(remove), ParquetWriter(kept))),
    ]


def peak_megabytes() -> int:
    """Most memory of this process; `ru_maxrss` would begin at that of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["primer", "datatrove"])
    parser.add_argument("documents", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=4)
    options = parser.parse_args()
    if options.which == "datatrove":
        from loguru import logger

        logger.remove()
    start, wall = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    stages: dict[str, float] = {}
    make = primer if options.which == "primer" else datatrove
    for name, work in make(options.documents, options.folder, options.rows):
        clock = time.process_time()
        work()
        stages[name] = round(time.process_time() - clock, 2)
    end = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu_seconds": round(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime, 1),
        "wall_seconds": round(time.monotonic() - wall, 1),
        "peak_megabytes": peak_megabytes(),
        "cpu_seconds_by_stage": stages,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
