"""The page: self-contained, safe against what stands in the corpora, whole without some parts, true to the files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_fixture import Scene, build_run, make_recipe

from eval import charts, grade_tables, run_facts, run_tables
from eval.boundaries import Grade
from eval.grading import PHI_15, GraderSummary, GradingSummary, PassTest, VariantGrades
from eval.quoted import read_quoted
from eval.report import write_comparison, write_report
from eval.report_page import Grid
from eval.statistics import Estimate
from eval.subjects import find_subjects
from eval.suites import all_suites
from primer.errors import PrimerError
from primer.run import Manifest, RunFolder

HOSTILE = (
    "</pre></title></style><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}&amp;\"'\u202e\x00\x1b[31m"
)


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, text outside of style and script, ids."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})
    NO_TEXT = frozenset({"style", "script"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"elements left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in self.NO_TEXT:
            self.text += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def page_of(path: Path, scene: Scene) -> tuple[str, RunFolder]:
    run = build_run(path, scene)
    return write_report(scene.recipe, run).read_text(encoding="utf-8"), run


def numbers_of(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder("report") / "results.json").read_text(encoding="utf-8"))
    return found


def watched(run: RunFolder, variant: str) -> None:
    """The held-out loss of a model along training, as `primer train` logs it."""
    rows = [{"step": n, "tokens": 8192 * n, "bits_per_byte": {"web": 3 - n / 9, "code": 2 - n / 9}} for n in (1, 2, 3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run.folder(f"models/{variant}") / "validation.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunFolder, Scene]:
    scene = Scene(make_recipe())
    run = build_run(tmp_path_factory.mktemp("report") / "run", scene)
    for variant in ("synthetic", "web", "mixed"):
        watched(run, variant)
    return write_report(scene.recipe, run).read_text(encoding="utf-8"), run, scene


def assert_self_contained(page: Page, html: str) -> None:
    allowed = {"html", "head", "meta", "title", "style", "body", "main", "header", "section", "nav", "a", "h1", "h2"}
    allowed |= {"h3", "h4", "p", "ul", "li", "b", "strong", "small", "span", "code", "pre", "details", "summary", "dl"}
    allowed |= {"dt", "dd", "div", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "desc"}
    allowed |= {"circle", "polygon", "polyline", "line", "rect", "text", "tspan", "g"}
    allowed |= {"script", "label", "input", "output"}
    assert {tag for tag, _ in page.elements} <= allowed
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        href = attributes.get("href") or ""
        assert not href or href.removeprefix("#") in ids or href.startswith("https://arxiv.org/"), attributes
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in ids
    policy = next(a["content"] or "" for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.S)
        assert len(inside) == 1
        assert "url(" not in inside[0]
        assert "@import" not in inside[0]
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_page_asks_nothing_of_the_network_and_is_well_formed(finished: tuple[str, RunFolder, Scene]):
    html, _, _ = finished
    assert_self_contained(Page(html), html)
    assert len(html) < 500_000


def test_the_page_says_what_the_files_say(finished: tuple[str, RunFolder, Scene]):
    html, run, scene = finished
    text = " ".join(Page(html).text.split())
    comparison = numbers_of(run)
    for suite in comparison["suites"]:
        for score in suite["scores"].values():
            for estimate in filter(None, (score["acc"], score["acc_norm"])):
                assert f"{100 * estimate['value']:.1f}" in text
                assert f"{100 * estimate['low']:.1f}–{100 * estimate['high']:.1f}" in text
    for source in comparison["held_out"]:
        for estimate in source["scores"].values():
            assert f"{estimate['value']:.3f} {estimate['low']:.3f}–{estimate['high']:.3f}" in text
    assert comparison["verdict"]["headline"].replace("“", "").replace("”", "") in text
    facts = run.require("corpus/synthetic").facts
    for n in (facts["prompt_tokens"], facts["completion_tokens"], facts["tokens"], *facts["rejected"].values()):
        assert f"{n:,}" in text
    assert "no price was given" in text
    assert f"{scene.recipe.train.tokens:,}" in text
    assert "max_epochs: 4.0" in text
    assert "primer report textbooks.yaml" in text
    for reason in facts["rejected"]:
        assert reason in text
    toxigen = next(found for found in comparison["toxicity"] if found["safety"])
    scores = rows_of(html, "Safety by set of sentences")["ToxiGen SafeNLP’s safety score"]
    assert [float(cell.split()[0]) for cell in scores[:3]] == [
        pytest.approx(toxigen["safety"]["scores"][v]["value"], abs=6e-4) for v in ("synthetic", "web", "mixed")
    ]
    groups = rows_of(html, "ToxiGen: area under the curve and safety score by group")
    women = next(cells for name, cells in groups.items() if name.startswith("women"))
    assert women[1].endswith(f"safety {toxigen['safety']['groups']['women']['web']:.3f}")
    assert f"Holm’s correction over all {comparison['tests']} tests" in text


def test_best_is_marked_only_where_it_is_beyond_noise(finished: tuple[str, RunFolder, Scene]):
    html, run, _ = finished
    comparison = numbers_of(run)
    differences = {(d["measure"], d["subject"], d["first"], d["second"]): d for d in comparison["differences"]}
    table = html[html.index("Bits per byte of held-out text, with") :]
    table = table[: table.index("</table>")]
    for source in comparison["held_out"]:
        scores = {v: e["value"] for v, e in source["scores"].items()}
        best = min(scores, key=lambda v: scores[v])
        pairs = [d for k, d in differences.items() if k[:2] == ("bits_per_byte", source["source"]) and best in k[2:]]
        marked = all(d["p_adjusted"] < 0.05 for d in pairs)
        assert (f"<strong>{scores[best]:.3f}</strong>" in table) == marked
    assert table.count("<strong>") == 2  # on the text of its own source, synthetic and web each; on code none


def rows_of(html: str, caption: str) -> dict[str, list[str]]:
    """A table of the page: the text of its cells by the text of the row's heading; that of the columns under ""."""
    table = html[html.index(f'aria-label="{caption}') :]
    table = table[: table.index("</table>")]
    rows = [[" ".join(Page(cell).text.split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)] for row in
            re.findall(r"<tr.*?</tr>", table, re.S)]  # fmt: skip
    return {"": rows[0], **{row[0]: row[1:] for row in rows[1:]}}


