from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from train_samples import recipe

from primer.recipe import Recipe
from primer.recipe_file import load_recipe
from primer.run import RunFolder
from train.curve import loss_curve
from train.model_card import _WATCHED, model_card, write_model_card

_FACTS: dict[str, Any] = {
    "parameters": 11_340,
    "tokens": 5120,
    "steps": 20,
    "skipped_steps": 2,
    "rollbacks": 1,
    "seconds": 7200.0,
    "tokens_per_second": 1234.5,
    "device": "NVIDIA H200",
    "precision": "bf16",
    "engine": "deepspeed",
    "processes": 8,
    "micro_batch": 4,
    "final_loss": 3.25,
    "epochs": {"synthetic": 1.5, "web": 0.5, "code": 0.1},
    "tokens_by_source": {"synthetic": 2560, "web": 1536, "code": 1024},
    "warnings": ["synthetic is seen 9.0 times"],
    "mfu": 0.512,
    "mfu_convention": "attention over the full square, 9.085 GFLOP per token",
}
_VALIDATIONS = [
    {
        "step": step,
        "tokens": 256 * step,
        "losses": {"web": 9.0 - 0.2 * step, "code": 8.0},
        "bits_per_byte": {"web": 2.5},
    }
    for step in (10, 20)
]
_INCIDENTS = [{"sentence": "The loss leapt to 9.1 at step 7. Back to step 5, past batches 6 to 7."}]


def _card(sample: Recipe, **changes: Any) -> str:
    given: dict[str, Any] = {
        "facts": _FACTS,
        "validations": _VALIDATIONS,
        "completions": [{"step": 10, "prompt": "early", "text": "no"}, {"step": 20, "prompt": "late", "text": " yes"}],
        "incidents": _INCIDENTS,
        "corpora": {"web": "12 documents from /srv/data/private/dump.warc", "synthetic": "see https://a.example/b/c"},
    }
    return model_card(sample, sample.variants[0], **{**given, **changes})


def test_a_card_tells_what_was_trained_on_what_and_how_it_went():
    card = _card(recipe())
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "other"
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-generation")
    assert front["language"] == ["en", "code"]
    for told in (
        "11,340 parameters",
        "50% synthetic textbooks, 30% web text, 20% code",
        "| synthetic textbooks | 2,560 | 50.00% | 1.50 |",
        "synthetic is seen 9.0 times",
        "2 h 00 min (2.00 hours) on 8 x NVIDIA H200",
        "DeepSpeed ZeRO stage 2",
        "51.2% of the peak (MFU; attention over the full square, 9.085 GFLOP per token)",
        "Held-out loss after step 20",
        "| web text | 5.0000 | 2.5000 | yes |",
        "Skipped steps, whose loss or gradient was not finite: 2. Training went back to a checkpoint 1 time:",
        "Back to step 5, past batches 6 to 7.",
        "After step 20",
        "primer train recipe.yaml --processes 8",
        "primer chat .",
        "vllm serve .    # not tried",
        "may be wrong",
    ):
        assert told in card
    assert "early" not in card  # completions of the end alone


def test_a_card_leaves_out_what_was_not_measured():
    plain = {key: value for key, value in _FACTS.items() if key not in ("micro_batch", "processes")}
    facts = {**plain, "mfu": None, "skipped_steps": 0, "warnings": []}
    card = _card(recipe(), facts=facts, validations=[], completions=[], incidents=[], corpora={})
    assert "MFU" not in card
    assert "Held-out loss" not in card
    assert "never went back" in card
    assert "None were recorded" in card
    assert "--processes" not in card


def test_the_settings_of_a_card_are_a_recipe_again(tmp_path: Path):
    sample = recipe(train={"schedule": "wsd", "epsilon": 1e-7})
    (found,) = re.findall(r"```yaml\n(.*?)```", _card(sample), re.DOTALL)
    path = tmp_path / "again.yaml"
    path.write_text(f"name: sample\n{found}")
    again = load_recipe(path)
    assert (again.seed, again.tokenizer, again.model) == (sample.seed, sample.tokenizer, sample.model)
    watched = {name: getattr(sample.train, name) for name in _WATCHED}  # a card leaves these out
    assert again.train.model_copy(update=watched) == sample.train.model_copy(update=watched)


def test_nothing_that_enters_a_card_becomes_markup_or_a_path_of_this_machine():
    evil = "a|b *c* <script>x</script> [l](u) `d`\n\n# e \x1b[31m"
    text = "```\n# heading\n````\n\x1b[31m\u202e<b>"
    card = _card(
        recipe(description=evil),
        completions=[{"step": 1, "prompt": text, "text": text}],
        incidents=[{"sentence": evil}],
        corpora={"web": evil, "code": "from /srv/data/private/dump.warc", "synthetic": "see https://a.example/b/c"},
    )
    assert "<script>" not in card
    assert r"a\|b \*c\* &lt;script&gt;" in card
    assert "/srv/" not in card
    assert "from dump.warc" in card
    assert "https://a.example/b/c" in card
    assert all(character.isprintable() or character == "\n" for character in card)
    # The fences of a block are longer than any in it.
    blocks = re.findall(r"^(`{3,})text\n(.*?)^\1$", card, re.DOTALL | re.MULTILINE)
    assert [block for _, block in blocks] == ["```\n# heading\n````\n\\x1b[31m\\u202e<b>\n"] * 2


def test_card_and_curve_are_written_from_the_logs_of_a_folder(tmp_path: Path):
    sample = recipe()
    rows = [{"step": n, "tokens": 256 * n, "loss": None if n == 3 else 6 - n / 5} for n in range(1, 21)]
    for name, lines in (("training", rows), ("validation", _VALIDATIONS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_model_card(sample, sample.variants[0], RunFolder(tmp_path / "run"), tmp_path, _FACTS)
    assert "](training.svg)" in (tmp_path / "README.md").read_text()
    drawn = ElementTree.parse(tmp_path / "training.svg").getroot()
    spoken = "".join(drawn.itertext())
    assert "sample: mixed" in spoken
    assert "held-out web 5.000" in spoken


def test_a_curve_is_small_and_whole_however_long_the_training():
    draws = random.Random(1)
    rows = [{"tokens": 4e6 * n, "loss": 11 / n**0.1 + draws.gauss(0, 0.05)} for n in range(1, 36_000)]
    validations = [
        {"tokens": 4e6 * 360 * n, "losses": dict.fromkeys(("web", "code", "synthetic"), 5.0)} for n in range(1, 101)
    ]
    drawn = loss_curve("a <b> & c", rows, validations)
    assert len(drawn) < 60_000
    root = ElementTree.fromstring(drawn)
    assert not [each for each in root.iter() if each.tag.endswith(("script", "image", "use", "a"))]
    assert "prefers-color-scheme:dark" in drawn
    width, height = (float(number) for number in root.attrib["viewBox"].split()[2:])
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
        assert [x for x, _ in places] == sorted(x for x, _ in places)


@pytest.mark.parametrize("losses", [[], [None], [2.0], [2.0, 2.0], [1e-9, 0.0], [5e4, 2.0]])
def test_a_curve_can_be_drawn_of_anything(losses: list[float | None]):
    rows = [{"tokens": n + 1, "loss": loss} for n, loss in enumerate(losses)]
    drawn = ElementTree.fromstring(loss_curve("x", rows, []))
    # The least and greatest of groups of steps: a short training has none.
    assert not list(drawn.iter("{http://www.w3.org/2000/svg}polygon"))
