"""The topic seeds that ship with Primer, and what loading and auditing say about bad ones."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from primer.errors import PrimerError
from topics import KINDS, LEVELS, audit, field_names, load_topics
from topics.audit import subject_words

HEADER = "id\tsubfield\tkind\tlevels\ttitle"
GOOD = "stars-0001\tnight sky\tconcept\tprimary,middle\tStars are suns that are far away"


def write_seeds(folder: Path, *lines: str, field: str = "stars", header: str = HEADER) -> Path:
    path = folder / f"{field}.tsv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_the_shipped_seeds_are_many_and_sound() -> None:
    topics = load_topics()
    assert len(topics) >= 500
    assert len({topic.field for topic in topics}) >= 30
    assert {topic.kind for topic in topics} == set(KINDS)
    assert {level for topic in topics for level in topic.levels} == set(LEVELS)
    assert min(Counter(topic.field for topic in topics).values()) >= 10
    assert [finding.problem for finding in audit()] == []


def test_fields_are_chosen_by_name_once_and_in_one_order() -> None:
    chosen = load_topics(["physics", "algebra", "physics"])
    assert [topic.field for topic in chosen] == sorted(topic.field for topic in chosen)
    assert {topic.field for topic in chosen} == {"physics", "algebra"}
    assert len({topic.id for topic in chosen}) == len(chosen)
    assert sum(len(load_topics([name])) for name in field_names()) == len(load_topics())


def test_an_unknown_field_is_named_with_close_ones() -> None:
    with pytest.raises(PrimerError, match=r"(?s)'phisics'.*Did you mean .*physics"):
        load_topics(["phisics"])


@pytest.mark.parametrize(
    ("line", "column", "value"),
    [
        (GOOD.replace("concept", "consept"), "kind", "consept"),
        (GOOD.replace("primary,middle", "primary,adults"), "levels", "adults"),
        (GOOD.replace("primary,middle", "middle,primary"), "levels", "middle,primary"),
        (GOOD.replace("primary,middle", "primary,primary"), "levels", "primary,primary"),
        (GOOD.replace("primary,middle", "primary, middle"), "levels", " middle"),
        (GOOD.replace("stars-0001", "star-0001"), "id", "star-0001"),
        (GOOD.replace("stars-0001", "stars-1"), "id", "stars-1"),
        (GOOD.replace("night sky", ""), "subfield", ""),
        (GOOD + " ", "title", "far away "),
        (GOOD.replace("are suns", "are\x0csuns"), "title", r"are\x0csuns"),
        (GOOD.replace("are suns", "are\u00a0suns"), "title", r"are\xa0suns"),
        (GOOD + "\textra", "6 columns", "extra"),
        ("", "1 columns", ""),
        (GOOD, "id", "stars-0001"),
    ],
)
def test_a_bad_line_is_named_with_file_line_column_and_value(
    tmp_path: Path, line: str, column: str, value: str
) -> None:
    path = write_seeds(tmp_path, GOOD, line)
    with pytest.raises(PrimerError) as caught:
        load_topics(folder=tmp_path)
    assert f"{path}, line 3" in caught.value.problem
    assert column in caught.value.problem
    assert value in caught.value.problem
    assert audit(tmp_path), "an audit must find what loading refuses"


def test_bad_files_are_errors_for_people(tmp_path: Path) -> None:
    with pytest.raises(PrimerError, match="holds no topic seeds"):
        load_topics(folder=tmp_path)
    path = write_seeds(tmp_path)
    with pytest.raises(PrimerError, match="holds no seeds"):
        load_topics(folder=tmp_path)
    write_seeds(tmp_path, GOOD, header="id,subfield,kind,levels,title")
    with pytest.raises(PrimerError, match="line 1: the header"):
        load_topics(folder=tmp_path)
    path.write_bytes(HEADER.encode() + b"\n\xff\xfe")
    with pytest.raises(PrimerError, match="cannot be read"):
        load_topics(folder=tmp_path)


def test_the_audit_finds_everything_at_once(tmp_path: Path) -> None:
    write_seeds(
        tmp_path,
        GOOD,
        GOOD.replace("0001", "0002").replace("Stars are suns that are far away", "Far away, the star is a SUN"),
        GOOD.replace("0001", "0003").replace("night sky", "day").replace("Stars are suns that are far away", "Suns"),
        GOOD.replace("0001", "0004").replace("Stars are", "The moon and").replace("primary,", "early,"),
        GOOD.replace("stars-0001", "moons-0005"),
        GOOD.replace("0001", "0006").replace("far away", "always up in the sky."),
    )
    problems = {finding.where.rsplit(" ", 1)[1]: finding.problem for finding in audit(tmp_path)}
    assert "says the same" in problems["3"]
    assert "has 1 words" in problems["4"]
    found = [(finding.where.rsplit(" ", 1)[1], finding.problem) for finding in audit(tmp_path)]
    assert any(line == "5" and "gap: primary" in problem for line, problem in found)
    assert any(line == "5" and "began further up" in problem for line, problem in found)
    assert any(line == "6" and "column id" in problem for line, problem in found)
    assert any(line == "7" and "ends in '.'" in problem for line, problem in found)
    assert not any(line == "2" for line, _ in found)


def test_titles_are_compared_by_their_subject() -> None:
    assert subject_words("Why the Moon's face changes") == subject_words("How a moons face changes")
    assert subject_words("Adding 0.3 and 0.25") != subject_words("Adding 0.3 and 0.35")
    assert subject_words("What is it") == {"what", "is", "it"}, "a title of small words alone is still a title"


def test_twenty_thousand_seeds_load_fast(tmp_path: Path) -> None:
    for number in range(40):
        field = f"field-{number:02d}"
        lines = [f"{field}-{i:04d}\tpart\tconcept\tprimary,middle\tThing {number} {i} and more" for i in range(500)]
        write_seeds(tmp_path, *lines, field=field)
    clock = time.process_time()
    assert len(load_topics(folder=tmp_path)) == 20_000
    seconds = time.process_time() - clock
    assert seconds < 1.5, f"{seconds:.2f} s of CPU for 20,000 seeds"
