"""The synthetic corpus: the prompt stream, the teacher and the acceptance rules put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.markup import escape

from primer.benchmarks import data_folder, read_every_benchmark
from primer.contamination import BenchmarkText
from primer.documents import Document, read_documents, text_hash, write_corpus
from primer.progress import say
from primer.recipe import EndpointTeacher, Recipe, Sampling
from primer.run import Built
from primer.words import text_words
from prompts.screening import barred_passages
from prompts.snippets import cut_snippets
from prompts.stream import PromptStream
from prompts.unit import Unit as StreamUnit
from synth.accept import Judge, copied
from synth.engine import Outcome, Plan, generate
from synth.journal import Journal, Totals, answer_tag
from synth.teachers import open_teacher, teacher_identity
from synth.units import Attempt


def build_synthetic(recipe: Recipe, folder: Path, journal_path: Path, web: Path | None, known: set[str]) -> Built:
    """Generate the synthetic corpus into a folder.

    Args:
        recipe: The experiment.
        folder: Where the corpus goes.
        journal_path: The run's journal of replies.
        web: Folder of the web corpus, for the passages in prompts; None if prompts carry none.
        known: Hashes of the documents of other corpora.

    Raises:
        PrimerError: See :func:`synth.engine.generate`.
    """
    synth = recipe.synth
    identity = teacher_identity(synth.teacher)
    stream = make_stream(recipe, web)
    _announce(stream)
    plan = Plan(identity, synth.sampling, synth.tokens, synth.concurrency)
    with Journal(journal_path, answer_tag(identity, synth.sampling)) as journal:
        outcome = generate(
            stream,
            plan,
            Judge(synth.accept, known),
            journal,
            lambda: open_teacher(synth.teacher, identity, synth.concurrency, synth.timeout),
        )
    for reason, count in outcome.failed.most_common(3):
        say(f"  [yellow]{count:,d} prompts without a reply:[/] {escape(reason)}")
    documents = (_document(attempt, identity, synth.sampling) for attempt in outcome.accepted)
    counts = write_corpus(folder, documents, recipe.corpus.held_out_share, recipe.seed)
    share = len(outcome.accepted) / outcome.units
    return Built(
        f"{len(outcome.accepted):,d} documents, {outcome.tokens:,d} tokens ({share:.0%} of {outcome.units:,d} prompts)",
        counts | _facts(recipe, identity, stream, outcome, journal.totals),
    )


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


def _document(attempt: Attempt, identity: str, sampling: Sampling) -> Document:
    unit: StreamUnit = attempt.unit
    text = attempt.document
    asked = [unit.messages(attempt.texts[:step]) for step in range(unit.steps)]
    echo = copied(unit.snippet.text, text) if unit.snippet else None
    words = set(text_words(text))
    reasons = [reply.finish_reason for reply in attempt.replies]
    return Document(
        id=f"synthetic-{unit.index:07d}",
        text=text,
        source="synthetic",
        hash=text_hash(text),
        group=unit.topic.id,
        title=unit.topic.title,
        origin=identity,
        licence=None,
        provenance={
            "prompt_index": unit.index,
            "prompt": "\n\n".join(f"[{said['role']}]\n{said['content']}" for messages in asked for said in messages),
            "topic_id": unit.topic.id,
            "topic": unit.topic.title,
            "field": unit.topic.field,
            "form": unit.form,
            "audience": unit.audience,
            "level": unit.level,
            "length": unit.length,
            "register": unit.register,
            "language": unit.language,
            "required_words": list(unit.required_words),
            # Other languages say them in words of their own.
            "words_used": sum(word in words for word in unit.required_words) if unit.language == "english" else None,
            "snippet_id": unit.snippet.id if unit.snippet else None,
            "snippet_copied": round(echo.share, 4) if echo else None,
            "snippet_longest_run": echo.longest if echo else None,
            "steps": unit.steps,
            "teacher": identity,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": unit.seed,
            "finish_reason": "length" if "length" in reasons else reasons[-1],
            "prompt_tokens": _sum(reply.prompt_tokens for reply in attempt.replies),
            "completion_tokens": _sum(reply.completion_tokens for reply in attempt.replies),
            "seconds": sum(reply.seconds for reply in attempt.replies),
        },
    )


def _announce(stream: PromptStream) -> None:
    """Say what a reader of the corpus would wonder about later."""
    if stream.left_out:
        say(f"  {stream.left_out:,d} topics are left out: they suit no form or audience of the recipe, or weigh 0")
    if stream.barred:
        reasons = ", ".join(f"{count:,d} {reason}" for reason, count in _barred(stream).items())
        say(f"  {len(stream.barred):,d} passages of web text are not used: {reasons}")


def _barred(stream: PromptStream) -> dict[str, int]:
    """How many passages are not used, by reason, the commonest first."""
    return dict(Counter(stream.barred.values()).most_common())


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum of some counts; None if one of them is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def _facts(recipe: Recipe, identity: str, stream: PromptStream, outcome: Outcome, totals: Totals) -> dict[str, Any]:
    """What the report tells of the corpus; see `Totals` for what counts as paid."""
    rejected = outcome.rejected
    forms = Counter(attempt.unit.form for attempt in outcome.accepted)
    return {
        "duplicates_removed": rejected["duplicate"] + rejected["near_duplicate"],
        "origin": f"Written by {identity}",
        "licence": "Generated text; the terms of the teacher's model and endpoint apply",
        "tokens": outcome.tokens,
        "units": outcome.units,
        "accepted": len(outcome.accepted),
        "rejected": dict(sorted(rejected.items())),
        "failed": sum(outcome.failed.values()),
        "failures": dict(outcome.failed.most_common(20)),
        "reused": outcome.reused,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "seconds": round(totals.seconds, 1),
        "cost_usd": _cost(recipe, totals),
        "teacher": identity,
        "forms": dict(sorted(forms.items())),
        "passages_barred": _barred(stream),
    }


def _cost(recipe: Recipe, totals: Totals) -> float | None:
    """US dollars for every answer paid with these settings; None where the recipe gives no prices."""
    teacher = recipe.synth.teacher
    if not isinstance(teacher, EndpointTeacher) or teacher.price_input is None or teacher.price_output is None:
        return None
    cost = totals.prompt_tokens * teacher.price_input + totals.completion_tokens * teacher.price_output
    return round(cost / 1e6, 6)
