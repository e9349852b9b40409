"""What the stages `tokenizer` and `tokens` do: corpora to a vocabulary, and to token shards."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from primer.documents import Block, corpus_blocks
from primer.environment import usable_cores
from primer.errors import PrimerError
from primer.progress import bar, say
from primer.recipe import Recipe
from primer.run import Built, RunFolder
from train.encoder import Encoded, Encoder
from train.shards import Header, read_header, write_encoded
from train.tokenizer import (
    LARGEST_SAMPLE,
    Texts,
    codegen_tokenizer,
    load_tokenizer,
    model_vocabulary,
    save_tokenizer,
    tokenizer_hash,
    trained_tokenizer,
)

# The folder, in that of the tokens, with the shards of held-out text.
HELD_OUT = "held-out"

# Characters of a corpus below which one process is done before others have begun.
_WORTH_PROCESSES = 20_000_000

# Row groups of text that are read and tokenised ahead of the one to be written, for each process.
_AHEAD = 2


def build_tokenizer(recipe: Recipe, run: RunFolder, folder: Path) -> Built:
    """Fill the folder `tokenizer`: codegen's vocabulary, or one trained on the corpora's training splits."""
    if recipe.tokenizer.kind == "codegen":
        tokenizer = codegen_tokenizer()
    else:
        sources = recipe.used_sources()
        say(
            f"  tokenizer: training a vocabulary of {recipe.tokenizer.vocabulary_size:,} tokens on {', '.join(sources)}"
        )
        streams: dict[str, Texts] = {
            source: partial(spread_texts, run.folder(f"corpus/{source}"), _characters(run, source))
            for source in sources
        }
        tokenizer = trained_tokenizer(streams, recipe.tokenizer.vocabulary_size)
    save_tokenizer(tokenizer, folder)
    rows = model_vocabulary(tokenizer, recipe.tokenizer.kind)
    return Built(
        summary=f"{recipe.tokenizer.kind}, {tokenizer.get_vocab_size():,} tokens",
        facts={"kind": recipe.tokenizer.kind, "vocabulary_size": rows, "tokenizer": tokenizer_hash(tokenizer)},
    )


def build_tokens(recipe: Recipe, run: RunFolder, folder: Path) -> Built:
    """Fill the folder `tokens`: the tokenizer, a shard of each source's training split, one of its held-out split."""
    tokenizer = load_tokenizer(run.folder("tokenizer"))
    save_tokenizer(tokenizer, folder)
    (folder / HELD_OUT).mkdir(exist_ok=True)
    sources = recipe.used_sources()
    headers, held_out = {}, {}
    for source in sources:
        shards = _Shards(run, source, tokenizer, recipe.train.threads)
        headers[source] = shards.write("train", folder)
        if shards.blocks("held_out"):
            held_out[source] = shards.write("held_out", folder / HELD_OUT)
    summary = ", ".join(
        f"{source} {header.tokens:,} ({header.bytes / header.tokens:.2f} bytes/token)"
        for source, header in headers.items()
    )
    return Built(
        summary=f"tokens by source: {summary}",
        facts={
            "kind": recipe.tokenizer.kind,
            "vocabulary_size": model_vocabulary(tokenizer, recipe.tokenizer.kind),
            "tokenizer": tokenizer_hash(tokenizer),
            "sources": {
                source: {
                    "train_tokens": header.tokens,
                    "train_documents": header.documents,
                    "train_bytes": header.bytes,
                    "held_out_tokens": held_out[source].tokens if source in held_out else 0,
                    "bytes_per_token": round(header.bytes / header.tokens, 4),
                }
                for source, header in headers.items()
            },
        },
    )


@dataclass(frozen=True)
class _Shards:
    """How a corpus becomes shards."""

    run: RunFolder
    source: str
    tokenizer: Tokenizer
    threads: int | None

    def blocks(self, split: str) -> list[Block]:
        return split_blocks(self.run.folder(f"corpus/{self.source}"), split)

    def write(self, split: str, folder: Path) -> Header:
        """Write the shard of a split, unless an interrupted run got past it."""
        path = folder / f"{self.source}.json"
        if path.is_file():  # written last
            return read_header(path)
        blocks = self.blocks(split)
        characters = self.run.require(f"corpus/{self.source}").facts.get(f"{split}_characters", 0)
        processes = min(len(blocks), self.threads or usable_cores()) if characters >= _WORTH_PROCESSES else 1
        title = f"tokens/{self.source}" if split == "train" else f"tokens/{HELD_OUT}/{self.source}"
        rows = sum(block.rows for block in blocks)
        parts = encode_blocks(blocks, self.tokenizer, processes)
        with bar(title, rows, "documents") as progress, closing(parts):  # no process outlives an interruption
            return write_encoded(folder, self.source, parts, self.tokenizer, progress)


def split_blocks(corpus: Path, split: str) -> list[Block]:
    """The row groups of one split of a corpus."""
    return [block for block in corpus_blocks(corpus) if block.path.name.startswith(f"{split}-")]


def encode_blocks(blocks: Iterable[Block], tokenizer: Tokenizer, processes: int) -> Generator[Encoded]:
    """Tokenise row groups, in their order.

    Args:
        blocks: What to read.
        tokenizer: What turns text into ids.
        processes: That read and tokenise; with one it is this process. A regular expression holds Python's lock, so
            threads would wait for each other.

    Raises:
        PrimerError: If a file cannot be read, or a process dies.
    """
    if processes == 1:
        encoder = Encoder(tokenizer)
        yield from (_encode(encoder, block) for block in blocks)
        return
    with _pool(tokenizer, processes) as pool:
        waiting = iter(blocks)
        ahead: deque[Future[Encoded]] = deque(pool.submit(_work, b) for b in islice(waiting, _AHEAD * processes))
        while ahead:
            try:
                encoded = ahead.popleft().result()
            except BrokenProcessPool:
                raise PrimerError(
                    "The system ended one of the processes that tokenise; most often there is too little memory.",
                    "Take fewer of them (train.threads). The same command goes on with the sources that are missing.",
                ) from None
            ahead.extend(pool.submit(_work, block) for block in islice(waiting, 1))
            yield encoded


@contextmanager
def _pool(tokenizer: Tokenizer, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with an encoder each, which end at once when the work is given up."""
    context = multiprocessing.get_context("forkserver")  # a fork of this process would have its threads' locks held
    pool = ProcessPoolExecutor(processes, context, _begin, (tokenizer.to_str(),))
    try:
        yield pool
    except BaseException:
        running = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
        raise
    pool.shutdown()


_encoder: Encoder | None = None  # of a process of the pool


def _begin(tokenizer: str) -> None:
    """How a process of the pool begins: with its encoder, without an ear for Ctrl-C, ended with whoever started it."""
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()
    _encoder = Encoder(Tokenizer.from_str(tokenizer))


def _end_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _work(block: Block) -> Encoded:
    assert _encoder is not None
    return _encode(_encoder, block)


def _encode(encoder: Encoder, block: Block) -> Encoded:
    return encoder.documents([row["text"] for row in block.read(["text"])])


def _characters(run: RunFolder, source: str) -> int:
    return int(run.require(f"corpus/{source}").facts.get("train_characters", 0))


def spread_texts(corpus: Path, characters: int) -> Iterator[str]:
    """Documents from evenly spread row groups: of a large corpus no more is read than a vocabulary is learnt from."""
    blocks = split_blocks(corpus, "train")
    step = max(1.0, characters / LARGEST_SAMPLE)
    for number in range(max(1, round(len(blocks) / step))):
        yield from (row["text"] for row in blocks[int(number * step)].read(["text"]))
