"""The pages in a web archive (WARC, ISO 28500), such as Common Crawl's segments or what a browser or wget saved."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from primer.errors import PrimerError
from synth.html_text import LONGEST_WITH_MEDIA, page_text
from synth.text import SourceText

if TYPE_CHECKING:
    from warcio.recordloader import ArcWarcRecord

_PAGE_TYPES = {"text/html", "application/xhtml+xml"}
_PLAIN_ENCODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}  # of contents, as warcio undoes them


def read_warc(path: Path, name: str) -> Iterator[SourceText]:
    """The texts of the pages that a server answered with (response records, status 200, HTML).

    A page without text gives an empty one. Groups are pages, by address: a page that was fetched twice is not divided
    between training and held-out text, but pages of one host may be, as in web data sets, and as an archive of a single
    site needs; near duplicates among them are removed before.

    Args:
        path: The archive; packed by gzip if its name ends in .gz, record by record or as a whole.
        name: What to call it.

    Raises:
        PrimerError: If it is damaged or cut off; the message names the record.
    """
    number = 0
    try:
        # gzip notices what warcio's own unpacking does not: that the file is cut off, or that a sum is wrong.
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, record in enumerate(_records(_Bytes(cast(IO[bytes], file))), 1):
                if record.rec_type == "response" and (text := _page(record, f"{name}, record {number}")):
                    yield text
    except (OSError, _Damage) as error:
        problem = " ".join(str(error).split())[:200]
        raise PrimerError(
            f"{name}, after record {number}: the archive cannot be read further: {problem}",
            "Fetch it again, or remove it.",
        ) from None


class _Damage(Exception):  # noqa: N818 - it never leaves this file
    """What is wrong with an archive."""


class _Bytes:
    """A file whose sudden end is an error: warcio takes an EOFError to be the end of the archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (EOFError, zlib.error) as error:
            raise _Damage(str(error)) from None


def _records(file: _Bytes) -> Iterator[ArcWarcRecord]:
    """The records of an unpacked archive; each must be whole, which is known when it has been read."""
    from warcio.archiveiterator import WARCIterator
    from warcio.exceptions import ArchiveLoadFailed

    class Records(WARCIterator):  # type: ignore[misc]
        INC_RECORD = ""  # a warning that would be printed; it becomes an error below

        def _next_record(self, next_line: str | None) -> ArcWarcRecord:
            try:
                return super()._next_record(next_line)
            except EOFError:
                if next_line or (self.record is None and self.fh.tell()):
                    raise _Damage("the next record is cut off.") from None
                raise  # the end, where it should be

    logging.getLogger("warcio").setLevel(logging.ERROR)  # it warns of every address with a blank in it
    records = Records(file)
    try:
        for record in records:
            yield record
            while record.raw_stream.read(2**16):
                pass
            if getattr(record.raw_stream, "limit", 0) > 0 or not record.rec_type:
                raise _Damage("that record is cut off.")
            records.read_to_end()
            if records.err_count:
                raise _Damage("that record is longer than it says.")
    except (_Damage, OSError):
        raise
    except ArchiveLoadFailed as error:
        raise _Damage(str(error)) from None
    except Exception:  # warcio meets damage with whatever it runs into, such as AttributeError
        raise _Damage("the next record begins with no valid WARC header.") from None


def _page(record: ArcWarcRecord, where: str) -> SourceText | None:
    """The text of a response; None if it is no page, empty if it is one without text."""
    http = record.http_headers
    if http is None or http.get_statuscode() != "200":
        return None
    content_type = http.get_header("Content-Type") or record.rec_headers.get_header("WARC-Identified-Payload-Type")
    kind, _, parameters = (content_type or "").partition(";")
    if kind.strip().lower() not in _PAGE_TYPES:
        return None
    address = record.rec_headers.get_header("WARC-Target-URI") or where
    group = address.partition("#")[0]
    if (http.get_header("Content-Encoding") or "").strip().lower() not in _PLAIN_ENCODINGS:
        return SourceText(text="", group=group, origin=address)
    text, title = page_text(_payload(record), _charset(parameters))
    return SourceText(text=text, group=group, title=title, origin=address)


def _payload(record: ArcWarcRecord) -> bytes:
    """The page as the server meant it, empty if that cannot be told; one that is too long stays so."""
    stream = record.content_stream()
    data = bytearray()
    try:
        while len(data) <= LONGEST_WITH_MEDIA and (chunk := stream.read(2**16)):
            data += chunk
    except (zlib.error, ValueError):
        return b""
    return bytes(data)


def _charset(parameters: str) -> str | None:
    """The encoding in the parameters of a content type."""
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            return value.strip(" \"'")
    return None
