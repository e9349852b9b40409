"""Diversity: each measure on texts whose answer is known, and the page about a run's corpora."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from mock_endpoint import Faults, running

from primer.errors import PrimerError
from primer.recipe_file import load_recipe
from primer.run import RunFolder
from primer.words import text_words
from synth.corpora import make_corpora
from synth.diversity import Diversity, common_openings, equal_words, is_stock_opening, measure


def words_of(seed: int, count: int = 120) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(5_000)}" for _ in range(count)]


def edited(words: list[str], count: int, seed: int) -> list[str]:
    """Words with so many of them, spread over the text, replaced."""
    places = random.Random(seed).sample(range(len(words)), count)
    return [f"e{place}" if place in places else word for place, word in enumerate(words)]


def measured(texts: list[str], counted: int | None = None) -> Diversity:
    """The measures with vectors whose dispersion is known: equal for equal first words, else at right angles."""
    firsts = sorted({text.split()[0] for text in texts})
    vectors = np.eye(max(2, len(firsts)), dtype=np.float32)[[firsts.index(text.split()[0]) for text in texts]]
    return measure(texts, vectors, counted)


def test_texts_that_share_nothing_and_texts_that_are_one():
    different = measured([" ".join([f"first{n}", *words_of(n)]) for n in range(30)])
    assert (different.near_duplicates, different.related, different.openings) == (0.0, 0.0, 0.0)
    assert different.distinct_4 > 0.99
    assert (different.cosine, different.vendi) == (pytest.approx(0.0), pytest.approx(1.0))
    same = measured([" ".join(words_of(1))] * 30)
    assert (same.near_duplicates, same.related, same.openings) == (1.0, 1.0, 1.0)
    assert same.distinct_4 == pytest.approx(117 / (30 * 117))
    assert (same.cosine, same.vendi) == (pytest.approx(1.0), pytest.approx(1 / 30))
    assert same.compression > 10 * different.compression
    assert (same.documents, same.words, same.embedded) == (30, 3600, 30)


def test_half_and_half_has_the_vendi_score_of_two():
    found = measured([f"{'left' if n < 10 else 'right'} {' '.join(words_of(n))}" for n in range(20)])
    assert found.vendi * 20 == pytest.approx(2.0)
    assert found.cosine == pytest.approx(9 / 19)


def test_planted_near_duplicates_are_found_and_loose_relatives_are_told_apart():
    texts = [words_of(n) for n in range(40)]
    texts += [edited(texts[n], 2, n) for n in range(4)]  # Jaccard of 5-word shingles: about 0.84
    texts += [edited(texts[n], 30, n) for n in range(10, 15)]  # about 0.15, of 3-word shingles 0.27
    found = measured([" ".join(words) for words in texts])
    assert found.near_duplicates == pytest.approx(8 / 49)
    assert found.related == pytest.approx((8 + 10) / 49)


def test_distinct_runs_and_compression_are_what_their_names_say():
    found = measured(["a b a b", "a b c d"])
    assert found.distinct_2 == 4 / 6  # ab ba ab | ab bc cd
    assert found.distinct_4 == 1.0
    texts = ["The same line again. " * 20, "Another line. " * 9]
    data = "\n\n".join(texts).encode()
    assert measured(texts).compression == len(data) / len(gzip.compress(data, 9, mtime=0))


def test_what_grows_with_the_number_of_documents_is_counted_on_as_many_of_each_corpus():
    texts = [" ".join(words_of(n)) for n in range(20)] + [" ".join(words_of(0))] * 5
    assert measured(texts, 20).near_duplicates == 0.0
    assert measured(texts).near_duplicates == 6 / 25
    assert measured(texts, 20).counted == 20


def test_openings_are_counted_by_the_ten_commonest():
    texts = [f"in a small town number {n}" for n in range(6)] + [f"x{n} is a word of its own" for n in range(4)]
    assert common_openings([text_words(text) for text in texts]) == 0.6
    many = [f"start {n // 2} of it goes" for n in range(40)]  # twenty beginnings, each twice
    assert common_openings([text_words(text) for text in many]) == 0.5


@pytest.mark.parametrize(
    ("text", "stock"),
    [
        ("Once upon a time there was a pond.", True),
        ("**Once upon a time**, in a town", True),
        ("# In the realm of physics", True),
        ("Imagine you’re in a boat.", True),
        ("  imagine   you are in a boat", True),
        ("Have you ever wondered why?", True),
        ("The kettle sings before it boils.", False),
        ("Once, on a cold day, a time bell rang.", False),
        ("**The Lake**\n\nOnce upon a time there was a pond.", True),
        ("Teacher: Have you ever wondered why it floats?", True),
        ("The kettle sang.\nOnce upon a time it had not.", False),
        ("Welcome tomorrow's guests with bread.", False),
        ("He said that once upon a time it was so.", False),
        ("", False),
    ],
)
def test_stock_openings_are_known_whatever_stands_around_them(text: str, stock: bool):
    assert is_stock_opening(text) is stock


def test_corpora_are_compared_at_as_many_words_as_the_smallest_has():
    corpora = {
        "short": [" ".join(words_of(n, 50)) for n in range(20)],
        "long": [" ".join(words_of(n, 2_000)) for n in range(30)],
    }
    samples = equal_words(corpora, 10**6)
    counts = {name: sum(len(text.split()) for text in texts) for name, texts in samples.items()}
    assert counts["short"] == 1_000
    assert 1_000 <= counts["long"] < 1_300
    assert all(len(text.split()) <= 300 for text in samples["long"])
    assert equal_words(corpora, 10**6) == samples
    lines = {"code": ["    x = 1\n" * 2_000], "list": ["word\n" * 20_000], "prose": [" ".join(words_of(1, 400))]}
    heads = equal_words(lines, 10**6)
    assert [len(heads[name][0].split()) for name in lines] == [300, 300, 300]
    assert heads["code"][0].startswith("    x = 1\n    x"), "white space stays as it was"
    assert sum(len(text.split()) for text in equal_words(corpora, 200)["short"]) == 200


def run_of(tmp_path: Path, address: str, **changes: object) -> RunFolder:
    for n in range(0, 40, 2):
        lines = [f"The keeper of lighthouse number {k} counted the ships of that night twice." for k in (n, n + 1)]
        (tmp_path / f"web{n}.txt").write_text("\n\n".join([*lines, "It rained until noon. " * 15]))
    recipe = {
        "name": "page",
        "synth": {"tokens": 3000, "teacher": {"kind": "openai", "base_url": address, "model": "mock"}},
        "web": {"source": {"kind": "files", "paths": [str(tmp_path / "web*.txt")]}, "min_words": 5, "rules": []},
        "prompts": {"snippet_share": 1.0, "snippet_words": 12, "forms": {"letter": 1.0, "book": 1.0}},
        "corpus": {"held_out_share": 0.3},
        "variants": [{"name": "mixed", "mixture": {"synthetic": 0.5, "web": 0.5}}],
        **changes,
    }
    path = tmp_path / "page.yaml"
    path.write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(path)
    with RunFolder.opened(tmp_path / "run", loaded) as run:
        make_corpora(loaded, run)
    return run


def test_a_run_reports_its_diversity_and_shows_ten_documents_beside_their_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with running(Faults(answer_with="<script>alert(1)</script> & so on")) as endpoint:
        run = run_of(tmp_path, endpoint.address)
        asked = endpoint.requests
        run_of(tmp_path, endpoint.address)
        assert endpoint.requests == asked, "a complete page costs nothing"
    said = capsys.readouterr().err
    said = " ".join(said.split())
    assert "synthetic documents were left out as duplicates" in said
    assert "web: 0.0% near duplicates" in said
    assert "synthetic: 0.0% near duplicates" in said
    assert str(run.folder("corpus/diversity") / "corpora.html") in said
    facts = run.require("corpus/diversity").facts["diversity"]
    assert set(facts) == {"web", "synthetic"}
    assert facts == json.loads((run.folder("corpus/diversity") / "diversity.json").read_text())
    assert abs(facts["web"]["words"] - facts["synthetic"]["words"]) < 400
    for number in ("embedded", "counted"):
        assert facts["web"][number] == facts["synthetic"][number] > 1
    page = (run.folder("corpus/diversity") / "corpora.html").read_text()
    assert page.count("<article>") == 10
    assert page.count("[user]") >= 10
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "Passage: " in page


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"forms": {"leter": 1.0}}, "Did you mean letter"),
        ({"folders": ["/nowhere"]}, "/nowhere is no folder"),
    ],
)
def test_a_mistake_in_the_prompts_is_named_before_any_work(tmp_path: Path, prompts: dict[str, object], message: str):
    with pytest.raises(PrimerError, match=message):
        run_of(tmp_path, "http://127.0.0.1:1/v1", prompts=prompts)
    assert not (tmp_path / "run" / "corpus").exists()


def test_corpora_of_one_document_are_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with running() as endpoint:
        run = run_of(
            tmp_path,
            endpoint.address,
            synth={"tokens": 200, "teacher": {"kind": "openai", "base_url": endpoint.address, "model": "mock"}},
            variants=[{"name": "only", "mixture": {"synthetic": 1.0}}],
            corpus={"held_out_share": 0.4},
        )
    assert "corpora.html" in str(run.require("corpus/diversity").outputs)
