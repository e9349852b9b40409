"""The report as Markdown: for a repository, a pull request or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from eval.report_page import Block, Details, Documents, Figure, Grid, Heading, Listing, Page, Points, Terms, Words
from eval.run_facts import Sample
from eval.tables import Cell, Table

# Characters that would be markup in running text, and beginnings that would make a heading, a list or a rule.
_MARKUP = re.compile(r"([\\`*_\[\]<>|~$]|&(?=#?\w+;))")
_BEGINNING = re.compile(r"^(\d*)([#+=-]+|[.)])(?=\s|$)")

# Characters of a document that are shown; the page has more.
_SHOWN = 600


def render_markdown(page: Page) -> str:
    """The whole report, with the numbers behind every chart in its place."""
    verdict = page.verdict
    lines = [f"# {_inline(page.title)}", f"Primer report, {page.date}."]
    lines += [f"*{_inline(page.about)}*"] if page.about else []
    lines += ["## The answer", f"**{_inline(verdict.headline)}**"]
    for heading, sentences in (
        ("Beyond noise", verdict.beyond_noise),
        ("Within noise", verdict.within_noise),
        ("Against chance", [verdict.chance] if verdict.chance else []),
        ("Before you believe it", verdict.caveats),
    ):
        lines += [f"### {heading}", _list(sentences)] if sentences else []
    for section in page.sections:
        lines += [f"## {_inline(section.title)}", *_blocks(section.blocks, 3)]
    return "\n\n".join(line for line in lines if line) + "\n"


def _blocks(blocks: Sequence[Block], level: int) -> Iterator[str]:
    for block in blocks:
        match block:
            case Words():
                source = f" <{block.address}>" if block.address else ""
                yield (f"> {_inline(block.text)}" if block.kind == "warning" else _inline(block.text)) + source
            case Heading():
                yield f"{'#' * level} {_inline(block.text)}"
            case Grid():
                yield f"**{_inline(block.caption)}**"
                yield _table(block.table)
                yield from (_inline(note) for note in block.notes)
            case Listing():
                yield _fenced(block.text)
            case Terms():
                yield _list([f"{term}: {text}" for term, text in block.pairs])
            case Points():
                yield _list(block.sentences)
            case Documents():
                for source, samples in block.samples.items():
                    yield f"{'#' * level} {_inline(source.capitalize())}"
                    for sample in samples:
                        yield from _document(sample)
            case Details():
                yield f"{'#' * level} {_inline(block.summary)}"
                yield from _blocks(block.blocks, min(level + 1, 6))
            case Figure() if block.numbers:
                yield f"**{_inline(block.caption)}**"
                yield _table(block.numbers)
            case Figure():
                pass  # a table beside it has its numbers


def _table(table: Table) -> str:
    """A pipe table; a group of rows begins with a row that has its heading alone."""
    rows = [
        [_inline(column.label) for column in table.columns],
        ["---:" if column.number else "---" for column in table.columns],
    ]
    for position, row in enumerate(table.rows):
        if position in table.headings:
            rows.append([f"**{_inline(table.headings[position])}**", *[""] * (len(table.columns) - 1)])
        rows.append([_cell(cell) for cell in row])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: Cell) -> str:
    text = f"**{_inline(cell.text)}**" if cell.strong and cell.text else _inline(cell.text)
    text += _inline(cell.mark)
    return f"{text} ({_inline(cell.quiet)})" if cell.quiet else text


def _document(sample: Sample) -> Iterator[str]:
    facts = [value for label, value in sample.facts if label in ("Form", "Audience", "Topic")]
    yield f"**{_inline(sample.heading)}** {_inline(', '.join(facts))}".rstrip()
    if sample.prompt:
        yield "Prompt:"
        yield _fenced(_short(sample.prompt))
    yield "Document:" if sample.prompt else "Text:"
    yield _fenced(_short(sample.text))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rstrip()} …"


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {_inline(sentence)}" for sentence in sentences)


def _inline(text: str) -> str:
    """Foreign text in one line, with nothing in it that is markup."""
    return _BEGINNING.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", " ".join(text.split())))


def _fenced(text: str) -> str:
    """Text in a fence that is longer than any row of back quotes in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
