"""What each ingredient of the prompts does for the diversity of a corpus, at an equal number of tokens.

    python bench/diversity.py                                # about an hour and a half on two cores; resumable
    python bench/diversity.py --web 'articles/*.jsonl'       # passages from your own web text
    python bench/diversity.py --tokens 4000                  # a trial

Sixty topics, each of which comes ten times and more in every setting: what a stream of 20 billion tokens does to a
list of 20,000. The embedded teacher writes at most 96 tokens a text, so that 57,600 accepted tokens are at least 600
documents. Near duplicates are kept, for they are what is counted. Results: bench/results/diversity.json;
bench/diversity_plot.py makes the table and the plot of docs/diversity.md from it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import zlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from primer.documents import SPLITS, read_documents
from primer.environment import usable_cores
from primer.progress import say
from primer.recipe import Prompts, Recipe, Topics, TopicWeights
from primer.recipe_corpora import Corpus, Duplicates, LocalFiles, Web, WebSample
from primer.recipe_synth import Accept, Sampling, Synth
from primer.run import RunFolder, write_json
from prompts.forms import load_forms
from synth.corpora import asker, filtering
from synth.diversity import embed_heads, mean_cosine, measure
from synth.filtered import complete_corpus
from synth.synthetic import build_synthetic
from topics import BUILT_IN, Topic, load_topics
from topics.sampling import TopicDraws
from topics.seeds import COLUMNS, LEVELS

RESULTS = Path(__file__).parent / "results" / "diversity.json"
TOPICS = 60
LEVEL = "middle"
BASE_FORM, BASE_AUDIENCE, BASE_REGISTER = "textbook-section", "general-reader", "plain"

# Groups of topics, one of which is left out at a time: how much a measure depends on what it was measured on.
GROUPS = 10

# Forms of several steps are longer than this teacher's answers; of the others all that suit a topic are used.
FORMS = {name: 1.0 for name, form in load_forms().items() if len(form.steps) == 1}
NO_WEB: dict[str, Any] = {"snippet_share": 0.0}
READERS: dict[str, Any] = {"audiences": {}, "registers": {}}  # and every level of a topic

SETTINGS: dict[str, dict[str, Any]] = {
    "topic alone": NO_WEB,
    "+ reader": NO_WEB | READERS,
    "+ forms": NO_WEB | READERS | {"forms": FORMS},
    "+ forms, random passage": READERS | {"forms": FORMS, "snippet_share": 1.0},
    "+ forms, relevant passage": READERS | {"forms": FORMS, "snippet_share": 1.0, "snippet_choice": "relevant"},
    "+ forms, required words": NO_WEB | READERS | {"forms": FORMS, "required_words": 1.0},
}


def recipe(setting: str, lists: Path, tokens: int, web: Web) -> Recipe:
    """The experiment of one setting; the first one is the base that the others add to."""
    changed = SETTINGS[setting]
    levels = {} if "audiences" in changed else {level: float(level == LEVEL) for level in LEVELS}
    prompts: dict[str, Any] = {
        "forms": {BASE_FORM: 1.0},
        "audiences": {BASE_AUDIENCE: 1.0},
        "registers": {BASE_REGISTER: 1.0},
        "lengths": {"short": 1.0},
        "required_words": 0.0,
        **changed,
    }
    return Recipe(
        name="diversity",
        topics=Topics(lists=[str(lists)], weights=TopicWeights(levels=levels)),
        prompts=Prompts(**prompts),
        synth=Synth(
            tokens=tokens,
            concurrency=32,
            sampling=Sampling(temperature=0.7, top_p=0.95, frequency_penalty=0.8, max_tokens=96),
            accept=Accept(min_words=30),
        ),
        web=web,
        corpus=Corpus(held_out_share=0.1, duplicates=Duplicates(threshold=1.0)),
    )


def write_topics(folder: Path) -> Path:
    """A list of `TOPICS` topics for pupils of about twelve, spread over the fields, that suit the base form."""
    base = load_forms()[BASE_FORM]
    suited = [topic for topic in load_topics(lists=[BUILT_IN]) if LEVEL in topic.levels and base.suits(topic)]
    draws = TopicDraws(suited, TopicWeights(), 0)
    chosen = [draws.topics[draws.place(i)[0]] for i in range(TOPICS)]
    folder.mkdir(parents=True, exist_ok=True)
    for field in sorted({topic.field for topic in chosen}):
        rows = sorted(_row(topic) for topic in chosen if topic.field == field)
        (folder / f"{field}.tsv").write_text("\n".join(["\t".join(COLUMNS), *rows]) + "\n", encoding="utf-8")
    return folder


def _row(topic: Topic) -> str:
    return "\t".join([topic.id, topic.subfield, topic.kind, ",".join(topic.levels), topic.title])


def _folder(setting: str, out: Path) -> Path:
    return out / setting.replace("+ ", "").replace(", ", "-").replace(" ", "-")


def generate(setting: str, settings: Recipe, out: Path) -> list[dict[str, Any]]:
    """The documents of a setting; made only if they are not there."""
    folder = _folder(setting, out)
    done = folder / "facts.json"
    if not done.exists():
        say(f"[bold]{setting}[/]")
        folder.mkdir(parents=True, exist_ok=True)
        ask = asker(settings.synth, folder)
        built = build_synthetic(settings, folder, folder, out / "web" / "corpus" / "web", [], ask)
        write_json(done, built.facts)
    rows = [row for split in SPLITS for row in read_documents(folder, split)]
    rows.sort(key=lambda row: int(row["provenance"]["prompt_index"]))
    return rows


def result(setting: str, rows: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """The measures of a setting, and what was rejected."""
    folder = _folder(setting, out)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    texts = [row["text"] for row in rows]
    vectors = embed_heads(texts, "documents")
    groups = [zlib.crc32(row["provenance"]["topic_id"].encode()) % GROUPS for row in rows]
    measured = asdict(measure(texts, vectors))
    without = [
        asdict(measure([texts[place] for place in kept], vectors[kept]))
        for group in range(GROUPS)
        if len(kept := [place for place, other in enumerate(groups) if other != group]) < len(rows)
    ]
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["provenance"]["topic_id"], []).append(place)
    titles = embed_heads([row["title"] for row in rows], "titles")
    copied = [row["provenance"]["snippet_copied"] for row in rows if row["provenance"]["snippet_id"]]
    used = [row["provenance"]["words_used"] for row in rows if row["provenance"]["required_words"]]
    return measured | {
        "cosine_within_topic": statistics.fmean(mean_cosine(vectors[on]) for on in places.values() if len(on) > 1),
        # A text that leaves its topic is unlike the others on it, too.
        "cosine_to_title": float((vectors * titles).sum(axis=1).mean()),
        "standard_errors": {
            key: _jackknife([found[key] for found in without])
            for key, value in measured.items()
            if isinstance(value, float)
        },
        "tokens": facts["tokens"],
        "prompts": facts["units"],
        "rejected": facts["rejected"],
        "topics": len(places),
        "passage_copied": sum(share > 0 for share in copied) / len(copied) if copied else None,
        "words_used": sum(used) / (3 * len(used)) if used else None,
        "seconds": facts["seconds"],
    }


def _jackknife(values: list[float]) -> float:
    """The standard error of a measure from its values with one group of topics left out each (delete-a-group)."""
    count = len(values)
    return (statistics.pvariance(values) * (count - 1)) ** 0.5 if count > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--web", nargs="+", metavar="FILES", help="web text for passages (Wikipedia's sample if none)")
    parser.add_argument("--tokens", type=int, default=57_600, help="accepted tokens of each setting")
    parser.add_argument("--out", type=Path, default=Path("runs/diversity"), help="folder for the corpora")
    arguments = parser.parse_args()
    out: Path = arguments.out
    source = LocalFiles(kind="files", paths=arguments.web) if arguments.web else WebSample(kind="wikipedia_sample")
    web = Web(source=source, characters=10_000_000)
    lists = write_topics(out / "topics")
    base = recipe("topic alone", lists, 1, web)
    with RunFolder.opened(out / "web", base) as run:
        complete_corpus(filtering(base, run), "web", ())
    corpora = {name: generate(name, recipe(name, lists, arguments.tokens, web), out) for name in SETTINGS}
    results = {name: result(name, rows, out) for name, rows in corpora.items()}
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "teacher": corpora["topic alone"][0]["provenance"]["teacher"],
        "command": " ".join(["python", "bench/diversity.py", *(["--web", "FILES"] if arguments.web else [])]),
        "hardware": f"{usable_cores()} cores, {platform.machine()}, no GPU",
        "topics": TOPICS,
    }
    write_json(RESULTS, {"about": about, "settings": results})
    say(f"{RESULTS}")


if __name__ == "__main__":
    main()
