"""How much the texts of a corpus repeat each other: measures that anyone can compute again.

All of them depend on how much text there is, or how many texts: corpora are compared at equal numbers of both.
"""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from primer.words import text_words, word_runs
from prompts.tables import load_tables
from topics.embedding import Vectors, embed

# Two texts are near duplicates if the estimated Jaccard similarity of their 5-word shingles exceeds 0.7, and related
# if that of their 3-word shingles exceeds 0.1: texts made from one mould share phrases, if not sentences.
NEAR_DUPLICATE = 0.7
_SHINGLE = 5
_RELATED = 0.1
_RELATED_SHINGLE = 3

# Documents are compared by so many of their first words: a file of code may be longer than fifty stories.
_HEAD = 300

_OPENING_WORDS = 4
_COMMONEST = 10

# Embeddings are what takes time: on two cores some 40 ms for the first 100 words of a text.
_EMBEDDED_WORDS = 100


@dataclass(frozen=True)
class Diversity:
    """Measures of one corpus. Where nothing else is said, lower is more diverse.

    Attributes:
        documents: How many were measured.
        words: Their words.
        counted: How many of them `near_duplicates`, `related` and `openings` are of.
        near_duplicates: Share of the documents whose MinHash Jaccard similarity with another one exceeds 0.7
            (5-word shingles).
        related: The same at 0.1 with 3-word shingles.
        openings: Share that begin with one of the ten commonest beginnings of four words.
        stock_openings: Share that begin with a stock opener (prompts/styles.yaml).
        distinct_2: Different pairs of words, of all pairs (Li et al., arXiv 1510.03055). Higher is more diverse.
        distinct_4: The same with four words.
        compression: Bytes of the texts over their bytes compressed by gzip (Shaib et al., arXiv 2403.00553).
        cosine: Mean cosine between the embeddings of two documents (all-MiniLM-L6-v2).
        vendi: Vendi score of the embeddings over the number of documents embedded (Friedman and Dieng, arXiv
            2210.02410): 1 if no two are alike in anything. Higher is more diverse.
        embedded: How many documents `cosine` and `vendi` are of.
    """

    documents: int
    words: int
    counted: int
    near_duplicates: float
    related: float
    openings: float
    stock_openings: float
    distinct_2: float
    distinct_4: float
    compression: float
    cosine: float
    vendi: float
    embedded: int


def measure(texts: Sequence[str], vectors: Vectors, counted: int | None = None) -> Diversity:
    """The measures of some texts, at least two.

    Args:
        texts: Documents, in random order.
        vectors: Unit vectors (`embed_heads`) of at least two of them, shape (number, dimension).
        counted: How many, from the first, are looked at for what grows with the number of documents: near duplicates,
            related texts, openings. None means all.
    """
    words = [text_words(text) for text in texts]
    counted = counted or len(texts)
    data = "\n\n".join(texts).encode()
    return Diversity(
        documents=len(texts),
        words=sum(map(len, words)),
        counted=counted,
        near_duplicates=_alike(words[:counted], _SHINGLE, NEAR_DUPLICATE),
        related=_alike(words[:counted], _RELATED_SHINGLE, _RELATED),
        openings=common_openings(words[:counted]),
        stock_openings=sum(is_stock_opening(text) for text in texts) / len(texts),
        distinct_2=_distinct(words, 2),
        distinct_4=_distinct(words, 4),
        compression=len(data) / len(gzip.compress(data, 9, mtime=0)),
        cosine=mean_cosine(vectors),
        vendi=_vendi(vectors),
        embedded=len(vectors),
    )


def embed_heads(texts: Sequence[str], name: str) -> Vectors:
    """Unit vectors of the first 100 words of some texts; `name` is for the progress bar."""
    return embed([_head(text, _EMBEDDED_WORDS) for text in texts], name, cached=False)


