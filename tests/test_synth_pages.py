"""Main text of HTML pages and web archives: what is taken, encodings, and pages and archives that are broken."""

import base64
import gzip
import io
import random
from pathlib import Path

import pytest
from source_samples import files, parts_of, problem, texts_of
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from primer.errors import PrimerError
from synth.html_text import LONGEST_PAGE, decode_page, page_text

HEART = [
    "A heron stands in shallow water for many minutes, and looks as if it were asleep until a fish comes near.",
    "Then its neck, which was folded like a spring, shoots forward, and the fish is gone before the ripples are.",
    "Young herons miss most of the time, and learn the bend that water gives to everything that they see in it.",
]


def page(body: str = "", head: str = "<title>Herons</title>") -> str:
    paragraphs = "".join(f"<p>{sentence} {sentence.replace('fish', 'frog')}</p>" for sentence in HEART)
    return f"""<!DOCTYPE html><html><head>{head}</head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/shop">Our shop</a></li></ul></nav>
<article><h1>How herons fish</h1>{paragraphs}{body}</article>
<div id="comments"><h3>Comments</h3><p>First! I was here before anybody else was, and I want everyone to know.</p></div>
<footer>All rights reserved. Cookies. <script>track()</script></footer></body></html>"""


def response(
    body: bytes, status: str = "200 OK", kind: str = "text/html", kept: bool = True, **headers: str
) -> tuple[StatusAndHeaders, bytes]:
    named = [("Content-Type", kind)] if kept else []
    named += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return StatusAndHeaders(status, named, protocol="HTTP/1.1"), body


def archive(*responses: tuple[StatusAndHeaders, bytes], packed: bool = True) -> bytes:
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=packed)
    writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "a test"}))
    for number, (http, body) in enumerate(responses):
        address = f"https://birds.example/{number}#top"
        writer.write_record(
            writer.create_warc_record(address, "request", payload=io.BytesIO(b"GET / HTTP/1.1\r\n\r\n"))
        )
        record = writer.create_warc_record(address, "response", payload=io.BytesIO(body), http_headers=http)
        writer.write_record(record)
    return file.getvalue()


def test_the_main_text_of_a_page_and_nothing_around_it():
    table = "<table><tr><th>Bird</th><th>Height</th></tr><tr><td>Grey heron</td><td>90 cm</td></tr></table>"
    text, title = page_text(page(table).encode())
    assert title == "Herons"
    assert all(sentence in text for sentence in HEART)
    assert "Grey heron" in text
    for other in ("Our shop", "First!", "Cookies", "track()"):
        assert other not in text


def test_a_page_says_its_title_in_several_ways():
    named = '<meta property="og:title" content="Herons &amp;\n egrets"><title>Herons | Birds Inc.</title>'
    assert page_text(page(head=named).encode())[1] == "Herons & egrets"
    assert page_text(page(head="").encode())[1] == "How herons fish"


def test_the_text_of_a_page_does_not_depend_on_the_pages_before():
    alone = page_text(page().encode())
    for _ in range(5):
        assert page_text(page().encode()) == alone


@pytest.mark.parametrize("packed", [False, True])
def test_saved_pages(packed: bool, tmp_path: Path):
    name = "a.htm.gz" if packed else "A.HTML"
    data = page().encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    [[text]] = parts_of(files(tmp_path / name))
    assert HEART[0] in text.text
    assert text.title == "Herons"
    assert text.origin == text.group == str(tmp_path / name)


@pytest.mark.parametrize(
    "data",
    [b"", b"  \n", b"\0\1\2\xff" * 100, b"<html></html>", b"just words", b"<div>" * 50_000, b"<" * 10_000],
    ids=["empty", "blank", "binary", "no-text", "no-html", "deep", "brackets"],
)
def test_pages_without_text_are_empty_texts(data: bytes, tmp_path: Path):
    (tmp_path / "a.html").write_bytes(data)
    [[text]] = parts_of(files(tmp_path / "a.html"))
    assert len(text.text.split()) < 3


