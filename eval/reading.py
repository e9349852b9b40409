"""SQuAD: whether an answer is one of the marked ones, word for word.

Definition: Rajpurkar et al. 2016 (arXiv 1606.05250, section 6.1): lower case; without punctuation, articles and extra
white space; the best of all marked answers counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """An answer as it is compared."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, marked: Sequence[str]) -> bool:
    """Whether an answer equals a marked one."""
    return any(normalise(answer) == normalise(text) for text in marked)


def f1(answer: str, marked: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of an answer's words, against the marked answer that it fits best."""
    return max(_f1(normalise(answer).split(), normalise(text).split()) for text in marked)


def judge(row: Mapping[str, Any], answer: str) -> str:
    """Why an answer is wrong; empty if it is right."""
    if exact_match(answer, row["answers"]):
        return ""
    return f"not the marked answer, F1 {f1(answer, row['answers']):.2f}" if answer.strip() else "no answer"


def process_results(row: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Both measures, for lm-evaluation-harness."""
    return {"exact_match": float(exact_match(results[0], row["answers"])), "f1": f1(results[0], row["answers"])}


def _f1(answer: Sequence[str], marked: Sequence[str]) -> float:
    shared = (Counter(answer) & Counter(marked)).total()
    return 2 * shared / (len(answer) + len(marked)) if shared else 0.0
