"""Small corpora and recipes that the tests of `train` share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from primer.documents import Document, write_corpus
from primer.recipe import Recipe, SourceName
from primer.run import Built, RunFolder, Stage
from primer.words import text_hash
from train.shards import Shard, write_shard
from train.tokenizer import tokenizer_hash

_WORDS = (
    "the a of water heat light plant root 12 305 7 energy cell river return def self value for in if print key loop"
)


def texts(source: str, count: int, words: int = 120) -> list[str]:
    """Documents of random words with some regularity to learn, different for each source."""
    rng = random.Random(source)
    favourites = rng.sample(_WORDS.split(), 20)
    return [" ".join(rng.choice(favourites) for _ in range(words)) + ".\n" for _ in range(count)]


def documents(source: str, items: list[str]) -> list[Document]:
    return [
        Document(id=f"{source}-{i}", text=text, source=source, hash=text_hash(text), group=f"{source}-{i}")
        for i, text in enumerate(items)
    ]


def fill_corpora(run: RunFolder, count: int = 80) -> None:
    """Complete the three corpus stages of a run."""
    for source in ("synthetic", "web", "code"):

        def build(folder: Path, source: str = source) -> Built:
            facts = write_corpus(folder, documents(source, texts(source, count)), 0.1, 0)
            return Built("sample", dict(facts))

        run.complete(Stage(f"corpus/{source}", {"count": count}, build))


def recipe(**changes: Any) -> Recipe:
    """A recipe that trains in seconds; sections are updated by the arguments."""
    sections: dict[str, Any] = {
        "name": "sample",
        "seed": 3,
        "tokenizer": {"kind": "trained", "vocabulary_size": 300},
        "model": {"layers": 2, "heads": 2, "head_dimension": 8, "rotary_dimension": 4, "context": 32},
        "train": {
            "tokens": 32 * 8 * 20,
            "batch_tokens": 32 * 8,
            "micro_batch": 4,
            "learning_rate": 3e-3,
            "threads": 1,
            "device": "cpu",
            "validations": 1,
            "prompts": ["the water"],
        },
        "variants": [{"name": "mixed", "mixture": {"synthetic": 0.5, "web": 0.3, "code": 0.2}}],
    }
    for key, value in changes.items():
        sections[key] = {**sections[key], **value} if isinstance(value, dict) else value
    return Recipe.model_validate(sections)


def make_shards(folder: Path, tokenizer: Tokenizer, counts: dict[SourceName, int]) -> dict[SourceName, Shard]:
    """Shards of random documents, opened."""
    mark = tokenizer_hash(tokenizer)
    for source, count in counts.items():
        write_shard(folder, source, texts(source, count), tokenizer)
    return {source: Shard(folder, source, mark) for source in counts}


def random_unicode(seed: int, length: int = 300) -> str:
    """Text of any code points but surrogates, white space runs and code among them."""
    rng = np.random.default_rng(seed)
    points = [int(p) for p in rng.integers(1, 0x11000, length) if not 0xD800 <= p < 0xE000]
    parts = [chr(p) for p in points] + ["    ", "\t\t\t", "\n\n", "def f(x):\n        return x", " " * 31, " " * 40]
    random.Random(seed).shuffle(parts)
    return "".join(parts)