def test_pictures_inside_a_page_do_not_count_but_endless_pages_do(tmp_path: Path):
    picture = base64.b64encode(bytes(range(256)) * (LONGEST_PAGE // 200)).decode()
    prose = "A small one is written data:image/png;base64,iVBOR and the words that follow it are still prose."
    text, _ = page_text(page(f'<img src="data:image/png;base64,{picture}"><p>{prose}</p>').encode())
    assert HEART[2] in text
    assert prose in text
    assert page_text(page("<p>long</p>" * (LONGEST_PAGE // 10)).encode()) == ("", None)
    (tmp_path / "a.html.gz").write_bytes(gzip.compress(bytes(100 * LONGEST_PAGE)))
    assert "a.html.gz: the page has more than" in problem(files(tmp_path / "a.html.gz"))
    (tmp_path / "b.html.gz").write_bytes(gzip.compress(page().encode())[:-9])
    assert "b.html.gz cannot be read" in problem(files(tmp_path / "b.html.gz"))


GERMAN, RUSSIAN, JAPANESE = "Ein Käse für müde Bären: „Größe“ – 5 €", "Цапля стоит в мелкой воде", "鷺は浅い水に立つ"


@pytest.mark.parametrize(
    ("text", "encoding", "header", "meta"),
    [
        (GERMAN, "utf-8", None, None),
        (GERMAN, "utf-8", "iso-8859-1", "windows-1252"),  # both wrong
        (GERMAN, "utf-8-sig", "latin1", None),
        (GERMAN, "cp1252", "utf-8", "iso-8859-1"),  # the server is wrong; Latin-1 means windows-1252 on the web
        (GERMAN, "cp1252", "nonsense", None),
        (GERMAN, "utf-16", None, None),
        (RUSSIAN, "cp1251", None, "windows-1251"),
        (RUSSIAN, "koi8-r", "KOI8-R", "utf-8"),
        (RUSSIAN, "utf-16-le", "utf-16le", None),
        (JAPANESE, "shift_jis", '"Shift_JIS"', None),
        (JAPANESE, "euc_jp", None, "EUC-JP"),
        (JAPANESE, "iso2022_jp", "iso-2022-jp", None),
        (JAPANESE, "cp932", "punycode", "shift_jis"),
    ],
)
def test_encodings_said_unsaid_and_wrong(text: str, encoding: str, header: str | None, meta: str | None):
    named = f'<meta http-equiv="Content-Type" content="text/html; charset={meta}">' if meta else ""
    whole = f"<html><head>{named}</head><body>{text} {text}</body></html>"
    assert decode_page(whole.encode(encoding), header) == whole


def test_a_character_that_is_cut_in_two_does_not_make_a_page_another_encoding():
    data = (RUSSIAN * 20).encode()[:-1]
    assert decode_page(data, "windows-1251").startswith(RUSSIAN)


@pytest.mark.parametrize("form", ["records", "whole", "unpacked"])
def test_an_archive_gives_the_pages_that_were_answered(form: str, tmp_path: Path):
    good = page().encode()
    data = archive(
        response(good),
        response(good, status="404 Not Found"),
        response(good, status="301 Moved"),
        response(good, kind="application/pdf"),
        response(good, kept=False),
        response(page(HEART[0].replace("heron", "egret").join(("<p>Käse. ", "</p>"))).encode("cp1252"),
                 kind="text/html; charset=ISO-8859-1"),
        response(gzip.compress(good), Content_Encoding="gzip"),
        response(b"5\r\n<html\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(good[20:]), good[20:]), Transfer_Encoding="chunked"),
        response(good, Content_Encoding="zz"),
        response(b"", kind="application/xhtml+xml"),
        packed=form == "records",
    )  # fmt: skip
    path = tmp_path / ("a.warc" if form == "unpacked" else "a.warc.gz")
    path.write_bytes(gzip.compress(data) if form == "whole" else data)
    [texts] = parts_of(files(path))
    addresses = [f"https://birds.example/{number}" for number in (0, 5, 6, 7, 8, 9)]
    assert [text.group for text in texts] == addresses
    assert [text.origin for text in texts] == [f"{address}#top" for address in addresses]
    assert [HEART[1] in text.text for text in texts] == [True, True, True, True, False, False]
    assert "Käse." in texts[1].text
    assert texts[0].title == "Herons"


def test_damaged_archives_are_named_with_the_record(tmp_path: Path):
    responses = [response(page(f"<p>{n}</p>" * 200).encode()) for n in range(3)]
    packed, plain = archive(*responses), archive(*responses, packed=False)
    for name, data, said in (
        ("a.warc.gz", packed[:-50], "a.warc.gz, after record"),
        ("a.warc.gz", packed[:-50], "ended before the end-of-stream marker"),
        ("a.warc", plain[:-50], "after record 7: the archive cannot be read further: that record is cut off"),
        ("a.warc", plain[: plain.rindex(b"WARC-Type")], "after record 7"),
        ("a.warc", plain[: plain.rindex(b"HTTP/1.1 200") + 9], "after record"),
        ("a.warc", plain.replace(b"Content-Length: ", b"Content-Length: x"), "after record 1"),
        ("a.warc", b"junk\n" * 100, "after record 0: the archive cannot be read further"),
        ("a.warc.gz", b"junk\n" * 100, "Not a gzipped file"),
    ):
        (tmp_path / name).write_bytes(data)
        message = problem(files(tmp_path / name))
        assert said in message
        assert "Fetch it again" in message


def test_damage_anywhere_in_an_archive_is_an_error_for_people_or_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    numbers = random.Random(0)
    short = [response(f"<html><p>{HEART[n]}</p></html>".encode()) for n in range(3)]
    whole = {"a.warc": archive(*short, packed=False), "a.warc.gz": archive(*short)}
    outcomes = set()
    for trial in range(80):
        name = ("a.warc", "a.warc.gz")[trial % 2]
        data = bytearray(whole[name])
        for _ in range(numbers.choice((1, 5))):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        (tmp_path / name).write_bytes(data)
        try:
            outcomes.add(len(texts_of(files(tmp_path / name))))
        except PrimerError:
            outcomes.add(-1)
    assert {-1, 3} <= outcomes
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
