"""The quality filter: what is learnt, kept and shown, and that a text's score depends on the text alone."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from primer.errors import PrimerError
from primer.recipe_corpora import Quality
from primer.run import Built
from synth import quality_embedding, quality_training
from synth.filter_page import Shown, filter_page
from synth.quality_classifiers import Forest, Linear, Vectors
from synth.quality_filter import FILES, QualityFilter, other_rubric
from synth.quality_measures import agreement, area_under_roc, auc_intervals, reliability, roc_curve, threshold_for
from synth.quality_training import build_filter, held_out, train_forest, train_linear

LESSONS = [
    f"{subject} is the subject of this lesson. We explain step by step how it works, and give an example."
    for subject in (
        "Photosynthesis", "The water cycle", "Long division", "Gravity", "The French Revolution", "Probability",
        "The cell membrane", "Supply and demand", "The Pythagorean theorem", "Electric current", "Plate tectonics",
        "Grammar of the past tense", "The periodic table", "Natural selection", "Binary numbers",
    )
]  # fmt: skip
ADVERTS = [
    f"Buy {thing} now! Free shipping, lowest prices, click here to order today and save 50% with code SALE."
    for thing in (
        "shoes", "cheap tickets", "handbags", "phone cases", "vitamins", "sofas", "car tyres", "watches", "jackets",
        "headphones", "garden chairs", "perfume", "sunglasses", "mattresses", "coffee pods",
    )
]  # fmt: skip


def planted(count: int, seed: int, gap: float = 2.0) -> tuple[Vectors, Any]:
    """Vectors of which a third are good, and lie `gap` further along the first ten components."""
    rng = np.random.default_rng(seed)
    good = np.arange(count) % 3 == 0
    vectors = rng.normal(size=(count, 384))
    vectors[good, :10] += gap
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), good


def write_labels(folder: Path, texts: Sequence[str], scores: Sequence[int], repeated: dict[int, list[int]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "number": number,
            "text": text,
            "title": f"Title {number}",
            "origin": None,
            "score": score,
            "reason": f"Reason {number}",
            "repeated_scores": repeated.get(number, []),
        }
        for number, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    schema = pa.schema(
        [(name, pa.int64() if name in ("number", "score") else pa.string()) for name in list(rows[0])[:-1]]
        + [("repeated_scores", pa.list_(pa.int64()))]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "labels.parquet")
    return folder / "labels.parquet"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    """A filter trained on lessons and adverts by their real embeddings."""
    root = tmp_path_factory.mktemp("filter")
    texts = [text for pair in zip(LESSONS, ADVERTS, strict=True) for text in pair]
    scores = [4 if place % 2 == 0 else 1 for place in range(len(texts))]
    labels = write_labels(root / "labels", [*texts, texts[0]], [*scores, 0], {0: [5], 1: [1], 2: [2]})
    (root / "filter").mkdir()
    return root / "filter", build_filter(labels, root / "filter", Quality(keep=0.4), seed=1)


def test_a_filter_tells_lessons_from_adverts(built: tuple[Path, Built]):
    folder, made = built
    kept = QualityFilter.load(folder)
    new = ["Magnetism explained: what a magnetic field is, and how to see one with iron filings.", "Sale! Order today!"]
    lesson, advert = kept.scores(new)
    assert lesson > advert
    assert made.facts["labels"] == 30  # the text that stood there twice counts once
    assert made.facts["held_out"] == 6
    assert made.facts["classifiers"]["random_forest"]["auc"][0] == 1.0
    assert made.facts["classifiers"]["linear"]["auc"][0] == 1.0
    assert made.facts["agreement"]["pairs"] == 3
    assert made.facts["agreement"]["exact"] == pytest.approx(1 / 3)
    json.dumps(made.facts, allow_nan=False)
    assert "AUC 1.000" in made.summary
    assert f"keeps 33% (score {kept.threshold:.3f} or more)" in made.summary
    assert made.facts["warning"] is None
    assert sorted(path.name for path in folder.iterdir()) == ["filter.json", "filter.safetensors", "quality.html"]


def test_the_same_labels_make_the_same_files(built: tuple[Path, Built], tmp_path: Path):
    folder, _ = built
    again = tmp_path / "again"
    again.mkdir()
    build_filter(folder.parent / "labels" / "labels.parquet", again, Quality(keep=0.4), seed=1)
    for name in (*FILES, "quality.html"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_score_does_not_depend_on_the_other_texts_or_on_the_threads(built: tuple[Path, Built]):
    import torch

    kept = QualityFilter.load(built[0])
    texts = [*LESSONS[:4], "Short.", "", " \n", "A much longer text. " * 300, *ADVERTS[:3], "汉字和 emoji 🙂 \ud800"]
    together = kept.scores(texts)
    assert np.array_equal(together, np.concatenate([kept.scores([text]) for text in texts]))
    assert np.array_equal(together[::-1], kept.scores(texts[::-1]))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert np.array_equal(together, kept.scores(texts))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert kept.scores([]).shape == (0,)
    assert np.all((together >= 0) & (together <= 1))


@pytest.mark.parametrize("train", [train_forest, train_linear])
def test_each_row_is_worked_out_alone(train: Any):
    vectors, good = planted(600, seed=3)
    model = train(vectors, good, 0)
    many, _ = planted(9000, seed=4)
    together = model.probabilities(many)
    assert np.array_equal(together[:50], np.concatenate([model.probabilities(many[i : i + 1]) for i in range(50)]))
    assert np.array_equal(together[4000:], model.probabilities(many[4000:]))


def test_the_forest_predicts_what_scikit_learn_predicts():
    from sklearn.ensemble import RandomForestClassifier

    vectors, good = planted(700, seed=0, gap=0.6)
    vectors = np.round(vectors, 2)  # many values on and beside the thresholds
    theirs = RandomForestClassifier(n_estimators=30, min_samples_leaf=2, random_state=0).fit(vectors, good)
    ours = Forest.of([tree.tree_ for tree in theirs.estimators_])
    new = np.round(planted(3000, seed=1, gap=0.6)[0], 2)
    assert np.abs(ours.probabilities(new) - theirs.predict_proba(new)[:, 1]).max() < 1e-12
    # Values at the very thresholds, where rounding to 32 bits would show.
    exact = np.tile(new[:1], (500, 1))
    places = np.flatnonzero(ours.left != np.arange(len(ours.left)))[:500]
    exact[np.arange(len(places)), ours.feature[places]] = ours.threshold[places]
    assert np.abs(ours.probabilities(exact) - theirs.predict_proba(exact)[:, 1]).max() < 1e-12


def test_the_linear_probe_predicts_what_scikit_learn_predicts():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vectors, good = planted(500, seed=0, gap=0.6)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(vectors.astype(np.float64), good)
    ours = Linear.of(theirs[0], theirs[1])
    new = planted(500, seed=1, gap=0.6)[0]
    expected = theirs.predict_proba(new.astype(np.float64))[:, 1]
    assert np.abs(ours.probabilities(new) - expected).max() < 1e-12
    assert np.all(
        np.isfinite(Linear(ours.weights * 1e4, ours.bias).probabilities(new))
    )  # far out: 0 and 1, no overflow


@pytest.mark.parametrize("train", [train_forest, train_linear])
def test_a_filter_comes_back_as_it_was_saved(train: Any, tmp_path: Path):
    vectors, good = planted(300, seed=0)
    model = train(vectors, good, 0)
    QualityFilter(model, 0.25, {"labels": 300}).save(tmp_path)
    back = QualityFilter.load(tmp_path)
    new = planted(400, seed=1)[0]
    assert np.array_equal(back.vector_scores(new), model.probabilities(new))
    assert (back.threshold, back.classifier, dict(back.about)) == (0.25, model.kind, {"labels": 300})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_using_a_filter_takes_neither_scikit_learn_nor_pickle(built: tuple[Path, Built]):
    code = (
        "import sys\n"
        "sys.modules['sklearn'] = None\n"  # importing it fails
        "def hook(event, _):\n"
        "    if event == 'pickle.find_class': raise RuntimeError('pickle')\n"
        "sys.addaudithook(hook)\n"
        "from pathlib import Path\n"
        "from synth.quality_filter import QualityFilter\n"
        "print(QualityFilter.load(Path(sys.argv[1])).scores(['Gravity, explained.'])[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(built[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == QualityFilter.load(built[0]).scores(["Gravity, explained."])[0]


def _head(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        head = json.loads((folder / FILES[0]).read_text()) | changes
        (folder / FILES[0]).write_text(json.dumps(head))

    return change


def _arrays(**changes: Any) -> Any:
    """Other arrays, with the hash that belongs to them."""

    def change(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        from primer.fingerprint import file_hash

        save_file(load_file(folder / FILES[1]) | changes, folder / FILES[1])
        _head(arrays=file_hash(folder / FILES[1]))(folder)

    return change


@pytest.mark.parametrize(
    ("damage", "problem", "remedy"),
    [
        (lambda folder: (folder / FILES[0]).unlink(), "holds no quality filter", "train-filter"),
        (lambda folder: (folder / FILES[1]).unlink(), "missing", "Copy the filter's folder again"),
        (lambda folder: (folder / FILES[0]).write_text("{"), "cannot be used", "train it again"),
        (lambda folder: (folder / FILES[0]).write_text("[]"), "not a JSON object", "train it again"),
        (lambda folder: (folder / FILES[1]).write_bytes(b"\x80\x04junk"), "not the file", "Copy"),
        (_head(format=2), "format 2", "labels can be used again"),
        (_head(embedding={"model": "other", "dimension": 768}), "768", "Train the filter again"),
        (_head(threshold=None), "threshold", "Copy"),
        (_head(threshold=float("nan")), "threshold", "Copy"),
        (_head(classifier="boosting"), "boosting", "Copy"),
        (_arrays(weights=np.zeros(100)), "100", "train it again"),
        (_arrays(weights=np.full(384, np.nan)), "finite", "train it again"),
        (_arrays(weights=np.zeros(384, np.float32)), "not {", "train it again"),
        (_arrays(more=np.zeros(3)), "not {", "train it again"),
    ],
)
def test_a_filter_that_cannot_be_used_says_why(damage: Any, problem: str, remedy: str, tmp_path: Path):
    QualityFilter(Linear(np.ones(384), np.zeros(1)), 0.5, {}).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(PrimerError) as caught:
        QualityFilter.load(tmp_path)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert str(tmp_path) in caught.value.problem


def test_a_forest_that_leads_in_circles_is_refused(tmp_path: Path):
    vectors, good = planted(200, seed=0)
    forest = train_forest(vectors, good, 0)
    for changed in (
        {"left": np.zeros_like(forest.left)},
        {"right": forest.right + 10**6},
        {"feature": forest.feature - 1},
        {"feature": np.full_like(forest.feature, 400)},
        {"roots": forest.roots[:0]},
        {"good": forest.good + 1},
        {"good": forest.good[1:]},
    ):
        QualityFilter(forest, 0.5, {}).save(tmp_path)
        _arrays(**changed)(tmp_path)
        with pytest.raises(PrimerError, match="cannot be used"):
            QualityFilter.load(tmp_path)


@pytest.mark.parametrize(
    ("scores", "problem", "remedy"),
    [
        ([0, 3, 4], "Of 3 distinct", "Label more texts"),
        ([1] * 30, "0 score 3 or higher", "Lower web.quality.good or code.quality.good (now 3)"),
        ([4] * 30, "30 score 3 or higher", "Raise web.quality.good or code.quality.good (now 3)"),
        ([1] * 26 + [4] * 4, "4 score 3", "Lower"),
        ([1] * 29 + [6], "row 30: the score is 6", "primer web annotate"),
        ([1] * 29 + [None], "row 30: the score is None", "primer web annotate"),
    ],
)
def test_labels_that_teach_nothing_are_an_error(scores: Any, problem: str, remedy: str, tmp_path: Path):
    labels = write_labels(tmp_path / "labels", [f"text {n}" for n in range(len(scores))], scores, {})
    with pytest.raises(PrimerError) as caught:
        build_filter(labels, tmp_path, Quality(), seed=0)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert not (tmp_path / FILES[0]).exists()


def test_labels_that_cannot_be_read_are_an_error(tmp_path: Path):
    labels = tmp_path / "labels.parquet"
    with pytest.raises(PrimerError, match="cannot be read"):
        build_filter(labels, tmp_path, Quality(), seed=0)
    labels.write_bytes(b"no Parquet")
    with pytest.raises(PrimerError, match="cannot be read"):
        build_filter(labels, tmp_path, Quality(), seed=0)
    pq.write_table(pa.table({"text": ["a"], "score": [3]}), labels)
    with pytest.raises(PrimerError, match="title"):
        build_filter(labels, tmp_path, Quality(), seed=0)


def test_an_interrupted_embedding_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality_embedding, "_SAVED", 4)
    monkeypatch.setattr(quality_embedding, "usable_cores", lambda: 1)
    whole = quality_embedding.text_vectors(LESSONS)
    asked: list[str] = []

    def slow(texts: Sequence[str]) -> Vectors:
        if len(asked) >= 8:
            raise KeyboardInterrupt
        asked.extend(texts)
        return whole[[LESSONS.index(text) for text in texts]]

    monkeypatch.setattr(quality_embedding, "text_vectors", slow)
    with pytest.raises(KeyboardInterrupt):
        quality_embedding.sample_vectors(LESSONS, tmp_path)
    first = list(asked)
    asked.clear()
    assert np.array_equal(quality_embedding.sample_vectors(LESSONS, tmp_path), whole)
    assert sorted(first + asked) == sorted(LESSONS)


def test_several_processes_embed_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality_embedding, "_SAVED", 8)
    monkeypatch.setattr(quality_embedding, "usable_cores", lambda: 2)
    assert np.array_equal(quality_embedding.sample_vectors(LESSONS, tmp_path), quality_embedding.text_vectors(LESSONS))


def test_the_held_out_fifth_has_every_score_in_its_share():
    scores = np.array([0] * 500 + [3] * 100 + [5] * 50)
    held = held_out(scores, seed=0)
    assert np.bincount(scores[held], minlength=6).tolist() == [100, 0, 0, 20, 0, 10]
    assert not np.array_equal(held, held_out(scores, seed=1))
    assert held_out(np.array([0] * 15 + [4] * 5), seed=2)[15:].sum() == 1


def test_areas_curves_and_groups_are_right():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores = np.round(rng.random(400), 2)  # with ties
    good = rng.random(400) < scores
    assert area_under_roc(scores, good) == pytest.approx(roc_auc_score(good, scores), abs=1e-12)
    curve = roc_curve(scores, good)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))
    assert area == pytest.approx(area_under_roc(scores, good), abs=1e-12)
    (first, second), difference = auc_intervals([scores, rng.random(400)], good, seed=0)
    assert first[0] < area_under_roc(scores, good) < first[1]
    assert second[0] < 0.5 < second[1]
    assert difference[0] > 0
    groups = reliability(scores, good, 10)
    assert sum(count for *_, count in groups) == 400
    assert all(abs(mean - share) < 0.2 for mean, share, _ in groups)
    assert (scores >= threshold_for(scores, 0.2)).mean() == pytest.approx(0.2, abs=0.02)


def test_agreement_is_that_of_independent_readings():
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(0)
    chance = rng.beta(0.4, 1.6, 40_000)  # of being called good
    first, second = ((rng.random(40_000) < chance) * 3 for _ in range(2))
    found = agreement(first.tolist(), [[score] for score in second.tolist()], good=3)
    assert found is not None
    assert found.pairs == 40_000
    assert found.ceiling == pytest.approx(area_under_roc(chance, first >= 3), abs=0.01)
    assert found.reading is not None
    assert found.reading < found.ceiling
    scores, again = rng.integers(0, 6, 300), rng.integers(0, 6, 300)
    again = np.where(rng.random(300) < 0.5, scores, again)
    some = agreement(scores.tolist(), [[score] for score in again.tolist()], good=3)
    assert some is not None
    assert some.kappa == pytest.approx(cohen_kappa_score(scores, again, weights="quadratic"), abs=1e-12)
    assert some.near >= some.exact == (scores == again).mean()
    assert agreement([1, 2], [[], []], good=3) is None
    alike = agreement([1, 1], [[1], [1]], good=3)
    assert alike is not None
    assert (alike.exact, alike.kappa, alike.reading, alike.ceiling) == (1.0, None, None, None)


def test_the_threshold_keeps_the_share_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    vectors, good = planted(1500, seed=0, gap=0.8)
    monkeypatch.setattr(quality_training, "sample_vectors", lambda texts, folder: vectors)
    (tmp_path / "filter" / "vectors").mkdir(parents=True)
    labels = write_labels(tmp_path, [f"text {n}" for n in range(1500)], [4 if yes else 1 for yes in good], {})
    made = build_filter(labels, tmp_path / "filter", Quality(keep=0.1, classifier="linear"), seed=0)
    kept = QualityFilter.load(tmp_path / "filter")
    assert kept.classifier == "linear"
    assert (kept.vector_scores(planted(6000, seed=9, gap=0.8)[0]) >= kept.threshold).mean() == pytest.approx(
        0.1, abs=0.05
    )
    found = made.facts["classifiers"]["linear"]
    assert found["kept"] == pytest.approx(0.1, abs=0.01)
    assert found["precision"] > 0.8
    assert found["recall"] == pytest.approx(found["precision"] * found["kept"] * 3, abs=0.02)
    assert found["brier"] < 2 / 9
    assert found["auc"][1] <= found["auc"][0] <= found["auc"][2]
    assert sum(found["good_histogram"]) == made.facts["held_out_good"] == 100
    # Twenty texts on either side, those next to the threshold.
    page = (tmp_path / "filter" / "quality.html").read_text()
    assert page.count("<article>") == 40


def planted_filter(
    folder: Path, gap: float, monkeypatch: pytest.MonkeyPatch, corpus: str = "web", **quality: Any
) -> tuple[Path, Built]:
    """A filter for labels in a run's folder, by vectors that tell the good ones apart as far as the gap is wide."""
    vectors, good = planted(60, seed=0, gap=gap)
    monkeypatch.setattr(quality_training, "sample_vectors", lambda texts, folder: vectors)
    (folder / "filter" / "vectors").mkdir(parents=True)
    texts = [f"text {n}" for n in range(60)]
    labels = write_labels(folder / "labels" / corpus, texts, [4 if yes else 1 for yes in good], {})
    return folder / "filter", build_filter(labels, folder / "filter", Quality(**quality), seed=0)