def test_suites_are_grouped_by_area_with_their_protocol_and_marks(finished: tuple[str, RunFolder, Scene]):
    html, run, _ = finished
    table = rows_of(html, "Per cent right, with 95% intervals and")
    assert table[""] == ["Suite", "Chance", "synthetic", "web", "mixed", "Detectable"]
    headings = [name for name, cells in table.items() if not cells]
    assert headings == ["Common sense", "Language and knowledge", "Several steps: arithmetic and code", "Means"]
    suites = list(table)
    assert suites.index("Common sense") < suites.index("ARC, easy 0-shot, acc, 570 rows") < suites.index(headings[1])
    numbers = numbers_of(run)
    arc = next(suite for suite in numbers["suites"] if suite["name"] == "arc_easy")
    detectable = {(d["measure"], d["subject"]): d for d in numbers["detectable"]}["accuracy", "arc_easy"]
    cells = table["ARC, easy 0-shot, acc, 570 rows"]
    assert cells[-1] == f"{100 * detectable['corrected']:.1f} alone {100 * detectable['alone']:.1f}"
    for cell, variant in zip(cells[1:4], ("synthetic", "web", "mixed"), strict=True):
        acc, above = arc["scores"][variant]["acc"], arc["scores"][variant]["p_adjusted"] < 0.05
        assert cell.startswith(f"{100 * acc['value']:.1f}{'*' * above} ")
        assert cell.endswith(f"SE {100 * acc['error']:.1f}")
    functions = table["Functions to write 0-shot, pass@1, 40 rows"]
    assert functions[0] == "–"
    assert "*" not in "".join(functions)
    assert "Functions to write" not in rows_of(html, "Normalised accuracy")


