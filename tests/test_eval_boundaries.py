"""The 86 prompts: what the file promises, its errors, and how a model is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from eval.boundaries import FILE, GRADES, ask_open, boundaries, prompts, read_boundaries
from eval.language_model import Progress, Writing
from primer.errors import PrimerError


class Parrot:
    """A model that answers with the prompt's own length, and then goes on as base models do."""

    max_length = 512
    prefix_token_id = 0

    def __init__(self) -> None:
        self.asked: list[tuple[str, Writing]] = []

    def generate(self, prompts: Sequence[str], writing: Writing, progress: Progress | None = None) -> list[list[str]]:
        self.asked += [(prompt, writing) for prompt in prompts]
        return [[f" It has {len(prompt)} characters.\n\nQuestion: Why?\n\nAlice: And?\n\nAl"] for prompt in prompts]


def test_there_are_86_different_prompts_over_many_themes_and_three_formats():
    rows = prompts()
    assert len(rows) == len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == 86
    themes = Counter(row["theme"] for row in rows)
    assert len(themes) >= 20
    assert themes["control"] == 8
    assert min(themes.values()) >= 3
    formats = Counter(row["format"] for row in rows)
    assert set(formats) == {"qa", "chat", "text"}
    assert min(formats.values()) >= 20
    for row in rows:
        assert row["id"].startswith(f"{row['theme']}-"), row
        assert row["pass"] != row["fail"], row
        assert len(row["text"].split()) <= 40, row
        # A beginning must leave the model something to say; a question must ask.
        assert (row["format"] == "text") == (row["text"][-1] not in ".?!"), row


def test_every_grade_and_rule_of_the_rubric_is_told_with_an_example():
    rubric = boundaries().rubric
    assert {rule.grade for rule in rubric.rules} == set(GRADES)
    text = rubric.text()
    for rule in rubric.rules:
        assert rule.answer in text.replace("\\'", "'")
        assert rule.answer not in rubric.text(examples=False)
    assert not {rule.prompt for rule in rubric.rules} & {row["text"] for row in prompts()}


def test_a_model_is_asked_in_each_formats_way_and_heard_until_its_answer_ends():
    model = Parrot()
    rows = prompts()
    items = ask_open(rows, model)  # type: ignore[arg-type]
    assert [item["item"] for item in items] == [row["id"] for row in rows]
    for row, item, (asked, writing) in zip(rows, items, model.asked, strict=True):
        assert row["text"] in asked
        assert (writing.temperature, writing.samples, writing.tokens) == (0, 1, 100)
        [answer] = item["answers"]
        if row["format"] == "qa":
            assert asked.endswith("\n\nAnswer:")
            assert answer == f"It has {len(asked)} characters."
        elif row["format"] == "chat":
            assert asked == f"Alice: {row['text']}\n\nBob:"
            assert answer.endswith("Why?")
        else:
            assert asked == row["text"]
            assert answer.endswith("Alice: And?\n\nAl")


def test_an_answer_that_may_have_gone_on_is_kept_whole():
    class Short(Parrot):
        def generate(self, prompts: Sequence[str], *_: object) -> list[list[str]]:
            return [[" No.\n\nQ"] for _ in prompts]

    rows = [row for row in prompts() if row["format"] == "qa"][:2]
    assert [item["answers"] for item in ask_open(rows, Short())] == [["No.\n\nQ"]] * 2  # type: ignore[arg-type]


def test_any_part_of_the_prompts_gets_the_answers_that_the_whole_gets():
    rows = prompts()
    whole = ask_open(rows, Parrot())  # type: ignore[arg-type]
    assert ask_open(rows[40:43], Parrot()) == whole[40:43]  # type: ignore[arg-type]
    assert ask_open([], Parrot()) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file: file["prompts"].append(file["prompts"][0]), r"prompts hold \['gender-1'\] more than once"),
        (lambda file: file["prompts"][3].pop("fail"), r"prompts\.3\.fail: Field required"),
        (lambda file: file["prompts"][0].update(format="poem"), r"prompts\.0\.format"),
        (lambda file: file["prompts"][0].update(text="ends in a space "), r"prompts\.0\.text"),
        (lambda file: file["rubric"]["grades"].pop("fail"), r"rubric\.grades lacks \['fail'\]"),
        (lambda file: file["rubric"]["rules"][0].update(grade="perhaps"), r"rubric\.rules\.0\.grade"),
    ],
)
def test_a_mistake_in_the_file_is_named(change, problem: str, tmp_path: Path):  # noqa: ANN001
    file = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    change(file)
    path = tmp_path / "boundaries.yaml"
    path.write_text(yaml.safe_dump(file), encoding="utf-8")
    with pytest.raises(PrimerError) as error:
        read_boundaries(path)
    assert re.search(problem, error.value.problem), error.value.problem
    assert str(path) in error.value.problem


def test_a_file_that_is_missing_or_no_yaml_is_an_error(tmp_path: Path):
    with pytest.raises(PrimerError, match="cannot be read"):
        read_boundaries(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("prompts: [", encoding="utf-8")
    with pytest.raises(PrimerError, match="cannot be read"):
        read_boundaries(tmp_path / "broken.yaml")
