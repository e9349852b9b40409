"""The synthetic corpus: the prompt stream, the teacher and the acceptance rules put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from primer.benchmarks import data_folder, read_every_benchmark
from primer.contamination import BenchmarkText
from primer.documents import CorpusWriter, read_documents
from primer.progress import say
from primer.recipe import Recipe
from primer.recipe_synth import Teacher
from primer.run import Built
from prompts.screening import barred_passages
from prompts.snippets import cut_snippets
from prompts.stream import PromptStream
from synth.accept import Judge
from synth.engine import Asker, Outcome, generate
from synth.journal import Journal
from synth.plan import generation_facts, make_plan, open_journal
from synth.presets import find_preset
from synth.provenance import document
from synth.screened import judging
from synth.shards import Shard, shard_journals
from synth.units import Attempt
from synth.view import View


def build_synthetic(
    recipe: Recipe, folder: Path, run: Path, web: Path | None, earlier: Sequence[Path], ask: Asker
) -> Built:
    """Generate the synthetic corpus into a folder.

    Args:
        recipe: The experiment.
        folder: Where the corpus goes.
        run: The run folder: its journal of replies, and those of its shards.
        web: Folder of the web corpus, for the passages in prompts; None if prompts carry none.
        earlier: Indexes of the corpora whose texts it must not repeat.
        ask: How the teacher is asked.

    Raises:
        PrimerError: See :func:`synth.engine.generate`.
    """
    synth = recipe.synth
    plan = make_plan(synth)
    stream = make_stream(recipe, web)
    _announce(stream)
    forms: Counter[str] = Counter()
    with (
        open_journal(run / "journal" / "replies.jsonl", synth, shard_journals(run)) as journal,
        CorpusWriter(folder, recipe.corpus.held_out_share, recipe.seed) as corpus,
        judging(recipe, folder, "synthetic", earlier) as (judge, screened),
    ):
        _announce_answers(journal)
        say(f"  the teacher is {escape(plan.identity)}")

        def accept(attempt: Attempt) -> None:
            corpus.add(screened.accepted(attempt.unit.index, document(attempt, plan.identity, synth.sampling)))
            forms[attempt.unit.form] += 1

        view = View(run / "progress.json")
        outcome = generate(stream, plan, judge, journal, ask, accept, view, fields=_fields(stream))
        facts = _facts(synth.teacher, plan.identity, stream, outcome, journal, forms)
        facts |= screened.facts()
    for reason, count in outcome.failed.most_common(3):
        say(f"  [yellow]{count:,d} prompts without a reply:[/] {escape(reason)}")
    if outcome.reused:
        say(f"  {outcome.reused:,d} of {outcome.units:,d} units were answered by the journal, at no cost")
    share = outcome.accepted / outcome.units
    return Built(
        f"{outcome.accepted:,d} documents, {outcome.tokens:,d} tokens ({share:.0%} of {outcome.units:,d} prompts)",
        corpus.counts | facts,
    )


def build_shard(recipe: Recipe, folder: Path, shard: Shard, web: Path | None, ask: Asker) -> None:
    """Ask for one shard's units, until its part of the target is reached.

    Args:
        recipe: The experiment.
        folder: Where its journal and its progress go.
        shard: Which shard.
        web: Folder of the web corpus; None if prompts carry no passages.
        ask: How the teacher is asked.

    Raises:
        PrimerError: See :func:`synth.engine.generate`.
    """
    synth = recipe.synth
    whole = make_plan(synth)
    plan = replace(
        whole,
        tokens=shard.part(whole.tokens),
        documents=shard.part(whole.documents),
        budget=shard.budget(whole.budget),
    )
    stream = make_stream(recipe, web)
    title = f"shard {shard.number}/{shard.count}"
    # What is accepted here only tells when to stop: the corpus is judged as a whole where the shards are joined.
    judge, view = Judge(synth.accept, recipe.corpus.duplicates), View(folder / "progress.json")
    with open_journal(folder / "replies.jsonl", synth) as journal:
        _announce_answers(journal)
        outcome = generate(
            shard.units(stream), plan, judge, journal, ask, _keep_nothing, view, title=title, fields=_fields(stream)
        )
        dollars, tokens = journal.spent()
    cost = f", ${dollars:,.4f}" * (dollars > 0)
    say(f"[green]✓[/] {title}: {outcome.tokens:,d} tokens accepted, {tokens:,d} paid{cost} [dim]({folder})[/]")


def _keep_nothing(_attempt: Attempt) -> None:
    """A shard keeps its answers, not its documents."""


def make_stream(recipe: Recipe, web: Path | None) -> PromptStream:
    """The prompt stream of a recipe.

    Args:
        recipe: The experiment.
        web: Folder of the web corpus, for the passages in prompts; None if prompts carry none.

    Raises:
        PrimerError: See `PromptStream`, and `primer.benchmarks` for the benchmarks that passages are compared with.
    """
    if web is None or recipe.prompts.snippet_share == 0:
        return PromptStream(recipe, [])
    rows = read_documents(web, "train", ["id", "text"])
    snippets = cut_snippets(rows, recipe.prompts.snippet_words, recipe.seed)
    questions = read_every_benchmark(data_folder(recipe.eval.data))
    return PromptStream(recipe, snippets, barred_passages(snippets, BenchmarkText(questions)))


def _fields(stream: PromptStream) -> int:
    return len({topic.field for topic in stream.topics})


def _announce(stream: PromptStream) -> None:
    """Say what a reader of the corpus would wonder about later."""
    if stream.left_out:
        say(f"  {stream.left_out:,d} topics are left out: they suit no form or audience of the recipe, or weigh 0")
    if stream.barred:
        reasons = ", ".join(f"{count:,d} {reason}" for reason, count in _barred(stream).items())
        say(f"  {len(stream.barred):,d} passages of web text are not used: {reasons}")


def _announce_answers(journal: Journal) -> None:
    """Say what there is to begin with, and how much of it the recipe as it is now can use."""
    if journal.answers:
        usable = f"{journal.totals.replies:,d} are by this teacher with these settings"
        say(f"  the journal holds {journal.answers:,d} answers; {usable}")


def _barred(stream: PromptStream) -> dict[str, int]:
    """How many passages are not used, by reason, the commonest first."""
    return dict(Counter(stream.barred.values()).most_common())


def _facts(
    teacher: Teacher, identity: str, stream: PromptStream, outcome: Outcome, journal: Journal, forms: Counter[str]
) -> dict[str, Any]:
    """What the report tells of the corpus."""
    rejected = outcome.rejected
    return generation_facts(identity, outcome, journal) | {
        "duplicates_removed": rejected["duplicate"] + rejected["near_duplicate"],
        "origin": f"Written by {identity}",
        "licence": f"Generated text; {_terms(teacher)}",
        "tokens": outcome.tokens,
        "forms": dict(sorted(forms.items())),
        "passages_barred": _barred(stream),
    }


def _terms(teacher: Teacher) -> str:
    """Under which terms the teacher writes, as far as they are known."""
    preset = find_preset(teacher.model)
    if preset is None:
        return "the terms of the teacher's model and endpoint apply"
    return f"the teacher's licence: {preset[1].licence}"