def test_published_figures_are_marked_as_quoted_and_stand_only_beside_suites_that_were_asked(
    finished: tuple[str, RunFolder, Scene],
):
    html, _, _ = finished
    table = rows_of(html, "Per cent right: measured here, and quoted")
    assert table[""] == ["", "measured here", "quoted"]
    assert list(table) == ["", "Suite", "WinoGrande", "ARC, easy"]
    columns = dict(zip(table["Suite"], table["WinoGrande"], strict=True))
    assert columns["phi-1.5"] == "73.4"
    assert columns["phi-1.5-web-only"] == "60.4"
    assert "Llama-65B" not in columns  # of which the source has neither suite
    assert "arxiv.org/abs/2309.05463" in html


def test_what_is_quoted_names_suites_that_exist_and_holds_shares():
    for quoted in read_quoted():
        assert set(quoted.suites) <= set(all_suites())
        for model in quoted.models:
            assert set(model.scores) <= set(quoted.suites)
            assert all(isinstance(v, str) or 0 < v < 1 for v in model.scores.values())


def test_a_table_says_how_many_documents_were_left_out_for_each_suite(finished: tuple[str, RunFolder, Scene]):
    html, run, _ = finished
    by_corpus = rows_of(html, "Documents that were left out of a corpus")
    assert by_corpus[""] == ["Suite", "synthetic", "web", "code"]
    assert by_corpus["School science"] == ["2", "0", "0"]
    assert by_corpus["Social situations"] == ["0", "0", "not compared"]
    assert by_corpus["ARC, easy"] == ["0", "31", "0"]
    assert "WinoGrande" not in by_corpus
    assert by_corpus["gsm8k"] == ["1", "6", "–"]  # of a suite that the models were not asked
    text = " ".join(Page(html).text.split())
    assert "not there when a corpus was made: Social situations, WinoGrande." in text
    assert numbers_of(run)["runs"][0]["contamination"]["compared"]["social"] == ["synthetic", "web"]


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


def test_gaps_to_fresh_twins_and_gains_by_field_have_charts_and_tables(finished: tuple[str, RunFolder, Scene]):
    html, run, _ = finished
    numbers = numbers_of(run)
    gaps = rows_of(html, "Benchmark minus twin in percentage points")
    assert [name.split()[0] for name in gaps if name] == [gap["title"].split()[0] for gap in numbers["gaps"]]
    gap = numbers["gaps"][0]["scores"]["web"]
    assert f"{100 * gap['value']:+.1f}".replace("-", "−") in html
    fields = rows_of(html, "Bits per byte of held-out textbooks by field")
    assert fields[""] == ["Field", "web", "synthetic: gain", "mixed: gain"]
    found = numbers["fields"]
    difference = next(d for d in found["differences"] if d["first"] == "synthetic")
    row = next(cells for name, cells in fields.items() if name.startswith(difference["subject"].replace("-", " ")))
    assert row[1].startswith(f"{-difference['estimate']['value']:+.3f}".replace("-", "−"))
    for anchor in ("gaps-chart-wide", "fields-chart-wide"):
        assert f'aria-labelledby="{anchor}-t' in html


def test_the_loss_along_training_is_drawn_by_source_with_its_numbers_behind(finished: tuple[str, RunFolder, Scene]):
    html, run, _ = finished
    assert "Loss on held-out web text along training" in html
    ends = rows_of(html, "Bits per byte of held-out text when training ended")
    assert ends["mixed"] == ["2.667", "1.667"]
    every = rows_of(html, "Bits per byte of held-out text by source and training tokens")
    assert every["8,192"] == ["1.889", "1.889", "1.889"]
    assert numbers_of(run)["models"][0]["held_out_bits_per_byte"]["web"][0] == [8192.0, 3 - 1 / 9]


