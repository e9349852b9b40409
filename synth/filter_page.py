"""The page of a quality filter: how well it does, and the texts just above and just below its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.browse import printable
from synth.filter_page_charts import Points, histogram_chart, score_chart, share_chart

_TEMPLATE = Path(__file__).parent / "filter_page.html.j2"

# Characters of a text that are read at once, and that the page holds at most.
_BEGINNING, _MOST = 420, 6000

# Repeated labels below which agreement is shown as uncertain.
_FEW_PAIRS = 100

NAMES = {"random_forest": "random forest", "linear": "linear probe"}


@dataclass(frozen=True)
class Shown:
    """A text on the page.

    Attributes:
        score: The filter's probability.
        label: The teacher's score.
        reason: Why, in the teacher's words.
        title: Of the document; may be empty.
        text: The whole text.
    """

    score: float
    label: int
    reason: str
    title: str
    text: str


def filter_page(
    facts: Mapping[str, Any], curves: Mapping[str, Points], above: Sequence[Shown], below: Sequence[Shown]
) -> str:
    """The page.

    Args:
        facts: What was measured (`synth.quality_training`).
        curves: ROC curve of each classifier.
        above: Held-out texts that are kept, from the threshold up.
        below: Held-out texts that are dropped, from the threshold down.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        facts=facts,
        chosen=facts["classifiers"][facts["classifier"]],
        names=NAMES,
        verdict=_verdict(facts),
        charts={name: Markup(svg) for name, svg in _charts(facts, curves).items()},  # noqa: S704
        few_pairs=_FEW_PAIRS,
        sides=[
            {"name": "Just above: kept", "texts": [_shown(text, facts) for text in above]},
            {"name": "Just below: dropped", "texts": [_shown(text, facts) for text in below]},
        ],
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    """Which classifier orders the held-out texts better, in words."""
    value, low, high = facts["forest_minus_linear"]
    interval = f"{value:+.3f}, 95% interval {low:+.3f} to {high:+.3f}".replace("-", "\N{MINUS SIGN}")
    if low > 0:
        return f"The random forest does better than the linear probe (difference in AUC {interval})."
    if high < 0:
        return f"The linear probe does better than the random forest (difference in AUC {interval})."
    return f"The two classifiers cannot be told apart on these texts (difference in AUC {interval})."


def _charts(facts: Mapping[str, Any], curves: Mapping[str, Points]) -> dict[str, str]:
    groups = {
        kind: [(mean, share) for mean, share, _ in found["reliability"]] for kind, found in facts["classifiers"].items()
    }
    chosen = facts["classifiers"][facts["classifier"]]
    areas = ", ".join(f"{NAMES[kind]} {found['auc'][0]:.3f}" for kind, found in facts["classifiers"].items())
    return {
        "roc": share_chart(
            f"ROC curves; areas: {areas}",
            "share of the other texts kept",
            "share of the good kept",
            curves,
            marked=False,
        ),
        "reliability": share_chart(
            "Share of good texts at each predicted probability",
            "probability of being good",
            "share that is good",
            groups,
            marked=True,
        ),
        "histogram": histogram_chart(
            f"Probabilities of the held-out texts, with the threshold at {facts['threshold']:.3f}",
            chosen["good_histogram"],
            chosen["other_histogram"],
            facts["threshold"],
        ),
        "teacher": score_chart("The teacher's scores", facts["teacher_scores"], facts["good_from"]),
    }


def _shown(text: Shown, facts: Mapping[str, Any]) -> dict[str, Any]:
    whole = printable(text.text)
    beginning = whole[:_BEGINNING]
    if len(whole) > _BEGINNING:
        beginning = beginning[: beginning.rfind(" ") if " " in beginning else _BEGINNING]
    rest = whole[len(beginning) : _MOST]
    return {
        "score": text.score,
        "label": text.label,
        "good": text.label >= facts["good_from"],
        "reason": printable(text.reason),
        "title": printable(text.title),
        "beginning": beginning,
        "rest": rest,
        "characters": len(whole),
        "left_out": max(0, len(whole) - _MOST),
    }
