"""The report of one run: what stands on its page is what its files say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from html_page import Page, assert_self_contained, numbers_of, rows_of
from report_fixture import Scene, build_run, make_recipe

from eval import grade_tables, report_score_sections, run_facts, run_tables, score_tables
from eval.boundaries import Grade
from eval.comparison import Comparison, Detectable, HeldOut, Toxicity
from eval.grading import PHI_15, Agreement, GraderSummary, GradingSummary, PassTest, VariantGrades
from eval.quoted import read_quoted
from eval.report import write_report
from eval.report_material import gather
from eval.report_page import Grid, Words
from eval.statistics import Estimate
from eval.subjects import subjects_of_run
from eval.suites import all_suites
from eval.tables import Cell, signed, signed_points
from primer.run import Manifest, RunFolder


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
    assert comparison["grades"]["answers"] == 9  # to three prompts, by three models
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
    assert "Not asked: boolq (no rows in the data folder)." in Page(html).text


def test_published_figures_are_marked_as_quoted_and_stand_only_beside_suites_that_were_asked(
    finished: tuple[str, RunFolder, Scene],
):
    html, run, _ = finished
    table = rows_of(html, "Common sense, per cent right: measured here, and quoted")
    assert table[""] == ["Model", "WinoGrande", "ARC, easy"]
    assert list(table)[1:6] == ["Measured here", "synthetic", "web", "mixed", "Quoted: not measured here"]
    acc = {s["name"]: s["scores"]["web"]["acc"]["value"] for s in numbers_of(run)["suites"]}
    assert table["web"] == [f"{100 * acc['winogrande']:.1f}", f"{100 * acc['arc_easy']:.1f}"]
    assert table["phi-1.5 1.3B, synthetic text and code"] == ["73.4", "75.6"]
    assert table["MPT-7B 7B, web text and code"] == ["68.0†", "74.9†"]
    assert table["Vicuna-13B 13B, web text and code, then conversations"] == ["70.8", "75.4†"]
    assert table["Measured here"] == []
    assert "† Not checked against a second source." in Page(html).text
    assert not [name for name in table if name.startswith("Llama-65B")]  # of which the source has neither suite
    assert html.count("measured here, and quoted") == 2  # caption and label of this table: no other area was asked
    assert "arxiv.org/abs/2309.05463" in html


def test_what_is_quoted_names_suites_that_exist_and_holds_shares():
    for quoted in read_quoted():
        assert set(quoted.suites) <= set(all_suites())
        for model in quoted.models:
            assert set(model.figures) <= set(quoted.suites)
            assert not set(model.scores) & set(model.unchecked)
            assert all(isinstance(v, str) or 0 <= v < 1 for v in model.figures.values())


def test_a_difference_that_nothing_could_find_and_groups_of_a_handful_get_words():
    score = Estimate(0.4, 0.2, 0.6, 0.1)
    groups = {"asian": {"a": 1.0, "b": 0.0}, "women": {"a": 0.4, "b": 0.5}}
    sizes = {"asian": (9, 4), "women": (5, 5)}
    found = Toxicity("pairs", "Pairs", 23, {"a": score, "b": score}, groups, sizes, None, "")
    impossible = [Detectable("toxicity", "pairs", 1.142, 0.752), Detectable("bits_per_byte", "web", 1.2, 1.1)]
    text = HeldOut("web", 9, 9, 99, {"a": score, "b": score})
    c = Comparison(("a", "b"), toxicity=[found], held_out=[text], detectable=impossible)
    assert score_tables.toxicity_table(c).rows[0][-1] == Cell("none", "alone 0.752")
    assert score_tables.held_out_table(c).rows[0][-1] == Cell("1.200", "alone 1.100")
    table = score_tables.groups_table(c, found)
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [["women", "0.400", "0.500"]]
    assert score_tables.small_groups(found) == ["asian"]
    assert score_tables.groups_table(c, replace(found, sizes={})) is None


def test_a_difference_that_rounds_to_nothing_has_no_minus():
    assert (signed_points(-0.0004), signed(-0.0004), signed_points(-0.0006)) == ("+0.0", "+0.000", "−0.1")


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


def test_gaps_to_fresh_twins_and_gains_by_field_have_charts_and_tables(finished: tuple[str, RunFolder, Scene]):
    html, run, _ = finished
    numbers = numbers_of(run)
    gaps = rows_of(html, "Benchmark minus twin in percentage points")
    assert [name.split()[0] for name in gaps if name] == [gap["title"].split()[0] for gap in numbers["gaps"]]
    assert "ARC, easy minus “School science”" in gaps
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


def test_too_few_textbooks_for_any_field_are_said(finished: tuple[str, RunFolder, Scene]):
    _, run, scene = finished
    material = gather(subjects_of_run(scene.recipe, run), 1, 100)
    assert material.comparison.fields is not None
    bare = replace(material, comparison=replace(material.comparison, fields=None))
    found = report_score_sections.fields(bare)
    assert found is not None
    (words,) = found.blocks
    assert isinstance(words, Words)
    textbooks = next(text.documents for text in bare.comparison.held_out if text.source == "synthetic")
    assert f"No two fields have 5 topics each among the {textbooks} held-out textbooks" in words.text
    without = [text for text in bare.comparison.held_out if text.source != "synthetic"]
    assert report_score_sections.fields(replace(bare, comparison=replace(bare.comparison, held_out=without))) is None


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


def test_grades_of_the_open_prompts_stand_by_grader_with_what_is_quoted():
    share = Estimate(0.5, 0.4, 0.6, 0.05)
    counts: dict[Grade, int] = {"pass": 43, "fail": 40, "did not understand": 3}
    graded = VariantGrades("web", 86, 86, counts, dict.fromkeys(counts, share), 1, 0, {})
    test = PassTest("web", "mixed", 86, 9, 3, share, 0.02, 0.04)
    graders = [GraderSummary("person-anna", "person", "anna", [graded], [test])]
    agreement = Agreement("person-anna", "person-ben", 86, [], 0.4, Estimate(-0.02, -0.11, 0.07, 0.05))
    blocks = grade_tables.blocks(GradingSummary(86, ["web", "mixed"], graders, [agreement], PHI_15))
    counted, compared, agreed = (block for block in blocks if isinstance(block, Grid))
    assert agreed.table.rows[0][-1] == Cell("−0.02", "−0.11 to 0.07")
    assert counted.table.headings == {0: "A person: anna"}
    assert counted.table.rows[0][0].quiet == "86 of 86 answers, 1 without a readable grade"
    assert (counted.table.rows[0][1].text, counted.table.rows[0][1].quiet) == ("50.0", "43; 40.0–60.0")
    assert "47 pass, 34 fail, 4 did not understand" in counted.notes[0]
    assert compared.table.rows[0][-1].strong
    assert grade_tables.blocks(GradingSummary(86, ["web"], [], [], PHI_15)) == []


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