def test_time_and_money_are_added_up():
    def stage(name: str, took: float, **facts: Any) -> Manifest:
        return Manifest(name, "", {}, {}, "", "", facts, {}, "2026-01-01T00:00:00+00:00", took)

    stages = [
        stage("labels/web", 2.0, seconds=30.0, cost_usd=0.5),
        stage("corpus/synthetic", 5.0, seconds=604.0, cost_usd=3.5, spent_usd=4.25),  # 0.75 for earlier settings
        stage("corpus/web", 3.0),
        stage("models/web", 60.0, seconds=55.0),
        stage("models/mixed", 60.0),
        stage("eval/web", 1.0),
    ]
    rows = run_tables.cost_rows(stages)
    assert [(seconds, paid) for _, seconds, paid in rows] == [
        (30.0, 0.5), (604.0, 4.25), (3.0, None), (120.0, None), (1.0, None)]  # fmt: skip
    assert [cell.text for cell in run_tables.cost_table(rows).rows[-1]] == ["Total", "12 min 38 s", "4.75"]


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
    html = write_comparison(subjects, tmp_path / "out", 1, 200).read_text(encoding="utf-8")
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


def test_grades_of_the_open_prompts_stand_by_grader_with_what_is_quoted():
    share = Estimate(0.5, 0.4, 0.6, 0.05)
    counts: dict[Grade, int] = {"pass": 43, "fail": 40, "did not understand": 3}
    graded = VariantGrades("web", 86, 86, counts, dict.fromkeys(counts, share), 1, 0, {})
    test = PassTest("web", "mixed", 86, 9, 3, share, 0.02, 0.04)
    graders = [GraderSummary("person-anna", "person", "anna", [graded], [test])]
    blocks = grade_tables.blocks(GradingSummary(86, ["web", "mixed"], graders, [], PHI_15))
    counted, compared = (block for block in blocks if isinstance(block, Grid))
    assert counted.table.headings == {0: "A person: anna"}
    assert counted.table.rows[0][0].quiet == "86 of 86 answers, 1 without a readable grade"
    assert (counted.table.rows[0][1].text, counted.table.rows[0][1].quiet) == ("50.0", "43; 40.0–60.0")
    assert "47 pass, 34 fail, 4 did not understand" in counted.notes[0]
    assert compared.table.rows[0][-1].strong
    assert grade_tables.blocks(GradingSummary(86, ["web"], [], [], PHI_15)) == []


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


def test_a_table_says_what_was_left_out_of_each_source_and_why(finished: tuple[str, RunFolder, Scene]):
    html, run, _ = finished
    table = rows_of(html, "Documents that were left out of each source")
    assert table[""] == ["", "synthetic", "web", "code"]
    assert table["Exact duplicates"] == ["4", "1,203", "1,203"]
    assert table["Removed by heuristic rules"] == ["–", "28,348", "–"]
    assert table["Removed by the quality filter"] == ["–", "61,902", "61,902"]
    assert table["Held items of a suite"] == ["3", "38", "0"]
    assert table["Places of personal data masked"] == ["–", "568 email 512, phone 47, ip address 9", "0"]
    assert table["Hostile or obscene documents"] == ["–", "1.30% 404 of 31,007", "–"]
    assert table["Exercises that passed their tests"] == ["–", "–", "181 75% of 240 tried"]
    assert "Removed as hostile or obscene" not in table  # no source says anything of it
    reasons = rows_of(html, "Documents that the heuristic rules removed")
    assert list(reasons.items())[1:] == [
        ("line punct ratio", ["20,345"]),
        ("gopher short doc", ["7,012"]),
        ("dup line frac", ["991"]),
    ]
    assert numbers_of(run)["runs"][0]["corpora"]["web"]["personal_data"]["email"] == 512


def test_the_mixture_of_each_variant_is_shown_with_a_note_where_a_source_is_seen_too_often(
    finished: tuple[str, RunFolder, Scene], tmp_path: Path
):
    html, run, scene = finished
    table = rows_of(html, "What each variant was trained on")
    assert table[""] == ["Source", "synthetic", "web", "mixed"]
    assert table["web"][0] == "–"
    assert table["web"][1] == "80.00% asked 80%; 1,966,080 tokens; 4.10 passes over 480,113"
    text = " ".join(Page(html).text.split())
    assert "web saw web 4.1 times, more than the recipe’s train.max_epochs (4)." in text
    assert "mixed saw web" not in text
    assert numbers_of(run)["runs"][0]["mixtures"]["mixed"]["code"]["tokens"] == 491_520
    allowed = make_recipe(train=scene.recipe.train.model_copy(update={"max_epochs": 40.0}))
    assert "max_epochs (" not in write_report(allowed, run).read_text(encoding="utf-8")


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


