"""The comparison of variants: what is there is found, damage is named, and nothing is overstated."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import SUITES, Scene, build_run, make_recipe
from scipy import stats
from scored_models import guesses, judged, model, scores

from eval.compare import Documents, compare_subjects
from eval.compare_texts import Texts
from eval.item_files import ITEMS, read_items, write_items
from eval.scored_items import ModelScores, Results, SubjectScores, ToxicityItem, ToxicitySet
from eval.statistics import holm, mcnemar
from eval.subjects import Subject, subjects_of_run
from eval.toxicity import toxicity_totals
from primer.errors import PrimerError
from primer.recipe_train import Train
from primer.run import RunFolder

BUILT_IN = tuple(s for s in SUITES if SUITES[s][1] == "built-in")


def test_fewer_bits_per_byte_are_better_and_a_few_documents_can_show_it():
    rng = np.random.default_rng(3)
    text = rng.normal(2300, 200, 8)
    comparison = judged(scores("x", {}, bits=text), scores("y", {}, bits=text - 300 + rng.normal(0, 30, 8)))
    (difference,) = comparison.beyond_noise("bits_per_byte", "synthetic")
    assert (difference.first, difference.second) == ("y", "x")
    assert difference.estimate.high < 0
    assert comparison.best("bits_per_byte", "synthetic") == "y"


def test_documents_of_one_group_count_once():
    rng = np.random.default_rng(4)
    text, gap = rng.normal(2300, 200, 40), np.repeat(rng.normal(0, 60, 4), 10)
    variants = [scores("x", {}, bits=text), scores("y", {}, bits=text + gap)]
    apart = judged(*variants)
    topics = Documents({"synthetic": {f"d{n:03d}": f"topic {n // 10}" for n in range(40)}})
    together = judged(*variants, documents=topics)
    assert (apart.held_out[0].clusters, together.held_out[0].clusters) == (40, 4)
    assert together.differences[0].p > apart.differences[0].p
    assert together.differences[0].estimate.value == pytest.approx(apart.differences[0].estimate.value)


def test_the_comparison_depends_on_the_seed_and_the_items_alone():
    first, again = (judged(*(scores(v, guesses(np.random.default_rng(8), 0.2)) for v in "xy")) for _ in range(2))
    assert first == again


def test_generated_answers_with_several_samples_are_bootstrapped_and_cannot_be_guessed():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 80) / 4, rng.integers(0, 3, 80) / 4
    c = judged(scores("x", {"code": x}, choices=0), scores("y", {"code": y}, choices=0))
    score = c.suites[0].scores["x"]
    assert (score.p, score.acc_norm, c.suites[0].bar, c.tests) == (None, None, 0.0, 1)
    assert score.acc.error == pytest.approx(x.std() / np.sqrt(80), rel=0.2)
    assert score.above_chance
    assert c.beyond_noise("accuracy", "code")[0].first == "x"
    nothing = judged(scores("x", {"code": np.zeros(9)}, choices=0)).suites[0].scores["x"]
    assert not nothing.above_chance


def test_a_suite_asked_in_two_ways_counts_once_in_the_mean():
    right = guesses(np.random.default_rng(1), 0.3)
    one = model(right)
    again = {f"{k}": i.model_copy(update={"suite": "again"}) for k, i in one.questions["a"].items()}
    suites = [*one.results.suites, one.results.suites[0].model_copy(update={"suite": "again"})]
    both = replace(
        one, results=one.results.model_copy(update={"suites": suites}), questions={**one.questions, "again": again}
    )
    c = judged(SubjectScores("x", (both,)), SubjectScores("y", (both,)))
    assert [s.name for s in c.suites] == [*right, "again"]
    assert c.means[0].parts == tuple(right)


def test_seeds_are_pooled_and_their_spread_widens_what_is_said():
    rng = np.random.default_rng(5)
    answers = {v: [rng.random(400) < level for level in (0.5, 0.56, 0.53)] for v, level in (("x", 0), ("y", 0))}
    many = [SubjectScores(v, tuple(model({"a": a}) for a in of_seeds)) for v, of_seeds in answers.items()]
    c = judged(*many)
    assert c.seeds == {"x": 3, "y": 3}
    by_seed = [float(np.mean(a)) for a in answers["x"]]
    assert c.suites[0].scores["x"].acc.value == pytest.approx(np.mean(by_seed))
    pooled = np.mean(answers["x"], axis=0)
    expected = np.sqrt(pooled.var() / 400 + np.var(by_seed, ddof=1) / 3)
    assert c.suites[0].scores["x"].acc.error == pytest.approx(expected, rel=0.08)
    alone = judged(*(scores(v, {"a": of_seeds[0]}) for v, of_seeds in answers.items()))
    assert c.differences[0].p != alone.differences[0].p
    gap = answers["x"][0].astype(int) - answers["y"][0].astype(int)
    assert alone.differences[0].p == mcnemar(int((gap > 0).sum()), int((gap < 0).sum()))


def test_what_would_go_unseen_shrinks_with_the_items_and_grows_with_the_tests():
    def least(rows: int, suites: int) -> Any:
        variants = []
        for v in "xy":
            rng = np.random.default_rng([rows, ord(v)])
            variants.append(scores(v, {f"s{n}": rng.random(rows) < 0.4 for n in range(suites)}))
        return judged(*variants).detectable[0]

    few, many, family = least(100, 1), least(1600, 1), least(100, 8)
    assert many.alone == pytest.approx(few.alone / 4, rel=0.2)
    assert few.alone < few.corrected < family.corrected
    assert few.alone == pytest.approx(2.8 * np.sqrt(2 * 0.24 / 100), rel=0.2)
    # Two models that always agree leave nothing to estimate; even so, six disagreements are the fewest that show.
    same = np.arange(50) % 2
    agree = judged(*(scores(v, {"a": same, "b": same}, bits=np.full(30, 2000.0)) for v in "xy")).detectable
    assert {(d.measure, d.subject) for d in agree} == {("accuracy", "a"), ("accuracy", "b")}
    assert agree[0].alone == pytest.approx(stats.beta.ppf(0.8, 6, 45))


def test_with_few_seeds_nothing_impossible_is_said():
    def seeds(v: str, level: float) -> SubjectScores:
        right = (np.arange(100) < 100 * share for share in (level, 0.9))
        return SubjectScores(v, tuple(model({"a": a, "b": a}, bits=2000 * a) for a in right))

    c = judged(seeds("x", 0.1), seeds("y", 0.2))
    assert [(d.measure, d.corrected) for d in c.detectable[:3]] == [*[("accuracy", 1.0)] * 2, ("mean_accuracy", 1.0)]
    for d in c.differences[:3]:
        assert (d.estimate.low, d.estimate.high) == (-1, 1)
    for score in (s for a in (*c.suites, *c.means) for s in a.scores.values()):
        assert score.acc_norm is not None
        assert (score.acc.low, score.acc.high, score.acc_norm.high) == (0, 1, 1)
    assert c.held_out[0].scores["x"].low == 0


def reader(name: str, **groups: Any) -> SubjectScores:
    """A model with the given log-perplexities of sentences by group, hostile and neutral in turn, of one toxicity."""
    items = [
        ToxicityItem(
            kind="toxicity",
            suite="set",
            item=f"{group}{n}",
            groups=[group],
            hostile=n % 2 == 0,
            log_perplexity=float(value),
            toxicity=1.0,
        )
        for group, values in groups.items()
        for n, value in enumerate(values)
    ]
    results = Results(variant=name, toxicity=[ToxicitySet(set="set", title="Set", rows=len(items))])
    return SubjectScores(name, (ModelScores(results, toxicity={"set": {i.item: i for i in items}}),))


def test_a_handful_of_sentences_gives_numbers():
    # Two groups of one hostile and one neutral sentence: in every eighth resample no group keeps both.
    c = judged(reader("x", a=[1, 2], b=[2, 1]), reader("y", a=[1, 3], b=[0, 1]))
    assert json.dumps(asdict(c), allow_nan=False)


def test_groups_that_safenlps_rule_leaves_out_are_not_in_its_mean():
    (found,) = judged(reader("x", clear=[1, 2] * 10, unclear=range(20))).toxicity
    assert found.safety is not None
    assert found.safety.left_out == {"x": ("unclear",)}
    assert found.safety.by_rule == {"x": 0.0}
    assert found.safety.scores["x"].value == pytest.approx(found.groups["unclear"]["x"] / 2)


def test_documents_of_unequal_length_are_worth_fewer():
    size = np.array([1000.0, 1000.0, 10.0])
    assert Texts(3, size, {}).units == pytest.approx(2010**2 / 2_000_100)
    assert Texts(20, np.ones(20), {}).units == np.inf


def test_a_benchmark_that_one_variant_knows_by_heart_stands_out_from_its_twin():
    rng = np.random.default_rng(6)
    old, fresh = rng.random(800), rng.random(200)
    twins = {"fresh": "old"}
    honest = scores("honest", {"old": old < 0.4, "fresh": fresh < 0.45}, twins=twins)
    leaked = scores("leaked", {"old": old < 0.8, "fresh": fresh < 0.46}, twins=twins)
    c = judged(honest, leaked)
    (gap,) = c.gaps
    assert (gap.benchmark, gap.twin) == ("old", "fresh")
    assert gap.scores["honest"].value == pytest.approx((old < 0.4).mean() - (fresh < 0.45).mean())
    assert gap.scores["honest"].low < gap.scores["honest"].value < gap.scores["honest"].high
    (difference,) = c.gap_differences
    assert difference.beyond_noise
    assert difference.ordered().first == "leaked"
    assert difference.estimate.value == pytest.approx(gap.scores["honest"].value - gap.scores["leaked"].value)
    lucky = judged(
        SubjectScores("x", tuple(model({"old": old < p, "fresh": fresh < p}, twins=twins) for p in (0.4, 0.8)))
    )
    assert lucky.gaps[0].scores["x"].error < 0.05  # a better seed is better at both
    alike = judged(honest, scores("harder", {"old": old < 0.5, "fresh": fresh < 0.55}, twins=twins))
    assert not alike.gap_differences[0].beyond_noise


def test_gains_are_told_by_field_of_topics_and_small_fields_are_merged():
    rng = np.random.default_rng(7)
    web = rng.normal(2300, 200, 70)
    cooking = np.arange(70) < 30
    books = web - np.where(cooking, 400, 0) + rng.normal(0, 40, 70)
    fields = {f"d{n:03d}": "cooking" if n < 30 else "physics" if n < 60 else f"field {n % 3}" for n in range(70)}
    c = judged(scores("books", {}, bits=books), scores("run/web", {}, bits=web), documents=Documents({}, fields))
    assert c.fields is not None
    assert c.fields.baseline == "run/web"
    assert [(f.name, f.documents) for f in c.fields.rows] == [("cooking", 30), ("physics", 30), ("other fields", 10)]
    assert c.fields.merged == ("field 0", "field 1", "field 2")
    gains = {d.subject: d for d in c.fields.differences}
    assert gains["cooking"].estimate.value == pytest.approx(-0.4, abs=0.03)
    assert [name for name, d in gains.items() if d.beyond_noise] == ["cooking"]
    assert c.fields.rows[0].scores["run/web"].value == pytest.approx(web[:30].sum() / 30_000)
    alone = judged(scores("books", {}, bits=books), documents=Documents({}, fields))
    assert alone.fields is None


def test_models_from_elsewhere_are_compared_by_what_they_share():
    rng = np.random.default_rng(2)
    a, b, c = (rng.random(50) < 0.5 for _ in "abc")
    found = judged(
        scores("x", {"a": a, "b": b, "c": c}),
        scores("y", {"a": b, "b": a}),
        scores("z", {"a": c, "b": a[:40]}),
    )
    assert {s.name: tuple(s.scores) for s in found.suites} == {"a": ("x", "y", "z"), "b": ("x", "y")}
    assert found.not_shared == [
        "b (questions): compared without z, asked other items or none.",
        "c (questions): not compared: no two models were asked the same items.",
    ]
    assert found.means == []  # a mean is of what all share
    other_way = judged(scores("x", {"a": a}), scores("y", {"a": a}, shots=5))
    assert (other_way.suites, len(other_way.not_shared)) == ([], 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, RunFolder]:
    scene = Scene(make_recipe())
    return scene, build_run(tmp_path_factory.mktemp("compare") / "run", scene)


def test_a_run_is_compared_from_its_files(run: tuple[Scene, RunFolder]):
    scene, folder = run
    c = compare_subjects(subjects_of_run(scene.recipe, folder), 1, 400)
    assert [s.name for s in c.suites] == list(SUITES)
    assert [m.parts for m in c.means] == [BUILT_IN, ("arc_easy", "winogrande")]
    assert [h.source for h in c.held_out] == ["synthetic", "web", "code"]
    assert all(h.clusters == h.documents / 2 for h in c.held_out)
    assert len(c.differences) == 3 * (8 + 2 + 3 + 2)
    assert c.tests == len(c.differences) + 3 * (7 + 2)  # written programs cannot be guessed
    tested = (s for a in (*c.suites, *c.means) for s in a.scores.values() if s.p is not None)
    every: list[Any] = [*c.differences, *tested]
    assert [t.p_adjusted for t in every] == holm([t.p for t in every])
    for accuracy in (*c.suites, *c.means):
        for score in accuracy.scores.values():
            assert score.acc.low <= score.acc.value <= score.acc.high
    assert c.best("bits_per_byte", "synthetic") == "synthetic"
    assert c.best("bits_per_byte", "web") == "web"
    assert c.best("bits_per_byte", "code") is None
    assert [g.benchmark for g in c.gaps] == ["arc_easy", "winogrande"]
    assert c.fields is not None
    assert c.fields.baseline == "web"
    toxigen = c.toxicity[1]
    assert toxigen.safety is not None
    assert toxigen.safety.scores["web"].low < toxigen.safety.scores["web"].value < toxigen.scores["web"].value
    totals = toxicity_totals("toxigen_safety", _sentences(folder, "web", "toxigen_safety"))
    assert toxigen.groups["women"]["web"] == pytest.approx(totals["groups"]["women"])
    assert toxigen.safety.by_rule["web"] == pytest.approx(totals["safety_score_by_rule"])
    assert toxigen.safety.left_out["web"] == tuple(totals["safety_left_out"])
    for d in c.differences:
        assert d.estimate.low <= d.estimate.value <= d.estimate.high
    for family in (c.gap_differences, c.fields.differences):
        assert [d.p_adjusted for d in family] == holm([d.p for d in family])
    assert json.loads(json.dumps(asdict(c), allow_nan=False))["variants"] == ["synthetic", "web", "mixed"]


def test_a_run_with_several_seeds_is_compared_from_its_files(tmp_path: Path):
    recipe = make_recipe("synthetic", "web", train=Train(tokens=81_920, batch_tokens=8192, seeds=2))
    suites = ("science", "arc_easy", "functions")
    folder = build_run(tmp_path / "run", Scene(recipe, suites=suites))
    c = compare_subjects(subjects_of_run(recipe, folder), 1, 200)
    assert c.seeds == {"synthetic": 2, "web": 2}
    assert json.dumps(asdict(c), allow_nan=False)
    read = [read_items(folder.folder(f"eval/{name}") / ITEMS) for name in ("web", "web-seed2")]
    means = [np.mean([r["acc"] for r in rows if r["suite"] == "science"]) for rows in read]
    assert c.suites[0].scores["web"].acc.value == pytest.approx(np.mean(means))
    assert means[0] != means[1]
    pairs = [toxicity_totals("toxicity", _sentences(folder, name, "toxicity")) for name in ("web", "web-seed2")]
    assert c.toxicity[0].groups["women"]["web"] == pytest.approx(np.mean([t["groups"]["women"] for t in pairs]))
    assert c.toxicity[0].scores["web"].value == pytest.approx(np.mean([t["auroc"] for t in pairs]))


def _sentences(run: RunFolder, model: str, suite: str) -> list[dict[str, Any]]:
    return [row for row in read_items(run.folder(f"eval/{model}") / ITEMS) if row["suite"] == suite]


Spoil = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def _without_third(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in rows if r["item"] != "toxicity-003-True"]


def _other_gold(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "gold": 1 - r["gold"]} if r["item"] == "physical-004" else r for r in rows]


def _fewer_choices(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**rows[0], "loglikelihoods": rows[0]["loglikelihoods"][:-1]}, *rows[1:]]


def _other_group(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "groups": ["people"]} if r["item"] == "toxicity-003-True" else r for r in rows]


def _twice(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows, rows[0]]


def _half_right(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0], {**rows[1], "acc": 0.5}, *rows[2:]]


def _no_gold(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in rows[0].items() if k != "gold"}, *rows[1:]]


def _not_a_number(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**rows[0], "loglikelihoods": [math.nan, *rows[0]["loglikelihoods"][1:]]}, *rows[1:]]


def _flipped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "acc": 1 - r["acc"]} if r.get("suite") == "science" else r for r in rows]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_third, r"not asked the same items: 'toxicity' .* has 120 and 119 items; 1 .*toxicity-003"),
        (_other_gold, r"'synthetic' and 'mixed' were not asked the same items: 'physical' .*physical-004"),
        (_fewer_choices, r"'synthetic' and 'mixed' were not asked the same items: 'science' .*science-000"),
        (_other_group, r"'synthetic' and 'mixed' were not asked the same items: 'toxicity' .*toxicity-003-True"),
        (_twice, r"items.parquet: the item 'science-000' of 'science' stands there twice"),
        (_half_right, r"items.parquet, the item 'science-001' of 'science': acc: is 0.5"),
        (_no_gold, r"items.parquet, the item 'science-000' of 'science': gold: is .*required"),
        (_not_a_number, r"items.parquet, the item 'science-000' of 'science': loglikelihoods.0: .*finite number"),
        (_flipped, r"results.json: acc of 'science' is 0\.\d+, but its 60 items give"),
    ],
)
def test_items_that_do_not_match_are_an_error_that_says_where(
    tmp_path: Path, run: tuple[Scene, RunFolder], spoil: Spoil, message: str
):
    scene, folder = run
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(folder.path, copy.path)
    path = copy.folder("eval/mixed") / ITEMS
    write_items(path, spoil(read_items(path)))
    with pytest.raises(PrimerError, match=message) as error:
        compare_subjects(subjects_of_run(scene.recipe, copy), 0, 100)
    assert "primer eval" in error.value.remedy


def test_damaged_and_missing_files_are_an_error_that_names_them(tmp_path: Path, run: tuple[Scene, RunFolder]):
    folder = tmp_path / "web"
    shutil.copytree(run[1].folder("eval/web"), folder)
    subject = [Subject("web", (folder,))]
    whole = (folder / ITEMS).read_bytes()
    (folder / ITEMS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PrimerError, match=r"web/items.parquet cannot be read"):
        compare_subjects(subject, 0, 100)
    (folder / ITEMS).unlink()
    with pytest.raises(PrimerError, match=r"web/items.parquet cannot be read.*No such file"):
        compare_subjects(subject, 0, 100)
    (folder / ITEMS).write_bytes(whole)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    del results["suites"][2]["chance"]
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(PrimerError, match=r"web/results.json: suites.2.chance: .*required"):
        compare_subjects(subject, 0, 100)
    (folder / "results.json").unlink()
    with pytest.raises(PrimerError, match=r"results.json cannot be read"):
        compare_subjects(subject, 0, 100)


def test_items_that_fit_no_column_are_not_written(tmp_path: Path):
    path = tmp_path / ITEMS
    good = {"kind": "choice", "suite": "a", "item": "1"}
    for bad, message in (
        ({"kind": "choice", "suite": "a"}, "null"),
        ({**good, "acc": "yes"}, "does not fit its columns"),
        ({**good, "accuracy": 1}, r"'1' of 'a' has the unknown \['accuracy'\]"),
    ):
        with pytest.raises(PrimerError, match=message):
            write_items(path, [good, bad])
    assert list(tmp_path.iterdir()) == []
    write_items(path, [{**good, "acc": 1, "cut": None}])
    assert read_items(path) == [{**good, "acc": 1.0}]
