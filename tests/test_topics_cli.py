"""`primer topics` as people type it, on a list small enough to know by heart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mock_endpoint import Faults, running
from typer.testing import CliRunner

from primer.cli import app
from primer.errors import PrimerError
from topics.seeds import COLUMNS, load_topics

SEEDS = {
    "chess": [
        ("tactics", "concept", "middle,high", "A pinned knight cannot leave its file"),
        ("tactics", "skill", "middle", "Finding a fork that wins a rook"),
        ("openings", "story", "primary,middle", "Castling late and paying for it"),
        ("endgames", "procedure", "high", "Mating a lone king with two rooks"),
    ],
    "bees": [
        ("the hive", "process", "primary", "Nectar thickens into honey as the bees fan it"),
        ("the hive", "cause", "early,primary", "Why bees dance when they come home"),
        ("keeping bees", "procedure", "adult", "Calming a hive with smoke before opening it"),
        ("keeping bees", "misconception", "middle", "A bee that stings a wasp does not die of it"),
        ("keeping bees", "everyday", "early", "Sitting still until the bee has flown on"),
    ],
}


@pytest.fixture
def mine(tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMER_EVAL_DATA", raising=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    for field, rows in SEEDS.items():
        lines = ["\t".join(COLUMNS), *("\t".join((f"{field}-{i:04d}", *row)) for i, row in enumerate(rows, start=1))]
        (folder / f"{field}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def topics(*arguments: str, status: int = 0) -> str:
    """Run `primer topics`; what it printed."""
    result = CliRunner().invoke(app, ["topics", *arguments])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


def test_stats_count_what_is_there(mine: Path) -> None:
    text = topics("stats", "--list", str(mine))
    assert re.search(r"chess +4 +44\.4% +3", text)
    assert re.search(r"bees +5 +55\.6% +2", text)
    assert "procedure 2" in text
    assert "9 seeds, 2 fields, 5 subfields" in text
    assert "everyday-physics" in topics("stats")


def test_sample_draws_evenly_and_filters(mine: Path) -> None:
    rows = [json.loads(line) for line in topics("sample", "--list", str(mine), "-n", "4", "--jsonl").splitlines()]
    assert sorted(row["field"] for row in rows) == ["bees", "bees", "chess", "chess"]
    assert topics("sample", "--list", str(mine), "--jsonl") == topics("sample", "--list", str(mine), "--jsonl")
    assert topics("sample", "--list", str(mine)) != topics("sample", "--list", str(mine), "--seed", "1")
    assert topics("sample", "--list", str(mine), "--kind", "story").startswith("Castling late")
    assert "chess-0003 · openings · story · primary to middle" in topics(
        "sample", "--list", str(mine), "--kind", "story"
    )
    young = topics("sample", "--list", str(mine), "--level", "early", "--jsonl").splitlines()
    assert {json.loads(line)["id"] for line in young} == {"bees-0002", "bees-0005"}
    with pytest.raises(PrimerError, match=r"(?s)--kind is 'stroy'.*story"):
        topics("sample", "--kind", "stroy")
    with pytest.raises(PrimerError, match="No seed is left"):
        topics("sample", "--list", str(mine), "--kind", "story", "--level", "adult")


def test_sample_draws_as_a_recipe_does(mine: Path) -> None:
    recipe = mine.parent / "r.yaml"
    recipe.write_text(
        f'name: r\ntopics: {{lists: ["{mine}"], weights: {{fields: {{chess: 0}}, kinds: {{everyday: 5}}}}}}\n',
        encoding="utf-8",
    )
    rows = [json.loads(line) for line in topics("sample", "--recipe", str(recipe), "--jsonl").splitlines()]
    assert {row["field"] for row in rows} == {"bees"}
    assert sum(row["kind"] == "everyday" for row in rows) >= 2
    for more in (["--field", "bees"], ["--seed", "4"]):
        with pytest.raises(PrimerError, match="--recipe says"):
            topics("sample", "--recipe", str(recipe), *more)
    recipe.write_text("name: r\nprompts: {forms: {python-lesson: 1}}\n", encoding="utf-8")
    rows = [json.loads(line) for line in topics("sample", "--recipe", str(recipe), "--jsonl").splitlines()]
    assert {row["field"] for row in rows} == {"python-programming"}, "only what the recipe's forms suit"


def test_show_tells_where_a_seed_stands_and_what_is_near(mine: Path) -> None:
    text = topics("show", "bees-0002", "--list", str(mine))
    assert text.startswith("Why bees dance when they come home\n")
    assert f"{mine}/bees.tsv, line 3" in text
    assert "early, primary" in text
    near = text.splitlines()[7:]
    assert len(near) == 5
    assert "bees-0002" not in " ".join(near)
    with pytest.raises(PrimerError, match=r"(?s)no seed 'bees-0020'.*Did you mean bees-000"):
        topics("show", "bees-0020", "--list", str(mine))


def test_brackets_in_a_title_are_shown_as_they_are(mine: Path) -> None:
    with (mine / "chess.tsv").open("a", encoding="utf-8") as file:
        file.write("chess-0005\tnotation\tskill\thigh\tReading board[i][j] as a square [bold]\n")
    for text in (
        topics("show", "chess-0005", "--list", str(mine)),
        topics("sample", "--list", str(mine)),
        topics("search", "board square", "--list", str(mine)),
    ):
        assert "Reading board[i][j] as a square [bold]" in text


def test_search_finds_by_meaning(mine: Path) -> None:
    text = topics("search", "how", "is", "honey", "made", "-n", "2", "--list", str(mine))
    first, about, *_ = text.splitlines()
    assert "Nectar thickens into honey" in first
    assert "bees-0001 · the hive · process · primary" in about
    found = topics("search", "checkmate", "-n", "1", "--list", str(mine), "--jsonl")
    assert json.loads(found)["id"] == "chess-0004"
    assert json.loads(topics("search", "honey", "-n", "1", "--list", str(mine), "--field", "chess", "--jsonl"))[
        "id"
    ].startswith("chess")


def test_audit_passes_a_good_list_fails_a_bad_one_and_draws_the_map(mine: Path) -> None:
    text = topics("audit", "--list", str(mine), "--page", "map.html")
    assert "FAILED" not in text
    page = Path("map.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r"const DATA = (\{.*\});\n", page)[1])  # type: ignore[index]
    assert {seed[8] for seed in data["seeds"]} == {row[3] for rows in SEEDS.values() for row in rows}
    assert all(0 <= seed[0] <= data["size"] and 0 <= seed[1] <= data["size"] for seed in data["seeds"])
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", page), "the page needs nothing from anywhere"

    with (mine / "chess.tsv").open("a", encoding="utf-8") as file:
        file.write("chess-0005\tendgames\tconcept\thigh\tThe pinned knight that cannot leave the file\n")
        file.write("chess-0006\tendgames\tconcept\thigh\t</script><b>Rooks & kings\n")
        file.write("chess-0007\tendgames\tidea\thigh\tA draw by repetition\n")
    text = topics("audit", "--list", str(mine), "--page", "map.html", status=1)
    assert "FAILED every line is a seed" in text
    assert "'idea'" in text
    assert "says the same as" in text
    page = Path("map.html").read_text(encoding="utf-8")
    assert "</script><b>" not in page


def test_audit_measures_benchmarks_it_is_given(mine: Path) -> None:
    (mine.parent / "data" / "quiz").mkdir(parents=True)
    rows = ["What do bees make from nectar?", "How does a rook give mate?", "Which planet has rings?"]
    (mine.parent / "data" / "quiz" / "test.jsonl").write_text(
        "".join(json.dumps({"question": row, "choices": ["Finding a fork that wins a rook"]}) + "\n" for row in rows),
        encoding="utf-8",
    )
    text = topics("audit", "--list", str(mine), "--page", "map.html", "--data", "data", status=1)
    assert "FAILED no seed copies a question or an answer" in text
    assert "'Finding a fork that wins a rook' shares" in text
    assert re.search(r"covers quiz: 67% of 3 questions", text)


def test_import_writes_nothing_unless_every_row_passes(mine: Path) -> None:
    table = Path("more.csv")
    table.write_text(
        "title,kind,levels,note\n"
        "Choosing a dry spot for the first hive,skill,adult,a\n"
        "Why bees dance on coming home,cause,primary,b\n"
        "Honey,concept,primary,c\n",
        encoding="utf-8",
    )
    before = {path: path.read_bytes() for path in mine.iterdir()}
    arguments = ["import", str(table), "--to", str(mine), "--field", "bees", "--alone"]
    with pytest.raises(PrimerError, match=r"2 of 3 rows of more\.csv do not pass; nothing was written"):
        topics(*arguments)
    assert {path: path.read_bytes() for path in mine.iterdir()} == before
    text = topics(*arguments, "--skip-bad")
    assert "more.csv, line 3: " in text
    assert "more.csv, line 4: " in text
    added = [topic for topic in load_topics(lists=[str(mine)]) if topic.id == "bees-0006"]
    assert [(topic.title, topic.subfield) for topic in added] == [("Choosing a dry spot for the first hive", "general")]


def test_what_cannot_be_written_is_said_before_the_work(mine: Path) -> None:
    with pytest.raises(PrimerError, match=r"--page is nowhere/map\.html"):
        topics("audit", "--list", str(mine), "--page", "nowhere/map.html")
    with pytest.raises(PrimerError, match="--page is mine, which is a folder"):
        topics("audit", "--list", str(mine), "--page", "mine")
    with pytest.raises(PrimerError, match=r"--out is nowhere/review\.csv"):
        topics("extend", "r.yaml", "--out", "nowhere/review.csv")
    Path("file").touch()
    Path("more.csv").write_text("title,kind,levels\nA new idea about bees,concept,high\n", encoding="utf-8")
    with pytest.raises(PrimerError, match="file cannot be written to"):
        topics("import", "more.csv", "--to", "file", "--field", "bees", "--alone")


def test_import_refuses_what_primers_own_list_has_unless_it_stands_alone(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topics.seeds.FIELDS_FOLDER", mine)  # embedding the whole list would take a minute
    table = Path("more.csv")
    table.write_text("title,kind,levels\nThe bee's dance when they come home,concept,high\n", encoding="utf-8")
    arguments = ["import", str(table), "--to", "new-list", "--field", "other-bees"]
    with pytest.raises(PrimerError, match="1 of 1 rows"):
        topics(*arguments)
    assert not Path("new-list").exists()
    topics(*arguments, "--alone")
    assert [topic.id for topic in load_topics(lists=["new-list"])] == ["other-bees-0001"]
    with pytest.raises(PrimerError, match=r"(?s)The fields bees are Primer's own.*--to primer"):
        topics("import", "more.csv", "--to", "third", "--field", "bees")
    table.write_text("title,kind,levels\nWagons wait for the last of the harvest,concept,high\n", encoding="utf-8")
    topics("import", "more.csv", "--to", "primer", "--field", "bees", "--subfield", "the hive")
    assert (mine / "bees.tsv").read_text(encoding="utf-8").count("bees-0006") == 1
    assert not Path("primer").exists()


REPLY = """Here are some topics.
concept | middle,high | A knight on the rim has fewer squares to go to
concept | middle,high | The pinned knight that cannot leave its file
idea | middle | Queens are strong pieces
skill | high | Counting the moves of a pawn race before it starts
"""


def test_extend_asks_about_thin_areas_and_writes_only_a_review_file(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mock_endpoint.prose", lambda _generator, _words: REPLY)
    recipe = mine.parent / "r.yaml"
    before = {path: path.read_bytes() for path in mine.iterdir()}
    with running(Faults()) as mock:
        recipe.write_text(
            f"name: r\nsynth: {{teacher: {{kind: openai, base_url: {mock.address}, model: mock}}}}\n", encoding="utf-8"
        )
        arguments = ["extend", str(recipe), "--list", str(mine), "--field", "chess", "--areas", "1"]
        output = topics(*arguments, "--out", "review.csv")
        (body,) = mock.bodies
    assert "Subject: endgames" in body["messages"][-1]["content"], "a subfield with one seed comes first"
    assert {path: path.read_bytes() for path in mine.iterdir()} == before, "nothing enters unseen"
    lines = Path("review.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "title,field,subfield,kind,levels,nearest,cosine"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "A knight on the rim has fewer squares to go to",
        "Counting the moves of a pawn race before it starts",
    ]
    assert "'idea'" in output
    assert "says the same" in output
    with pytest.raises(PrimerError, match=r"review\.csv exists already"):
        topics(*arguments, "--out", "review.csv")
    topics("import", "review.csv", "--to", str(mine), "--alone")
    assert [topic.subfield for topic in load_topics(lists=[str(mine)]) if topic.field == "chess"] == [
        "tactics",
        "tactics",
        "openings",
        "endgames",
        "endgames",
        "endgames",
    ]


def test_extend_says_when_a_teacher_cannot_be_used_or_has_nothing_to_say(mine: Path) -> None:
    recipe = mine.parent / "r.yaml"
    with running(Faults()) as mock:
        recipe.write_text(
            f"name: r\nsynth: {{teacher: {{kind: openai, base_url: {mock.address}, model: mock}}}}\n", encoding="utf-8"
        )
        with pytest.raises(PrimerError, match="Nothing to review"):
            topics("extend", str(recipe), "--list", str(mine))
        with pytest.raises(PrimerError, match="No subfield"):
            topics("extend", str(recipe), "--list", str(mine), "--subfield", "boxing")
    with pytest.raises(PrimerError, match="cannot be reached"):
        topics("extend", str(recipe), "--list", str(mine))
    with running(Faults()) as mock:
        text = recipe.read_text(encoding="utf-8")
        recipe.write_text(re.sub(r"http://[^,]+", mock.address, text), encoding="utf-8")
        with pytest.raises(PrimerError, match="holds no benchmark data"):
            topics("extend", str(recipe), "--list", str(mine), "--data", "nowhere")
        assert mock.requests == 0, "what is wrong without the teacher costs nothing"
    assert not Path("topics-review.csv").exists()
