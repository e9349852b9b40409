"""The data set card: for the hub and `datasets`, for people, and harmless whatever recipes and models are called."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from primer.documents import SCHEMA, CorpusWriter, Document
from primer.recipe import CORPUS_ORDER, Recipe
from primer.recipe_corpora import HubDataset, Web
from primer.run import Built, RunFolder, Stage
from primer.words import text_hash
from synth.card import CARD, COLUMNS, corpus_card, write_cards

HOSTILE = (
    "first\n---\nlicense: mit\n# Heading\n```\n<script>alert(1)</script> **bold** | cell | [link](https://a.b) "
    "\x1b[31mred\x1b[0m {{ 7 * 7 }} {% raw %} `code` \\ &amp; $x$ ~gone~ _em_ snake_case 'single' \"double\" : - ? é 水"
)
COUNTS = {"train_documents": 900, "train_characters": 90_000, "held_out_documents": 150, "held_out_characters": 9_000}


def synthetic_facts(**changes: Any) -> dict[str, Any]:
    return COUNTS | {
        "teacher": "openai:mock@http://127.0.0.1/v1",
        "licence": "the terms of the teacher apply",
        "units": 1_400,
        "accepted": 1_050,
        "rejected": {"too_short": 20, "repetitive": 300},
        "failed": 30,
        "failures": {"HTTP 400: refused": 30},
        "tries": 12,
        "continuations": 34,
        "tokens": 250_000,
        "prompt_tokens": 300_000,
        "completion_tokens": 280_000,
        "seconds": 605.8,
        "cost_usd": 1.25,
        "forms": {"letter": 50, "lecture": 1_000},
        "passages_barred": {"unfit_words": 70, "benchmark arc_easy": 3},
        **changes,
    }


def source_facts(**changes: Any) -> dict[str, Any]:
    return COUNTS | {
        "origin": "some pages",
        "licence": "CC BY-SA 3.0",
        **{"exact_duplicates": 7, "near_duplicates": 3, "too_short": 8, "quality_removed": 0, "toxic_removed": 0},
        **{"rules": {"line_punct_ratio": 12}, "personal_data": {"email": 5}, "contaminated": {"arc_easy": 2}},
        **changes,
    }


def parts(card: str) -> tuple[dict[str, Any], str]:
    """The YAML between the first two lines of dashes, and the rest."""
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def test_the_card_of_a_synthetic_corpus_tells_everything():
    measured = {
        **dict.fromkeys(["near_duplicates", "related", "openings", "stock_openings", "distinct_2"], 0.125),
        **{"distinct_4": 0.95, "compression": 2.5, "cosine": 0.1, "vendi": 0.7},
    }
    passages = source_facts(origin="pages of a web")
    front, body = parts(
        corpus_card(
            "synthetic",
            Recipe(name="mine", description="What it is for."),
            synthetic_facts(),
            "c0ffee",
            passages=passages,
            diversity=measured,
        )
    )
    assert front["tags"] == ["synthetic"]
    assert front["language"] == ["en"]
    assert front["size_categories"] == ["1K<n<10K"]
    assert "license" not in front, "whose it is the teacher's terms say"
    for line in (
        "1,050 documents by a language model",
        "Made from the recipe mine: What it is for.",
        "| train | 900 | 90,000 |",
        "| held_out | 150 | 9,000 |",
        "| Teacher | openai:mock@http://127.0.0.1/v1 |",
        "| Prompts asked | 1,400 |",
        "| Accepted | 1,050 (75.0%) |",
        "| Rejected | 320 |",
        "| Asked again | 12 rejected replies; 34 requests went on with a reply that was cut short |",
        "| Tokens of the documents | 250,000, in the teacher's count |",
        "| Cost | 1.25 US dollars |",
        "| Licence | the terms of the teacher apply |",
        "(pages of a web, CC BY-SA 3.0)",
        "| repetitive | 300 |\n| too_short | 20 |",
        "| HTTP 400: refused | 30 |",
        "lecture 1,000, letter 50.",
        "Not used, by reason: unfit_words 70, benchmark arc_easy 3.",
        "| near duplicates (5-word shingles, Jaccard above 0.7) | 12.5% | lower |",
        "| Vendi score per document | 0.700 | higher |",
        'corpus = load_dataset("path/to/this/folder")',
        "continuations (int64)",
    ):
        assert line in body
    assert "\n\n\n" not in body


def test_the_card_of_web_text_says_what_was_left_out():
    _, body = parts(corpus_card("web", Recipe(name="x"), source_facts(), "c0ffee"))
    for line in (
        "| Left out by a rule: line punct ratio | 12 |",
        "| Left out for an item of arc_easy | 2 |",
        "| Near duplicates left out | 3 |",
        "| Masked: email | 5 |",
    ):
        assert line in body
    assert "quality filter" not in body  # there was none


def test_what_is_not_known_is_not_said():
    facts = synthetic_facts(cost_usd=None, failures={}, passages_barred={}, rejected={}, forms={})
    _, body = parts(corpus_card("synthetic", Recipe(name="x"), facts, "c0ffee"))
    assert "the recipe gives no prices" in body
    for heading in ("Decontamination", "Diversity", "Without a reply, the", "Documents by form", "Some prompts quote"):
        assert heading not in body
    assert "Made from the recipe x\n" in body


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC BY-SA 3.0", {"license": "cc-by-sa-3.0"}),
        ("odc-by", {"license": "odc-by"}),
        ("PSF-2.0", {"license": "other", "license_name": "psf-2.0"}),
        ("a: b\n# c", {"license": "other", "license_name": "a-b-c"}),
        (None, {}),
    ],
)
def test_licences_as_the_hub_spells_them(licence: str | None, expected: dict[str, str]):
    front, body = parts(corpus_card("web", Recipe(name="x"), source_facts(licence=licence), "c0ffee"))
    assert {key: front[key] for key in ("license", "license_name") if key in front} == expected
    assert licence is not None or "| Licence | not recorded |" in body


def test_languages_where_they_are_known():
    def language(source: Any, **recipe: Any) -> list[str] | None:
        facts = synthetic_facts() if source == "synthetic" else source_facts()
        return parts(corpus_card(source, Recipe(name="x", **recipe), facts, "c0ffee"))[0].get("language")

    assert language("code") == ["code"]
    assert language("web") == ["en"]
    assert language("web", web=Web(source=HubDataset(kind="dataset", path="some/data"))) is None
    assert language("synthetic", prompts={"languages": {"french": 1.0, "german": 2.0, "english": 0.0}}) == ["de", "fr"]
    assert language("synthetic", prompts={"languages": {}}) == ["de", "en", "es", "fr", "it", "pt"]


@pytest.mark.parametrize(
    ("documents", "category"),
    [(2, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (5_000_000_000, "1B<n<10B")],
)
def test_size_categories_of_the_hub(documents: int, category: str):
    facts = source_facts(train_documents=documents - 1, held_out_documents=1)
    assert parts(corpus_card("code", Recipe(name="x"), facts, "c0ffee"))[0]["size_categories"] == [category]


def test_hostile_descriptions_and_names_stay_text():
    recipe = Recipe(name="x", description=HOSTILE)
    facts = synthetic_facts(teacher=HOSTILE, failures={HOSTILE: 3}, rejected={HOSTILE: 1}, licence=HOSTILE)
    passages = source_facts(origin=HOSTILE, licence=HOSTILE)
    for card in (
        corpus_card("synthetic", recipe, facts, "c0ffee", passages=passages),
        corpus_card("web", recipe, source_facts(origin=HOSTILE, licence=HOSTILE), "c0ffee"),
    ):
        front, body = parts(card)
        assert front["configs"][0]["data_files"][0] == {"split": "train", "path": "train-*.parquet"}
        assert front.get("license") in (None, "other")
        assert "\x1b" not in card
        assert "<script" not in card
        assert "{{ 7 \\* 7 }}" in body, "a value is no template"
        assert body.count("```") == 2
        assert not re.search(r"^(# Heading|---)", body, re.MULTILINE)
        for mark in ("**bold", "[link]", "$x$", "~gone~", " _em_", " `code`"):
            assert mark not in body
        assert "snake_case" in body
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in body.splitlines() if line.startswith("|")}
        assert cells <= {3, 4}, "no value makes a cell"


def test_every_column_is_explained():
    assert list(COLUMNS) == SCHEMA.names


def corpus_run(folder: Path, said: str = "text") -> RunFolder:
    """A run with three small corpora as their stages leave them."""
    run = RunFolder(folder)
    for source in CORPUS_ORDER:

        def build(target: Path, source: str = source) -> Built:
            with CorpusWriter(target, 0.3, 0) as writer:
                for number in range(60):
                    text = f"{source} {said} {number}"
                    writer.add(
                        Document(
                            id=f"{source}-{number}",
                            text=text,
                            source=source,
                            hash=text_hash(text),
                            group=f"{number}",
                            provenance={"topic": "hats", "required_words": ["a"]} if source == "synthetic" else None,
                        )
                    )
            facts = synthetic_facts() if source == "synthetic" else source_facts()
            return Built("made", facts | writer.counts)

        run.complete(Stage(f"corpus/{source}", {}, build))
    return run


def test_datasets_opens_a_corpus_folder_with_its_card_and_manifest(tmp_path: Path):
    from datasets import load_dataset

    run = corpus_run(tmp_path / "run")
    recipe = Recipe(name="x", description=HOSTILE)
    write_cards(recipe, run, [f"corpus/{source}" for source in CORPUS_ORDER])
    for source in CORPUS_ORDER:
        folder = run.folder(f"corpus/{source}")
        assert {CARD, "manifest.json"} < {path.name for path in folder.iterdir()}
        opened = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        counts = json.loads((folder / "manifest.json").read_text())["facts"]
        assert {name: len(split) for name, split in opened.items()} == {
            name: counts[f"{name}_documents"] for name in ("train", "held_out")
        }
        assert opened["train"][0]["text"].startswith(f"{source} text")
        assert opened["train"].column_names == SCHEMA.names


def test_datasets_takes_no_corpus_for_another_of_the_same_name(tmp_path: Path):
    from datasets import load_dataset

    for said in ("first", "second"):
        run = corpus_run(tmp_path / said, said)
        write_cards(Recipe(name="x"), run, ["corpus/web"])
        opened = load_dataset(str(run.folder("corpus/web")), cache_dir=str(tmp_path / "cache"))
        assert opened["train"][0]["text"].startswith(f"web {said}")


def test_figures_of_another_corpus_than_the_one_there_are_left_out(tmp_path: Path):
    from synth.corpus_report import ROWS, STAGE

    run = corpus_run(tmp_path / "run")
    figures = {source: dict.fromkeys((key for key, *_ in ROWS), 0.5) for source in CORPUS_ORDER}
    stage = Stage(STAGE, {}, lambda _: Built("measured", {"diversity": figures}), reads=("corpus/web",))
    write_cards(Recipe(name="x"), run, ["corpus/web"])
    card = run.folder("corpus/web") / CARD
    content = run.require("corpus/web").content
    assert "## Diversity" not in card.read_text()
    run.complete(stage)
    write_cards(Recipe(name="x"), run, ["corpus/web", "corpus/code"])
    assert "## Diversity" in card.read_text()
    assert "## Diversity" not in (run.folder("corpus/code") / CARD).read_text(), "it was not what was measured"
    assert run.require("corpus/web").content == content
    again = card.stat().st_mtime_ns
    write_cards(Recipe(name="x"), run, ["corpus/web"])
    assert card.stat().st_mtime_ns == again
