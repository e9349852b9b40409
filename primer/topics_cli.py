"""`primer topics`: look at the topic seeds, search them, audit them, add to them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from primer.errors import PrimerError, did_you_mean

if TYPE_CHECKING:
    from primer.benchmarks import Question
    from topics.audit import Finding
    from topics.seeds import Topic

_MOST_FINDINGS = 50

app = typer.Typer(
    help="The topic seeds: what the textbooks are about.\n\n"
    "Seeds are plain text, one file a field (topics/seeds/*.tsv). A list of your own is a folder of such files: make "
    "one with `import`, name it in a recipe (topics.lists), or look at it with --list.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Lists = Annotated[
    list[str] | None,
    typer.Option("--list", metavar="DIR", help="A list: a folder of seed files, or primer (default). Repeatable."),
]
Fields = Annotated[list[str] | None, typer.Option("--field", help="Only this field. Repeatable.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only this kind. Repeatable.")]
Levels = Annotated[list[str] | None, typer.Option("--level", help="Only seeds that suit this level. Repeatable.")]
AsJson = Annotated[bool, typer.Option("--jsonl", help="Write JSON lines for other programs.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of benchmark data to compare with (or $PRIMER_EVAL_DATA)."),
]


@app.command()
def stats(lists: Lists = None, fields: Fields = None) -> None:
    """Count the seeds by field, kind and level."""
    from rich.table import Table

    from primer.progress import printer
    from topics.allocation import load_allocation

    topics = _select(lists, fields)
    counts = Counter(topic.field for topic in topics)
    subfields = Counter(topic.field for topic in {(t.field, t.subfield): t for t in topics}.values())
    table = Table(box=None, pad_edge=False)
    table.add_column("field", no_wrap=True)
    for heading in ("seeds", "share", "subfields"):
        table.add_column(heading, justify="right")
    table.add_column("", no_wrap=True)
    groups = {name: set(group.fields) for name, group in load_allocation().groups.items()}
    groups["other fields"] = set(counts).difference(*groups.values())
    most = max(counts.values())
    for name, members in groups.items():
        present = sorted(members & set(counts))
        if not present:
            continue
        total = sum(counts[field] for field in present)
        table.add_row(f"[bold]{name}[/]", f"[bold]{total:,d}[/]", f"[bold]{total / len(topics):.1%}[/]")
        for field in present:
            bar = "━" * round(14 * counts[field] / most)
            share = f"{counts[field] / len(topics):.1%}"
            table.add_row(f"  {field}", f"{counts[field]:,d}", share, str(subfields[field]), f"[dim]{bar}[/]")
    printer.print(table)
    for heading, values in (
        ("kind", [topic.kind for topic in topics]),
        ("level", [level for topic in topics for level in topic.levels]),
    ):
        found = ", ".join(f"{name} {count:,d}" for name, count in Counter(values).most_common())
        printer.print(f"\n[bold]{heading}s:[/] {found}")
    total_subfields = sum(subfields.values())
    printer.print(f"\n{len(topics):,d} seeds, {len(counts)} fields, {total_subfields} subfields")


@app.command()
def sample(
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 20,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed, another sample.")] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Draw as this recipe does: its lists, fields, weights, forms, seed.")
    ] = None,
    lists: Lists = None,
    fields: Fields = None,
    kinds: Kinds = None,
    levels: Levels = None,
    as_json: AsJson = False,
) -> None:
    """Draw some seeds, spread evenly over the fields."""
    if recipe is not None:
        from primer.recipe_file import load_recipe
        from prompts.stream import PromptStream

        if lists or fields or kinds or levels or seed is not None:
            raise PrimerError(
                "--recipe says which seeds to draw from, and how.",
                "Leave out --list, --field, --kind, --level and --seed.",
            )
        # Passages change nothing about the topics, and need a corpus.
        stream = PromptStream(load_recipe(recipe, ["prompts.snippet_share=0"]), [])
        _show([stream[i].topic for i in range(min(count, len(stream.topics)))], as_json=as_json)
        return
    from primer.recipe import TopicWeights
    from topics.sampling import TopicDraws

    draws = TopicDraws(_select(lists, fields, kinds, levels), TopicWeights(), seed or 0)
    _show([draws.topics[draws.place(i)[0]] for i in range(min(count, len(draws)))], as_json=as_json)


@app.command()
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As in physics-0007.")], lists: Lists = None
) -> None:
    """Show seeds by id, each with where it stands and the seeds nearest to it."""
    from rich.text import Text

    from primer.progress import printer
    from topics.audit import read_all
    from topics.embedding import embed
    from topics.retired import retired_ids
    from topics.similarity import nearest

    listed, _ = read_all(_lists(lists))
    places = {at.topic.id: place for place, at in enumerate(listed)}
    for identity in ids:
        if identity not in places:
            retired = retired_ids()
            if identity in retired:
                raise PrimerError(f"The seed {identity} is retired: {retired[identity]!r}.", "No seed has that id now.")
            raise PrimerError(
                f"There is no seed {identity!r}.", f"{did_you_mean(identity, places)}Try: primer topics search TEXT"
            )
    vectors = embed([at.topic.title for at in listed], "topics")
    for identity in ids:
        place = places[identity]
        topic = listed[place].topic
        printer.print(Text(topic.title, style="bold"))
        for name, value in (
            ("id", topic.id),
            ("field", topic.field),
            ("subfield", topic.subfield),
            ("kind", topic.kind),
            ("levels", ", ".join(topic.levels)),
            ("stands in", listed[place].where),
        ):
            printer.print(Text(f"  {name:<10}", style="dim") + Text(value, style="default not dim"))
        near, cosines = nearest(vectors[place : place + 1], vectors, min(6, len(listed)))
        for other, cosine in zip(near[0], cosines[0], strict=True):
            if other != place:
                seed = listed[other].topic
                near_id = Text(f"  {seed.id}", style="dim")
                printer.print(Text(f"  {cosine:.2f}  ", style="green") + Text(seed.title, style="default") + near_id)


@app.command()
def search(
    text: Annotated[list[str], typer.Argument(metavar="TEXT...", help="What to look for, in plain words.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 10,
    lists: Lists = None,
    fields: Fields = None,
    kinds: Kinds = None,
    levels: Levels = None,
    as_json: AsJson = False,
) -> None:
    """Find the seeds nearest in meaning to a text."""
    from topics.embedding import embed, embed_one
    from topics.similarity import nearest

    if not " ".join(text).strip():
        raise PrimerError(
            "There is nothing to search for.", "Say it in plain words: primer topics search why is ice slippery"
        )
    topics = _select(lists, fields, kinds, levels)
    # The whole list is embedded once and kept; what is selected from it costs nothing then.
    vectors = embed([topic.title for topic in topics], "topics")
    places, cosines = nearest(embed_one(" ".join(text))[None], vectors, min(count, len(topics)))
    _show([topics[place] for place in places[0]], [float(cosine) for cosine in cosines[0]], as_json=as_json)


@app.command()
def audit(
    lists: Lists = None,
    data: Data = None,
    page: Annotated[Path, typer.Option("--page", metavar="FILE", help="Where the HTML page goes.")] = Path(
        "topics-audit.html"
    ),
) -> None:
    """Check everything: form, ids, repetition, plan, benchmarks. Writes a page with a map of the topics.

    The first time, embedding the list and the benchmarks takes some minutes on a small CPU; later, seconds.
    Exit status 1 if a check fails.
    """
    from rich.markup import escape
    from rich.text import Text

    from eval.suites import all_suites
    from primer.benchmarks import OWN_ITEMS
    from primer.progress import printer
    from topics.coverage import COVERED
    from topics.full_audit import audit_lists
    from topics.map import write_page

    _check_folder(page, "--page")
    # The sentences of a toxicity set are there to be recognized, not to be answered.
    sentences = {name for name, suite in all_suites().items() if suite.kind == "toxicity"}
    found = audit_lists(_lists(lists), _questions(data), sentences | {OWN_ITEMS + name for name in sentences})
    write_page(page, found)
    for check in found.checks:
        mark = Text("ok    ", style="green") if check.passed else Text("FAILED", style="bold red")
        printer.print(mark, Text(f"{check.name}: "), Text(check.result, style="dim"))
        if not check.passed:
            _print_findings(check.findings)
    for suite in found.coverage:
        count = (
            f"{suite.covered:.0%} of {len(suite.questions):,d} questions have a seed at cosine {COVERED:.2f} or more"
        )
        medians = f"median {suite.median:.2f}, between questions {suite.sibling:.2f}"
        printer.print(f"[dim]covers[/] {escape(suite.suite)}: {count}; {medians}")
    if data is None and not os.environ.get("PRIMER_EVAL_DATA"):
        printer.print("[dim]Compared with the built-in items alone; --data DIR compares with benchmarks too.[/]")
    printer.print(f"\nThe map and all findings: [bold]{escape(str(page))}[/]  (open it in a browser)")
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def extend(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, for its teacher (synth.teacher).")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Seeds to ask for in each area.")] = 10,
    areas: Annotated[int, typer.Option("--areas", min=1, help="How many subfields: those that most lack seeds.")] = 5,
    fields: Fields = None,
    subfields: Annotated[list[str] | None, typer.Option("--subfield", help="Only this subfield. Repeatable.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The review file.")] = Path("topics-review.csv"),
    lists: Lists = None,
    data: Data = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe. Repeatable.")
    ] = None,
) -> None:
    """Have a teacher propose seeds for thin areas.

    Proposals that pass every check go into a review file; nothing enters a list unseen. Read the file, mend it, take
    lines out, and then import it: the command says how.
    """
    from rich.markup import escape

    from primer.progress import say
    from primer.recipe_file import load_recipe
    from primer.run import write_text
    from synth.ask import ask_teacher
    from synth.journal import Reply
    from topics.adding import sift
    from topics.allocation import load_allocation
    from topics.audit import read_all
    from topics.embedding import embed
    from topics.extend import parse_proposals, proposal_prompt, review_table, thin_areas
    from topics.seeds import BUILT_IN
    from topics.similarity import nearest

    _check_folder(out, "--out")
    if out.exists():
        raise PrimerError(f"{out} exists already.", "Import or remove it, or name another file with --out.")
    loaded = load_recipe(recipe, set_ or [])
    chosen = _lists(lists)
    present, _ = read_all(chosen)
    topics = [at.topic for at in present]
    thin = thin_areas(topics, load_allocation() if chosen == [BUILT_IN] else None, fields or [], subfields or [], areas)
    if not thin:
        raise PrimerError("No subfield of the list is chosen.", "See `primer topics stats`; check --field, --subfield.")
    for area in thin:
        say(escape(f"  {area.field}, {area.subfield}: {area.seeds} seeds, about {area.planned:.0f} planned"))
    # Everything that can be wrong without the teacher comes before it.
    questions = _questions(data)
    vectors = embed([topic.title for topic in topics], "topics")
    conversations = [proposal_prompt(area, topics, count) for area in thin]
    answers = ask_teacher(loaded.synth, loaded.synth.sampling, conversations, loaded.seed)
    replies = [(area, reply) for area, reply in zip(thin, answers, strict=True) if isinstance(reply, Reply)]
    failed = [str(reply) for reply in answers if not isinstance(reply, Reply)]
    if failed:
        say(f"[yellow]{len(failed)} of {len(thin)} questions without a reply:[/] {escape(failed[0])}")
    rows = [
        row
        for area, reply in replies
        for row in parse_proposals(reply.text, area, cut_off=reply.finish_reason == "length")
    ]
    good, findings = sift(rows, {}, present, questions)
    say(f"{len(rows)} lines of {len(replies)} replies are proposals; {len(good)} pass the checks")
    _print_findings(findings)
    if not good:
        raise PrimerError("Nothing to review.", "Try a stronger teacher, or a larger synth.sampling.max_tokens.")
    places, cosines = nearest(embed([at.topic.title for at in good], "new-topics"), vectors)
    near = [topics[place] for place in places[:, 0]]
    write_text(out, review_table([at.topic for at in good], near, cosines[:, 0].tolist()))
    say(f"To read before anything enters: [bold]{escape(str(out))}[/]")
    say(escape(f"Then: primer topics import {out} --to {chosen[-1]}"))


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help="CSV, TSV, JSONL, Parquet, or a data set (owner/name[:split], folder)."),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="The list to add to: a folder of seed files, or primer.")
    ],
    field: Annotated[str, typer.Option(help="Field of the rows that name none, as in night-sky.")] = "",
    subfield: Annotated[str, typer.Option(help="Subfield of the rows that name none.")] = "general",
    kind: Annotated[str, typer.Option(help="Kind of the rows that name none.")] = "",
    levels: Annotated[str, typer.Option(help="Levels of the rows that name none, as in middle,high.")] = "",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Add the rows that pass, and list the others.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="The list will be used without Primer's own seeds.")] = False,
    data: Data = None,
) -> None:
    """Add seeds of your own to a list, held to the checks of the audit.

    Columns: title, field, subfield, kind, levels; others are ignored. Unless every row passes, nothing is written.
    """
    from rich.markup import escape

    from primer.progress import say
    from topics.adding import add_seeds, sift
    from topics.audit import read_all
    from topics.seeds import BUILT_IN, FIELDS_FOLDER, field_names, list_folder
    from topics.tables import read_table

    to = list_folder(str(to))
    built_in = to.resolve() == FIELDS_FOLDER.resolve()
    rows = read_table(source)
    lists = [str(to)] if not built_in and any(to.glob("*.tsv")) else []
    present = [at for name in ([] if alone and not built_in else [BUILT_IN]) + lists for at in read_all([name])[0]]
    defaults = {"field": field, "subfield": subfield, "kind": kind, "levels": levels}
    if not built_in and not alone and (taken := {row.values["field"] or field for row in rows} & set(field_names())):
        raise PrimerError(
            f"The fields {', '.join(sorted(taken))} are Primer's own: two lists cannot share a field.",
            "Call them otherwise, use the list without Primer's own (--alone), or add to Primer's own (--to primer).",
        )
    good, findings = sift(rows, defaults, present, _questions(data))
    _print_findings(findings)
    bad = len(rows) - len(good)
    if bad and not (skip_bad and good):
        raise PrimerError(
            f"{bad:,d} of {len(rows):,d} rows of {source} do not pass; nothing was written.",
            "Mend them" + (", or add the others with --skip-bad." if good else "."),
        )
    added = add_seeds([at.topic for at in good], to)
    counts = ", ".join(f"{name} {count:,d}" for name, count in sorted(added.items()))
    noun = "seed" if len(good) == 1 else "seeds"
    skipped = f"; {bad:,d} skipped" if bad else ""
    say(escape(f"{len(good):,d} {noun} added to {to}: {counts}{skipped}"))
    if not built_in:
        with_primers = "" if alone else "primer, "
        say(escape(f'Use them in a recipe:  topics: {{lists: [{with_primers}"{to}"]}}'))


def _check_folder(path: Path, option: str) -> None:
    """Before any work: a file can be written there.

    Raises:
        PrimerError: If not.
    """
    if path.is_dir():
        raise PrimerError(f"{option} is {path}, which is a folder.", "Name a file in it.")
    if not os.access(path.absolute().parent, os.W_OK):
        raise PrimerError(f"{option} is {path}: its folder is missing or cannot be written to.", "Name another one.")


def _lists(lists: Sequence[str] | None) -> list[str]:
    from topics.seeds import BUILT_IN

    return list(lists) if lists else [BUILT_IN]


def _select(
    lists: Sequence[str] | None,
    fields: Sequence[str] | None,
    kinds: Sequence[str] | None = None,
    levels: Sequence[str] | None = None,
) -> list[Topic]:
    from topics.seeds import KINDS, LEVELS, load_topics

    for option, values, known in (("--kind", kinds, KINDS), ("--level", levels, LEVELS)):
        for value in values or ():
            if value not in known:
                hint = did_you_mean(value, known)
                raise PrimerError(f"{option} is {value!r}.", f"{hint}Expected one of: {', '.join(known)}.")
    topics = [
        topic
        for topic in load_topics(fields or (), _lists(lists))
        if (not kinds or topic.kind in kinds) and (not levels or set(levels) & set(topic.levels))
    ]
    if not topics:
        raise PrimerError("No seed is left.", "Choose more fields, kinds or levels: `primer topics stats` lists them.")
    return topics


def _questions(data: Path | None) -> Mapping[str, Sequence[Question]]:
    """The built-in items, and the benchmarks of a folder if one is named."""
    from primer.benchmarks import data_folder, read_every_benchmark

    return read_every_benchmark(data or data_folder(None))


def _show(topics: Sequence[Topic], cosines: Sequence[float] | None = None, *, as_json: bool) -> None:
    from rich.text import Text

    from primer.progress import printer

    if as_json:
        for place, topic in enumerate(topics):
            row: dict[str, object] = {"id": topic.id, "field": topic.field, "subfield": topic.subfield}
            row |= {"kind": topic.kind, "levels": topic.levels, "title": topic.title}
            typer.echo(json.dumps(row | ({"cosine": round(cosines[place], 4)} if cosines else {}), ensure_ascii=False))
        return
    for place, topic in enumerate(topics):
        near = Text(f"{cosines[place]:.2f}  " if cosines else "", style="green")
        printer.print(near + Text(topic.title, style="bold default"))
        levels = topic.levels[0] + (f" to {topic.levels[-1]}" if len(topic.levels) > 1 else "")
        about = f"{topic.id} · {topic.subfield} · {topic.kind} · {levels}"
        printer.print(Text(" " * len(near) + about, style="dim"))


def _print_findings(findings: Iterable[Finding]) -> None:
    from rich.text import Text

    from primer.progress import printer

    found = list(findings)
    for finding in found[:_MOST_FINDINGS]:
        printer.print(Text(f"  {finding.where}: ", style="dim") + Text(finding.problem, style="default not dim"))
    if len(found) > _MOST_FINDINGS:
        printer.print(f"  [dim]and {len(found) - _MOST_FINDINGS:,d} more[/]")
