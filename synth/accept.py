"""Acceptance: whether a reply becomes a document, and if not, for which one reason.

Rules are few and can be told to a person. They look at form alone; whether a text is true or good is not theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from primer.contamination import Contamination, Match
from primer.recipe_corpora import Duplicates
from primer.recipe_synth import Accept
from primer.words import text_words, word_tuples
from synth.backend import Messages
from synth.duplicate_index import EarlierTexts
from synth.languages import in_another_language
from synth.near_duplicates import NearDuplicates
from synth.signatures import Found, Signatures, signature

# Every reason a reply can be rejected for, in the order in which the rules are tried.
REASONS = (
    # of one reply
    "empty",
    "content_filter",
    "truncated",
    "refusal",
    "meta_talk",
    "wrong_language",
    "repetitive",
    "copied_prompt",
    "form_failed",
    # of a whole document
    "too_short",
    "copied_passage",
    "contaminated",
    "duplicate",
    "near_duplicate",
)

# Gopher (arXiv 2112.11446, appendix A.1.1, table A1) rejects web text with more than 15% of its characters in
# repeated 5-grams, or 20% in repeated lines. The recipe's `max_repetition` stands for both.
_REPEATED_WORDS = 5

# A reply says its own words: eight in a row that are also in the prompt come from the prompt. More than a fifth
# of such words is a reply that repeats its instructions (or the passage that it was given).
_COPIED_WORDS = 8
_MOST_COPIED = 0.2

_SENTENCE_END = re.compile(r"(?<=\S)[.!?…][\"'”’)\]*_]*(?=\s|$)")

# What a chat assistant says in place of an answer.
_REFUSAL = re.compile(
    r"[\s*#_>]*(?:(?:i(?: am|'m|’m)(?: very| so| really)? sorry|i apologi[sz]e|sorry|unfortunately|as an ai)\b"
    r"[^\n.!?]{0,60}?[,;:]?\s{1,3}(?:but )?)?"
    r"i(?:(?: am|'m|’m) (?:unable|not able)| (?:cannot|can't|can’t|can not|won't|won’t|will not|must decline))\b"
    r"(?! help but)[^\n.!?,;]{0,30}\b(?:help|assist|provide|write|create|produce|generate|fulfil|fulfill|answer|comply"
    r"|continue|discuss|complete|engage|do (?:that|this|so))\b",
    re.IGNORECASE,
)

# What it says about itself, its task or its reader, where it says it: anywhere, first, or last.
_META_ANYWHERE = re.compile(
    r"\bas an ai\b|\bai (?:language model|assistant)\b|\blarge language model\b|\bmy training data\b"
    r"|\bi(?: am|'m) (?:just )?an? (?:ai|language model|chatbot)\b|\[(?:your|insert|name|student)\b[^\]\n]{0,40}\]",
    re.IGNORECASE,
)
# Few texts hold one of these, and only those are worth the search above: it takes half a millisecond a page.
_META_SIGNS = (" ai", "ai ", "language model", "training data", "chatbot", "[your", "[insert", "[name", "[student")
_META_FIRST = re.compile(
    r"[\s*#_>]*(?:(?:sure|certainly|absolutely|of course|okay|ok|great question)\b\s*[!,.:]"
    r"|here(?:'s|’s| is| are)\b[^\n.!?]{0,160}\b(?:story|text|textbook|section|dialogue|conversation|letter|lesson"
    r"|explanation|example|examples|questions?|answers?|guide|passage|paragraphs?|exercises?|problems?|steps|version|revised)\b"
    r"|i(?: am|'m|’m) (?:sorry|happy|glad|unable|not able)\b|i(?:'d|’d| would) be (?:happy|glad)\b|i apologi[sz]e\b"
    r"|(?:this|the following) (?:text|story|section)\b[^\n.!?]{0,60}\b(?:written|aimed|intended|designed) for\b"
    # Small teachers talk about the passage or the task in place of writing.
    r"|(?:this|the) (?:passage|prompt|text)\b(?: about\b[^\n.!?]{0,80})?,? (?:is|was|has|gives|provides|highlights"
    r"|discusses|describes|explains|presents|shows|explores|mentions|states|suggests|tells|talks)\b"
    r"|to answer (?:the|this) question\b)",
    re.IGNORECASE,
)
_META_LAST = re.compile(
    r"\bi hope (?:this|that|these|it) (?:helps|help|is helpful|was helpful|explanation|clarifies)\b"
    r"|\blet me know if (?:you|there)\b[^\n]{0,40}\b(?:questions?|need|want|would like|changes|help|else)\b"
    r"|\b(?:feel free|do(?:n't|n’t| not) hesitate) to (?:ask|reach out|let me know|contact)\b"
    r"|\bwould you like me to\b|\bis there anything else\b",
    re.IGNORECASE,
)
_LAST_CHARACTERS = 300

_LONGEST_NUMBER = 12  # characters of a list's number, with what marks it


class Judge:
    """Judges replies and documents.

    Args:
        rules: The recipe's section.
        duplicates: What counts as a duplicate, of an earlier accepted document or of a text of another corpus.
        earlier: The texts of other corpora; None if there are none.
        benchmarks: Whose items no document may hold; None: no document is compared.
        note: Told of each document that holds one, and of each duplicate; one of the same corpus is numbered among
            those that were taken in, from 0.
    """

    def __init__(
        self,
        rules: Accept,
        duplicates: Duplicates,
        earlier: EarlierTexts | None = None,
        benchmarks: Contamination | None = None,
        note: Callable[[str, Found | Match], None] | None = None,
    ) -> None:
        self.rules = rules
        self._shingle, self._earlier, self._own = duplicates.words, earlier, NearDuplicates(duplicates)
        self._benchmarks, self._note = benchmarks, note or _ignore

    def check(
        self, written: str, finish_reason: str, messages: Messages, language: str = "english"
    ) -> tuple[str, str | None]:
        """The usable text of what was written, and the first rule that it breaks, if it does.

        Depends on nothing judged earlier.

        Args:
            written: A reply, or one with its continuations.
            finish_reason: Of the last of them.
            messages: What was asked.
            language: What it is to be written in.
        """
        text = tidy(written)
        if finish_reason == "length" and self.rules.truncated != "drop":
            text = trim_to_sentence(text)
        return text, self._fault(written, finish_reason, text, messages, language)

    def place(self, text: str, passage: str | None = None, *, joined: bool = False) -> str | None:
        """Take a document in, or name the first rule that it breaks.

        Args:
            text: The document.
            passage: The web text that its prompt carried, if any.
            joined: Whether it was put together from several replies.
        """
        words = text.lower().split()
        if len(words) < self.rules.min_words:
            return "too_short"
        if joined and self._repetitive(text, words):  # each part may be fine, and the third like the first
            return "repetitive"
        compared = text_words(text)
        if passage and copied_share(text_words(passage), compared) > self.rules.max_copied:
            return "copied_passage"
        if self._benchmarks is not None and (item := self._benchmarks.find(text)):
            self._note(text, item)
            return "contaminated"
        ours = signature(text, self._shingle, compared)
        if found := self._duplicated(ours):
            self._note(text, found)
            return "duplicate" if found.kind == "exact" else "near_duplicate"
        self._own.add(ours)
        return None

    def _duplicated(self, ours: Signatures) -> Found | None:
        """The text that this one duplicates: an equal one, or the most alike."""
        found = [self._own.find(ours)] if self._earlier is None else [self._earlier.find(ours), self._own.find(ours)]
        return max(filter(None, found), key=lambda each: (each.kind == "exact", each.similarity), default=None)

    def _fault(self, written: str, finish_reason: str, text: str, messages: Messages, language: str) -> str | None:
        if finish_reason == "content_filter":
            return "content_filter"
        if not written.strip():
            return "empty"
        if finish_reason == "length" and (self.rules.truncated == "drop" or not text):
            return "truncated"
        if _REFUSAL.match(text):
            return "refusal"
        if is_meta_talk(text):
            return "meta_talk"
        words = text.lower().split()
        if in_another_language(text, words, language):
            return "wrong_language"
        if self._repetitive(text, words):
            return "repetitive"
        prompt = " ".join(message["content"] for message in messages).lower().split()
        if shared_share(words, prompt, _COPIED_WORDS) > _MOST_COPIED:
            return "copied_prompt"
        return None

    def _repetitive(self, text: str, words: Sequence[str]) -> bool:
        most = self.rules.max_repetition
        return repeated_share(words, _REPEATED_WORDS) > most or repeated_line_share(text) > most


def _ignore(_text: str, _why: Found | Match) -> None:
    pass


@dataclass(frozen=True)
class Copied:
    """How much of a passage came back.

    Attributes:
        share: Share of its characters in runs of eight words or more (all of a shorter passage) that the text holds.
        longest: Words of the longest run that both hold.
    """

    share: float
    longest: int


def copied(passage: str, text: str) -> Copied:
    """How much of a passage a text repeats, word by word, whatever the case and punctuation."""
    ours, theirs = text_words(passage), text_words(text)
    return Copied(copied_share(ours, theirs), longest_run(ours, theirs))


def copied_share(passage: Sequence[str], text: Sequence[str]) -> float:
    """Share of a passage's characters in runs of eight words (all of a shorter one) that a text holds."""
    return shared_share(passage, text, max(1, min(_COPIED_WORDS, len(passage))))


