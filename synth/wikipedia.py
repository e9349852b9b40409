"""The sample of Wikipedia inside the gensim package, as prose: wiki markup in, documents out.

The file is a piece of the English Wikipedia's database dump: 98 articles, and about as many redirects. Text is
under the Creative Commons Attribution-ShareAlike licence (docs/data.md).
"""

from __future__ import annotations

import bz2
import html
import itertools
import math
import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primer.environment import package_folders
from primer.errors import PrimerError
from synth.text import SourceText
from synth.wiki_markup import INDENT, ITEM, LOST, render

LICENCE = "CC BY-SA 3.0"
ORIGIN = "English Wikipedia, the sample in the Python package gensim"
_FILE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

# Lengths of a document, in words: shorter sections are joined with a neighbour, longer ones divided.
_SHORTEST, _LONGEST = 60, 800

_APPARATUS = re.compile(
    r"(see also|references?|external links?|further reading|bibliograph(y|ies)|(foot|end)?notes|sources|citations|"
    r"notes and references|references and notes|footnotes and references|works cited|literature|general references|"
    r"(selected |published |major )?(works|publications|writings|books)|discography|filmography|gallery|"
    r"primary sources|secondary sources|additional reading|links|general|specific|inline citations|"
    r"in popular culture|awards( and nominations)?|honou?rs|external sources|web ?sites)"
)
_DISAMBIGUATION = re.compile(
    r"\{\{\s*(disambig\w*|dab|hndis|geodis|surname|given name|numberdis|letter-disambig)\b", re.I
)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
# What is left of markup that did not parse; a paragraph with any of it is dropped.
_DEBRIS = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|https?://|\bthumb\|"
    r"|<\/?[a-z]+\b|\|\s*\w+\s*=|^\s*[|!}]|\b(ISBN|OCLC)\b|__[A-Z]+__|\bCategory:"
)


@dataclass(frozen=True)
class _Section:
    """One section of an article: its heading (empty for the introduction) and its paragraphs."""

    heading: str
    paragraphs: list[str]

    @property
    def words(self) -> int:
        return sum(len(p.split()) for p in self.paragraphs)


def dump_path() -> Path:
    """The dump inside gensim, found without importing the package (its dependencies are not installed).

    Raises:
        PrimerError: If the package or the file in it is missing.
    """
    for folder in package_folders("gensim"):
        if (path := folder / _FILE).is_file():
            return path
    raise PrimerError(
        "web.source is wikipedia_sample, but the Python package gensim with its test data is not installed.",
        "Install it with: pip install --no-deps -r requirements-bundled.txt (or choose another web.source).",
    )


def read_wikipedia(seed: int) -> Iterator[SourceText]:
    """The sections of all articles; articles come in an order that the seed shuffles.

    Raises:
        PrimerError: If the dump is missing or damaged.
    """
    articles = list(_read_dump(dump_path()))
    random.Random(f"{seed} wikipedia").shuffle(articles)
    for title, markup in articles:
        for heading, text in article_documents(markup):
            yield SourceText(
                text=text,
                group=title,
                title=f"{title}: {heading}" if heading else title,
                origin=f"https://en.wikipedia.org/wiki/{title.replace(' ', '_')}",
                licence=LICENCE,
            )


def article_documents(markup: str) -> list[tuple[str, str]]:
    """One article's wiki markup as (section heading, prose) pairs of a sensible length."""
    documents: list[tuple[str, str]] = []
    for section in _join_short(_sections(markup)):
        parts = _split_long(section.paragraphs)
        for number, paragraphs in enumerate(parts, 1):
            heading = section.heading if number == 1 else f"{section.heading} (part {number})".strip()
            documents.append((heading, _join_paragraphs(paragraphs)))
    return documents


def _read_dump(path: Path) -> Iterator[tuple[str, str]]:
    """(title, markup) of every article: no redirects, disambiguation pages or other namespaces."""
    # The standard parser is enough: the file comes with a pinned package, and expat (2.4.1 and later) limits
    # entity expansion by itself.
    title = namespace = ""
    try:
        with bz2.open(path) as file:
            for _, element in ElementTree.iterparse(file):  # noqa: S314
                tag = element.tag.rpartition("}")[2]
                if tag == "title":
                    title = element.text or ""
                elif tag == "ns":
                    namespace = element.text or ""
                elif tag == "text" and namespace == "0" and _is_article(title, element.text or ""):
                    yield title, element.text or ""
                elif tag == "page":
                    element.clear()
    except (OSError, EOFError, ElementTree.ParseError) as error:
        raise PrimerError(
            f"{path} is damaged: {error}",
            "Reinstall it with: pip install --force-reinstall --no-deps -r requirements-bundled.txt",
        ) from None


def _is_article(title: str, markup: str) -> bool:
    redirect = markup.lstrip()[:9].lower() == "#redirect"
    return not redirect and "(disambiguation)" not in title and not _DISAMBIGUATION.search(markup)


