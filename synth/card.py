"""The data set card: `README.md` in a corpus folder, for the Hugging Face hub, `datasets` and whoever opens the folder.

A card is no result of its stage: it quotes the recipe's description, and figures that are measured later. It is written
into the finished folder, outside the hashes of the manifest, so that a new sentence in it trains no model again.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from primer.recipe import Recipe, SourceName
from primer.recipe_corpora import WebSample
from primer.run import Manifest, RunFolder, write_text
from synth.corpus_report import ROWS, STAGE
from synth.text import clean

CARD = "README.md"
_TEMPLATE = Path(__file__).parent / "card.md.j2"
_MOST_FAILURES = 5

_TITLES: dict[SourceName, str] = {"synthetic": "synthetic textbooks", "web": "web text", "code": "code"}

# ISO 639-1 codes of the languages that prompts/styles.yaml names; the hub takes "code" for programs.
_LANGUAGES = {"english": "en", "french": "fr", "german": "de", "italian": "it", "portuguese": "pt", "spanish": "es"}

# The licences that sources of text have most, as the hub spells them; it knows others as "other" with a name
# (https://huggingface.co/docs/hub/repositories-licenses).
_LICENCES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "odc-by", "pddl", "odbl", "gpl-2.0", "gpl-3.0", "cc0-1.0"),
    *(f"cc-by-{rest}" for rest in ("2.0", "2.5", "3.0", "4.0", "sa-3.0", "sa-4.0", "nc-3.0", "nc-4.0", "nd-4.0")),
    *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
}

# What each column holds; the types come from the schema.
COLUMNS: dict[str, str] = {
    "id": "identity in this corpus",
    "text": "the document",
    "source": "synthetic, web or code",
    "hash": "of the text in lower case, for exact deduplication",
    "group": "what is never divided between the splits: a topic, an article, a file",
    "title": "title, or the topic",
    "origin": "where exactly it comes from: an address, a file, a teacher",
    "licence": "licence, where known",
    "quality": "probability of being educational, by the recipe's filter; null: no filter",
    "toxicity": "score of hostile and obscene language, 0 to 1; null: not scored",
    "masked": "places with personal data that were masked; null: not looked for",
    "provenance": "how the teacher was asked; null for text that no teacher wrote",
}

# What Markdown and the hub's reader give a meaning inside a line; `<` and `&` are replaced before.
_MARKDOWN = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))")


def write_cards(recipe: Recipe, run: RunFolder, stages: Sequence[str]) -> None:
    """Write the cards of some complete corpus stages, such as `corpus/web`; again once their diversity is measured.

    Raises:
        PrimerError: If a stage is not complete.
    """
    for stage in stages:
        source: SourceName = next(source for source in _TITLES if stage == f"corpus/{source}")
        manifest = run.require(stage)
        web = run.manifest("corpus/web") if source == "synthetic" and recipe.prompts.snippet_share > 0 else None
        text = corpus_card(
            source,
            recipe,
            manifest.facts,
            manifest.content,
            passages=web.facts if web else None,
            diversity=_diversity(run, manifest),
        )
        path = run.folder(stage) / CARD
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def corpus_card(
    source: SourceName,
    recipe: Recipe,
    facts: Mapping[str, Any],
    content: str,
    *,
    passages: Mapping[str, Any] | None = None,
    diversity: Mapping[str, Any] | None = None,
) -> str:
    """The card of one corpus: YAML for the hub, then Markdown for people.

    Args:
        source: Which corpus.
        recipe: The recipe that made it.
        facts: Its manifest's facts.
        content: Its manifest's hash of the files.
        passages: Facts of the web corpus that its prompts quote, if they do.
        diversity: Its figures from the stage `corpus/diversity`, if they are measured.
    """
    from jinja2 import Environment, StrictUndefined

    # Whatever a value holds, it stays text: `_plain` is applied to everything that the template prints.
    environment = Environment(  # noqa: S701  (this is Markdown)
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_plain
    )
    body = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        source=source,
        title=_title(source, recipe),
        recipe=recipe,
        facts=facts,
        splits={split: (facts[f"{split}_documents"], facts[f"{split}_characters"]) for split in ("train", "held_out")},
        documents=_documents(facts),
        made=_made(recipe, facts) if source == "synthetic" else {},
        left_out=[] if source == "synthetic" else _left_out(facts),
        rejected=_commonest(facts.get("rejected", {})),
        failures=_commonest(facts.get("failures", {}))[:_MOST_FAILURES],
        barred=_commonest(facts.get("passages_barred", {})),
        forms=_commonest(facts.get("forms", {})),
        passages=passages,
        measures=[(label, format(diversity[key], form), higher) for key, label, form, higher in ROWS]
        if diversity
        else [],
        columns=[(name, kind, COLUMNS[name]) for name, kind in _schema()],
        fields=_provenance() if source == "synthetic" else [],
    )
    return f"---\n{_front_matter(source, recipe, facts, content)}---\n\n{body}"


def _left_out(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was left out of web text or code, and masked in it: labels and counts."""
    counts = {
        "Too short, left out": facts["too_short"],
        **{f"Left out by a rule: {reason.replace('_', ' ')}": count for reason, count in facts["rules"].items()},
        "Left out by the quality filter": facts["quality_removed"],
        **{f"Left out for an item of {suite}": count for suite, count in facts.get("contaminated", {}).items()},
        "Left out as hostile": facts["toxic_removed"],
        "Exact duplicates left out": facts["exact_duplicates"],
        "Near duplicates left out": facts["near_duplicates"],
        **{f"Masked: {kind.replace('_', ' ')}": count for kind, count in facts["personal_data"].items()},
    }
    always = ("Exact duplicates left out", "Near duplicates left out", "Too short, left out")
    return [(label, f"{count:,d}") for label, count in counts.items() if count or label in always]