def longest_run(words: Sequence[str], others: Sequence[str]) -> int:
    """Words of the longest run that both hold."""
    text, longest = f" {' '.join(others)} ", 0
    for start in range(len(words)):
        while start + longest < len(words) and f" {' '.join(words[start : start + longest + 1])} " in text:
            longest += 1
    return longest


def trim_to_sentence(text: str) -> str:
    """A text up to the end of its last whole sentence, outside of an unfinished block of code; "" if it has none."""
    if text.count("```") % 2:
        text = text[: text.rindex("```")]
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if not _is_list_number(text, match.start())]
    fence = text.rfind("```") + 3 if "```" in text else 0
    return text[: max([*ends, fence], default=0)].rstrip()


def _is_list_number(text: str, dot: int) -> bool:
    before = text[max(0, dot - _LONGEST_NUMBER) : dot].rpartition("\n")
    begins_line = bool(before[1]) or dot <= _LONGEST_NUMBER
    return begins_line and before[2].strip(" *#").isdigit()


def is_meta_talk(text: str) -> bool:
    """Whether an assistant speaks here, in place of a textbook."""
    if _META_FIRST.match(text) or _META_LAST.search(text[-_LAST_CHARACTERS:]):
        return True
    lower = text.lower()
    return any(sign in lower for sign in _META_SIGNS) and _META_ANYWHERE.search(text) is not None


