"""Draw bench/results/diversity.json as docs/diversity.svg, and print its table for docs/diversity.md."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "diversity.json"
PLOT = Path(__file__).parent.parent / "docs" / "diversity.svg"

# Measure, title, format, whether more is more diverse.
MEASURES = (
    ("near_duplicates", "near duplicates", ".1%", False),
    ("related", "related texts", ".1%", False),
    ("openings", "share one of ten openings", ".1%", False),
    ("distinct_2", "different pairs of words", ".3f", True),
    ("distinct_4", "different runs of four", ".3f", True),
    ("compression", "compression by gzip", ".2f", False),
    ("cosine_within_topic", "mean cosine in a topic", ".3f", False),
    ("cosine_to_title", "cosine to the title", ".3f", True),
    ("cosine", "mean cosine of all", ".3f", False),
    ("vendi", "Vendi score a document", ".3f", True),
)
COLUMNS, WIDTH, LABELS, ROW, HEAD = 5, 212, 190, 24, 46


def table(settings: dict[str, dict[str, Any]]) -> str:
    """The measures as Markdown, a setting a row."""
    heads = ["setting", "documents", *(title for _, title, _, _ in MEASURES)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name, found in settings.items():
        values = [_with_error(found, key, form) for key, _, form, _ in MEASURES]
        lines.append("| " + " | ".join([name, f"{found['documents']:,d}", *values]) + " |")
    return "\n".join(lines)


def _with_error(found: dict[str, Any], key: str, form: str) -> str:
    error = found["standard_errors"].get(key)
    return format(found[key], form) + (f" ± {error:{form}}" if error else "")


def plot(settings: dict[str, dict[str, Any]]) -> str:
    """One panel of bars a measure, in two rows, the settings below each other in every panel."""
    height = HEAD + ROW * len(settings) + 26
    rows = -(-len(MEASURES) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LABELS + COLUMNS * WIDTH} {rows * height}" '
        'font-family="system-ui, Segoe UI, Roboto, Liberation Sans, Arial, sans-serif" font-size="13" fill="#1d1d1b">',
        '<rect width="100%" height="100%" fill="#fffefb"/>',
    ]
    for number, (key, title, form, higher) in enumerate(MEASURES):
        left, top = LABELS + number % COLUMNS * WIDTH, number // COLUMNS * height
        if number % COLUMNS == 0:
            for place, name in enumerate(settings):
                y = top + HEAD + ROW * place + 12
                parts.append(f'<text x="{LABELS - 12}" y="{y}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<text x="{left}" y="{top + 20}" font-weight="600">{escape(title)}</text>')
        note = "more is more diverse" if higher else "less is more diverse"
        if key == "cosine_to_title":
            note = "less means off the topic"
        parts.append(f'<text x="{left}" y="{top + 36}" font-size="11" fill="#5f5d58">{note}</text>')
        most = max(found[key] for found in settings.values()) or 1.0
        for place, found in enumerate(settings.values()):
            y = top + HEAD + ROW * place
            bar = (WIDTH - 84) * found[key] / most
            colour = "#00735a" if higher else "#0a62a8"
            parts.append(f'<rect x="{left}" y="{y}" width="{bar:.1f}" height="16" fill="{colour}" opacity="0.75"/>')
            parts.append(f'<text x="{left + bar + 6:.1f}" y="{y + 12.5}" font-size="12">{found[key]:{form}}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    settings = json.loads(RESULTS.read_text(encoding="utf-8"))["settings"]
    PLOT.write_text(plot(settings), encoding="utf-8")
    print(table(settings))
    print(PLOT)


if __name__ == "__main__":
    main()
