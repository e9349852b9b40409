"""The report: one self-contained HTML file that answers a run's question, from the files of the run folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from primer.fingerprint import file_hash, fingerprint, stage_settings
from primer.recipe import Recipe
from primer.run import Built, Manifest, RunFolder, Stage, write_json, write_text

if TYPE_CHECKING:
    from eval.compare import Comparison
    from eval.contamination import Contamination
    from eval.run_facts import TrainingLog

_HERE = Path(__file__).parent
_TEMPLATE, _STYLE = "report.html.j2", "report.css"

# Sample documents shown of each source.
_SAMPLES = {"synthetic": 6, "web": 3, "code": 2}


def write_report(recipe: Recipe, run: RunFolder) -> Path:
    """Compare the variants and write `report/report.html` and `report/comparison.json`.

    Returns:
        The path of the page.

    Raises:
        PrimerError: If a stage before it is missing or its files are damaged, or if the variants were not asked the
            same items.
    """
    from dataclasses import asdict

    from eval.contamination import read_contamination
    from eval.run_facts import present_corpora

    sources = present_corpora(recipe, run)
    models = [f"{room}/{variant.name}" for room in ("models", "eval") for variant in recipe.variants]
    reads = (*(f"corpus/{source}" for source in sources), "tokens", *models)
    manifests = {stage: run.require(stage) for stage in reads}
    corpora = {source: manifests[f"corpus/{source}"] for source in sources}
    contamination = read_contamination(run, corpora, manifests[models[-1]])
    # The page shows the facts of the manifests, which the hashes of the stages' files do not cover.
    material = {f"facts of {stage}": fingerprint(manifest.facts) for stage, manifest in manifests.items()}
    material |= {name: file_hash(_HERE / name) for name in (_TEMPLATE, _STYLE)}
    if contamination:
        material["suites that the corpora were compared with"] = fingerprint(asdict(contamination))
    stage = Stage(
        name="report",
        settings={**stage_settings(recipe, "report"), "train.max_epochs": recipe.train.max_epochs},
        reads=reads,
        material=material,
        build=partial(_build, recipe, run, manifests, contamination),
    )
    run.complete(stage)
    return run.folder("report") / "report.html"


def _build(
    recipe: Recipe,
    run: RunFolder,
    manifests: Mapping[str, Manifest],
    contamination: Contamination | None,
    folder: Path,
) -> Built:
    from dataclasses import asdict

    from eval.compare import compare_run
    from eval.corpus_tables import left_out, mixtures
    from eval.verdict import Training, give_verdict

    comparison = compare_run(recipe, run)
    training = {
        v.name: Training(facts.get("tokens"), facts.get("epochs") or {})
        for v in recipe.variants
        for facts in [manifests[f"models/{v.name}"].facts]
    }
    verdict = give_verdict(comparison, training)
    corpora = {stage.removeprefix("corpus/"): m for stage, m in manifests.items() if stage.startswith("corpus/")}
    data = {**asdict(comparison), "tests": comparison.tests, "verdict": asdict(verdict)}
    data["contamination"] = asdict(contamination) if contamination else None
    data["corpora"] = {source: left_out(manifest) for source, manifest in corpora.items()}
    data["mixtures"] = mixtures(recipe, manifests)
    write_json(folder / "comparison.json", data)
    write_text(folder / "report.html", _page(recipe, run, manifests, corpora, contamination, comparison, verdict))
    found = sum(d.beyond_noise for d in comparison.differences)
    summary = f"{len(comparison.differences)} paired comparisons, {found} beyond noise"
    if not comparison.differences:
        summary = f"{len(comparison.suites)} suites of one variant"
    return Built(
        summary, {"differences": len(comparison.differences), "beyond_noise": found, "tests": comparison.tests}
    )


def _page(
    recipe: Recipe,
    run: RunFolder,
    manifests: Mapping[str, Manifest],
    corpora: Mapping[str, Manifest],
    contamination: Contamination | None,
    comparison: Comparison,
    verdict: Any,
) -> str:
    import jinja2
    from markupsafe import Markup

    from eval import charts, corpus_tables, run_facts, tables
    from primer.recipe_file import dump_recipe

    models = {v.name: manifests[f"models/{v.name}"] for v in recipe.variants}
    logs = {name: run_facts.read_training_log(run.folder(f"models/{name}") / "training.jsonl") for name in models}
    commands, shipped = run_facts.reproduce_commands(recipe)
    synthetic = corpora["synthetic"].facts if "synthetic" in corpora else {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["variants"] = partial(_mark_variants, [v.name for v in recipe.variants])
    # Charts escape what enters them; they and the style sheet are the only markup that the template takes as it is.
    template = environment.get_template(_TEMPLATE)
    page = template.render(
        recipe=recipe,
        style=Markup((_HERE / _STYLE).read_text(encoding="utf-8")),  # noqa: S704
        verdict=verdict,
        comparison=comparison,
        tables=tables,
        corpus_tables=corpus_tables,
        contamination=contamination,
        mixed=corpus_tables.mixtures(recipe, manifests),
        models=models,
        logs=logs,
        charts={name: Markup(svg) for name, svg in _charts(comparison, logs, synthetic).items()},  # noqa: S704
        keys=[Markup(charts.key(i)) for i in range(len(recipe.variants))],  # noqa: S704
        corpora=corpora,
        synthetic=synthetic,
        token_manifest=manifests["tokens"],
        samples={
            source: run_facts.choose_samples(run.folder(f"corpus/{source}"), recipe.seed, _SAMPLES[source])
            for source in corpora
        },
        manifests=list(manifests.values()),
        versions=run_facts.versions(list(manifests.values())),
        machine=run_facts.machine(),
        settings=dump_recipe(recipe),
        commands=commands,
        shipped=shipped,
        date=max(m.started for m in manifests.values())[:10],
    )
    return run_facts.clean(page)


def _charts(comparison: Comparison, logs: Mapping[str, TrainingLog], synthetic: Mapping[str, Any]) -> dict[str, str]:
    """The page's charts as SVG, by name; one with nothing to show is left out."""
    from eval import tables
    from eval.charts import Axis, Row, bar_chart, dot_chart, line_chart, smooth

    names = comparison.variants
    found: dict[str, str] = {}
    for origin, title in (("built-in", "Accuracy on the built-in suites"), ("benchmark", "Accuracy on the benchmarks")):
        rows = [
            Row(a.title, f"{a.rows:,} items", a.chance, [a.scores[v].acc for v in names])
            for a in (*comparison.suites, *comparison.means)
            if a.origin == origin
        ]
        if rows:
            axis = Axis("raw accuracy, per cent", lambda v: f"{100 * v:.0f}", (0, 1))
            found[origin] = dot_chart(f"accuracy-{origin}", title, rows, names, axis)
    texts = [
        Row(h.source, f"{h.documents:,} documents", None, [h.scores[v] for v in names]) for h in comparison.held_out
    ]
    if texts:
        axis = Axis("bits per byte; fewer are better", lambda v: f"{v:.2f}", (0, 99))
        found["held_out"] = dot_chart("held-out", "Loss on held-out text", texts, names, axis)
    sets = [Row(t.title, f"{t.rows:,} sentences", 0.5, [t.scores[v] for v in names]) for t in comparison.toxicity]
    if sets:
        axis = Axis("area under the curve", lambda v: f"{v:.2f}", (0, 1))
        found["toxicity"] = dot_chart("toxicity-sets", "Hostile and neutral sentences told apart", sets, names, axis)
    lines = [(name, smooth(logs[name].points)) for name in names]
    if any(points for _, points in lines):
        spoken = "; ".join(f"{name} ends at {points[-1][1]:.2f}" for name, points in lines if points)
        x, y = Axis("training tokens (logarithmic)", _short), Axis("training loss", lambda v: f"{v:g}")
        found["loss"] = line_chart("loss-curves", "Training loss", spoken, lines, x, y)
    for name, title in (("rejected", "Rejected replies by reason"), ("forms", "Accepted documents by form")):
        bars = sorted(
            ((k.replace("_", " "), float(v)) for k, v in (synthetic.get(name) or {}).items() if v), key=lambda b: -b[1]
        )
        if bars:
            found[name] = bar_chart(f"bars-{name}", title, bars, tables.number)
    return found


def _short(value: float) -> str:
    """A token count for an axis: 200, 5k, 2M, 10B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.999:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _mark_variants(names: list[str], text: str) -> Any:
    """A sentence of the verdict, escaped, with the quoted names of variants set apart."""
    from markupsafe import Markup, escape

    marked = str(escape(text))
    for name in names:
        marked = marked.replace(f"“{escape(name)}”", f'<b class="name">{escape(name)}</b>')
    return Markup(marked)  # noqa: S704 - escaped above
