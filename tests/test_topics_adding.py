"""Lists of one's own: every format, every error with its line, nothing half written; and a teacher's proposals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from primer.benchmarks import read_benchmarks
from primer.errors import PrimerError
from topics.adding import add_seeds, check_new, read_rows, sift
from topics.audit import Listed
from topics.extend import Area, parse_proposals, proposal_prompt, review_table, thin_areas
from topics.seeds import Topic, load_topics, read_seeds
from topics.tables import TableRow, read_table
from topics.titles import subject_words

ROWS = [
    {
        "title": "A pinned knight cannot leave its file",
        "field": "chess",
        "subfield": "tactics",
        "kind": "concept",
        "levels": "middle,high",
    },
    {
        "title": "Castling late and paying for it",
        "field": "chess",
        "subfield": "openings",
        "kind": "story",
        "levels": "middle",
    },
    {
        "title": "Two rooks against a lone king",
        "field": "chess",
        "subfield": "endgames",
        "kind": "procedure",
        "levels": "primary,middle",
    },
]


def write_table(folder: Path, suffix: str) -> Path:
    path = folder / f"mine{suffix}"
    if suffix == ".jsonl":
        lines = [{**row, "levels": row["levels"].split(","), "votes": 3} for row in ROWS]
        path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    elif suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_seeds(tmp_path: Path, suffix: str) -> None:
    rows = read_table(str(write_table(tmp_path, suffix)))
    assert [row.values for row in rows] == ROWS
    seeds, findings = read_rows(rows, {})
    assert not findings
    assert add_seeds([at.topic for at in seeds], tmp_path / "mine") == {"chess": 3}
    loaded = load_topics(lists=[str(tmp_path / "mine")])
    assert [topic.id for topic in loaded] == ["chess-0001", "chess-0002", "chess-0003"]
    assert [topic.title for topic in loaded] == [row["title"] for row in ROWS]


def test_a_data_set_that_datasets_saved_is_read(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    assert [row.values for row in read_table(str(tmp_path / "saved"))] == ROWS
    with pytest.raises(PrimerError, match="no folder saved by the datasets library"):
        read_table(str(tmp_path))
    with pytest.raises(PrimerError, match="nobody/nothing"):
        read_table("nobody/nothing")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "name,field\nx,y\n", r"no column 'title', but name, field"),
        ("a.csv", "title,field\nOne,two,three\n", r"a\.csv, line 2: has more values"),
        ("a.csv", "", "no column 'title', but none"),
        ("a.csv", "title\n", "has no rows"),
        ("a.csv", 'title\n"One" two"\n', "cannot be read"),
        ("a.jsonl", '{"title": "One two three"}\n{"title": \n', r"a\.jsonl, line 2: is no JSON"),
        ("a.jsonl", '["One"]\n', r"line 1: is no JSON object"),
        ("a.jsonl", '{"title": 7}\n', r"line 1, column title: is 7"),
        ("a.parquet", "PAR", "is no Parquet file"),
        ("a.txt", "One two three\n", "not a table that can be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error_with_its_line(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(PrimerError, match=problem):
        read_table(str(tmp_path / name))


def test_every_bad_row_is_found_with_its_line(caches: Path) -> None:
    base = ROWS[0]

    def row(line: int, **changes: str) -> TableRow:
        return TableRow(f"mine.csv, line {line}", {**base, **changes})

    rows = [
        row(2),
        row(3, title="The file that a pinned knight cannot leave"),
        row(4, title="Chess"),
        row(5, kind="idea"),
        row(6, levels="middle,early"),
        row(7, levels="early,high", title="Resigning a lost game with grace"),
        row(8, field="Chess!"),
        row(9, field="", title="Forks by a queen on two loose rooks"),
        row(10, title="A pinned knight can not leave its own file"),
        row(11, title="Why a metal spoon feels colder than a wooden one"),
        row(12, title="A pawn that has passed every other pawn"),
        row(13, title="A tab\tin the middle of a title"),
        row(14, title="A line break\nin the middle of a title"),
    ]
    present = [Listed("physics.tsv, line 8", topic) for topic in load_topics(["physics"]) if topic.id == "physics-0007"]
    good, findings = sift(rows, {}, present, {})
    assert {at.where.split()[-1] for at in good} == {"2", "12"}
    places = [int(finding.where.split()[-1]) for finding in findings]
    assert places == sorted(places), "in the order of the file"
    lines: dict[str, str] = {}
    for finding in findings:
        line = finding.where.split()[-1]
        lines[line] = lines.get(line, "") + finding.problem + "\n"
    assert set(lines) >= {"3", "4", "5", "6", "7", "8", "9", "10", "11", "13", "14"}
    assert "2" not in lines
    assert "12" not in lines
    assert "says the same as mine.csv, line 2" in lines["3"]
    assert "has 1 words" in lines["4"]
    assert "'idea'" in lines["5"]
    assert "youngest first" in lines["6"]
    assert "gap" in lines["7"]
    assert "cannot name a file" in lines["8"]
    assert "has no field" in lines["9"]
    assert "physics.tsv, line 8" in lines["11"]
    assert "on one line, without tabs" in lines["13"]
    assert "on one line, without tabs" in lines["14"]


def test_bad_rows_hide_no_bad_rows_and_take_no_good_ones_along(caches: Path) -> None:
    base = ROWS[0]
    template = [f"How {thing} is made in a factory" for thing in ("paper", "bread", "glass", "cheese", "soap", "rope")]
    titles = [*template, "wagons wait for the last of the harvest", "Wagons wait for the last of the harvest"]
    rows = [TableRow(f"line {i}", {**base, "title": title}) for i, title in enumerate(titles)]
    good, _ = sift(rows, {}, [], {})
    assert [at.topic.title for at in good] == [*template[:3], titles[-1]]


def test_titles_in_other_scripts_are_told_apart(caches: Path) -> None:
    titles = ["Почему небо синее", "Как испечь хлеб", "Зачем нужны законы", "Why C++ is fast", "Why C# is fast"]
    rows = [TableRow(f"line {i}", {**ROWS[0], "title": title}) for i, title in enumerate(titles)]
    assert [at.topic.title for at in read_rows(rows, {})[0]] == titles
    assert len({subject_words(title) for title in titles}) == 5
    assert subject_words("The sign of -3") != subject_words("The sign of 3")


def test_every_row_that_copies_a_benchmark_is_found(tmp_path: Path, caches: Path) -> None:
    rows = ["Castling late and paying for it", "Two rooks against a lone king"]
    (tmp_path / "quiz.jsonl").write_text(
        "".join(json.dumps({"question": "What is it?", "answer": row}) + "\n" for row in rows[:1])
        + json.dumps({"question": "And what is this?", "answer": rows[1]})
        + "\n",
        encoding="utf-8",
    )
    seeds, _ = read_rows([TableRow(f"line {i}", row) for i, row in enumerate(ROWS)], {})
    findings = check_new(seeds, [], read_benchmarks(tmp_path))
    assert [(finding.where, "shares" in finding.problem) for finding in findings] == [
        ("line 1", True),
        ("line 2", True),
    ]


def test_new_seeds_stand_after_their_subfield_and_ids_go_on(tmp_path: Path) -> None:
    seeds, _ = read_rows([TableRow("x", row) for row in ROWS], {})
    add_seeds([at.topic for at in seeds], tmp_path)
    path = tmp_path / "chess.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line for line in lines if "chess-0002" not in line) + "\n", encoding="utf-8")
    more = {**ROWS[0], "title": "A fork wins the rook behind the king"}
    other = {**ROWS[0], "title": "Claiming a draw by threefold repetition", "subfield": "rules"}
    seeds, _ = read_rows([TableRow("x", more), TableRow("x", other)], {})
    assert add_seeds([at.topic for at in seeds], tmp_path) == {"chess": 2}
    assert [(topic.id, topic.subfield) for topic in read_seeds(path)] == [
        ("chess-0001", "tactics"),
        ("chess-0004", "tactics"),
        ("chess-0003", "endgames"),
        ("chess-0005", "rules"),
    ]
    go = {**ROWS[0], "field": "go", "title": "Two eyes keep a group alive"}
    (tmp_path / ".go.tsv.new").mkdir()
    before = path.read_bytes()
    seeds, _ = read_rows([TableRow("x", {**ROWS[0], "title": "One more pin on an open file"}), TableRow("y", go)], {})
    with pytest.raises(PrimerError, match="cannot be written to"):
        add_seeds([at.topic for at in seeds], tmp_path)
    assert path.read_bytes() == before, "all fields or none"
    path.write_text("broken\n", encoding="utf-8")
    with pytest.raises(PrimerError, match="header"):
        add_seeds([at.topic for at in seeds], tmp_path)
    assert path.read_text(encoding="utf-8") == "broken\n"


def test_a_new_title_keeps_the_id(tmp_path: Path) -> None:
    seeds, _ = read_rows([TableRow("x", row) for row in ROWS], {})
    add_seeds([at.topic for at in seeds], tmp_path)
    path = tmp_path / "chess.tsv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("Castling late and paying for it", "The king that stayed in the middle"), "utf-8")
    before = {row["title"] for row in ROWS}
    (renamed,) = [topic for topic in read_seeds(path) if topic.title not in before]
    assert renamed.id == "chess-0002"
    seeds, _ = read_rows([TableRow("x", {**ROWS[0], "title": "One more about the same pin"})], {})
    add_seeds([at.topic for at in seeds], tmp_path)
    assert [topic.id for topic in read_seeds(path) if topic.title == "The king that stayed in the middle"] == [
        "chess-0002"
    ], "adding seeds changes no id"


def topic(number: int, subfield: str) -> Topic:
    return Topic(f"chess-{number:04d}", "chess", subfield, "concept", ("middle",), f"Title number {number} here")


def test_thin_areas_come_first() -> None:
    topics = [topic(i, "tactics") for i in range(9)] + [topic(20 + i, "rules") for i in range(2)]
    areas = thin_areas(topics, None, [], [], 5)
    assert [(area.subfield, area.seeds) for area in areas] == [("rules", 2), ("tactics", 9)]
    assert thin_areas(topics, None, ["go"], [], 5) == []
    assert [area.subfield for area in thin_areas(topics, None, [], ["tactics"], 5)] == ["tactics"]


def test_a_proposal_prompt_shows_the_area_and_its_manner() -> None:
    area = Area("chess-and-go", "rules", 2, 5.5)
    topics = [Topic("chess-and-go-0001", "chess-and-go", "rules", "skill", ("middle", "high"), "Offering a draw")]
    (message,) = proposal_prompt(area, topics, 7)
    text = message["content"]
    assert "Field: chess and go" in text
    assert "Subject: rules" in text
    assert "skill | middle,high | Offering a draw" in text
    assert "Write 7 new topics" in text
    assert "{{" not in text


def test_only_lines_of_the_form_are_proposals() -> None:
    reply = (
        "Here are your topics:\n"
        "kind | levels | title\n"
        "1. concept | high, middle | A pawn ending turns on a single tempo.\n"
        "- skill | middle | Counting attackers and defenders of a square\n"
        "nonsense without bars\n"
        "idea | middle | A kind that is none\n"
    )
    rows = parse_proposals(reply, Area("chess", "endgames", 1, 5.0))
    assert [row.values["title"] for row in rows] == [
        "A pawn ending turns on a single tempo",
        "Counting attackers and defenders of a square",
        "A kind that is none",
    ]
    assert rows[0].values["levels"] == "middle,high"
    assert len(parse_proposals(reply, Area("chess", "endgames", 1, 5.0), cut_off=True)) == 2
    seeds, findings = read_rows(rows, {})
    assert len(seeds) == 2
    assert "'idea'" in findings[0].problem


def test_a_review_file_is_what_import_reads(tmp_path: Path) -> None:
    seeds, _ = read_rows([TableRow("x", row) for row in ROWS], {})
    topics = [at.topic for at in seeds]
    path = tmp_path / "review.csv"
    path.write_text(review_table(topics, topics, [0.5] * 3), encoding="utf-8")
    assert [row.values for row in read_table(str(path))] == ROWS
