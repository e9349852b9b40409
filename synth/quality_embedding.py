"""What the quality filter sees of a text: the sentence embedding of its beginning.

Each text is embedded by itself, on one thread: no padding and no neighbour can change the last bits of its vector, and
so a document is kept or dropped alike in any batch and on any number of workers. On a CPU that costs nothing
(docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from primer.environment import usable_cores
from primer.progress import bar

Vectors = npt.NDArray[np.float32]

# Of a text so many characters are given to the model, which takes 256 tokens: no prose needs more for them, and
# dividing the rest of a long text into tokens would only take time.
HEAD_CHARACTERS = 4000

# Texts between two writes to the disk: what an interruption costs, about two minutes on one core.
_SAVED = 1024


def text_vectors(texts: Sequence[str]) -> Vectors:
    """Unit vectors of the beginnings of some texts, shape (n, 384), each by itself.

    Raises:
        PrimerError: If the embedding model is not installed.
    """
    from topics.embedding import DIMENSION, embed_one

    with _one_thread():
        vectors = [embed_one(text[:HEAD_CHARACTERS]) for text in texts]
    return np.stack(vectors) if vectors else np.empty((0, DIMENSION), np.float32)


def sample_vectors(texts: Sequence[str], folder: Path) -> Vectors:
    """The same for many texts: on every core, and what is done is kept in a folder, for an interrupted run.

    Args:
        texts: What to embed.
        folder: Where finished parts lie; the same texts must come with it again.

    Raises:
        PrimerError: If the embedding model is not installed.
    """
    from topics.embedding import DIMENSION

    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f"{start:09d}.npy": texts[start : start + _SAVED] for start in range(0, len(texts), _SAVED)}
    missing = [path for path in parts if not path.exists()]
    with bar("embedding", len(texts), "texts") as progress:
        done = len(texts) - sum(len(parts[path]) for path in missing)
        progress.update(done)
        for path, vectors in zip(missing, _computed([parts[path] for path in missing]), strict=True):
            temporary = path.with_suffix(".part")
            with temporary.open("wb") as file:
                np.save(file, vectors, allow_pickle=False)
            temporary.replace(path)
            done += len(vectors)
            progress.update(done)
    loaded = [np.load(path, allow_pickle=False) for path in parts]
    return np.concatenate(loaded) if loaded else np.empty((0, DIMENSION), np.float32)


def _computed(parts: Sequence[Sequence[str]]) -> Iterator[Vectors]:
    """The vectors of each part, in order; by several processes, where there is more than one part and one core."""
    workers = min(usable_cores(), len(parts))
    if workers <= 1:
        yield from map(text_vectors, parts)
        return
    import multiprocessing

    # Not forked: PyTorch's threads do not survive that.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(text_vectors, parts)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for PyTorch: how a sum is divided between threads can change its last bits."""
    import torch

    before: Any = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
