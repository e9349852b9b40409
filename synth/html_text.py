"""The main text of HTML pages, by trafilatura (Barbaresi, 2021), as FineWeb's is (arXiv 2406.17557, section 3.1)."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from pathlib import Path
from typing import Any

from primer.errors import PrimerError
from synth.text import SourceText

# Far more than prose needs (Common Crawl cut pages at 1 MiB for years): what is longer is tables and links, of which
# the extraction takes about 4 s and 250 MB a MiB.
LONGEST_PAGE = 4 * 2**20  # bytes

# Parsing takes time that grows with the square of some of these; no page that people read has as many.
_MOST_TAGS = 50_000
_LONG_TAG = re.compile(rb"<[a-zA-Z][^>]{50000}")

# Pictures and fonts that a browser saved inside the page.
_EMBEDDED = re.compile(rb"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,[A-Za-z0-9+/=%]{1000,}")
LONGEST_WITH_MEDIA = 16 * LONGEST_PAGE

# The encoding that a page names in its head (HTML Standard, section 13.2.3.2: the first 1,024 bytes; many are later).
_META_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
_HEAD_BYTES = 4096
_GUESSED_BYTES = 20_000

# Codecs that pages come in. Python knows others that are no text (base64) or take quadratic time (punycode).
_PAGE_CODEC = re.compile(
    r"(ascii|utf-16(-le|-be)?|utf-8(-sig)?|iso8859-\d+|cp\d+|koi8-[rtu]|mac-\w+|gb2312|gbk|gb18030|hz|big5(hkscs)?|"
    r"shift_jis(_2004)?|euc_(jp|kr)|iso2022_(jp|kr)|johab|tis-620|ptcp154)"
)
_LOOKS_LIKE_ASCII = re.compile(r"utf-16.*|iso2022.*|hz")  # to whoever tries UTF-8 first
# What browsers read under these names (Encoding Standard, section 4.2): supersets that pages really use.
_READ_AS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs",
}  # fmt: skip


def read_page(path: Path, name: str) -> SourceText:
    """The text of a saved page (HTML, also .gz); empty if it has none.

    A page is a group of its own, as a row of a web data set is: near duplicates are removed before a corpus is divided
    into training and held-out text, and pages saved from one host must not all fall to one side.

    Args:
        path: The file.
        name: What to call it.

    Raises:
        PrimerError: If the file is larger than any page, or damaged.
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            data = file.read(LONGEST_WITH_MEDIA + 1)
    except (EOFError, zlib.error) as error:
        raise PrimerError(f"{name} cannot be read: {error}", "Mend or remove the file.") from None
    if len(data) > LONGEST_WITH_MEDIA:
        raise PrimerError(
            f"{name}: the page has more than {LONGEST_WITH_MEDIA:,} bytes.", "Remove the file; it is hardly a page."
        )
    text, title = page_text(data)
    return SourceText(text=text, group=name, title=title or path.name, origin=name)


def page_text(data: bytes, charset: str | None = None) -> tuple[str, str | None]:
    """The main text of a page and its title; an empty text if there is none, or the page is no HTML.

    Args:
        data: The page as it was sent, with transfer encodings undone.
        charset: The encoding that the server named, if any.
    """
    import trafilatura

    data = _EMBEDDED.sub(b"data:,", data)
    if len(data) > LONGEST_PAGE or not data.strip() or data.count(b"<") > _MOST_TAGS or _LONG_TAG.search(data):
        return "", None
    try:
        tree = trafilatura.load_html(decode_page(data, charset))
        if tree is None:
            return "", None
        title = _title(tree)
        # Measured on the 990 annotated pages of trafilatura's own tests, by the share of what was found that should be
        # (precision) and of what should be found that was (recall). Favouring precision: 0.924 against 0.907, and
        # navigation and notices teach a model nothing. Tables: recall 0.921 against 0.902 without. The second opinion
        # (fast=False): 0.921 against 0.893, for half as much time again. Comments: few are prose. `deduplicate` leaves
        # out what the process has met on other pages, so the text would depend on the number of workers.
        text = trafilatura.extract(
            tree, favor_precision=True, include_comments=False, include_tables=True, deduplicate=False
        )
    except Exception:  # pages are whatever people wrote; one that breaks the parser has no text for us
        return "", None
    return text or "", title


def decode_page(data: bytes, charset: str | None = None) -> str:
    """A page's bytes as text, by what they are before what they are said to be.

    Bytes that are valid UTF-8 hardly ever are anything else, so a wrong label does no harm; a page that was cut off or
    pasted together may have a few that are not. After that come the server's word, the page's own, and a guess.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    said = _META_CHARSET.search(data[:_HEAD_BYTES])
    stated = [codec for label in (charset, said and said[1].decode("ascii", "replace")) if (codec := _codec(label))]
    if stated and _LOOKS_LIKE_ASCII.fullmatch(stated[0]) and re.search(rb"[\0\x1b]|~\{", data):
        return data.decode(stated[0], "replace")
    data = data.removeprefix(codecs.BOM_UTF8)
    text = data.decode("utf-8", "replace")
    # The difference is the bytes beyond the first of each character: one character in twenty or so may be broken.
    if text.count("\ufffd") * 20 <= len(data) - len(text):
        return text
    others = [codec for codec in stated if codec != "utf-8"]
    return data.decode(others[0] if others else _guess(data), "replace")


def _codec(label: str | None) -> str | None:
    """Python's name of the encoding that a label stands for, None if pages do not come in it."""
    try:
        name = codecs.lookup((label or "").strip(" \"'").lower()).name
    except (LookupError, ValueError):
        return None
    return _READ_AS.get(name, name) if _PAGE_CODEC.fullmatch(name) else None


def _guess(data: bytes) -> str:
    import charset_normalizer

    best = charset_normalizer.from_bytes(data[:_GUESSED_BYTES]).best()
    return (_codec(best.encoding) if best else None) or "cp1252"


def _title(tree: Any) -> str | None:
    """What the page says of itself to those that link to it, or its title element, on one line."""
    for path in ("//meta[@property='og:title']/@content", "//head/title//text()", "//h1[1]//text()"):
        found = " ".join("".join(map(str, tree.xpath(path))).split())
        if found:
            return found[:500]
    return None
