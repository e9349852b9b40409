"""Reports of other runs: parts missing, several at once, seeds, hostile text, damaged files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from html_page import Page, assert_self_contained, numbers_of, rows_of
from report_fixture import Scene, build_run, make_recipe

from eval import run_facts
from eval.report import write_comparison, write_report
from eval.subjects import find_subjects
from primer.errors import PrimerError
from primer.run import RunFolder

HOSTILE = (
    "</pre></title></style><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}&amp;\"'\u202e\x00\x1b[31m"
)


def page_of(path: Path, scene: Scene) -> tuple[str, RunFolder]:
    run = build_run(path, scene)
    return write_report(scene.recipe, run).read_text(encoding="utf-8"), run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunFolder]:
    scene = Scene(
        make_recipe(description=f"A test. {HOSTILE}"),
        web_text=f"{HOSTILE} ",
        prompt=HOSTILE.replace("{", "{{").replace("}", "}}") + "{topic}",
        foreign=f"|`{HOSTILE}# *x* [a](b)",
    )
    return page_of(tmp_path_factory.mktemp("hostile") / "run", scene)


def test_rows_that_changed_after_the_corpora_were_made_count_as_not_compared(tmp_path: Path):
    scene = Scene(make_recipe("web", "mixed"), suites=("physical", "science"))
    run = build_run(tmp_path / "run", scene)
    caption = "Documents that were left out of a corpus"
    assert rows_of(write_report(scene.recipe, run).read_text("utf-8"), caption)["Everyday physics"] == ["0", "0", "0"]
    for source in ("synthetic", "web", "code"):
        room = "corpus" if source == "synthetic" else "refined"
        path = run.folder(f"{room}/{source}") / "manifest.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        data["inputs"]["benchmark built-in physical"] = "hash of what it was then"
        path.write_text(json.dumps(data), encoding="utf-8")
    html = write_report(scene.recipe, run).read_text("utf-8")
    assert "Everyday physics" not in rows_of(html, caption)
    assert "when a corpus was made: Everyday physics." in " ".join(Page(html).text.split())


def test_seeds_are_said_and_their_models_stand_in_the_table_of_trainings(tmp_path: Path):
    recipe = make_recipe("synthetic", "web")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seeds": 2})})
    html, run = page_of(tmp_path / "run", Scene(recipe, suites=("science", "arc_easy"), toxicity=False))
    assert "Training seeds that are pooled: synthetic 2, web 2" in " ".join(Page(html).text.split())
    assert rows_of(html, "The models and their training")[""][1:3] == ["synthetic", "synthetic, seed 2"]
    assert numbers_of(run)["seeds"] == {"synthetic": 2, "web": 2}


def test_several_runs_and_models_from_elsewhere_are_compared_on_one_page(tmp_path: Path):
    first = make_recipe("web", name="first")
    second = make_recipe("web", "mixed", name="second", train=first.train.model_copy(update={"learning_rate": 1e-3}))
    for recipe in (first, second):
        build_run(tmp_path / recipe.name, Scene(recipe, suites=("science", "arc_easy"), toxicity=False))
    elsewhere = tmp_path / "elsewhere" / "eval" / "public-model"
    elsewhere.mkdir(parents=True)
    for name in ("results.json", "items.parquet"):
        (elsewhere / name).write_bytes((tmp_path / "second" / "eval" / "mixed" / name).read_bytes())
    subjects = find_subjects([tmp_path / "first", tmp_path / "second", tmp_path / "elsewhere"])
    command = "primer report first second elsewhere --output 'a <b>'"
    html = write_comparison(subjects, tmp_path / "out", 1, 200, command).read_text(encoding="utf-8")
    assert command in Page(html).text
    assert command in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    page = Page(html)
    assert_self_contained(page, html)
    names = ["first/web", "second/web", "second/mixed", "public-model"]
    assert rows_of(html, "Per cent right, with 95% intervals and")[""][2:6] == names
    differences = rows_of(html, "Settings in which the runs differ")
    assert differences["train.learning_rate"] == ["0.002", "0.001"]
    assert "train.tokens" not in differences
    assert rows_of(html, "second: what each variant was trained on")[""] == ["Source", *names[1:3]]
    alone = write_comparison(find_subjects([tmp_path / "elsewhere"]), tmp_path / "alone", 1, 200)
    html = alone.read_text(encoding="utf-8")
    assert_self_contained(Page(html), html)
    sections = [a["id"] for a in Page(html).tags("h2")]
    assert sections == ["answer", "accuracy", "published", "held-out-text", "contamination", "again", "limits"]
    assert (tmp_path / "alone" / "report.md").read_text(encoding="utf-8").startswith("# Comparison of models\n")


def test_markdown_says_the_same_with_nothing_in_it_that_is_markup_of_others(hostile: tuple[str, RunFolder]):
    html, run = hostile
    text = (run.folder("report") / "report.md").read_text(encoding="utf-8")
    outside = re.sub(r"^(```+)\n.*?\n\1$", "", text, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)<(?!https://arxiv)", outside)
    assert not re.search(r"(?<!\\)\]\(", outside)
    tables = re.findall(r"^\|.*\|$(?:\n\|.*\|$)+", outside, re.M)
    assert len(tables) > 10
    for table in tables:  # no cell holds a bar that ends it
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == re.findall(r'<h2 id="[^"]+">(.*?)</h2>', html)
    assert "\x1b" not in text


def test_a_run_whose_corpora_say_nothing_of_it_has_a_report_without_these_tables(tmp_path: Path):
    scene = Scene(make_recipe("web", "mixed"), suites=("science", "arc_easy"), cleaned=False)
    run = build_run(tmp_path / "run", scene)
    for variant in ("web", "mixed"):
        path = run.folder(f"models/{variant}") / "manifest.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        del data["facts"]["tokens_by_source"], data["facts"]["epochs"]
        path.write_text(json.dumps(data), encoding="utf-8")
    html = write_report(scene.recipe, run).read_text(encoding="utf-8")
    page = Page(html)
    assert_self_contained(page, html)
    assert "not compared" not in page.text
    assert "Documents that were left out of each source" not in page.text
    assert "nothing was taken out of it here." in page.text
    assert "Duplicates" in rows_of(html, "The corpora")[""]
    assert rows_of(html, "What each variant was trained on")["code"] == ["– asked 20%", "– asked 20%"]


def test_hostile_text_is_shown_and_never_obeyed(hostile: tuple[str, RunFolder]):
    html, run = hostile
    page = Page(html)
    assert_self_contained(page, html)
    assert html.count("<script") == 1
    assert "\x00" not in html
    assert "\x1b" not in html
    assert "{{ 7*7 }}" in page.text
    assert page.text.count("<script>alert(1)</script>") > 30
    assert numbers_of(run)["variants"] == ["synthetic", "web", "mixed"]


def test_what_was_not_measured_is_absent(tmp_path: Path):
    html, _ = page_of(tmp_path / "run", Scene(make_recipe(), toxicity=False, suites=("science", "social")))
    page = Page(html)
    assert_self_contained(page, html)
    assert "Safety" not in page.text
    assert "Mean of the benchmarks" not in page.text
    assert "Mean of the built-in suites" in page.text
    html, _ = page_of(tmp_path / "bare", Scene(make_recipe(), toxicity=False, suites=()))
    page = Page(html)
    assert_self_contained(page, html)
    assert "Accuracy" not in page.text
    assert "No suite of questions was run." in page.text


def test_a_single_variant_has_a_report_without_comparisons(tmp_path: Path):
    html, run = page_of(tmp_path / "run", Scene(make_recipe("web"), suites=("science",)))
    page = Page(html)
    assert_self_contained(page, html)
    assert "There is one variant, web, and so nothing to compare" in " ".join(page.text.split())
    assert "All tests" not in page.text
    assert "ahead" not in page.text
    assert "Within noise" not in page.text
    assert run.require("report").facts["differences"] == 0


def test_the_verdict_of_models_at_chance_stands_at_the_top(tmp_path: Path):
    html, _ = page_of(tmp_path / "run", Scene(make_recipe(), skill={}, suites=("science", "social", "reading")))
    assert "None of the variants answers questions better than chance" in Page(html).text
    assert "*</td>" not in html


def test_running_again_repeats_nothing_until_a_fact_changes(tmp_path: Path):
    scene = Scene(make_recipe("web", "mixed"), suites=("science",))
    run = build_run(tmp_path / "run", scene)
    path = write_report(scene.recipe, run)
    before = path.stat().st_mtime_ns
    assert write_report(scene.recipe, run).stat().st_mtime_ns == before
    manifest = run.folder("corpus/synthetic") / "manifest.json"
    data = json.loads(manifest.read_text(encoding="utf-8"))
    data["facts"]["cost_usd"] = 3.5
    manifest.write_text(json.dumps(data), encoding="utf-8")
    assert "3.50 US dollars" in write_report(scene.recipe, run).read_text(encoding="utf-8")


def test_missing_stages_and_damaged_logs_are_errors_that_say_what_to_do(tmp_path: Path):
    recipe = make_recipe("web", "mixed")
    scene = Scene(recipe, suites=("science",))
    run = build_run(tmp_path / "run", scene)
    log = run.folder("models/web") / "training.jsonl"
    text = log.read_text(encoding="utf-8")
    log.write_text(text + '{"step": 301, "los', encoding="utf-8")
    with pytest.raises(PrimerError, match=r"training.jsonl, line 301"):
        write_report(recipe, run)
    log.write_text(text + '{"step": 301, "tokens": 2465792, "loss": null}\n{"tokens": 2473984, "loss": NaN}\n', "utf-8")
    assert "web: 2 logged steps had no finite loss" in write_report(recipe, run).read_text(encoding="utf-8")
    (run.folder("eval/mixed") / "manifest.json").unlink()
    with pytest.raises(PrimerError, match=r"eval/mixed is not there yet"):
        write_report(recipe, run)


def test_commands_name_a_shipped_recipe_only_if_it_is_that_recipe(repository: Path):
    from primer.recipe_file import load_recipe

    smoke = repository / "recipes" / "smoke.yaml"
    assert run_facts.reproduce_commands(load_recipe(smoke)) == (
        ["make smoke", "primer report recipes/smoke.yaml"],
        True,
    )
    changed = load_recipe(smoke, ["train.learning_rate=1e-5"])
    assert run_facts.reproduce_commands(changed) == (["primer report smoke.yaml"], False)


def test_importing_the_report_is_light():
    code = (
        "import sys, primer.run, primer.recipe, primer.fingerprint; before = set(sys.modules); import eval.report; "
        "print(sorted(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "['eval', 'eval.report']"
