"""What an audit of topic seeds finds, each check by seeds that break it and seeds that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from primer.benchmarks import read_benchmarks
from primer.errors import PrimerError
from topics.allocation import Allocation, load_allocation
from topics.audit import (
    Check,
    Listed,
    check_ids,
    check_lines,
    check_plan,
    check_retired,
    check_subfields,
    check_titles,
    read_all,
)
from topics.coverage import measure_coverage
from topics.embedding import embed
from topics.overlap import check_overlap
from topics.retired import retired_ids
from topics.seeds import Topic
from topics.similarity import check_near_duplicates, nearest
from topics.titles import masked_titles, subject_words, title_problems

FAR_AWAY = "Stars are suns that are far away"


def listed(*titles: str, field: str = "stars", subfield: str = "night sky") -> list[Listed]:
    return [
        Listed(f"line {i}", Topic(f"{field}-{i:04d}", field, subfield, "concept", ("primary", "middle"), title))
        for i, title in enumerate(titles, start=1)
    ]


def found(checks: list[Check]) -> list[tuple[str, str]]:
    return [(finding.where, finding.problem) for check in checks for finding in check.findings]


def test_everything_is_found_at_once_with_file_and_line(tmp_path: Path) -> None:
    rows = [
        ("stars-0001", "night sky", "primary,middle", FAR_AWAY),
        ("stars-0002", "night sky", "primary,middle", "Far away, the star is a SUN"),
        ("stars-0003", "day", "primary,middle", "Suns"),
        ("stars-0004", "night sky", "early,middle", "The moon and stars are suns that are far away"),
        ("moons-0005", "night sky", "primary", FAR_AWAY),
        ("stars-0006", "night sky", "primary", "Stars are suns that are always up in the sky."),
    ]
    lines = ["id\tsubfield\tkind\tlevels\ttitle", *(f"{a}\t{b}\tconcept\t{c}\t{d}" for a, b, c, d in rows)]
    (tmp_path / "stars.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    seeds, readable = read_all([str(tmp_path)])
    problems = found([readable, *check_lines(seeds), check_subfields(seeds), *check_titles(seeds), check_ids(seeds)])

    def has(line: int, text: str) -> bool:
        return any(where.endswith(f"stars.tsv, line {line}") and text in problem for where, problem in problems)

    assert has(3, "says the same")
    assert has(4, "has 1 words")
    assert has(5, "gap: primary")
    assert has(5, "began further up")
    assert has(6, "column id")
    assert has(7, "ends in '.'")
    assert not has(2, "")
    assert "stars-0005" in check_retired(seeds, {}).findings[0].problem, "a gap in the numbers"


def test_a_file_without_seeds_is_found(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("id\tsubfield\tkind\tlevels\ttitle\n", encoding="utf-8")
    assert "holds no seeds" in read_all([str(tmp_path)])[1].findings[0].problem


def test_titles_are_compared_by_their_subject() -> None:
    assert subject_words("Why the Moon's face changes") == subject_words("How a moons face changes")
    assert subject_words("Adding 0.3 and 0.25") != subject_words("Adding 0.3 and 0.35")
    assert subject_words("What is it") == {"what", "is", "it"}, "a title of small words alone is still a title"


@pytest.mark.parametrize(
    ("title", "problem"),
    [
        ("Stars", "has 1 words"),
        ("A star " * 9, "has 18 words"),
        ("Are stars far away?", "ends in '?'"),
        ("stars are far away", "capital letter"),
        ("STARS ARE VERY FAR AWAY INDEED", "capital on every word"),
        ("Stars Shine From Very Far Away", "capital on every word"),
        ("Extraordinarily " * 8, "characters"),
    ],
)
def test_the_form_of_titles(title: str, problem: str) -> None:
    assert any(problem in found for found in title_problems(title.strip()))
    assert not list(title_problems(FAR_AWAY))


def test_rows_of_a_template_are_found_and_neighbors_are_not() -> None:
    template = [f"How {thing} is made in a factory" for thing in ("paper", "bread", "glass", "cheese")]
    checks = check_titles(listed(FAR_AWAY, *template))
    assert [check.passed for check in checks] == [True, False]
    assert "how ... is made in a factory" in checks[1].findings[0].problem
    assert all(check.passed for check in check_titles(listed(FAR_AWAY, *template[:3])))
    assert ("how", "...", "is", "made") in set(masked_titles("How paper is made"))
    assert len(list(masked_titles("How paper is made"))) == 2, "small words are never the gap"


def test_retired_ids_are_not_used_again(tmp_path: Path) -> None:
    path = tmp_path / "retired.tsv"
    path.write_text("id\ttitle\treason\nstars-0002\tOld title here\tsaid the same\n", encoding="utf-8")
    retired = retired_ids(path)
    assert retired == {"stars-0002": "Old title here"}
    one, two, three = listed(FAR_AWAY, "Planets wander among the stars", "Comets grow tails near the sun")
    assert "stars-0002 is retired" in check_retired([one, two, three], retired).findings[0].problem
    assert check_retired([one, three], retired).passed
    assert not check_retired([one, three], {}).passed, "a number that is gone must be retired"
    assert not check_ids([one, Listed("line 9", one.topic)]).passed
    path.write_text("id\ttitle\treason\nstars-0002\tno reason\n", encoding="utf-8")
    with pytest.raises(PrimerError, match=r"retired\.tsv, line 2"):
        retired_ids(path)


def plan(**changes: object) -> Allocation:
    field = {"seeds": 2, "reason": "r", "subfields": ["night sky"]}
    values = {
        "least_seeds": 2,
        "least_fields": 1,
        "least_subfields": 1,
        "largest_field": 1.0,
        "least_common_sense": 1.0,
        "groups": {"sky": {"reason": "r", "common_sense": True, "fields": {"stars": field}}},
    }
    return Allocation.model_validate(values | changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"least_seeds": 3}, "seeds in all"),
        ({"least_fields": 2}, "2 fields"),
        ({"least_subfields": 2}, "2 subfields"),
        ({"largest_field": 0.9}, "no field has more than"),
        (
            {
                "groups": {
                    "sky": {"reason": "r", "fields": {"stars": {"seeds": 2, "reason": "r", "subfields": ["day"]}}}
                }
            },
            "every subfield",
        ),
        (
            {
                "groups": {
                    "sky": {"reason": "r", "fields": {"stars": {"seeds": 3, "reason": "r", "subfields": ["night sky"]}}}
                }
            },
            "planned for it",
        ),
    ],
)
def test_a_list_that_leaves_its_plan_is_found(changes: dict[str, object], name: str) -> None:
    seeds = listed(FAR_AWAY, "Planets wander among the stars")
    assert all(check.passed for check in check_plan(seeds, plan()))
    assert any(name in check.name and not check.passed for check in check_plan(seeds, plan(**changes)))


def test_a_plan_with_an_unknown_key_or_a_repeated_subfield_is_refused(tmp_path: Path) -> None:
    assert len(load_allocation().fields()) >= 30
    path = tmp_path / "allocation.yaml"
    path.write_text("least_seeds: 1\nmost_seeds: 2\n", encoding="utf-8")
    with pytest.raises(PrimerError, match="most_seeds"):
        load_allocation(path)


def test_nearest_agrees_with_sorting_everything() -> None:
    vectors = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places, cosines = nearest(vectors, vectors, 3, same=True)
    products = vectors @ vectors.T
    np.fill_diagonal(products, -2)
    assert (places == np.argsort(-products, axis=1)[:, :3]).all()
    assert np.allclose(cosines, -np.sort(-products, axis=1)[:, :3], atol=1e-6)


def test_seeds_that_say_nearly_the_same_are_found_once(caches: None) -> None:
    seeds = listed(
        "Telling a friend that there is spinach in his teeth",
        "Telling a friend about spinach stuck in his teeth",
        "Comets grow tails when they come near the sun",
    )
    check = check_near_duplicates(seeds, embed([at.topic.title for at in seeds], "test"))
    assert not check.passed
    assert [finding.where for finding in check.findings] == ["line 2"]
    assert "line 1" in check.findings[0].problem


def test_copies_of_benchmarks_are_found(tmp_path: Path, caches: None) -> None:
    (tmp_path / "quiz").mkdir()
    (tmp_path / "quiz" / "test.jsonl").write_text(
        '{"question": "Which metal is a liquid at room temperature?", "choices": ["Mercury, the silver one", "Iron"]}\n'
        '{"question": "Why?", "context": "'
        + "A long passage. " * 40
        + 'In it a tired farmer sells one brown cow to his neighbor on Sunday."}\n',
        encoding="utf-8",
    )
    questions = read_benchmarks(tmp_path)
    asked = {suite: embed([row.text for row in rows], "questions") for suite, rows in questions.items()}

    def problems(*titles: str) -> list[str]:
        seeds = listed(*titles)
        return [f.problem for f in check_overlap(seeds, embed(list(titles), "test"), questions, asked).findings]

    assert "mercury the silver one" in problems("Mercury, the silver one")[0], "a whole answer"
    assert "shares" in problems("Why a tired farmer sells one brown cow to his old friend")[0], "eight words in a row"
    assert "cosine" in problems("Which metal is liquid at room temperature")[0], "nearly the question"
    assert problems("Farmer sells one", "Mercury thermometers were banned", "Selling a cow at the market") == []


def test_benchmarks_that_are_not_there_or_not_readable_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PrimerError, match="holds no benchmark data"):
        read_benchmarks(tmp_path)
    (tmp_path / "quiz.jsonl").write_text('{"answer": "no question"}\n', encoding="utf-8")
    with pytest.raises(PrimerError, match=r"quiz\.jsonl, line 1"):
        read_benchmarks(tmp_path)


def test_coverage_tells_near_questions_from_far_ones(tmp_path: Path, caches: None) -> None:
    near = ["Why do stars twinkle at night?", "What are stars made of?"]
    far = [f"How many apples does {name} sell if she had {n}?" for n, name in enumerate(["Ann", "Eve", "Mia", "Zoe"])]
    far += ["How many apples are left in the box after lunch?", "How much do six apples cost at the shop?"]
    (tmp_path / "quiz.jsonl").write_text(
        "".join(f'{{"question": "{text}"}}\n' for text in near + far), encoding="utf-8"
    )
    questions = read_benchmarks(tmp_path)["quiz"]
    seeds = ["Stars twinkle because the air moves", "Stars are made of hot gas"]
    measured = measure_coverage("quiz", questions, embed([q.text for q in questions], "q"), embed(seeds, "test"))
    assert (measured.cosines >= 0.5).tolist() == [True, True, *[False] * 6]
    assert measured.covered == 0.25
    assert sum(group.count for group in measured.far) == 6
    assert "apple" in measured.far[0].words
    assert all(questions[place].text in far for group in measured.far for place in group.examples)


def test_the_seeds_copy_no_benchmark(benchmark_data: Path) -> None:
    seeds, _ = read_all()
    questions = read_benchmarks(benchmark_data)
    # Embedding every question takes minutes; words in a row are compared with every text.
    none = {suite: np.zeros((len(rows), 384), dtype=np.float32) for suite, rows in questions.items()}
    check = check_overlap(seeds, np.zeros((len(seeds), 384), dtype=np.float32), questions, none)
    assert check.findings == []