def _sections(markup: str) -> list[_Section]:
    """Prose sections, in order, without those that hold references, links and lists."""
    import mwparserfromhell

    sections: list[_Section] = []
    hidden_level: int | None = None
    heading, nodes = "", list[Any]()
    for node in mwparserfromhell.parse(markup).nodes:
        if not isinstance(node, mwparserfromhell.nodes.Heading):
            nodes.append(node)
            continue
        if hidden_level is None:
            sections.append(_Section(heading, _paragraphs(render(nodes))))
        heading, nodes = " ".join(render(node.title.nodes).split()), []
        if hidden_level is None or node.level <= hidden_level:
            hidden_level = node.level if _APPARATUS.fullmatch(heading.lower().strip(" :.")) else None
    if hidden_level is None:
        sections.append(_Section(heading, _paragraphs(render(nodes))))
    return [section for section in sections if section.paragraphs]


def _paragraphs(rendered: str) -> list[str]:
    """Whole paragraphs of prose; none if the text is mostly a list."""
    lines: list[str] = []
    previous_was_prose = False
    for raw in rendered.split("\n"):
        line = raw.strip()
        prose = bool(line) and line[0] not in (ITEM, INDENT)
        if prose and previous_was_prose:
            lines[-1] += f" {line}"  # wiki markup divides paragraphs by an empty line only
        elif line:
            lines.append(line)
        previous_was_prose = prose
    kept = [paragraph for line in lines if (paragraph := _tidy_line(line))]
    # What introduces a list, a table or a formula is idle without it.
    whole = [p for p, after in itertools.pairwise([*kept, ""]) if not p.endswith(":") or after.startswith("-")]
    prose_words = sum(len(p.split()) for p in whole if p[0] != "-")
    return whole if 2 * prose_words >= sum(len(p.split()) for p in whole) else []


def _tidy_line(line: str) -> str:
    """One paragraph or list item, tidied; empty if it is a fragment, a caption or damaged."""
    if LOST in line:
        return ""
    item = line[0] == ITEM
    text = _tidy(line.strip(ITEM + INDENT + " "))
    if _DEBRIS.search(text):
        return ""
    whole = bool(_SENTENCE_END.search(text)) or (text.endswith(":") and not item)
    starts = text[:1].isalnum() or text[:1] in tuple("\"'“‘($£€")
    shortest = 3 if text.endswith(":") else 6
    if not whole or not starts or len(text.split()) < shortest or (text[0].islower() and not item):
        return ""
    return f"- {text}" if item else text


def _tidy(text: str) -> str:
    """Mend what removed references, pronunciations and images leave behind in a sentence."""
    text = re.sub(r"\s+", " ", html.unescape(text))
    text = re.sub(r"'{2,}(?=s\b)", "'", text).replace("''", "")
    for _ in range(2):  # brackets inside brackets
        text = re.sub(r"\(\s*(?:[;,:/–—-]|\bor\b|\band\b|\balso\b|\s)*\s*\)|\[\s*\]", "", text)
        text = re.sub(r"\(\s*(?:[;,:]\s*)+", "(", text)
        text = re.sub(r"(?:\s*[;,:])+\s*\)", ")", text)
    text = re.sub(r"([;,])(?:\s*[;,])+", r"\1", text)
    text = re.sub(r"\s+([,.;:!?)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r",+\.", ".", text)
    return re.sub(r" {2,}", " ", text).strip(" *")


def _join_paragraphs(paragraphs: list[str]) -> str:
    """Paragraphs with an empty line between them, list items on neighbouring lines."""
    text = paragraphs[0]
    for before, paragraph in itertools.pairwise(paragraphs):
        text += ("\n" if before[0] == paragraph[0] == "-" else "\n\n") + paragraph
    return text


def _join_short(sections: list[_Section]) -> list[_Section]:
    """Neighbours joined where one is too short to stand alone."""
    joined: list[_Section] = []
    for section in sections:
        last = joined[-1] if joined else None
        if last and min(last.words, section.words) < _SHORTEST and last.words + section.words <= _LONGEST:
            joined[-1] = _Section(last.heading or section.heading, last.paragraphs + section.paragraphs)
        else:
            joined.append(section)
    return joined


def _split_long(paragraphs: list[str]) -> list[list[str]]:
    """Parts of at most about `_LONGEST` words and of nearly equal length, divided between paragraphs."""
    total = sum(len(p.split()) for p in paragraphs)
    target = total / math.ceil(total / _LONGEST)
    parts: list[list[str]] = [[]]
    seen = 0.0
    for paragraph in paragraphs:
        words = len(paragraph.split())
        if parts[-1] and seen + words / 2 > target * len(parts):
            parts.append([])
        parts[-1].append(paragraph)
        seen += words
    return parts
