"""What a recipe asks the engine for: how much, of which teacher, and where the answers are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from primer.recipe_corpora import Quality
from primer.recipe_synth import EndpointTeacher, Synth
from synth.engine import Outcome, Plan
from synth.journal import Journal, answer_tag
from synth.teachers import merges_system_prompt, teacher_identity, teacher_prices

# Reasons of failures in a manifest, the commonest ones.
_FAILURES = 20


def make_plan(synth: Synth) -> Plan:
    """What a recipe's section asks the engine for.

    Raises:
        PrimerError: See `teacher_identity`.
    """
    return Plan(
        teacher_identity(synth.teacher),
        synth.sampling,
        synth.tokens,
        synth.concurrency,
        synth.documents,
        synth.budget,
        merges_system_prompt(synth.teacher),
    )


def scoring(synth: Synth, quality: Quality, key: str) -> Synth:
    """The section that texts are scored with: generation's, with the teacher and the sampling of the filter.

    Args:
        synth: Generation's.
        quality: The filter's.
        key: The filter's in the recipe (`web.quality`), for messages.

    Raises:
        PrimerError: If there is a budget in dollars, and the prices of an endpoint are not known.
    """
    teacher = quality.teacher or synth.teacher
    if synth.budget.dollars is not None and isinstance(teacher, EndpointTeacher) and teacher_prices(teacher) is None:
        raise PrimerError(
            f"synth.budget.dollars is {synth.budget.dollars:g}, but the prices of {key}.teacher are not known.",
            f"Give {key}.teacher.price_input and price_output, or use synth.budget.tokens.",
        )
    # A reply that was cut short either holds its score or is worth nothing.
    accept = synth.accept.model_copy(update={"truncated": "drop"})
    return synth.model_copy(update={"teacher": teacher, "sampling": quality.sampling, "accept": accept})


def open_journal(path: Path, synth: Synth, others: Sequence[Path] = (), purpose: str = "") -> Journal:
    """The journal that a recipe's answers go to; see `Journal`.

    Args:
        path: The file.
        synth: Who is asked, and how.
        others: Journals of other machines.
        purpose: Keeps the totals of what is asked for it apart from those of other answers by the same teacher with the
            same settings, such as the name of a stage. Budgets count them all.
    """
    identity = teacher_identity(synth.teacher)
    tag = answer_tag(identity, synth.sampling)
    if purpose:
        tag = fingerprint({"tag": tag, "purpose": purpose})[:12]
    return Journal(path, tag, identity, teacher_prices(synth.teacher), others)


def generation_facts(identity: str, outcome: Outcome, journal: Journal) -> dict[str, Any]:
    """What every stage that asked a teacher tells of it in its manifest; see `synth.journal.Totals` for what is paid.

    Args:
        identity: The teacher's.
        outcome: What the generation came to.
        journal: Its answers.
    """
    totals = journal.totals
    spent_dollars, spent_tokens = journal.spent()
    return {
        "teacher": identity,
        "units": outcome.units,
        "accepted": outcome.accepted,
        "rejected": dict(sorted(outcome.rejected.items())),
        "failed": sum(outcome.failed.values()),
        "failures": dict(outcome.failed.most_common(_FAILURES)),
        "reused": outcome.reused,
        "tries": outcome.tries,
        "continuations": outcome.continuations,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "seconds": round(totals.seconds, 1),
        "cost_usd": None if totals.dollars is None else round(totals.dollars, 6),
        "spent_usd": round(spent_dollars, 6),
        "spent_tokens": spent_tokens,
    }
