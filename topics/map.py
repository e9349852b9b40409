"""A page to look at: the checks of an audit, the list as a map, and what the benchmarks ask far from any seed."""

from __future__ import annotations

import colorsys
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from primer.environment import cache_folder, save_cache
from primer.fingerprint import fingerprint
from primer.run import write_text
from topics.coverage import COVERED
from topics.embedding import Vectors
from topics.full_audit import Audit
from topics.seeds import KINDS, LEVELS, Topic

# Places on the map are whole numbers up to this, each way.
_MAP_SIZE = 4000
_BORDER = 0.03
_ROOM = Path(__file__).parent
_MOST_FINDINGS = 200


def write_page(path: Path, audit: Audit) -> None:
    """Write the page, in one file that needs nothing else.

    Args:
        path: Where to.
        audit: What to show; fields without a plan are one group.

    Raises:
        OSError: If it cannot be written.
    """
    topics, plan = [at.topic for at in audit.listed], audit.plan
    fields = sorted({topic.field for topic in topics})
    groups = {name: sorted(set(group.fields) & set(fields)) for name, group in plan.groups.items()} if plan else {}
    groups = {name: some for name, some in groups.items() if some}
    if rest := sorted(set(fields) - {field for some in groups.values() for field in some}):
        groups["other fields" if groups else "fields"] = rest
    order = [field for some in groups.values() for field in some]
    number = {field: place for place, field in enumerate(order)}
    places = _layout(topics, audit.vectors)
    counts = Counter(topic.field for topic in topics)
    data = {
        "size": _MAP_SIZE,
        "fields": order,
        "colors": _colors([len(some) for some in groups.values()]),
        "kinds": KINDS,
        "levels": LEVELS,
        "seeds": [
            [
                *places[i].tolist(),
                number[topic.field],
                KINDS.index(topic.kind),
                LEVELS.index(topic.levels[0]),
                LEVELS.index(topic.levels[-1]),
                topic.id.rsplit("-", 1)[1],
                topic.subfield,
                topic.title,
            ]
            for i, topic in enumerate(topics)
        ],
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ROOM),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("map.html.j2").render(
        count=len(topics),
        groups=groups,
        number=number,
        colors=data["colors"],
        counts=counts,
        plan=plan.fields() if plan else {},
        reasons={name: plan.groups[name].reason if plan and name in plan.groups else "" for name in groups},
        kinds=Counter(topic.kind for topic in topics),
        levels=Counter(level for topic in topics for level in topic.levels),
        level_names=LEVELS,
        checks=audit.checks,
        most_findings=_MOST_FINDINGS,
        coverage=audit.coverage,
        covered=COVERED,
        topics=topics,
        style=Markup((_ROOM / "map.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        script=Markup((_ROOM / "map.js").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        # "<" as an escape: a title cannot end the script element.
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),  # noqa: S704
    )
    write_text(path, page)


def _layout(topics: Sequence[Topic], vectors: Vectors) -> NDArray[np.int64]:
    """Places on the map, shape (topics, 2): t-SNE, in which seeds of like meaning lie together. Cached."""
    cache = cache_folder() / f"map-{fingerprint([t.title for t in topics])[:16]}.npy"
    try:
        known = np.load(cache)
        if known.shape == (len(topics), 2):
            return np.asarray(known, dtype=np.int64)
    except (OSError, ValueError, EOFError):
        pass
    if len(topics) < 8:  # too few for neighbors to mean anything
        return np.array([[_MAP_SIZE * (i + 1) // (len(topics) + 1), _MAP_SIZE // 2] for i in range(len(topics))])
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = PCA(min(50, len(topics)), random_state=0).fit_transform(vectors)
    perplexity = min(30.0, (len(topics) - 1) / 3)
    raw = TSNE(2, init="pca", perplexity=perplexity, random_state=0, n_jobs=-1, max_iter=750).fit_transform(few)
    # A few seeds end up far outside; they are drawn at the border.
    low, high = np.quantile(raw, [0.002, 0.998], axis=0)
    inside = np.clip((raw - low) / np.maximum(high - low, 1e-9), -_BORDER, 1 + _BORDER)
    places: NDArray[np.int64] = np.rint((inside + _BORDER) / (1 + 2 * _BORDER) * _MAP_SIZE).astype(np.int64)
    save_cache(cache, lambda file: np.save(file, places))
    return places


def _colors(group_sizes: Sequence[int]) -> list[str]:
    """A color a field: a group takes a stretch of the color wheel, its fields differ in hue and lightness."""
    colors: list[str] = []
    for group, size in enumerate(group_sizes):
        for place in range(size):
            hue = (group + 0.8 * place / max(1, size)) / len(group_sizes)
            lightness = (0.42, 0.56, 0.68)[place % 3]
            red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.62)
            colors.append(f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}")
    return colors
