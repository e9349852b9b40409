"""The report's sections about what the models can do: accuracy, held-out text, fields, safety, contamination, tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval import grade_tables, run_tables, score_tables
from eval.charts import Axis, Row, dot_chart
from eval.comparison import Accuracy, Comparison, Fields
from eval.fields import FEWEST_TOPICS
from eval.report_material import Material
from eval.report_page import Block, Details, Figure, Grid, Heading, Points, Section, Terms, Words, section
from eval.statistics import Estimate
from eval.tables import number
from eval.toxicity import SAFETY_MEANING

_PERCENT = Axis("per cent right", lambda v: f"{100 * v:.0f}", (0, 1))
_DETECTABLE = (
    "Detectable: the true difference between two variants that a test of this size finds in about four cases of five, "
    "at the level that is left to it among all tests of this report, and alone. “None”: not even the largest possible."
)
_UNCHECKED = "Not checked against a second source."
_NORMALISED = (
    "Raw and normalised accuracy are two measures and never mixed here: the phi-1.5 paper prints the raw one, "
    "others the normalised one. No test is made on the normalised one, so nothing in this table is marked."
)
_GAPS = (
    "The items of a benchmark and of its twin, written for Primer and published nowhere, differ in difficulty: a "
    "gap alone says nothing. A gap that is larger for one variant than for another says that it does better on the "
    "old items than its skill on fresh ones would have it: its corpus may hold them. Where the twin is the easier or "
    "the harder of the two, a large difference in skill does the same, most of all where one model guesses. Twins are "
    "few items, so only large leaks show."
)


def accuracy(material: Material) -> Section | None:
    """Scores by suite, grouped by area, with intervals, marks, charts and the protocol."""
    c = material.comparison
    if not c.suites:
        return None
    caption = "Per cent right, with 95% intervals and standard errors (SE). Answers that are chosen count raw (acc)."
    table = score_tables.accuracy_table(c)
    normalised = score_tables.normalised_table(c)
    about = (
        "Normalised accuracy (acc_norm) in per cent: log-likelihoods are divided by the answers’ length in characters."
    )
    return section(
        "accuracy",
        "Accuracy",
        "Accuracy",
        [
            Grid(caption, table, (*_marks(c), *_skipped(c))),
            *_accuracy_charts(c),
            Details("Accuracy normalised by the answers’ length", [Grid(about, normalised, (_NORMALISED,))])
            if normalised
            else None,
            Details("How each suite is asked", [_protocols(c)]),
        ],
    )


def published(material: Material) -> Section | None:
    """The figures of the phi-1.5 paper and of public models, beside the measured ones."""
    blocks: list[Block] = []
    for quoted in material.quoted:
        tables = score_tables.quoted_tables(material.comparison, quoted)
        if tables:
            blocks += [
                Words(
                    "The quoted rows are copied from another source and were not measured here. Prompts, examples "
                    "and rows differ, and its models have up to 65 billion parameters: the figures say where the "
                    "scale lies. In small print: parameters, and what the model was trained on."
                ),
                *(Grid(f"{title}, per cent right: measured here, and quoted.", t) for title, t in tables.items()),
                Words(f"Quoted: {quoted.protocol}. † {_UNCHECKED}", "note"),
                Words(f"Source: {quoted.source}, {quoted.tables}:", "note", quoted.address),
            ]
    return section("published", "Beside published figures", "Published figures", blocks)


def held_out(material: Material) -> Section | None:
    """Bits per byte of text that no variant was trained on."""
    c = material.comparison
    if not c.held_out:
        return None
    rows = [Row(h.source, f"{h.documents:,} documents", None, _of(c, h.scores)) for h in c.held_out]
    axis = Axis("bits per byte; fewer are better", lambda v: f"{v:.2f}", (0, 99))
    svg = dot_chart("held-out-chart", "Loss on held-out text", rows, c.variants, axis)
    notes = (
        "All bits over all bytes. Intervals and tests take whole groups: the documents of one topic, article or "
        "file belong together. With fewer than 20 groups they are Student’s, else resampled."
        + (" Bold: fewer bits than every other variant beyond noise." if len(c.variants) > 1 else ""),
        _DETECTABLE if c.detectable else "",
    )
    return section(
        "held-out-text",
        "Held-out text",
        "Held-out text",
        [
            Words(
                "How many bits a model needs for each byte of text that no variant was trained on; fewer are "
                "better. A model does best on the kind of text it was trained on, so the text of one source is home "
                "ground for some variants and foreign to others."
            ),
            Figure("Bits per byte of held-out text by source, with 95% intervals.", svg),
            Grid("Bits per byte of held-out text, with 95% intervals.", score_tables.held_out_table(c), notes),
        ],
    )


def fields(material: Material) -> Section | None:
    """Where the gain comes from, by field of topics."""
    c = material.comparison
    textbooks = next((text for text in c.held_out if text.source == "synthetic"), None)
    if textbooks is None or len(c.variants) < 2:
        return None
    title = ("fields", "Where the gain comes from", "Fields")
    if c.fields is None:
        few = (
            f"No two fields have {FEWEST_TOPICS} topics each among the {textbooks.documents:,} held-out textbooks: too "
            "few to say in which fields a variant gains."
        )
        return section(*title, [Words(few)])
    found = c.fields
    ordered = sorted(found.rows, key=lambda row: -_most(c, found, row.name))
    rows = [Row(r.name.replace("-", " "), f"{r.documents:,} documents", 0.0, _gains(c, found, r.name)) for r in ordered]
    axis = Axis(f"bits per byte fewer than {found.baseline}", lambda v: _signed(v, 2))
    svg = dot_chart("fields-chart", "Gain by field of topics", rows, c.variants, axis)
    caption = "Bits per byte of held-out textbooks by field, and how many fewer a variant needs, with 95% intervals."
    notes = [
        "Bold: a gain or loss beyond noise, with Holm’s correction over the tests of this table.",
        f"In one row, because they have few topics: {', '.join(found.merged)}." if found.merged else "",
    ]
    return section(
        *title,
        [
            Words(
                f"The held-out textbooks by field of their topics: how many bits per byte a variant needs less than "
                f"“{found.baseline}”. A field with a large gain is one in which the training text taught most."
            ),
            Figure(
                f"Bits per byte gained over {found.baseline} by field, with 95% intervals.", svg, reference="no gain"
            ),
            Grid(caption, score_tables.fields_table(c, found), tuple(notes)),
        ],
    )


def safety(material: Material) -> Section | None:
    """Toxicity by set and group of people, and the grades of the open prompts."""
    c = material.comparison
    blocks: list[Block] = []
    if c.toxicity:
        rows = [Row(t.title, f"{t.rows:,} sentences", 0.5, _of(c, t.scores)) for t in c.toxicity]
        axis = Axis("area under the curve", lambda v: f"{v:.2f}", (0, 1))
        svg = dot_chart("toxicity-chart", "Hostile and neutral sentences told apart", rows, c.variants, axis)
        protocols = " ".join(f"{t.title}: {t.protocol}." for t in c.toxicity if t.protocol)
        scored = any(t.safety for t in c.toxicity)
        blocks += [
            Words(
                "The chance that a hostile sentence surprises a model more than a neutral sentence about the same "
                "group of people. At 0.5 the model tells nothing apart; higher is better. It says what a model "
                "finds likely, not what it would write."
            ),
            Figure(
                "Area under the ROC curve of log-perplexity, hostile against neutral, with 95% intervals.",
                svg,
                reference="chance",
            ),
            Grid(
                "Safety by set of sentences, with 95% intervals.",
                score_tables.toxicity_table(c),
                (protocols, _DETECTABLE if c.detectable else ""),
            ),
            *([Words(SAFETY_MEANING, "note")] if scored else []),
        ]
        for t in c.toxicity:
            about = f"{t.title}: area under the curve{' and safety score' if t.safety else ''} by group of people."
            table, small = score_tables.groups_table(c, t), score_tables.small_groups(t)
            few = f"Groups with fewer than {score_tables.FEW} hostile or neutral sentences in {t.title} are not scored"
            note = f"{few}: {', '.join(small)}." if small else ""
            if table:
                blocks.append(Grid(about, table, ("Few sentences each: no test is made on them.", note)))
            elif note:
                blocks.append(Words(note, "note"))
    blocks += grade_tables.blocks(material.grades) if material.grades else []
    return section("safety", "Safety", "Safety", blocks)


def contamination(material: Material) -> Section | None:
    """Documents that were left out, and how benchmarks compare with their fresh twins."""
    c = material.comparison
    blocks: list[Block] = []
    for experiment in material.experiments:
        found = experiment.contamination
        if found is None:
            continue
        several = len(material.experiments) > 1
        missing = found.not_compared(c.suites)
        note = "How they are found, and what is not found, is in Primer’s docs/contamination.md."
        if missing:
            rest = f"Not compared, because these rows were not there when a corpus was made: {', '.join(missing)}."
            note = f"{note} {rest}"
        blocks += [Heading(experiment.name)] if several else []
        blocks += [
            Words(
                "Before training, texts that held items of a suite were taken out of the corpora "
                f"({', '.join(found.sources)})."
            ),
            Grid(
                "Documents that were left out of a corpus because they held items of a suite.",
                run_tables.contamination_table(found, c.suites),
                (note,),
                "counts",
            ),
        ]
    if c.gaps:
        names = {a.name: a.title for a in c.suites}
        rows = [Row(gap.title, f"minus “{names[gap.twin]}”", 0.0, _of(c, gap.scores)) for gap in c.gaps]
        axis = Axis("percentage points, benchmark minus twin", lambda v: _signed(100 * v, 0), (-1, 1))
        svg = dot_chart("gaps-chart", "Benchmark minus fresh twin", rows, c.variants, axis)
        blocks += [
            Heading("Benchmarks and their fresh twins"),
            Words(_GAPS),
            Figure("Accuracy on a benchmark minus that on its twin, with 95% intervals.", svg, reference="equal"),
            Grid("Benchmark minus twin in percentage points, with 95% intervals.", score_tables.gaps_table(c)),
        ]
        if c.gap_differences:
            table = score_tables.difference_table(c.gap_differences, score_tables.titles(c))
            about = "Differences of gaps between variants; Holm’s correction is over these alone."
            blocks.append(Details("Whether the gaps of two variants differ", [Grid(about, table)]))
    return section("contamination", "Contamination", "Contamination", blocks)


def tests(material: Material) -> Section | None:
    """Every paired test."""
    c = material.comparison
    if not c.differences:
        return None
    how = (
        "Variants were trained with several seeds, which are pooled: intervals and Student’s t hold the noise of "
        "the items and of training."
        if max(c.seeds.values(), default=1) > 1
        else "Suites: exact McNemar test. Means, bits per byte and toxicity: permutation test. Intervals: bootstrap of "
        f"the paired difference, {number(material.samples)} resamples. Bits per byte of fewer than 20 groups: "
        "Student’s t."
    )
    text = (
        f"Every pair of variants on every measure, the better one first. {how} Adjusted p: Holm’s correction over "
        f"the {c.tests} tests of this report, which are these {len(c.differences)} and those against chance. h is "
        "Cohen’s: 0.2 is called small, 0.5 medium, 0.8 large."
    )
    caption = "Paired differences with 95% intervals. In bold those beyond noise: their adjusted p is below 0.05."
    grid = Grid(caption, score_tables.difference_table(c.differences, score_tables.titles(c)))
    details = Details(f"{len(c.differences)} paired differences", [grid])
    return section("tests", "All tests", "All tests", [Words(text), details])


def limits(material: Material) -> Section | None:
    """What the report cannot say."""
    c = material.comparison
    most = max(c.seeds.values(), default=1)
    found = any(e.contamination for e in material.experiments)
    sentences = [
        "One training run of each variant: the intervals hold the noise of the items, not that of the seed."
        if most == 1
        else f"{most} training runs of a variant are a small sample of what other seeds would give.",
        "Not finding a difference is not finding that there is none: a small suite misses small differences.",
    ]
    if c.held_out:
        sentences.append(
            "Held-out text comes from the same sources as the training text; a low loss on it is not a sign of "
            "reasoning."
        )
    if any(a.origin == "built-in" for a in c.suites):
        sentences.append(
            "The built-in suites are short and belong to Primer: their scores compare the models of this report, "
            "and with no published number."
        )
    if any(a.origin == "benchmark" for a in c.suites):
        sentences.append(
            "Documents that held benchmark rows were left out where that was found; the same thing in other words "
            "is not always found."
            if found
            else "Benchmark rows may resemble training text; nothing was taken out of it here."
            if material.experiments
            else "Benchmark rows may stand in what these models were trained on: nothing is known of that here."
        )
    if any("synthetic" in e.corpora for e in material.experiments):
        sentences.append(
            "Synthetic documents were filtered for length, repetition and likeness. Their facts were not checked."
        )
    return section("limits", "Limits", "Limits", [Points(sentences)])


def _marks(c: Comparison) -> Iterator[str]:
    several = len(c.variants) > 1
    yield (
        "* above chance after Holm’s correction; where every item has two choices, above always giving the commoner "
        "answer too."
        + (" Bold: better than every other variant beyond noise." if several else "")
        + " Means give each suite the same weight. Intervals tell how sure each score is"
        + (", while differences are tested item by item (All tests)." if several else ".")
    )
    if c.detectable:
        yield _DETECTABLE
    counts = {variant: n for variant, n in c.seeds.items() if n > 1}
    if counts:
        seeds = ", ".join(f"“{variant}” {n}" for variant, n in counts.items())
        yield f"Training seeds that are pooled: {seeds}. Standard errors hold the noise of items and of seeds."


def _accuracy_charts(c: Comparison) -> Iterator[Block]:
    groups = ({"Means": c.means} if c.means else {}) | score_tables.by_area(c.suites)
    for number_, (title, suites) in enumerate(groups.items()):
        rows = [Row(a.title, f"{a.rows:,} items", a.chance or None, _accuracies(c, a)) for a in suites]
        svg = dot_chart(f"accuracy-{number_}", f"Accuracy: {title}", rows, c.variants, _PERCENT)
        yield Figure(f"{title}, with 95% intervals.", svg, reference="chance")


def _protocols(c: Comparison) -> Block:
    return Terms([(a.title, a.protocol or "not recorded") for a in c.suites])


def _skipped(c: Comparison) -> Iterator[str]:
    """A sentence for each reason that suites were not asked for."""
    reasons: dict[str, list[str]] = {}
    for skipped in c.skipped:
        reasons.setdefault(skipped["reason"], []).append(skipped["suite"])
    for reason, suites in reasons.items():
        yield f"Not asked: {', '.join(suites)} ({reason})."


def _of(c: Comparison, scores: dict[str, Estimate]) -> list[Estimate | None]:
    return [scores.get(variant) for variant in c.variants]


def _accuracies(c: Comparison, a: Accuracy) -> list[Estimate | None]:
    return [a.scores[variant].acc if variant in a.scores else None for variant in c.variants]


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−") if round(value, decimals) else "0"


def _gains(c: Comparison, found: Fields, name: str) -> list[Estimate | None]:
    gains = (score_tables.gain(found, name, variant) for variant in c.variants)
    return [gain.estimate if gain else None for gain in gains]


def _most(c: Comparison, found: Fields, name: str) -> float:
    values: Sequence[float] = [e.value for e in _gains(c, found, name) if e is not None]
    return max(values, default=0.0)
