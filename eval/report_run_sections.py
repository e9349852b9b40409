"""The report's sections about how the models came to be: training, corpora, documents, costs, and making it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval import run_tables
from eval.charts import Axis, Line, bar_chart, line_chart, smooth
from eval.report_material import Experiment, Material, TrainedModel, recipe_differences, settings_of
from eval.report_page import (
    Block,
    Details,
    Documents,
    Figure,
    Grid,
    Heading,
    Listing,
    Section,
    Words,
    section,
)
from eval.run_facts import versions
from eval.tables import NOTHING, Cell, Column, Table, bits, facts_table, number, short
from primer.recipe import SOURCES

_COSTS = (
    "Time of the stages on the clock, all models together; of an interrupted stage only what came after the "
    "interruption, but all the time that a teacher wrote. Dollars are what a teacher’s tokens cost at the recipe’s "
    "prices; – where none is given. Machines are not priced."
)
_DIVERSITY = (
    "Documents by their first 300 words. Near duplicates: Jaccard similarity above 0.7 with another document, 5-word "
    "shingles; related: above 0.1, 3-word shingles. Vendi score: 1 if no two documents are alike in anything. Code is "
    "not prose: its figures are for completeness. More is in corpus/diversity/corpora.html in the run folder."
)
_WATCHED = "Measured in training, on a sample of the held-out text; the figures under Held-out text are of more of it."

_TOKENS = Axis("training tokens (logarithmic)", short)


def training(material: Material) -> Section | None:
    """Loss along training, by variant and by source, and what each model was trained on."""
    models = [(model.name, model.subject, model.manifest) for model in material.models]
    gaps = [
        Words(f"{m.name}: {m.training.not_finite} logged steps had no finite loss and are not drawn.", "note")
        for m in material.models
        if m.training.not_finite
    ]
    table = run_tables.training_table(models) if models else None
    return section(
        "training",
        "Training",
        "Training",
        [
            *_held_out_curves(material),
            _training_curves(material),
            *gaps,
            *(block for experiment in material.experiments for block in _mixture(material, experiment)),
            Grid("The models and their training.", table, kind="words") if table else None,
        ],
    )


def corpora(material: Material) -> Section | None:
    """What the corpora are, what was left out of them, how diverse they are, and how the textbooks were written."""
    blocks = [block for e in material.experiments for block in _named(material, e, list(_corpora(e)))]
    return section("corpora", "Corpora", "Corpora", blocks)


def documents(material: Material) -> Section | None:
    """Documents to read, beside their prompts."""
    blocks: list[Block] = []
    for experiment in material.experiments:
        if any(experiment.samples.values()):
            blocks += _named(material, experiment, [Documents(experiment.samples)])
    if not blocks:
        return None
    lead = Words(
        "Drawn by a hash of their identity, not picked. What a teacher wrote was checked for form, not for truth."
    )
    return Section("documents", "Documents", "Documents", [lead, *blocks])


def costs(material: Material) -> Section | None:
    """Hours and dollars."""
    blocks: list[Block] = []
    for experiment in material.experiments:
        stages = list(experiment.stages.values())
        rows = run_tables.cost_rows(stages)
        if rows:
            grid = Grid(
                "Time and money by kind of work.",
                run_tables.cost_table(rows),
                (_COSTS,),
            )
            each = Grid("Time of each stage since it was last started.", run_tables.stage_table(stages))
            blocks += _named(material, experiment, [grid, Details("Stage by stage", [each])])
    return section("costs", "Time and cost", "Cost", blocks)


def again(material: Material) -> Section | None:
    """Commands, settings, versions and the machine."""
    blocks: list[Block] = []
    if material.command:
        blocks += [Words("This comparison, once what it compares is there:"), Listing(material.command)]
    if len(material.experiments) > 1:
        blocks.append(_differences(material.experiments))
    for experiment in material.experiments:
        blocks += _named(material, experiment, list(_reproduction(experiment)))
    recorded = versions(material.stages)
    if recorded:
        grid = Grid("Versions that the stages recorded.", facts_table(recorded), kind="pairs")
        blocks.append(Details("Versions", [grid]))
    about = "The machine that wrote this page. The device of each training is in the table of models."
    blocks.append(Details("Machine", [Grid(about, facts_table(material.machine), kind="pairs")]))
    return section("again", "Making it again", "Making it again", blocks)


def _held_out_curves(material: Material) -> Iterator[Block]:
    """A chart for each source, then the numbers where each curve ends."""
    models = material.models
    sources = sorted({source for m in models for source in m.held_out}, key=_source_order)
    for source in sources:
        lines = [Line(m.name, m.subject, m.held_out.get(source, [])) for m in models]
        ends = "; ".join(f"{line.name} ends at {bits(line.points[-1][1])}" for line in lines if line.points)
        axis = Axis("bits per byte", lambda v: f"{v:.2f}")
        title = f"Loss on held-out {source} text along training"
        svg = line_chart(f"validation-{source}", title, ends, _by_variant(material, lines), _TOKENS, axis, tall=False)
        yield Figure(f"{title}, in bits per byte; fewer are better.", svg)
    if sources:
        rows = [
            [Cell(m.name), *(Cell(bits(m.held_out[s][-1][1])) if m.held_out.get(s) else Cell(NOTHING) for s in sources)]
            for m in models
        ]
        last = Table([Column("Model", number=False), *map(Column, sources)], rows)
        yield Grid(
            "Bits per byte of held-out text when training ended.",
            last,
            (_WATCHED,),
        )
        every = Grid("Bits per byte of held-out text by source and training tokens.", _curve_values(models, sources))
        yield Details("Every value of these curves", [every])


def _curve_values(models: Sequence[TrainedModel], sources: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    headings: dict[int, str] = {}
    for source in sources:
        headings[len(rows)] = source
        found = [dict(m.held_out.get(source, [])) for m in models]
        for tokens in sorted({tokens for points in found for tokens in points}):
            values = [Cell(bits(points[tokens])) if tokens in points else Cell(NOTHING) for points in found]
            rows.append([Cell(number(tokens)), *values])
    columns = [Column("Training tokens", number=False), *(Column(m.name, variant=m.subject) for m in models)]
    return Table(columns, rows, headings=headings)


def _training_curves(material: Material) -> Block | None:
    lines = [Line(m.name, m.subject, smooth(m.training.points)) for m in material.models]
    if not any(line.points for line in lines):
        return None
    spoken = "; ".join(f"{line.name} ends at {line.points[-1][1]:.2f}" for line in lines if line.points)
    axis = Axis("training loss", lambda v: f"{v:.3g}")
    svg = line_chart("loss", "Training loss", spoken, _by_variant(material, lines), _TOKENS, axis)
    return Figure(
        "Training loss in nats per token, lightly smoothed. Each curve is the loss on that variant’s own mixture: "
        "their heights do not rank the models.",
        svg,
    )


def _by_variant(material: Material, lines: Sequence[Line]) -> list[Line]:
    """The first line of each variant under the variant's own name."""
    return [Line(material.comparison.variants[line.style], line.style, line.points) for line in lines]


