"""Passages of web text for prompts: whole sentences of clean prose, a few from each document."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator
from typing import Any

from prompts.passages import Snippet

# A longer document has more to say, but one document must not colour a corpus.
_PER_DOCUMENT = 3

# More passages than this add nothing but memory (about 50 MB); past it, a uniform sample is kept.
_MOST = 100_000

# A passage shorter than max_words over this says too little to be inspired by.
_SHORTEST = 3

# A sentence ends at . ! or ? (and a closing quote or bracket), if a capital letter follows.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]?\s+(?=[\"'“‘(]?[A-Z])")

# "Dr. Smith", "J. Smith", "St. Petersburg", "No. 5": the sentence goes on.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Gov|Sen|Rep|Pres|No|Nos|Vol|Fig|"
    r"vs|etc|ca|cf|approx|e\.g|i\.e|[A-Z](?:\.[A-Z])+|Jan|Feb|Aug|Sept|Oct|Nov|Dec|Inc|Ltd|Co|Corp|Mt|Ft)\.$"
)

# Signs of markup, code, tables, addresses, references and lists; prose has none of them.
_NOT_PROSE = re.compile(
    r"https?:|www\.|\.(?:com|org|net|html?)\b|[\w.]@\w|&\w+;|</?\w|[{}\[\]|\\<>_=^~*#•·→©®™]|"
    r"\.\.\.|…|--|\(\s*[,;)]|;\s*;|\s[,;.]|(?-i:[a-z]\.?[A-Z])",
    re.IGNORECASE,
)

# What pages say about themselves.
_PAGE_TALK = re.compile(
    r"\b(?:cookies?|subscribe\w*|click|terms of use|privacy policy|promo code|all rights reserved|ISBN|doi)\b",
    re.IGNORECASE,
)

_ENDS_WELL = re.compile(r"[.!?][\"'”’)]?$")
_BEGINS_WELL = re.compile(r"[\"'“‘]?[A-Z]")
_LIST_ITEM = re.compile(r"\s*(?:[-–—+•*]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")


def cut_snippets(documents: Iterable[dict[str, Any]], max_words: int, seed: int) -> list[Snippet]:
    """Cut passages from web documents.

    Args:
        documents: Rows with `id` and `text`.
        max_words: Longest passage, in words; the shortest has a third of it.
        seed: Decides which passages of a document are taken.

    Returns:
        At most `_PER_DOCUMENT` passages a document, each of whole sentences that stand in one paragraph, none
        twice, in the order of the documents. A passage's id is the document's and the place of its first
        sentence. Where there are more than `_MOST`, those of a uniform sample of the documents.
    """
    # The passages of the lowest-ranked documents, the highest rank at the top of the heap. A document that ranks
    # above the top of a full heap is not even cut, so a corpus of any size costs little more than reading it.
    kept: list[tuple[int, int, Snippet]] = []
    seen: set[bytes] = set()
    number = 0
    for document in documents:
        identity = str(document["id"])
        rank = _rank(seed, identity)
        if len(kept) == _MOST and -rank <= kept[0][0]:
            continue
        for snippet in _best_of(identity, document["text"], max_words, seed):
            digest = hashlib.blake2b(snippet.text.casefold().encode(), digest_size=8).digest()
            if digest in seen:
                continue
            seen.add(digest)
            number += 1
            place = heapq.heappush if len(kept) < _MOST else heapq.heappushpop
            place(kept, (-rank, number, snippet))
    return [snippet for _, _, snippet in sorted(kept, key=lambda item: item[1])]


def _best_of(identity: str, text: str, max_words: int, seed: int) -> list[Snippet]:
    """A few passages of one document, in its order."""
    ranked = sorted((_rank(seed, identity, place), place, passage) for place, passage in _passages(text, max_words))
    chosen = sorted(ranked[:_PER_DOCUMENT], key=lambda item: item[1])
    return [Snippet(f"{identity}#{place}", passage) for _, place, passage in chosen]


def _rank(*labels: object) -> int:
    text = "\0".join(map(str, labels)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _passages(text: str, max_words: int) -> Iterator[tuple[int, str]]:
    """Passages that do not overlap, each with the number of its first sentence in the document."""
    place = 0
    for paragraph in text.split("\n"):
        sentences = _sentences(paragraph)
        clean = not _LIST_ITEM.match(paragraph)
        start = 0
        while start < len(sentences):
            end, words = start, 0
            while end < len(sentences) and clean and is_prose(sentences[end]):
                length = len(sentences[end].split())
                if words + length > max_words:
                    break
                words, end = words + length, end + 1
            if words >= max_words / _SHORTEST:
                yield place + start, " ".join(sentences[start:end])
            start = max(end, start + 1)
        place += len(sentences)


def _sentences(paragraph: str) -> list[str]:
    found: list[str] = []
    for piece in _split_after(paragraph):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += f" {piece}"
        else:
            found.append(piece)
    return found


def _split_after(paragraph: str) -> Iterator[str]:
    """Cut at every sentence end, a closing quote staying with its sentence; white space is folded."""
    start = 0
    for match in _SENTENCE_END.finditer(paragraph):
        end = match.start() + len(match[0]) - len(match[0].lstrip("\"'”’)"))
        yield " ".join(paragraph[start:end].split())
        start = match.end()
    if rest := " ".join(paragraph[start:].split()):
        yield rest


def is_prose(sentence: str) -> bool:
    """Whether a sentence is whole, plain English prose: letters, little else, and no sign of markup."""
    if not _BEGINS_WELL.match(sentence) or not _ENDS_WELL.search(sentence) or _NOT_PROSE.search(sentence):
        return False
    if _PAGE_TALK.search(sentence):
        return False
    words = sentence.split()
    if not 4 <= len(words) <= 60 or len(sentence) > 12 * len(words) or not sentence.isprintable():
        return False
    plain = sum(character.isascii() and (character.isalpha() or character == " ") for character in sentence)
    capitals = sum(word[0].isupper() for word in words)
    paired = (
        sentence.count("(") == sentence.count(")")
        and sentence.count("“") == sentence.count("”")
        and sentence.count('"') % 2 == 0
    )
    return paired and len(sentence) - plain <= 4 + 0.08 * len(sentence) and capitals <= 0.5 * len(words)