def _front_matter(source: SourceName, recipe: Recipe, facts: Mapping[str, Any], content: str) -> str:
    import yaml

    about: dict[str, Any] = {"pretty_name": _title(source, recipe)}
    if languages := _languages(source, recipe):
        about["language"] = languages
    if source != "synthetic" and facts.get("licence"):
        about |= _licence(str(facts["licence"]))
    about["task_categories"] = ["text-generation"]
    about["size_categories"] = [_size(_documents(facts))]
    if source == "synthetic":
        about["tags"] = ["synthetic"]
    about["configs"] = [
        {
            "config_name": "default",
            # `datasets` caches a folder with a card by its name and this section alone: without a mark of the files it
            # would show the synthetic corpus of another run, or an earlier one.
            "description": f"files {content}",
            "data_files": [{"split": split, "path": f"{split}-*.parquet"} for split in ("train", "held_out")],
        }
    ]
    return yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)


def _title(source: SourceName, recipe: Recipe) -> str:
    return f"{recipe.name}: {_TITLES[source]}"


def _languages(source: SourceName, recipe: Recipe) -> list[str]:
    """ISO codes of the languages, where they are known."""
    if source == "code":
        return ["code"]
    if source == "web":
        return ["en"] if isinstance(recipe.web.source, WebSample) else []
    # As the stream reads the table: what has a weight, or all languages where it is empty.
    chosen = [name for name, weight in recipe.prompts.languages.items() if weight > 0] or list(_LANGUAGES)
    return sorted({_LANGUAGES[name] for name in chosen if name in _LANGUAGES})


def _licence(name: str) -> dict[str, str]:
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    return {"license": slug} if slug in _LICENCES else {"license": "other", "license_name": slug or "other"}


def _size(documents: int) -> str:
    """The hub's size category."""
    steps = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    power = max(0, len(str(documents)) - 3)
    if power == 0:
        return "n<1K"
    return f"{steps[power - 1]}<n<{steps[power]}" if power < len(steps) else "n>1T"


def _documents(facts: Mapping[str, Any]) -> int:
    return int(facts["train_documents"] + facts["held_out_documents"])


def _made(recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, str]:
    """How the teacher was asked and what came of it, for people."""
    sampling = recipe.synth.sampling
    units, cost = facts["units"], facts.get("cost_usd")
    return {
        "Teacher": facts["teacher"],
        "Sampling": f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, "
        f"penalties {sampling.frequency_penalty:g} (frequency) and {sampling.presence_penalty:g} (presence), "
        f"at most {sampling.max_tokens:,d} tokens a reply",
        "Prompts asked": f"{units:,d}",
        "Accepted": f"{facts['accepted']:,d} ({facts['accepted'] / units:.1%})",
        "Rejected": f"{sum(facts['rejected'].values()):,d}",
        "Without a reply": f"{facts['failed']:,d}",
        "Asked again": f"{facts['tries']:,d} rejected replies; "
        f"{facts['continuations']:,d} requests went on with a reply that was cut short",
        "Tokens of the documents": f"{facts['tokens']:,d}, in the teacher's count",
        "Tokens paid to this teacher, all runs": f"{facts['prompt_tokens']:,d} in prompts, "
        f"{facts['completion_tokens']:,d} in replies",
        "Seconds of generating": f"{facts['seconds']:,.0f}",
        "Cost": "not known: the recipe gives no prices"
        if cost is None
        else f"{cost:,.{2 if cost >= 1 else 6}f} US dollars",
        "Licence": facts["licence"],
    }


def _commonest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _schema() -> list[tuple[str, str]]:
    from primer.documents import SCHEMA

    return [(name, "struct" if name == "provenance" else str(SCHEMA.field(name).type)) for name in SCHEMA.names]


def _provenance() -> list[tuple[str, str]]:
    from primer.documents import PROVENANCE

    return [(field.name, str(field.type).replace("element: ", "")) for field in PROVENANCE]


def _diversity(run: RunFolder, corpus: Manifest) -> Mapping[str, Any] | None:
    """The figures of a corpus as it is now; None if they are of an earlier one, or not there."""
    measured = run.manifest(STAGE)
    if measured is None or measured.inputs.get(corpus.stage) != corpus.content:
        return None
    found: Mapping[str, Any] | None = measured.facts["diversity"].get(corpus.stage.split("/")[1])
    return found


def _plain(value: Any) -> Any:
    """Text as one line that neither Markdown nor HTML takes for more; anything else as it is."""
    if not isinstance(value, str):
        return value
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(clean(value).split()), quote=False))