def equal_words(corpora: Mapping[str, Sequence[str]], most: int, seed: int = 0) -> dict[str, list[str]]:
    """A random sample of each corpus, all of them of about the same number of words.

    Args:
        corpora: Texts by name.
        most: Words at most.
        seed: Chooses the documents.

    Returns:
        Documents of each corpus by their first 300 words, in random order, until they hold as many words as the
        smallest corpus does (or `most`).
    """
    heads = {name: [_head(text, _HEAD) for text in texts] for name, texts in corpora.items()}
    target = min([most, *(sum(len(text.split()) for text in texts) for texts in heads.values())])
    samples: dict[str, list[str]] = {}
    for name, texts in heads.items():
        missing = target
        chosen = samples[name] = []
        for text in random.Random(f"{seed} {name}").sample(texts, len(texts)):
            if missing <= 0:
                break
            chosen.append(text)
            missing -= len(text.split())
    return samples


def _head(text: str, words: int) -> str:
    """The first words of a text, with the white space between them."""
    last = next(islice(re.finditer(r"\S+", text), words - 1, None), None)
    return text[: last.end()] if last else text


def common_openings(words: Sequence[Sequence[str]]) -> float:
    """Share of the texts that begin with one of the ten commonest beginnings of four words, if two or more share it."""
    openings = Counter(tuple(text[:_OPENING_WORDS]) for text in words)
    return sum(count for _, count in openings.most_common(_COMMONEST) if count > 1) / len(words)


def is_stock_opening(text: str) -> bool:
    """Whether a text begins with a stock opener, whatever marks, title or speaker's name stand before it."""
    lines = [line for line in text.split("\n", 4) if line.strip()]
    if len(lines) > 1 and not re.search(r"[.!?:,;][\"'”’*_)]*\s*$", lines[0]):
        lines = lines[1:]  # a title
    first = re.sub(r"^\W*\w+:\s", "", lines[0]) if lines else ""
    return f"{' '.join(text_words(first[:200]))} ".startswith(_stock_openers())


@cache
def _stock_openers() -> tuple[str, ...]:
    openers = load_tables().styles.openers
    return tuple(" ".join(text_words(opener)) + " " for opener in (*openers.named, *openers.counted))


def _distinct(words: Sequence[Sequence[str]], length: int) -> float:
    total, different = 0, set()
    for text in words:
        for run in word_runs(text, length):
            total += 1
            different.add(hash(run))
    return len(different) / total if total else 0.0


def _alike(words: Sequence[Sequence[str]], shingle: int, threshold: float) -> float:
    """Share of the texts that are this similar to another one, by MinHash with 256 hashes, every pair compared."""
    from rensa import RMinHash

    signatures = np.empty((len(words), 256), dtype=np.uint32)
    for place, text in enumerate(words):
        minhash = RMinHash(num_perm=256, seed=0)
        minhash.update(list(word_runs(text, shingle)) or [" ".join(text)])
        signatures[place] = minhash.digest()
    alike = np.zeros(len(words), dtype=bool)
    for place in range(len(words)):
        similar = (signatures[place + 1 :] == signatures[place]).mean(axis=1) > threshold
        alike[place] |= bool(similar.any())
        alike[place + 1 :] |= similar
    return float(alike.mean())


def mean_cosine(vectors: Vectors) -> float:
    """The mean cosine of two of at least two unit vectors."""
    count, kernel = len(vectors), _kernel(vectors)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _vendi(vectors: Vectors) -> float:
    """The Vendi score over the number of vectors."""
    count = len(vectors)
    spectrum = np.linalg.eigvalsh(_kernel(vectors) / count)
    spectrum = spectrum[spectrum > 1e-12]
    return float(np.exp(-(spectrum * np.log(spectrum)).sum()) / count)


def _kernel(vectors: Vectors) -> NDArray[np.float64]:
    return vectors.astype(np.float64) @ vectors.T.astype(np.float64)
