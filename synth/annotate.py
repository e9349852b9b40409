"""Labels for a quality filter: a teacher scores samples of a source from 0 to 5, and some of them twice.

Labels are asked for as documents are: by the engine, with its journal, budget, batches and views. What the second
scores of the same texts say is how far the teacher agrees with itself, which bounds what a classifier can learn.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape

from primer.errors import PrimerError
from primer.progress import say
from primer.recipe import Recipe
from primer.recipe_corpora import Quality
from primer.run import Built
from primer.words import text_hash
from prompts.rubrics import Rubric, rubric_of
from synth.agreement import weighted_kappa
from synth.annotate_reply import Grader, Label, read_label
from synth.annotate_samples import Samples
from synth.backend import Messages
from synth.engine import Asker, Outcome, generate
from synth.journal import Journal
from synth.plan import generation_facts, make_plan, open_journal, scoring
from synth.refine import CorpusName, section
from synth.shards import shard_journals
from synth.text import SourceText, clean
from synth.units import Attempt
from synth.view import View

LABELS = "labels.parquet"

SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("score", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("repeated_scores", pa.list_(pa.int64()), nullable=False),
    ]
)

_GROUP_ROWS = 1024


def build_labels(
    recipe: Recipe,
    corpus: CorpusName,
    samples: Iterable[SourceText],
    folder: Path,
    run: Path,
    ask: Asker,
) -> Built:
    """Have samples of a source scored, and write `labels.parquet`: a row for each that has a score.

    Args:
        recipe: The experiment.
        corpus: Whose filter it is.
        samples: Texts in a fixed order; of equal ones the first is taken.
        folder: Where the labels go.
        run: The run folder: its journal of replies, and those of its shards.
        ask: How the teacher is asked: the one of `synth.plan.scoring`.

    Raises:
        PrimerError: If there is no sample, or no score came; see also :func:`synth.engine.generate`.
    """
    key, title = f"{corpus}.quality", f"labels/{corpus}"
    quality = section(recipe, corpus).quality
    assert quality is not None
    rubric = rubric_of(quality, corpus)
    synth = scoring(recipe.synth, quality, key)
    with (
        Samples(folder, islice(_once_each(samples), quality.samples)) as chosen,
        open_journal(run / "journal" / "replies.jsonl", synth, shard_journals(run), purpose=title) as journal,
    ):
        if not len(chosen):
            raise PrimerError(f"{corpus}.source holds no text to score.", "Choose another source.")
        if len(chosen) < quality.samples:
            say(f"  [yellow]{corpus}.source holds {len(chosen):,d} different texts[/], not {quality.samples:,d}")
        requests = _Requests(chosen, rubric, quality, recipe.seed)
        plan = replace(make_plan(synth), tokens=None, documents=None, units=len(requests), section=key)
        say(f"  the teacher is {escape(plan.identity)}, the rubric {rubric.name}")
        labels: dict[int, list[Label]] = {}

        def accept(attempt: Attempt) -> None:
            label = read_label(attempt.document)
            assert isinstance(label, Label)
            if attempt.unit.again and attempt.unit.number not in labels:
                return  # the second score of a text whose first did not come
            labels.setdefault(attempt.unit.number, []).append(label)

        view = View(run / "progress.json")
        outcome = generate(requests, plan, Grader(synth.accept, read_label), journal, ask, accept, view, title=title)
        for reason, count in (outcome.rejected + outcome.failed).most_common(3):
            say(f"  [yellow]{count:,d} requests without a score:[/] {escape(reason.replace('_', ' '))}")
        if not labels:
            raise _nothing_labelled(outcome, key)
        _write(folder / LABELS, chosen, labels)
        facts = _facts(quality, rubric, plan.identity, len(chosen), labels, outcome, journal)
    return Built(_summary(facts), facts)


@dataclass(frozen=True)
class LabelRequest:
    """A unit of the engine: one text to score.

    Attributes:
        number: Of the sample.
        again: Whether it has been scored before.
    """

    number: int
    again: bool
    seed: int
    text: str
    rubric: Rubric
    words: int
    kept: tuple[bool, ...] = (True,)
    snippet: None = None
    language: str = "English"

    def messages(self, replies: Sequence[str] = ()) -> Messages:  # noqa: ARG002 - a unit of one step has none before it
        """What to ask."""
        return self.rubric.messages(self.text, self.words)


class _Requests:
    """Request i scores sample i; those beyond the last sample score the first ones again."""

    def __init__(self, samples: Samples, rubric: Rubric, quality: Quality, seed: int) -> None:
        self._samples, self._rubric, self._quality, self._seed = samples, rubric, quality, seed

    def __len__(self) -> int:
        return len(self._samples) + min(self._quality.repeated, len(self._samples))

    def __getitem__(self, index: int) -> LabelRequest:
        again, number = divmod(index, len(self._samples))
        text = self._samples[number].text
        # By the text and not by its number: where the samples change, answers to those that remain are still known.
        digest = hashlib.blake2b(f"{self._seed}\0{again}\0{text}".encode(), digest_size=4).digest()
        seed = int.from_bytes(digest, "little") >> 1
        return LabelRequest(number, bool(again), seed, text, self._rubric, self._quality.words)


def _once_each(samples: Iterable[SourceText]) -> Iterator[SourceText]:
    """Texts, clean: one that comes again would be paid for again and teach the classifier nothing."""
    seen: set[str] = set()
    for sample in samples:
        text = clean(sample.text)
        digest = text_hash(text)
        if text and digest not in seen:
            seen.add(digest)
            yield replace(sample, text=text)


def _write(path: Path, samples: Samples, labels: dict[int, list[Label]]) -> None:
    rows = (
        {
            "number": number,
            "text": samples[number].text,
            "title": samples[number].title,
            "origin": samples[number].origin,
            "score": given[0].score,
            "reason": given[0].reason,
            "repeated_scores": [label.score for label in given[1:]],
        }
        for number, given in sorted(labels.items())
    )
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))


def _facts(
    quality: Quality,
    rubric: Rubric,
    identity: str,
    samples: int,
    labels: dict[int, list[Label]],
    outcome: Outcome,
    journal: Journal,
) -> dict[str, Any]:
    """What is told of the labels. Tokens, seconds and cost are those of this stage, over all runs."""
    scores = [given[0].score for given in labels.values()]
    twice = [(given[0].score, given[1].score) for given in labels.values() if len(given) > 1]
    counts = Counter(scores)
    return generation_facts(identity, outcome, journal) | {
        "rubric": rubric.name,
        "wanted": quality.samples,
        "samples": samples,
        "labelled": len(labels),
        "scores": {str(score): counts[score] for score in range(6)},
        "mean_score": round(sum(scores) / len(scores), 4),
        "good": quality.good,
        "share_good": round(sum(score >= quality.good for score in scores) / len(scores), 6),
        "agreement": _agreement(twice),
        "temperature": quality.sampling.temperature,
    }


def _agreement(pairs: Sequence[tuple[int, int]]) -> dict[str, Any] | None:
    """How far two scores of a text agree; None where no text has two."""
    if not pairs:
        return None
    first, second = zip(*pairs, strict=True)
    apart = [abs(one - other) for one, other in pairs]
    kappa = weighted_kappa(first, second)
    return {
        "texts": len(pairs),
        "exact": round(sum(gap == 0 for gap in apart) / len(pairs), 6),
        "within_one": round(sum(gap <= 1 for gap in apart) / len(pairs), 6),
        "kappa": None if kappa is None else round(kappa, 6),
    }


def _summary(facts: dict[str, Any]) -> str:
    agreed = facts["agreement"]
    lines = [
        f"{facts['labelled']:,d} of {facts['samples']:,d} texts scored",
        f"{facts['share_good']:.0%} of them {facts['good']} or more",
    ]
    if agreed:
        kappa = "" if agreed["kappa"] is None else f", kappa {agreed['kappa']:.2f}"
        lines.append(f"of {agreed['texts']:,d} scored twice {agreed['exact']:.0%} the same{kappa}")
    return "; ".join(lines)


def _nothing_labelled(outcome: Outcome, key: str) -> PrimerError:
    reasons = outcome.rejected + Counter({f"failed ({reason})": n for reason, n in outcome.failed.items()})
    lines = "\n".join(f"  {count:6,d}  {reason}" for reason, count in reasons.most_common())
    return PrimerError(
        f"Of {outcome.units:,d} requests for a score none brought one:\n{lines}",
        f"Name a better teacher in {key}.teacher, or change {key}.sampling (max_tokens, temperature).",
    )
