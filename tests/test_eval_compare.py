"""The comparison of a run's variants and its verdict in words: what is there is found, and nothing is overstated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import SUITES, Scene, build_run, make_recipe

from eval.compare import Comparison, compare, compare_run
from eval.scored_items import ChoiceItem, HeldOutItem, Results, SuiteResult, VariantScores
from eval.statistics import holm
from eval.verdict import Training, Verdict, give_verdict
from primer.errors import PrimerError
from primer.run import RunFolder

BUILT_IN = tuple(s for s in SUITES if SUITES[s][1] == "built-in")


def scores(variant: str, right: dict[str, Any], choices: int = 4, bits: Any = ()) -> VariantScores:
    """A variant that answers suites as the 0/1 vectors say and needs the given bits for documents of 1,000 bytes."""
    choice: dict[str, dict[str, ChoiceItem]] = {}
    suites = []
    for suite, answers in right.items():
        choice[suite] = {}
        for n, a in enumerate(map(int, answers)):
            item = ChoiceItem(
                kind="choice",
                suite=suite,
                item=f"i{n:05d}",
                gold=n % choices,
                acc=a,
                acc_norm=a,
                loglikelihoods=[-1.0] * choices,
            )
            choice[suite][item.item] = item
        mean = float(np.mean(answers))
        suites.append(
            SuiteResult(
                suite=suite,
                title=f"Suite {suite}",
                origin="built-in",
                rows=len(answers),
                chance=1 / choices,
                acc=mean,
                acc_norm=mean,
            )
        )
    documents = {
        f"d{n}": HeldOutItem(kind="held_out", suite="web", item=f"d{n}", bits=float(b), bytes=1000)
        for n, b in enumerate(bits)
    }
    return VariantScores(
        variant, Results(variant=variant, suites=suites), choice, {"web": documents} if documents else {}
    )


def judged(*variants: VariantScores, training: dict[str, Training] | None = None) -> tuple[Comparison, Verdict]:
    comparison = compare(variants, {}, seed=0, samples=300)
    return comparison, give_verdict(comparison, training or {})


def everything(verdict: Verdict) -> str:
    return " ".join((verdict.headline, *verdict.beyond_noise, *verdict.within_noise, verdict.chance, *verdict.caveats))


def guesses(rng: np.random.Generator, skill: float = 0.0, rows: int = 60) -> dict[str, Any]:
    return {s: rng.random(rows) < 0.25 + 0.75 * skill for s in ("a", "b", "c", "d", "e")}


def test_equal_variants_are_called_different_in_about_one_run_in_twenty_at_most():
    rng, false = np.random.default_rng(0), 0
    for _ in range(60):
        text = rng.normal(2000, 300, 30)
        variants = [scores(v, guesses(rng, 0.3), bits=text + rng.normal(0, 40, 30)) for v in ("x", "y", "z")]
        comparison, verdict = judged(*variants)
        false += bool(verdict.beyond_noise)
        assert bool(verdict.beyond_noise) == any(d.beyond_noise for d in comparison.differences)
    assert false <= 7  # 60 runs at 5%: more than 7 has a chance below 2%


def test_models_at_chance_are_said_to_be_at_chance():
    comparison, verdict = judged(*(scores(v, guesses(np.random.default_rng(n))) for n, v in enumerate(("x", "y"))))
    assert not any(d.beyond_noise for d in comparison.differences)
    assert verdict.headline == (
        "None of the variants answers questions better than chance: the suites cannot tell them apart."
    )
    assert "No model is above chance" in verdict.chance
    assert verdict.beyond_noise == ()


def test_a_truly_better_variant_is_found_and_named_with_how_much():
    rng = np.random.default_rng(1)
    comparison, verdict = judged(scores("weak", guesses(rng, 0.1)), scores("strong", guesses(rng, 0.6)))
    difference = comparison.beyond_noise("mean_accuracy", "built-in")[0]
    assert (difference.first, difference.second) == ("strong", "weak")
    assert difference.estimate.low > 0.1
    assert comparison.best("mean_accuracy", "built-in") == "strong"
    points = f"{100 * difference.estimate.value:.1f}"
    assert verdict.headline == (
        f"On the mean of the built-in suites, “strong” is ahead of “weak” by {points} percentage points."
    )
    assert "“strong” in" in verdict.chance


def test_alike_accuracy_above_chance_is_within_noise_and_never_called_equal_without_a_proviso():
    rng = np.random.default_rng(2)
    shared = guesses(rng, 0.6)
    comparison, verdict = judged(scores("x", shared), scores("y", shared))
    assert all(d.p == 1.0 and d.estimate.value == 0 for d in comparison.differences)
    assert verdict.headline == "The variants answer questions equally well, as far as these suites can tell."
    assert "no difference beyond noise" in everything(verdict)


def test_a_difference_between_models_below_chance_is_no_sign_of_knowledge():
    worse = {"a": np.zeros(200), "b": np.zeros(200)}
    even = {"a": np.arange(200) % 5 == 0, "b": np.arange(200) % 5 == 0}
    _, verdict = judged(scores("worse", worse), scores("even", even))
    assert "not above chance there, so this is no sign of knowledge" in verdict.headline
    assert all("no sign of knowledge" in line for line in verdict.beyond_noise)


def test_always_giving_the_commoner_of_two_answers_is_not_above_chance():
    # 70 of 100 answers are the first one, and the model gives that one always.
    gold = np.array([0] * 70 + [1] * 30)
    model = scores("constant", {"a": gold == 0}, choices=2)
    items = {
        k: i.model_copy(update={"gold": int(g)}) for (k, i), g in zip(model.choice["a"].items(), gold, strict=True)
    }
    comparison, verdict = judged(replace(model, choice={"a": items}))
    assert comparison.suites[0].chance == 0.5
    assert comparison.suites[0].bar == 0.7
    assert not comparison.suites[0].scores["constant"].above_chance
    assert verdict.headline.endswith("it does not answer better than chance.")


def test_fewer_bits_per_byte_are_better_and_a_few_documents_can_show_it():
    rng = np.random.default_rng(3)
    text = rng.normal(2300, 200, 8)
    comparison, verdict = judged(scores("x", {}, bits=text), scores("y", {}, bits=text - 300 + rng.normal(0, 30, 8)))
    (difference,) = comparison.beyond_noise("bits_per_byte", "web")
    assert (difference.first, difference.second) == ("y", "x")
    assert difference.estimate.high < 0
    assert comparison.best("bits_per_byte", "web") == "y"
    assert "“y” is ahead of “x” by 0.2" in verdict.beyond_noise[0] or "by 0.3" in verdict.beyond_noise[0]


def test_documents_of_one_group_count_once():
    rng = np.random.default_rng(4)
    text, gap = rng.normal(2300, 200, 40), np.repeat(rng.normal(0, 60, 4), 10)
    variants = [scores("x", {}, bits=text), scores("y", {}, bits=text + gap)]
    apart = compare(variants, {}, 0, 300)
    together = compare(variants, {"web": {f"d{n}": f"topic {n // 10}" for n in range(40)}}, 0, 300)
    assert (apart.held_out[0].clusters, together.held_out[0].clusters) == (40, 4)
    assert together.differences[0].p > apart.differences[0].p
    assert together.differences[0].estimate.value == pytest.approx(apart.differences[0].estimate.value)


def test_budget_and_repetition_are_told():
    variants = [scores(v, guesses(np.random.default_rng(0))) for v in ("x", "y")]
    same = {"x": Training(1000, {"web": 2.0}), "y": Training(1000, {"web": 1.0, "synthetic": 3.5})}
    _, verdict = judged(*variants, training=same)
    words = everything(verdict)
    assert "trained on the same number of tokens, 1,000" in words
    assert "web 2 times in “x” and once in “y”; synthetic 3.5 times in “y”" in words
    assert "did not repeat their sources equally often" in words
    assert "one training run of each variant" in words
    _, verdict = judged(*variants, training={"x": Training(1000, {"web": 2.0}), "y": Training(900, {"web": 2.0})})
    assert "The token budgets are not the same: “x” on 1,000 and “y” on 900." in everything(verdict)
    assert "web 2 times in each." in everything(verdict)
    assert "equally often" not in everything(verdict)


def test_many_differences_are_counted_not_recited():
    rng = np.random.default_rng(5)
    text = rng.normal(2300, 200, 30)
    variants = [scores(f"v{n}", {}, bits=text + 100 * n + rng.normal(0, 5, 30)) for n in range(5)]
    _, verdict = judged(*variants)
    assert "10 pairs of variants differ, most of all “v0”, which is ahead of “v4” by 0.4" in verdict.beyond_noise[0]


def test_the_comparison_depends_on_the_seed_and_the_items_alone():
    first, again = (judged(*(scores(v, guesses(np.random.default_rng(8), 0.2)) for v in "xy"))[0] for _ in range(2))
    assert first == again


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, RunFolder]:
    scene = Scene(make_recipe())
    return scene, build_run(tmp_path_factory.mktemp("compare") / "run", scene)


def test_a_run_is_compared_from_its_files(run: tuple[Scene, RunFolder]):
    scene, folder = run
    c = compare_run(scene.recipe, folder)
    assert [s.name for s in c.suites] == list(SUITES)
    assert [m.parts for m in c.means] == [BUILT_IN, ("arc_easy", "winogrande")]
    assert [h.source for h in c.held_out] == ["synthetic", "web", "code"]
    assert all(h.clusters == h.documents / 2 for h in c.held_out)
    assert len(c.differences) == 3 * (7 + 2 + 3 + 2)
    assert c.tests == len(c.differences) + 3 * (7 + 2)
    every = [*c.differences, *(s for a in (*c.suites, *c.means) for s in a.scores.values())]
    assert [t.p_adjusted for t in every] == holm([t.p for t in every])
    for accuracy in (*c.suites, *c.means):
        for score in accuracy.scores.values():
            assert score.acc.low <= score.acc.value <= score.acc.high
    assert c.best("bits_per_byte", "synthetic") == "synthetic"
    assert c.best("bits_per_byte", "web") == "web"
    assert c.best("bits_per_byte", "code") is None


Spoil = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def _without_third(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in rows if r["item"] != "built-in-003-True"]


def _other_gold(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "gold": 1 - r["gold"]} if r["item"] == "physical-004" else r for r in rows]


def _twice(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows, rows[0]]


def _wrong_type(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0], {**rows[1], "acc": "yes"}, *rows[2:]]


def _flipped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "acc": 1 - r["acc"]} if r.get("suite") == "science" else r for r in rows]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_third, r"not asked the same items: toxicity set 'built-in' has 120 and 119 items; 1 .*built-in-003"),
        (_other_gold, r"not asked the same items: suite 'physical' .*physical-004"),
        (_twice, r"items.jsonl: the item 'science-000' of 'science' stands there twice"),
        (_wrong_type, r"items.jsonl, line 2: acc: is \"yes\""),
        (_flipped, r"results.json: acc of 'science' is 0\.\d+, but its 60 items give"),
    ],
)
def test_items_that_do_not_match_are_an_error_that_says_where(
    tmp_path: Path, run: tuple[Scene, RunFolder], spoil: Spoil, message: str
):
    scene, folder = run
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(folder.path, copy.path)
    path = copy.folder("eval/mixed") / "items.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(r) + "\n" for r in spoil(rows)), encoding="utf-8")
    with pytest.raises(PrimerError, match=message) as error:
        compare_run(scene.recipe, copy)
    assert "primer eval" in error.value.remedy


def test_a_line_cut_short_is_an_error_that_names_it(tmp_path: Path, run: tuple[Scene, RunFolder]):
    scene, folder = run
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(folder.path, copy.path)
    path = copy.folder("eval/web") / "items.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(PrimerError, match=r"web/items.jsonl, line \d+"):
        compare_run(scene.recipe, copy)
    (copy.folder("eval/web") / "results.json").unlink()
    with pytest.raises(PrimerError, match=r"results.json cannot be read"):
        compare_run(scene.recipe, copy)