def _mixture(material: Material, experiment: Experiment) -> Iterator[Block]:
    if not experiment.mixed:
        return
    most = experiment.recipe.train.max_epochs
    prefix = f"{experiment.name}: " if len(material.experiments) > 1 else ""
    caption = "what each variant was trained on: share of the tokens by source, and how often its text was seen."
    yield Grid(
        f"{prefix}{caption}" if prefix else caption[0].upper() + caption[1:],
        run_tables.mixture_table(experiment.mixed, material.comparison.variants, most),
        kind="words",
    )
    for sentence in run_tables.repetitions(experiment.mixed, most):
        yield Words(sentence, "warning")


def _corpora(experiment: Experiment) -> Iterator[Block]:
    found = experiment.corpora
    if not found:
        return
    tokens = experiment.stages.get("tokens")
    notes = [f"{source}: {origin}." for source, origin in run_tables.origins(found).items()]
    if tokens:
        size, kind = tokens.facts.get("vocabulary_size"), tokens.facts.get("kind") or "kind not recorded"
        notes.insert(0, f"Tokens in the models’ vocabulary of {number(size) if size else 'unrecorded size'} ({kind}).")
    table = run_tables.corpus_table(found, tokens)
    yield Grid("The corpora: training split by source, and documents held out.", table, (" ".join(notes),))
    removed = run_tables.left_out_table(found)
    if removed:
        caption = (
            "Documents that were left out of each source and why; what was masked and found in those that were kept."
        )
        yield Grid(caption, removed, kind="counts")
    rules = run_tables.rules_table(found)
    if rules:
        grid = Grid("Documents that the heuristic rules removed, by reason.", rules, kind="counts")
        yield Details("Heuristic rules, by reason", [grid])
    if experiment.diversity:
        yield Heading("How diverse they are")
        yield Grid(
            "How much each corpus repeats itself, at equal numbers of words and documents.",
            run_tables.diversity_table(experiment.diversity),
            (_DIVERSITY,),
            "counts",
        )
    facts = found["synthetic"].facts if "synthetic" in found else {}
    if facts:
        yield Heading("How the textbooks were made")
        yield Grid("Generation of the synthetic corpus.", run_tables.generation_table(facts), kind="pairs")
        for key, title, caption in (
            ("rejected", "Rejected replies by reason", "Replies that did not enter the corpus, by reason."),
            ("forms", "Accepted documents by form", "Accepted documents by form."),
        ):
            counts = sorted(((k, float(v)) for k, v in (facts.get(key) or {}).items() if v), key=lambda bar: -bar[1])
            bars = [(name.replace("_", " "), value) for name, value in counts]
            if bars:
                svg = bar_chart(f"{experiment.name}-{key}", title, bars, number)
                numbers = facts_table([(name, number(value)) for name, value in bars])
                yield Details(title, [Figure(caption, svg, legend=False, numbers=numbers)])


def _reproduction(experiment: Experiment) -> Iterator[Block]:
    if experiment.shipped:
        yield Words("This recipe comes with Primer.")
    else:
        name = f"{experiment.recipe.name}.yaml"
        yield Words(f"Save the settings below as {name} (they also lie in the run folder, as recipe.yaml).")
    yield Listing("\n".join(experiment.commands))
    yield Details("All settings", [Listing(settings_of(experiment))])


def _differences(experiments: Sequence[Experiment]) -> Block:
    found = recipe_differences(experiments)
    if not found:
        return Words("The runs have the same recipe.")
    columns = [Column("Setting", number=False), *(Column(e.name, number=False) for e in experiments)]
    rows = [[Cell(key), *map(Cell, values)] for key, values in found]
    return Grid("Settings in which the runs differ.", Table(columns, rows), kind="words")


def _named(material: Material, experiment: Experiment, blocks: Sequence[Block]) -> list[Block]:
    """Blocks about one run, below its name where there are several."""
    several = len(material.experiments) > 1 and blocks
    return [*([Heading(experiment.name)] if several else []), *blocks]


def _source_order(source: str) -> int:
    return [*SOURCES, source].index(source)
