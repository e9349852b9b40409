"""The stage `corpus/diversity`: how much each corpus of a run repeats itself, and ten documents to read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from primer.documents import sample_documents
from primer.fingerprint import file_hash, fingerprint, stage_settings
from primer.progress import say
from primer.recipe import Recipe
from primer.run import Built, RunFolder, Stage, write_json, write_text
from prompts.tables import PROMPTS_FOLDER

if TYPE_CHECKING:
    from synth.diversity import Diversity

STAGE = "corpus/diversity"
_TEMPLATE = Path(__file__).parent / "corpus_report.html.j2"

# Raise it when the measures change: they are then taken again.
_MEASURES = "1"

# Of a corpus of any size at most so many blocks are read, and so many documents kept.
_BLOCKS, _DOCUMENTS = 64, 8192
_MOST_WORDS = 50_000
_EMBEDDED = 100
_SAMPLES = 10

# Measure, name for people, format, and whether more of it is more diverse.
ROWS: tuple[tuple[str, str, str, bool], ...] = (
    ("near_duplicates", "near duplicates (5-word shingles, Jaccard above 0.7)", ".1%", False),
    ("related", "related texts (3-word shingles, Jaccard above 0.1)", ".1%", False),
    ("openings", "begin with one of the ten commonest four words", ".1%", False),
    ("stock_openings", "begin with a stock opener", ".1%", False),
    ("distinct_2", "different pairs of words", ".3f", True),
    ("distinct_4", "different runs of four words", ".3f", True),
    ("compression", "compression by gzip, times", ".2f", False),
    ("cosine", "mean cosine of two embeddings", ".3f", False),
    ("vendi", "Vendi score per document", ".3f", True),
)


def report_corpora(recipe: Recipe, run: RunFolder, corpora: Sequence[str]) -> None:
    """Measure the corpora of a run, write `corpora.html` and `diversity.json`, and say the figures.

    Args:
        recipe: The experiment.
        run: Its folder.
        corpora: Names of complete stages, such as `corpus/web`.

    Raises:
        PrimerError: If a corpus cannot be read.
    """
    stage = Stage(
        name=STAGE,
        settings=stage_settings(recipe, STAGE),
        reads=tuple(corpora),
        material={
            "template": file_hash(_TEMPLATE),
            "styles": file_hash(PROMPTS_FOLDER / "styles.yaml"),  # the stock openers
            "measures": _MEASURES,
            **{f"facts of {name}": fingerprint(run.require(name).facts) for name in corpora},
        },
        build=partial(_build, recipe, run, corpora),
    )
    measured: dict[str, dict[str, Any]] = run.complete(stage).facts["diversity"]
    for name, found in measured.items():
        say(
            f"  {name}: {found['near_duplicates']:.1%} near duplicates, {found['related']:.1%} related, "
            f"{found['openings']:.1%} with a common opening, {found['stock_openings']:.1%} with a stock one; "
            f"distinct-4 {found['distinct_4']:.3f}, gzip {found['compression']:.2f}, cosine {found['cosine']:.3f}, "
            f"Vendi {found['vendi']:.3f}"
        )
    if rejected := _rejected(run):
        say(f"  {rejected}")
    say(f"  [dim]ten documents beside their prompts: {run.folder(STAGE) / 'corpora.html'}[/]")


def _rejected(run: RunFolder) -> str:
    """What was turned away because it repeated something; "" if the run has no synthetic corpus."""
    manifest = run.manifest("corpus/synthetic")
    if manifest is None:
        return ""
    removed, units = manifest.facts["duplicates_removed"], manifest.facts["units"]
    return (
        f"{removed:,d} of {units:,d} synthetic documents were left out as duplicates or near duplicates of earlier ones"
    )


def _build(recipe: Recipe, run: RunFolder, corpora: Sequence[str], folder: Path) -> Built:
    from synth.diversity import embed_heads, equal_words, measure

    columns = ["id", "text", "title", "provenance"]
    rows = {
        stage.split("/")[1]: sample_documents(run.folder(stage), _DOCUMENTS, _BLOCKS, recipe.seed, columns)
        for stage in corpora
    }
    texts = {name: [row["text"] for row in some] for name, some in rows.items()}
    samples = equal_words(texts, _MOST_WORDS, recipe.seed)
    samples = {name: sample for name, sample in samples.items() if len(sample) > 1}
    counted = min(map(len, samples.values()), default=0)
    measured = {
        name: measure(sample, embed_heads(sample[: min(_EMBEDDED, counted)], f"{name} corpus"), counted)
        for name, sample in samples.items()
    }
    facts = {name: asdict(found) for name, found in measured.items()}
    write_json(folder / "diversity.json", facts)
    write_text(folder / "corpora.html", _page(recipe, rows, measured, _rejected(run)))
    words = max((found.words for found in measured.values()), default=0)
    return Built(f"{len(measured)} corpora measured, {words:,d} words each", {"diversity": facts})


def _page(
    recipe: Recipe, rows: Mapping[str, list[dict[str, Any]]], measured: Mapping[str, Diversity], rejected: str
) -> str:
    from jinja2 import Environment, StrictUndefined

    synthetic = sorted(rows.get("synthetic", []), key=lambda row: str(row["id"]))
    shown = random.Random(recipe.seed).sample(synthetic, min(_SAMPLES, len(synthetic)))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        name=recipe.name,
        corpora=measured,
        rejected=rejected,
        measures=[
            {
                "label": label,
                "better": "higher" if higher else "lower",
                "values": [format(getattr(found, key), form) for found in measured.values()],
            }
            for key, label, form, higher in ROWS
        ],
        openings=_openings(synthetic),
        total=len(synthetic),
        samples=[_sample(row) for row in shown],
        axes=_axes(synthetic),
        passages=_passages(synthetic),
    )


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    made = row["provenance"]
    about = [made[key] for key in ("form", "audience", "level", "length", "register", "language")]
    return {
        "id": row["id"],
        "title": row["title"],
        "text": row["text"],
        "prompt": made["prompt"],
        "about": ", ".join(about),
        "words": f"{made['words_used']} of {len(made['required_words'])} required words stand in it as they were given"
        if made["words_used"] is not None and made["required_words"]
        else "",
        "passage": f"passage {made['snippet_id']}, {made['snippet_copied']:.0%} of it copied"
        if made["snippet_id"]
        else "",
    }


def _openings(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The commonest beginnings of four words, as they are written, each that comes twice or more."""
    openings = Counter(" ".join(row["text"].split()[:4]) for row in rows)
    return [(text, count) for text, count in openings.most_common(10) if count > 1]


def _axes(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    """How many documents there are of each form, audience and so on."""
    axes = ("form", "audience", "level", "length", "register", "language")
    return {axis: Counter(row["provenance"][axis] for row in rows).most_common() for axis in axes}


def _passages(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What became of the passages: how many documents repeat eight words of theirs in a row, and the longest run."""
    made = [row["provenance"] for row in rows if row["provenance"]["snippet_id"]]
    if not made:
        return None
    return {
        "documents": len(made),
        "copying": sum(some["snippet_copied"] > 0 for some in made),
        "longest": max(some["snippet_longest_run"] for some in made),
        "mean": sum(some["snippet_longest_run"] for some in made) / len(made),
    }
