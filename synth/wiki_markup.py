"""Wiki markup to plain text, node by node: what is prose stays, what is apparatus goes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Marks in the rendered text (private-use characters, which no article holds): the start of a list item, the start
# of an indented line, and a place where something was lost without which the paragraph makes no sense.
ITEM, INDENT, LOST = "\ue000", "\ue001", "\ue002"

_NAMESPACE = re.compile(r"\s*(file|image|category|media|[a-z]{2,3}(-[a-z-]+)?|simple)\s*:", re.I)
_FORMULA_TAGS = {"math", "score", "chem", "ce"}
_DROPPED_TAGS = {
    "ref", "references", "table", "gallery", "timeline", "imagemap", "syntaxhighlight", "source", "pre", "code",
    "noinclude", "includeonly", "hiero", "graph", "section", "inputbox", "tt",
}  # fmt: skip

# Templates whose text is one of their arguments: the argument's number.
_ARGUMENT = {
    "nowrap": 1, "lang": 2, "transl": -1, "nihongo": 1, "small": 1, "smaller": 1, "quote": 1, "quotation": 1,
    "vanchor": 1, "sc": 1, "angbr": 1, "abbr": 1, "script": 2, "sic": 1, "uss": 1, "dts": 1,
}  # fmt: skip
_LITERAL = {
    "nbsp": " ", "thinsp": " ", "spaces": " ", "ndash": "–", "mdash": "—", "mdashb": " — ", "spaced ndash": " – ",
    "snd": " – ", "'": "'", "'s": "'s", "' \"": "'\"", "!": "|",
}  # fmt: skip
# Units and joiners of {{convert}}, as they are written out.
_SAME_UNITS = ("km", "m", "cm", "mm", "mi", "ft", "in", "lb", "kg", "g", "t", "ft/s", "km/h", "mph", "ha")
_UNITS = {unit: unit for unit in _SAME_UNITS} | {
    "km2": "km²", "m2": "m²", "m3": "m³", "ft3": "ft³", "sqmi": "square miles", "sqkm": "km²", "C": "°C", "F": "°F",
    "°C": "°C", "°F": "°F", "nmi": "nautical miles", "acre": "acres", "USgal": "gallons", "oilbbl": "barrels",
    "oilbbl/d": "barrels a day", "C-change": "°C", "yd": "yards",
}  # fmt: skip
_JOINERS = {"to": " to ", "and": " and ", "-": "–", "–": "–", "by": " by ", "x": " by ", "or": " or ", "to(-)": "–"}
_SUPERSCRIPTS = str.maketrans("0123456789-−+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻⁺")
# Templates that stand for something inside the sentence that cannot be put into words here.
_FORMULA_TEMPLATES = {
    "math", "frac", "sfrac", "chem", "simplenuclide", "nuclide", "inflation", "e", "bartable", "chart", "clade", "val",
    "coord", "legend", "eqm", "wide image", "double image", "multiple image", "age", "music", "railgauge",
    "currentyear",
}  # fmt: skip


def render(nodes: Iterable[Any]) -> str:
    """The text of some parsed nodes, with the marks above at the start of list items and indented lines."""
    return "".join(_render_node(node) for node in nodes)


def _render_node(node: Any) -> str:
    kind = type(node).__name__
    if kind == "Text":
        return str(node.value)
    if kind == "Wikilink":
        return _link(node)
    if kind == "ExternalLink":
        return render(node.title.nodes) if node.title is not None else ""
    if kind == "HTMLEntity":
        return str(node.normalize())
    if kind == "Template":
        return _template(node)
    if kind == "Tag":
        return _tag(node)
    return ""  # comments, template arguments


def _link(node: Any) -> str:
    title = str(node.title)
    if _NAMESPACE.match(title):
        return ""
    return render(node.text.nodes) if node.text is not None else title.lstrip(":")


def _tag(node: Any) -> str:
    name = str(node.tag).strip().lower()
    if name in _FORMULA_TAGS:
        return LOST
    if name in _DROPPED_TAGS:
        return ""
    if name in ("li", "dt") and node.wiki_markup:
        return ITEM
    if name == "dd" and node.wiki_markup:
        return INDENT
    if name in ("br", "hr"):
        return " " if name == "br" else "\n"
    inner = render(node.contents.nodes) if node.contents is not None else ""
    if name == "sup":
        return inner.translate(_SUPERSCRIPTS)
    if name in ("blockquote", "p", "div", "center", "ul", "ol"):
        return f"\n\n{inner}\n\n"
    return f"\n{ITEM}{inner}" if name == "li" else inner


def _template(node: Any) -> str:
    name = " ".join(str(node.name).split()).lower().replace("_", " ")
    if name in _LITERAL:
        return _LITERAL[name]
    if name in ("convert", "cvt"):
        return _convert(node)
    if name in ("as of", "asof"):
        return f"{'as' if _named(node, 'lc') else 'As'} of {_positional(node, 1)}"
    if name in _FORMULA_TEMPLATES:
        return LOST
    if name.startswith("formatnum:"):
        return name.partition(":")[2]
    if name.startswith("lang-"):
        return _positional(node, 1)
    position = _ARGUMENT.get(name)
    if position is None:
        return ""  # citations, notes, maintenance marks, boxes, pronunciations
    return _positional(node, position)


def _convert(node: Any) -> str:
    """`{{convert|12000|km|mi}}` as `12,000 km`, `{{convert|3|to|5|m}}` as `3 to 5 m`; rare units are lost."""
    first, second = _positional(node, 1), _positional(node, 2)
    value, unit = _with_commas(first), second
    if second in _JOINERS:
        value, unit = f"{value}{_JOINERS[second]}{_with_commas(_positional(node, 3))}", _positional(node, 4)
    return f"{value} {_UNITS[unit]}" if value and unit in _UNITS else LOST


def _with_commas(number: str) -> str:
    return f"{int(number):,}" if re.fullmatch(r"\d{5,}", number) else number


def _positional(node: Any, position: int) -> str:
    """An unnamed argument, counted from 1 (or -1: the last), rendered; empty if absent."""
    values = [p.value for p in node.params if not p.showkey or str(p.name).strip() == str(position)]
    if not values or position > len(values):
        return ""
    return render(values[position - 1 if position > 0 else position].nodes).strip()


def _named(node: Any, name: str) -> bool:
    return any(p.showkey and str(p.name).strip() == name for p in node.params)
