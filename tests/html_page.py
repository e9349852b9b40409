"""Pages as tests read them: what a browser would make of one, whether it asks anything of the network, its tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

from primer.run import RunFolder


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, text outside of style and script, ids."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})
    NO_TEXT = frozenset({"style", "script"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"elements left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in self.NO_TEXT:
            self.text += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def assert_self_contained(page: Page, html: str) -> None:
    allowed = {"html", "head", "meta", "title", "style", "body", "main", "header", "section", "nav", "a", "h1", "h2"}
    allowed |= {"h3", "h4", "p", "ul", "li", "b", "strong", "small", "span", "code", "pre", "details", "summary", "dl"}
    allowed |= {"dt", "dd", "div", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "desc"}
    allowed |= {"circle", "polygon", "polyline", "line", "rect", "text", "tspan", "g"}
    allowed |= {"script", "label", "input", "output"}
    assert {tag for tag, _ in page.elements} <= allowed
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        href = attributes.get("href") or ""
        assert not href or href.removeprefix("#") in ids or href.startswith("https://arxiv.org/"), attributes
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in ids
    policy = next(a["content"] or "" for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.S)
        assert len(inside) == 1
        assert "url(" not in inside[0]
        assert "@import" not in inside[0]
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def rows_of(html: str, caption: str) -> dict[str, list[str]]:
    """A table of the page: the text of its cells by the text of the row's heading; that of the columns under ""."""
    table = html[html.index(f'aria-label="{caption}') :]
    table = table[: table.index("</table>")]
    rows = [[" ".join(Page(cell).text.split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)] for row in
            re.findall(r"<tr.*?</tr>", table, re.S)]  # fmt: skip
    return {"": rows[0], **{row[0]: row[1:] for row in rows[1:]}}


def numbers_of(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder("report") / "results.json").read_text(encoding="utf-8"))
    return found