def test_a_filter_no_better_than_chance_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for gap, useless in ((0.0, True), (4.0, False)):
        folder, made = planted_filter(tmp_path / str(gap), gap, monkeypatch)
        assert (made.facts["classifiers"]["random_forest"]["auc"][1] <= 0.5) == useless
        assert ("not shown to be better than chance" in (made.facts["warning"] or "")) == useless
        assert ("better than chance" in " ".join(capsys.readouterr().err.split())) == useless
        page = (folder / "quality.html").read_text()
        assert ('<p class="warning">On the held-out texts' in page) == useless


@pytest.mark.parametrize(
    ("corpus", "asked", "rubric"),
    [("web", None, "education"), ("code", None, "code"), ("web", "code", "code"), ("elsewhere", None, None)],
)
def test_a_filter_says_which_rubric_it_was_trained_by(
    corpus: str, asked: Any, rubric: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, _ = planted_filter(tmp_path, 4.0, monkeypatch, corpus, rubric=asked)
    assert json.loads((folder / FILES[0]).read_text())["about"]["rubric"] == rubric
    assert other_rubric(folder, "education") == ("code" if rubric == "code" else None)


def test_the_key_in_a_remedy_is_that_of_the_corpus(tmp_path: Path):
    labels = write_labels(tmp_path / "labels" / "code", [f"text {n}" for n in range(30)], [1] * 30, {})
    with pytest.raises(PrimerError) as caught:
        build_filter(labels, tmp_path, Quality(), seed=0)
    assert "Lower code.quality.good (now 3)" in caught.value.remedy


def test_the_page_says_what_was_measured_and_shows_texts_from_both_sides(built: tuple[Path, Built]):
    folder, made = built
    page = (folder / "quality.html").read_text()
    for part in ("area under the ROC curve", "random forest", "linear probe", "3 texts were scored again", "Brier"):
        assert part in page
    assert page.count("<svg") == 4
    assert page.count("<article>") == made.facts["held_out"]
    assert page.index("Just above: kept") < page.index("Just below: dropped")
    assert "http" not in page.replace("http-equiv", "")


def test_hostile_texts_stay_text_on_the_page(built: tuple[Path, Built]):
    bad = "</div><script>alert(1)</script>\x1b[31m\u202e &amp; \ud800 {{ facts }} " + "word " * 3000
    shown = Shown(score=0.5, label=3, reason=bad, title=bad, text=bad)
    page = filter_page(built[1].facts, {"random_forest": [(0, 0), (1, 1)]}, [shown], [])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&amp;amp;" in page
    assert "{{ facts }}" in page
    assert not set("\x1b\u202e\ud800") & set(page)
    assert "more characters are left out" in page
    assert "None." in page  # nothing lies below
    page.encode()