def test_samples_show_their_whole_prompt_and_are_always_the_same(finished: tuple[str, RunFolder, Scene]):
    html, run, scene = finished
    corpus = run.folder("corpus/synthetic")
    first, again = (run_facts.choose_samples(corpus, scene.recipe.seed, 6) for _ in range(2))
    assert first == again
    assert first != run_facts.choose_samples(corpus, scene.recipe.seed + 1, 6)
    forms = [dict(sample.facts)["Form"] for sample in first]
    assert len(set(forms)) == 5
    text = " ".join(Page(html).text.split())
    for sample in first:
        assert sample.prompt is not None
        assert sample.prompt in text
        assert dict(sample.facts)["Topic"] in text
    long = [s for s in run_facts.choose_samples(run.folder("corpus/web"), 1, 30) if s.left_out]
    assert long
    assert all(len(s.text) == 4000 for s in long)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunFolder]:
    scene = Scene(
        make_recipe(description=f"A test. {HOSTILE}"),
        web_text=f"{HOSTILE} ",
        prompt=HOSTILE.replace("{", "{{").replace("}", "}}") + "{topic}",
        foreign=f"|`{HOSTILE}# *x* [a](b)",
    )
    return page_of(tmp_path_factory.mktemp("hostile") / "run", scene)


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


def test_charts_escape_their_labels_and_keep_every_mark_inside():
    row = charts.Row(HOSTILE, HOSTILE, 0.25, [Estimate(0.3, 0.0, 1.0, 0.2), Estimate(0.9, 0.9, 0.9, 0.0), None])
    axis = charts.Axis(HOSTILE, lambda v: f"{v:.1f}", (0, 1))
    drawn = charts.dot_chart("c", HOSTILE, [row], [HOSTILE, "b", "c"], axis)
    drawn += charts.bar_chart("b", HOSTILE, [(HOSTILE, 3.0), ("none", 0.0)], str)
    line = [(float(10**n), 8.0 - n) for n in range(1, 6)]
    lines = [charts.Line(HOSTILE, 0, line), charts.Line("empty", 1, []), charts.Line("one", 2, [(5.0, 3.0)])]
    drawn += charts.line_chart("l", HOSTILE, HOSTILE, lines, axis, axis)
    page = Page(drawn.replace("\x00", "").replace("\x1b", ""))
    assert "script" not in {tag for tag, _ in page.elements}
    assert len(page.tags("svg")) == 6
    width = 0.0
    for tag, attributes in page.elements:
        if tag == "svg":
            width = float((attributes["viewbox"] or "").split()[2])
        for name in ("x", "x1", "x2", "cx"):
            if name in attributes:
                assert -1 <= float(attributes[name] or "nan") <= width
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_every_variant_has_its_own_marker():
    drawn = [charts.key(n).replace(f"v{n % 8}", "") for n in range(16)]
    assert len(set(drawn)) == 16


def test_ticks_enclose_what_they_measure():
    for low, high in [(0.0, 1.0), (0.21, 0.24), (2.29, 2.3), (5.0, 5.0), (0.0, 0.0), (1e-9, 3e5)]:
        ticks = charts.nice_ticks(low, high, 6)
        assert ticks[0] <= low + 1e-9
        assert ticks[-1] >= high - 1e-9
        assert 2 <= len(ticks) <= 9
    assert charts.nice_ticks(0.02, 1.0, 6, (0, 1))[-1] == 1.0


def test_smoothing_keeps_the_level_and_the_ends():
    points = [(float(n), 5.0 + (-1) ** n) for n in range(1, 2001)]
    line = charts.smooth(points)
    assert (line[0][0], len(line) <= 161) == (1.0, True)
    assert all(4.9 < y < 5.1 for x, y in line if 300 < x < 1900)
    assert charts.smooth([]) == []
    assert charts.smooth([(4.0, 2.0)]) == [(4.0, 2.0)]


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
