"""Held-out loss: bits per byte worked out by hand, every token predicted once, documents chosen the same way."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_phi import make_model

from eval.held_out import ask_held_out, choose_documents, held_out_totals, windows
from eval.language_model import Query
from primer.documents import Document, write_corpus

END = 256


class CountingModel:
    """Gives every byte the probability 1 / 2 if it is 'a', else 1 / 16; 256 is <|endoftext|>; context 4."""

    max_length = 4
    prefix_token_id = END

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def score(self, groups: Sequence[Sequence[Query]], progress: Any = None) -> list[list[tuple[float, bool]]]:
        self.groups = groups
        assert all(len(query.tokens) - 1 <= self.max_length for group in groups for query in group)
        bits = {ord("a"): 1.0}
        return [
            [(-math.log(2) * sum(bits.get(t, 4.0) for t in q.tokens[len(q.tokens) - q.scored :]), False) for q in group]
            for group in groups
        ]


def test_bits_per_byte_on_known_probabilities():
    model = CountingModel()
    documents = [{"id": "1", "text": "aaaaaaaaa"}, {"id": "2", "text": "ab"}, {"id": "3", "text": "é"}]
    items = ask_held_out("web", documents, model)  # type: ignore[arg-type]
    totals = held_out_totals("web", items)
    assert [item["bits"] for item in items] == pytest.approx([9, 5, 8])
    assert [item["bytes"] for item in items] == [9, 2, 2]
    assert totals == {"source": "web", "documents": 3, "bytes": 13, "bits_per_byte": pytest.approx(22 / 13)}
    assert model.groups[0][0].tokens[0] == END


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9, 30])
def test_windows_predict_each_token_once_and_share_only_the_joint(length: int):
    tokens = list(range(100, 101 + length))
    parts = windows(tokens, context=4)
    predicted = [token for part in parts for token in part.tokens[len(part.tokens) - part.scored :]]
    assert predicted == tokens[1:]
    assert all(part.scored == len(part.tokens) - 1 <= 4 for part in parts)
    for before, after in itertools.pairwise(parts):
        assert before.tokens[-1] == after.tokens[0]


def test_the_real_model_agrees_with_its_own_loss_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    import torch

    from eval.model import TorchModel

    model = TorchModel(make_model(tmp_path, context=16), device="cpu")
    text = "A river runs to the sea, and a stone in it grows round with the years; so says the old ferryman."
    logging.getLogger("transformers").addHandler(caplog.handler)
    items = ask_held_out("web", [{"id": "x", "text": text}], model)
    totals = held_out_totals("web", items)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert not caplog.messages
    ids = torch.tensor([model.prefix_token_id, *model.tokenizer(text)["input_ids"]])
    nats = 0.0
    for at in range(0, len(ids) - 1, 16):
        window = ids[at : at + 17][None]
        with torch.no_grad():
            logits = model.model(window[:, :-1]).logits
        nats += float(torch.nn.functional.cross_entropy(logits[0], window[0, 1:], reduction="sum"))
    assert items[0]["bits"] == pytest.approx(nats / math.log(2), rel=1e-5)
    assert totals["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text), rel=1e-5)


def test_a_text_that_spells_out_the_end_of_text_token_is_ordinary_text(tmp_path: Path):
    from eval.model import TorchModel

    model = TorchModel(make_model(tmp_path, context=16), device="cpu")
    plain, ids = model.encode_text(["one", "one <|endoftext|> two"])
    assert model.encode_text([]) == []
    assert ids[: len(plain)] == plain
    assert model.prefix_token_id not in ids
    assert model.tokenizer.decode(ids) == "one <|endoftext|> two"
    assert model.encode(["one <|endoftext|> two"])[0].count(model.prefix_token_id) == 1


def test_documents_are_whole_and_chosen_by_their_ids_alone(tmp_path: Path):
    rows = [Document(id=f"d{n}", text="é" * (10 + n), source="web", hash=f"{n}", group=f"{n}") for n in range(400)]
    chosen = []
    for order in (rows, rows[::-1]):
        folder = tmp_path / f"{len(chosen)}"
        folder.mkdir()
        write_corpus(folder, order, 0.2, 0)
        chosen.append(choose_documents(folder, largest=2000))
    assert chosen[0] == chosen[1]
    texts = {row["id"]: row["text"] for row in rows}
    assert all(row["text"] == texts[row["id"]] for row in chosen[0])
    size = sum(len(row["text"].encode()) for row in chosen[0])
    assert 1000 < size <= 2000
    assert len(choose_documents(tmp_path / "0", largest=1)) == 1
    everything = choose_documents(tmp_path / "0")
    assert len(everything) > len(chosen[0])
