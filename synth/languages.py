"""Whether a text is in the language that was asked for, told by its commonest words and its script.

A text of some length in any of these languages is full of words that do their grammar. Counting them costs nothing;
py3langid, tried for the same, takes 76 MB and most of a second to load, in every process.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# By name as `prompts/styles.yaml` has it.
_GRAMMAR = {
    "english": "the of and to in is that it for as with was on are be this by from at which have not",
    "french": "le la les de des du et en un une est que qui dans pour pas sur au avec par ce il elle",
    "german": "der die das und ist in den von zu mit sich des auf für nicht ein eine dem als auch es",
    "italian": "il di che e la in un una per non è con del della le da si sono i gli al dei come",
    "portuguese": "o a de que e do da em um para é com não uma os no se na por mais as dos ao",
    "spanish": "el de la que y en un una los se del las por con no es para al lo su como más",
}
_GRAMMAR_WORDS = {name: words.split() for name, words in _GRAMMAR.items()}

# Shorter texts, and those with hardly a word of grammar in any language (tables, code), are given the benefit.
_FEWEST_WORDS = 30
_LEAST_SHARE = 0.08

# Spanish and Portuguese share some of their words, and any text quotes: another language must be well ahead.
_AHEAD = 1.5

# Letters beyond Latin, Greek (formulas) and their accents: a text that is mostly these is in none of our languages.
_OTHER_SCRIPT = re.compile(r"[\u0400-\u1dff\u2c00-\ua6ff\ua800-\uaaff\uabc0-\ufaff]")
_MOST_OTHER = 0.1


def in_another_language(text: str, words: Sequence[str], language: str) -> bool:
    """Whether a text is clearly in a language other than the one named; False for one that is not known here.

    Args:
        text: The text.
        words: Its words, in lower case.
        language: A name of `prompts/styles.yaml`.
    """
    if language not in _GRAMMAR_WORDS:
        return False
    if len(_OTHER_SCRIPT.findall(text)) > _MOST_OTHER * len(text):
        return True
    if len(words) < _FEWEST_WORDS:
        return False
    frequency = Counter(words)
    counts = {name: sum(map(frequency.__getitem__, grammar)) for name, grammar in _GRAMMAR_WORDS.items()}
    best = max(counts.values())
    return best >= _LEAST_SHARE * len(words) and best > _AHEAD * counts[language]
