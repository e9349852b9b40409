"""`primer web`: labels, a filter and a filtered corpus by the commands, with a teacher that grades by what it reads."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mock_endpoint import Endpoint, running
from typer.testing import CliRunner, Result

from primer.benchmarks import BUILT_IN_ITEMS
from primer.cli import app
from primer.documents import SPLITS, read_documents
from primer.errors import PrimerError
from primer.run import RunFolder
from primer.sealed import read_items

_LESSONS = [
    "Water expands when it freezes because its molecules form an open lattice of hydrogen bonds.",
    "A lever multiplies force, and the reason is that the torque on both of its sides is the same.",
    "Plants turn the energy of light into sugar in a process that is called photosynthesis.",
    "The pressure in a liquid grows with the depth, for the weight of all above it rests on it.",
    "An electric current heats a wire since moving charges give their energy to its atoms.",
    "Sound is slower than light, so the thunder of a distant storm is heard after its lightning.",
]
_GOSSIP = [
    "The actress was seen with that singer again at the party in Hollywood, and fans have gone wild.",
    "Do not miss this week's sale with the best offers on shoes and handbags of the season.",
    "The star said to the reporters that he will have no comment on the rumours of the divorce.",
    "Our readers have voted for the ten hottest outfits of the gala, and number one is a shock.",
    "Sign up to the newsletter today and have a chance to win tickets for the show with the band.",
    "She posted that photo of the beach, and the comments of her followers are full of hearts.",
]


def text(number: int) -> str:
    """Even numbers teach, odd ones gossip."""
    chance = random.Random(number)
    return f"Story {number}. " + " ".join(chance.choices(_GOSSIP if number % 2 else _LESSONS, k=9))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running() as found:

        def grade(_question: str, asked: str) -> str:
            good = sum(lesson[:20] in asked for lesson in _LESSONS) > 1
            return f"Reason: It {'explains' if good else 'gossips'}.\nScore: {4 if good else 1}"

        found._text = grade  # type: ignore[method-assign]
        yield found


@pytest.fixture(scope="module")
def recipe(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    lines = [json.dumps({"text": text(number), "url": f"https://example.org/{number}"}) for number in range(120)]
    (folder / "web.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    teacher = {"kind": "openai", "base_url": endpoint.address, "model": "mock", "api_key_env": "PRIMER_TEST_KEY"}
    about: dict[str, Any] = {
        "name": "filtered",
        "synth": {"teacher": teacher, "concurrency": 8},
        "web": {
            "source": {"kind": "files", "paths": [str(folder / "web.jsonl")]},
            "rules": [],
            "quality": {"samples": 60, "repeated": 10, "keep": 0.5},
        },
        "corpus": {"held_out_share": 0.2, "duplicates": {"threshold": 0.95}},
        "variants": [{"name": "web", "mixture": {"web": 1.0}}],
    }
    path = folder / "filtered.yaml"
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    return path


def primer(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


@pytest.fixture(scope="module")
def run(recipe: Path, endpoint: Endpoint) -> RunFolder:
    """The run folder after the three steps, each of which does only what the ones before it have not done."""
    folder = recipe.parent / "run"
    for step, stage in (("annotate", "labels/web"), ("train-filter", "filter/web"), ("filter", "refined/web")):
        asked = endpoint.requests
        result = primer("web", step, recipe, "--run", folder)
        assert result.exit_code == 0, result.exception
        assert (endpoint.requests > asked) == (step == "annotate")
        assert RunFolder(folder).manifest(stage) is not None
    result = primer("synth", recipe, "--run", folder)
    assert result.exit_code == 0, result.exception
    return RunFolder(folder)


def test_the_filter_keeps_what_teaches(run: RunFolder):
    kept = [row for split in SPLITS for row in read_documents(run.folder("corpus/web"), split)]
    assert {int(row["text"].split()[1].strip(".")) % 2 for row in kept} == {0}
    refined = run.require("refined/web").facts
    assert refined["read"] == 120
    assert refined["quality_removed"] == 120 - refined["kept"]
    assert 48 <= refined["kept"] <= 60
    assert all(0.5 < row["quality"] <= 1 for row in kept)
    labels = run.require("labels/web").facts
    assert (labels["labelled"], labels["agreement"]["texts"], labels["agreement"]["exact"]) == (60, 10, 1.0)
    assert (run.folder("filter/web") / "quality.html").is_file()


def test_a_trained_filter_serves_another_recipe_and_asks_nobody(run: RunFolder, recipe: Path, endpoint: Endpoint):
    asked = endpoint.requests
    other = recipe.parent / "other"
    trained = f"web.quality.trained={run.folder('filter/web')}"
    result = primer("web", "filter", recipe, "--run", other, "--set", trained, "--workers", "1")
    assert result.exit_code == 0, result.exception
    assert endpoint.requests == asked
    assert RunFolder(other).require("refined/web").outputs == run.require("refined/web").outputs
    result = primer("web", "annotate", recipe, "--run", other, "--set", trained)
    assert "trained already" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["annotate", "recipes/smoke.yaml"], "no web.quality"),
        (["train-filter", "recipes/smoke.yaml", "--corpus", "code"], "no code.quality"),
        (["filter", "recipes/smoke.yaml", "--slurm", "partition"], "expected KEY=VALUE"),
        (["filter", "recipes/smoke.yaml", "--slurm", "partition=cpu", "--ray", "auto"], "given together"),
        (["filter", "recipes/smoke.yaml", "--slurm", "time=1:00"], "names no partition"),
        (
            ["filter", "recipes/smoke.yaml", "--slurm", "partition=a", "--slurm", "time=1", "--slurm", "workers=x"],
            "number",
        ),
        (["contaminated", "recipes/smoke.yaml"], "is not there yet"),
        (["duplicates", "recipes/smoke.yaml"], "is not there yet"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], problem: str, tmp_path: Path):
    result = primer("web", *arguments, "--run", tmp_path / "run")
    assert isinstance(result.exception, PrimerError)
    assert problem in result.exception.problem


def test_a_filter_that_is_none_is_named(recipe: Path, tmp_path: Path):
    result = primer("web", "filter", recipe, "--run", tmp_path / "run", "--set", f"web.quality.trained={tmp_path}")
    assert isinstance(result.exception, PrimerError)
    assert f"web.quality.trained names '{tmp_path}', which holds no trained filter" in result.exception.problem


def test_contaminated_passages_are_shown_beside_the_item(recipe: Path, tmp_path: Path):
    items = read_items(BUILT_IN_ITEMS / "science.sealed").splitlines()
    asked = max((json.loads(line)["question"] for line in items), key=len)
    (tmp_path / "web.jsonl").write_text(
        "".join(json.dumps({"text": body}) + "\n" for body in (text(0), f"{text(2)} {asked} {text(4)}", text(6))),
        encoding="utf-8",
    )
    changed = [f'web.source.paths=["{tmp_path}/web.jsonl"]', "web.quality=null"]
    options = [option for change in changed for option in ("--set", change)]
    assert primer("web", "filter", recipe, "--run", tmp_path / "run", *options).exit_code == 0
    result = primer("web", "contaminated", recipe, "--run", tmp_path / "run")
    assert "1 documents hold items" in result.stdout or "1 document" in result.stdout
    assert asked in " ".join(result.stdout.split())
    assert primer("web", "contaminated", recipe, "--run", tmp_path / "run", "--suite", "x").exit_code != 0


def test_help_teaches():
    for command in ([], ["annotate"], ["train-filter"], ["filter"], ["contaminated"], ["duplicates"]):
        result = primer("web", *command, "--help")
        assert result.exit_code == 0
        assert len(result.stdout) > 300
