"""The report as one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from eval.charts import key
from eval.report_page import Page
from eval.run_facts import clean

_HERE = Path(__file__).parent
_TEMPLATE, _STYLE, _SCRIPT = "report.html.j2", "report.css", "report.js"

# Sentences of a kind that stand in the answer; the others are folded away below them.
_SHOWN = 6

# What a page is made of beside its content.
FILES = tuple(_HERE / name for name in (_TEMPLATE, _STYLE, _SCRIPT))


def render_html(page: Page) -> str:
    """The whole page. Charts, style sheet and script are the only markup that is taken as it is."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["variants"] = partial(_mark_variants, list(page.variants))
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["svg"] = Markup
    environment.filters["hash"] = _hash
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in (_STYLE, _SCRIPT))
    rendered = environment.get_template(_TEMPLATE).render(
        page=page,
        shown=_SHOWN,
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        keys=[Markup(key(position)) for position in range(len(page.variants))],  # noqa: S704
    )
    return clean(rendered)


def _hash(content: str) -> str:
    """What a content security policy calls a style sheet or script that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _mark_variants(names: list[str], text: str) -> Markup:
    """A sentence, escaped, with the quoted names of variants set apart."""
    marked = str(escape(text))
    for name in names:
        marked = marked.replace(f"“{escape(name)}”", f'<b class="name">{escape(name)}</b>')
    return Markup(marked)  # noqa: S704 - escaped above
