"""The topic seeds that ship with Primer, and what loading says about bad ones."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from primer.errors import PrimerError
from topics.allocation import load_allocation
from topics.audit import check_ids, check_lines, check_plan, check_retired, check_subfields, check_titles, read_all
from topics.retired import retired_ids
from topics.seeds import COLUMNS, KINDS, LEVELS, choose_fields, field_names, load_topics

HEADER = "\t".join(COLUMNS)
GOOD = "stars-0001\tnight sky\tconcept\tprimary,middle\tStars are suns that are far away"


def write_seeds(folder: Path, *lines: str, field: str = "stars", header: str = HEADER) -> Path:
    path = folder / f"{field}.tsv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_the_shipped_list_has_its_size_and_its_proportions() -> None:
    topics = load_topics()
    fields = Counter(topic.field for topic in topics)
    assert len(topics) >= 20_000
    assert len(fields) >= 30
    assert len({(topic.field, topic.subfield) for topic in topics}) >= 600
    assert max(fields.values()) <= 0.08 * len(topics)
    assert {topic.kind for topic in topics} == set(KINDS)
    assert {level for topic in topics for level in topic.levels} == set(LEVELS)
    plan = load_allocation()
    common = [name for group in plan.groups.values() if group.common_sense for name in group.fields]
    assert sum(fields[name] for name in common) >= 0.35 * len(topics)
    kinds = Counter(topic.kind for topic in topics)
    assert min(kinds.values()) >= 0.03 * len(topics), "every kind is a real part of the list"


def test_the_shipped_list_passes_the_checks_of_lines_titles_ids_and_plan() -> None:
    listed, readable = read_all()
    checks = [readable, *check_lines(listed), check_subfields(listed), *check_titles(listed), check_ids(listed)]
    checks += [check_retired(listed, retired_ids()), *check_plan(listed, load_allocation())]
    assert [(check.name, check.findings[:5]) for check in checks if not check.passed] == []


def test_fields_are_chosen_by_name_once_and_in_one_order() -> None:
    chosen = load_topics(["physics", "algebra", "physics"])
    assert [topic.field for topic in chosen] == sorted(topic.field for topic in chosen)
    assert {topic.field for topic in chosen} == {"physics", "algebra"}
    assert len({topic.id for topic in chosen}) == len(chosen)
    assert list(choose_fields([])) == field_names()
    assert sum(len(load_topics([name])) for name in field_names()) == len(load_topics())


def test_an_unknown_field_is_named_with_close_ones() -> None:
    with pytest.raises(PrimerError, match=r"(?s)'phisics'.*Did you mean .*physics"):
        load_topics(["phisics"])


def test_lists_of_ones_own_stand_beside_the_built_in_one_or_alone(tmp_path: Path) -> None:
    write_seeds(tmp_path, GOOD)
    assert [topic.id for topic in load_topics(lists=[str(tmp_path)])] == ["stars-0001"]
    both = load_topics(lists=["primer", str(tmp_path)])
    assert len(both) == len(load_topics()) + 1
    assert [topic.field for topic in both] == sorted(topic.field for topic in both)
    write_seeds(tmp_path, GOOD.replace("stars", "physics"), field="physics")
    with pytest.raises(PrimerError, match=r"'physics' is in .* and in "):
        load_topics(lists=["primer", str(tmp_path)])
    with pytest.raises(PrimerError, match=r"(?s)holds no topic seeds.*topics import"):
        load_topics(lists=[str(tmp_path / "none")])


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
        load_topics(lists=[str(tmp_path)])
    assert f"{path}, line 3" in caught.value.problem
    assert column in caught.value.problem
    assert value in caught.value.problem
    listed, readable = read_all([str(tmp_path)])
    assert not (readable.passed and check_ids(listed).passed), "an audit must find what loading refuses"


def test_bad_files_are_errors_for_people(tmp_path: Path) -> None:
    lists = [str(tmp_path)]
    with pytest.raises(PrimerError, match="holds no topic seeds"):
        load_topics(lists=lists)
    path = write_seeds(tmp_path)
    with pytest.raises(PrimerError, match="holds no seeds"):
        load_topics(lists=lists)
    write_seeds(tmp_path, GOOD, header="id,subfield,kind,levels,title")
    with pytest.raises(PrimerError, match="line 1: the header"):
        load_topics(lists=lists)
    path.write_bytes(HEADER.encode() + b"\n\xff\xfe")
    with pytest.raises(PrimerError, match="cannot be read"):
        load_topics(lists=lists)


def test_the_whole_list_loads_in_150_milliseconds() -> None:
    seconds = []
    for _ in range(5):
        clock = time.perf_counter()
        count = len(load_topics())
        seconds.append(time.perf_counter() - clock)
    assert count >= 20_000
    assert min(seconds) < 0.15, f"{min(seconds):.3f} s for {count:,d} seeds"
