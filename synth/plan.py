"""What a recipe asks the engine for: how much, of which teacher, and where the answers are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from primer.recipe_synth import Synth
from synth.engine import Plan
from synth.journal import Journal, answer_tag
from synth.teachers import merges_system_prompt, teacher_identity, teacher_prices


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


def open_journal(path: Path, synth: Synth, others: Sequence[Path] = ()) -> Journal:
    """The journal that a recipe's answers go to; see `Journal`."""
    identity = teacher_identity(synth.teacher)
    return Journal(path, answer_tag(identity, synth.sampling), identity, teacher_prices(synth.teacher), others)