def repeated_share(words: Sequence[str], length: int) -> float:
    """Share of a text's characters in word sequences that came before, each character counted once.

    After the duplicate n-gram rule of Gopher (arXiv 2112.11446, appendix A.1.1).
    """
    runs = list(word_tuples(words, length))
    if len(set(runs)) == len(runs):
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated = [False] * len(words)
    for start, run in enumerate(runs):
        if run in seen:
            repeated[start : start + length] = [True] * length
        seen.add(run)
    return _share(words, repeated)


def repeated_line_share(text: str) -> float:
    """Share of a text's characters in lines that came before (same appendix); it sees lists of short lines, too."""
    lines = [line.strip().lower() for line in text.splitlines() if line.strip()]
    first: set[str] = set()
    repeated = []
    for line in lines:
        repeated.append(line in first)
        first.add(line)
    return _share(lines, repeated)


def shared_share(words: Sequence[str], others: Sequence[str], length: int) -> float:
    """Share of a text's characters in word sequences that another text holds, too."""
    runs, theirs = list(word_tuples(words, length)), set(word_tuples(others, length))
    if theirs.isdisjoint(runs):
        return 0.0
    shared = [False] * len(words)
    for start, run in enumerate(runs):
        if run in theirs:
            shared[start : start + length] = [True] * length
    return _share(words, shared)


def tidy(text: str) -> str:
    """Plain line ends, no spaces at the ends of lines, one empty line at most."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")]
    kept = lines[:1] + [line for before, line in pairwise(lines) if before or line]
    return "\n".join(kept)


def _share(parts: Sequence[str], marked: Sequence[bool]) -> float:
    total = sum(map(len, parts))
    return sum(len(part) for part, mark in zip(parts, marked, strict=True) if mark) / total if total else 0.0
