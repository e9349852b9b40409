"""`primer prompts`: what a user sees of the stream, and of a form that is being written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prompt_samples import USERS_FORM
from typer.testing import CliRunner

from primer.errors import PrimerError
from primer.prompts_cli import app


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_show_prints_a_unit_with_its_provenance_and_the_same_again() -> None:
    first = run("show", "12345")
    assert first == run("show", "12345")
    assert first != run("show", "12346")
    for word in ("unit 12,345", "topic ", "form ", "audience ", "register ", "required words ", "[system]", "[user]"):
        assert word in first


def test_show_as_json_holds_every_choice_and_all_prompts_of_a_book() -> None:
    row = json.loads(run("show", "3", "--jsonl", "--set", "prompts.forms={book: 1.0}"))
    assert row["form"] == "book"
    assert len(row["messages"]) == 5
    assert row["topic"] in row["messages"][0][1]["content"]
    assert {"audience", "level", "length", "register", "language", "required_words", "passage", "seed", "words"} <= set(
        row
    )


def test_sample_draws_from_everywhere_and_by_its_seed() -> None:
    rows = [json.loads(line) for line in run("sample", "-n", "5", "--jsonl").splitlines()]
    assert len(rows) == 5
    assert max(row["index"] for row in rows) > 100_000
    other = [json.loads(line)["index"] for line in run("sample", "-n", "5", "--seed", "1", "--jsonl").splitlines()]
    assert other != [row["index"] for row in rows]


def test_stats_count_every_axis_and_find_no_two_equal_prompts() -> None:
    text = run("stats", "-n", "2000")
    for word in ("form", "audience", "level", "length", "register", "language", "passage", "required_words", "field"):
        assert word in text
    assert "english" in text
    assert "2,000 units on 2,000 topics; 0 prompts equal an earlier one" in text
    same = run("stats", "-n", "500", "--set", "prompts.required_words=0", "--set", "topics.fields=[algebra]")
    assert "500 units on " in same


def test_render_previews_a_form_with_a_passage_on_topics_that_it_suits(tmp_path: Path) -> None:
    path = tmp_path / "rhyme.j2"
    path.write_text(USERS_FORM, encoding="utf-8")
    text = run("render", str(path), "-n", "2", "--passage", "The {{ title }} of the old mill.")
    assert text.count("Write a rhyme of eight lines") == 2
    assert text.count("Passage: The {{ title }} of the old mill.") == 2


def test_render_names_file_line_and_variable(tmp_path: Path) -> None:
    path = tmp_path / "rhyme.j2"
    path.write_text(USERS_FORM.replace("{{ title }}", "{{ titel }}"), encoding="utf-8")
    with pytest.raises(PrimerError, match=r"(?s)rhyme\.j2, line 7: there is no variable 'titel'.*Did you mean title"):
        run("render", str(path))
    (tmp_path / "latin.j2").write_bytes(USERS_FORM.encode().replace(b"rhyme", b"rh\xffme"))
    with pytest.raises(PrimerError, match=r"latin\.j2, line 2: is not UTF-8|latin\.j2, line 7: is not UTF-8"):
        run("render", str(tmp_path / "latin.j2"))
    with pytest.raises(PrimerError, match=r"is a folder"):
        run("render", str(tmp_path))
    with pytest.raises(PrimerError, match=r"nowhere\.j2 cannot be read: No such file"):
        run("render", str(tmp_path / "nowhere.j2"))


def test_passages_need_the_runs_web_corpus_and_the_message_says_so(repository: Path, tmp_path: Path) -> None:
    recipe = str(repository / "recipes" / "demo.yaml")
    with pytest.raises(PrimerError, match=r"(?s)corpus/web is not there yet.*primer synth.*snippet_share=0"):
        run("show", "3", "--recipe", recipe, "--run", str(tmp_path / "none"))
    assert "passage none" in run("show", "3", "--recipe", recipe, "--set", "prompts.snippet_share=0")
