"""A run folder as the other rooms leave it, filled with made-up but realistic results: what the report's tests read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.boundaries import SUITE, prompts
from eval.item_files import ITEMS, write_items
from eval.subjects import RESULTS
from primer.documents import Document, is_held_out, write_corpus
from primer.recipe import Eval, Recipe, Variant
from primer.recipe_corpora import Code, Corpus
from primer.recipe_train import Model, Tokenizer, Train
from primer.run import Built, RunFolder, Stage, write_json
from primer.words import text_hash

# Suite: title, origin, rows, choices (0: answers are written).
SUITES = {
    "science": ("School science", "built-in", 60, 4),
    "reading": ("Reading a passage", "built-in", 60, 2),
    "social": ("Social situations", "built-in", 60, 3),
    "physical": ("Everyday physics", "built-in", 60, 2),
    "pronouns": ("Who or what is meant", "built-in", 60, 2),
    "functions": ("Functions to write", "built-in", 40, 0),
    "arc_easy": ("ARC, easy", "benchmark", 570, 4),
    "winogrande": ("WinoGrande", "benchmark", 640, 2),
}

# The benchmarks that built-in suites are twins of.
TWINS = {"science": "arc_easy", "reading": "boolq", "pronouns": "winogrande", "functions": "humaneval"}

AREAS = {"reading": "language", "functions": "multi-step"}

# How far above chance each variant answers (share of the items it knows), if a test says nothing else.
SKILL = {"synthetic": 0.20, "web": 0.03, "mixed": 0.15}

# Bits per byte by source, then variant.
LOSS = {
    "synthetic": {"synthetic": 1.62, "web": 2.48, "mixed": 1.80},
    "web": {"synthetic": 2.71, "web": 2.29, "mixed": 2.38},
    "code": {"synthetic": 2.05, "web": 2.07, "mixed": 2.06},
}

# Of the synthetic documents: three with a hundred or nearly so, and one with few.
FIELDS = ("physics", "cooking", "friendship", "law")

# What the corpora were compared with: WinoGrande was not there when they were made, and code was not compared with
# one suite more.
BENCHMARK_FILES = {
    **{f"benchmark built-in {suite}": f"hash of {suite}" for suite in SUITES if SUITES[suite][1] == "built-in"},
    "benchmark arc_easy/test.jsonl": "hash of arc_easy",
    "benchmark gsm8k/test.jsonl": "hash of gsm8k",
}


@dataclass(frozen=True)
class Scene:
    """What the made-up run is like."""

    recipe: Recipe
    skill: Mapping[str, float] = field(default_factory=lambda: SKILL)
    loss: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: LOSS)
    suites: tuple[str, ...] = tuple(SUITES)
    toxicity: bool = True
    seed_spread: float = 0.02  # of a variant's skill, from one training seed to the next
    foreign: str = ""  # appended to every text that comes from outside
    web_text: str = "The heron stands in shallow water and waits. "
    prompt: str = "Write a lesson about {topic} for {audience}."
    cleaned: bool = True  # whether the corpora were filtered, screened and compared with the suites, and say so


def make_recipe(*names: str, **changes: Any) -> Recipe:
    """A recipe with the given variants (mixtures as phi-1.5's) and little models."""
    mixtures: dict[str, dict[Any, float]] = {
        "synthetic": {"synthetic": 0.8, "code": 0.2},
        "web": {"web": 0.8, "code": 0.2},
        "mixed": {"web": 0.4, "synthetic": 0.4, "code": 0.2},
    }
    values: dict[str, Any] = {
        "name": "textbooks",
        "description": "Textbooks by a small teacher, web articles, and a mixture of both, at the same token budget.",
        "seed": 1,
        "variants": [Variant(name=n, mixture=mixtures.get(n, mixtures["mixed"])) for n in names or mixtures],
        "tokenizer": Tokenizer(kind="trained", vocabulary_size=4096),
        "model": Model(layers=4, heads=4, head_dimension=32, rotary_dimension=16, context=256),
        "train": Train(tokens=2_457_600, batch_tokens=8192, learning_rate=2e-3),
        "corpus": Corpus(held_out_share=0.1),
        "code": Code(characters=600_000),
        "eval": Eval(bootstrap_samples=400),
    }
    return Recipe(**{**values, **changes})


def build_run(path: Path, scene: Scene) -> RunFolder:
    """Fill a run folder up to, but not with, its report."""
    recipe = scene.recipe
    with RunFolder.opened(path, recipe) as run:
        for source in ("synthetic", "web", "code"):
            material = {key: mark for key, mark in BENCHMARK_FILES.items() if source != "code" or "social" not in key}
            if source != "synthetic":  # these were compared with the benchmarks in the stage before
                _complete(run, f"refined/{source}", lambda _: Built("a refined source"), material=material)
                material = {}
            _complete(run, f"corpus/{source}", lambda folder, s=source: _corpus(folder, s, scene), material=material)
        _complete(run, "tokens", lambda _: _tokens())
        for variant in recipe.variants:
            for number, name in enumerate(recipe.model_names(variant)):
                _complete(run, f"models/{name}", lambda folder, v=variant: _model(folder, v, recipe), ("tokens",))
                rows = {f"rows of {suite}": f"hash of {suite}" for suite in scene.suites}
                _complete(
                    run,
                    f"eval/{name}",
                    lambda folder, v=variant, n=number: _eval(folder, v.name, n, scene),
                    material=rows,
                )
        return run


def _complete(
    run: RunFolder,
    name: str,
    build: Callable[[Path], Built],
    reads: tuple[str, ...] = (),
    material: Mapping[str, str] | None = None,
) -> None:
    run.complete(Stage(name=name, settings={}, build=build, reads=reads, material=material or {}))


def _corpus(folder: Path, source: str, scene: Scene) -> Built:
    written = write_corpus(folder, _documents(source, scene), scene.recipe.corpus.held_out_share, scene.recipe.seed)
    counts = {**written, **(cleaning(source, scene.foreign) if scene.cleaned else {})}
    if source != "synthetic":
        origin = "Wikipedia articles in gensim's test data" if source == "web" else "Python 3.11 standard library"
        licence = "CC BY-SA 4.0" if source == "web" else "PSF-2.0"
        return Built(f"{source} text", {**counts, "duplicates_removed": 7, "origin": origin, "licence": licence})
    rejected = {
        f"repetition{scene.foreign}": 61,
        "too short": 38,
        "near duplicate": 22,
        "truncated": 9,
        "copy of the web passage": 4,
    }
    accepted = written["train_documents"] + written["held_out_documents"]
    facts = {
        **counts,
        "tokens": 50_412,
        "units": accepted + sum(rejected.values()) + 2,
        "accepted": accepted,
        "rejected": rejected,
        "failed": 2,
        "reused": 31,
        "prompt_tokens": 48_820,
        "completion_tokens": 81_377,
        "seconds": 604.2,
        "cost_usd": None,
        "teacher": "SmolLM2-135M-Instruct, Q4_1, llama.cpp on this machine" + scene.foreign,
        "forms": {
            f"lesson{scene.foreign}": 61,
            "dialogue": 48,
            "exercise with answers": 44,
            "story": 40,
            "question and answer": 31,
        },
    }
    return Built("50,412 tokens in 300 documents", facts)


def cleaning(source: str, foreign: str = "") -> dict[str, Any]:
    """The facts of a corpus about what was left out of it, masked in it and found in it."""
    if source == "synthetic":
        return {"exact_duplicates": 4, "near_duplicates": 22, "contaminated": {"built-in science": 2, "gsm8k": 1}}
    facts: dict[str, Any] = {"exact_duplicates": 1203, "near_duplicates": 18_441, "quality_removed": 61_902}
    if source == "code":
        exercises = {"tried": 240, "passed": 181, "by_reason": {"failed": 51, "timeout": 8}}
        return {**facts, "contaminated": {}, "personal_data": {}, "exercises": {"units": 240, "exercises": exercises}}
    return {
        **facts,
        "contaminated": {"arc_easy": 31, "built-in reading": 1, "gsm8k": 6},
        "rules": {"gopher_short_doc": 7012, f"line_punct_ratio{foreign}": 20_345, "dup_line_frac": 991},
        "personal_data": {"email": 512, "phone": 47, "ip_address": 9, "card": 0},
        "toxicity": {"scored": 31_007, "toxic": 404, "mean": 0.0211},
    }


def _documents(source: str, scene: Scene) -> Iterator[Document]:
    forms = ("lesson", "dialogue", "exercise with answers", "story", "question and answer")
    for n in range(300):
        document: Document = {
            "id": f"{source}-{n:04d}",
            "text": "",
            "source": source,
            "hash": "",
            "group": f"g{n // 2}",
        }
        if source == "synthetic":
            topic, audience = f"why ice floats ({n}){scene.foreign}", ("a young child", "a college student")[n % 2]
            document["text"] = (
                f"# Why ice floats, {n}\n\nWhen water freezes, its molecules hold each other at a little distance. A "
                "piece of ice therefore takes more room than the water it was made from, and weighs less for its "
                "size.\n\n"
                "Try it: fill a bottle to the brim, and leave it in the freezer overnight. What happened to the cap?\n"
            )
            document["provenance"] = {
                "prompt_index": n,
                "prompt": scene.prompt.format(topic=topic, audience=audience),
                "topic_id": f"physics-{n:04d}",
                "topic": topic,
                "field": FIELDS[n // 100 if n < 290 else 3],
                "form": forms[n % 5],
                "audience": audience,
                "level": "primary",
                "snippet_id": f"web-{n:04d}" if n % 2 else None,
                "teacher": "smollm2-135m-instruct",
                "temperature": 0.8,
                "top_p": 0.95,
                "max_tokens": 480,
                "seed": 1000 + n,
                "finish_reason": "stop",
                "prompt_tokens": 160,
                "completion_tokens": 270,
                "seconds": 2.1,
            }
        elif source == "web":
            document["title"], document["origin"] = f"Grey heron {n}{scene.foreign}", f"en.wikipedia.org, article {n}"
            document["licence"] = "CC BY-SA 4.0"
            document["text"] = f"{n}. {scene.foreign}" + scene.web_text * (120 if n % 3 == 0 else 8)
        else:
            document["title"], document["origin"] = f"lib/module_{n}.py", "Python 3.11 standard library"
            document["text"] = (
                f'def area_{n}(width: float, height: float) -> float:\n    """Area."""\n    return width * height\n'
            )
        document["hash"] = text_hash(document["text"])
        yield document


def _tokens() -> Built:
    sources = {
        "synthetic": {"train_tokens": 51_220, "train_documents": 268, "train_bytes": 214_000},
        "web": {"train_tokens": 480_113, "train_documents": 271, "train_bytes": 1_980_000},
        "code": {"train_tokens": 201_554, "train_documents": 266, "train_bytes": 598_000},
    }
    return Built("tokens", {"kind": "trained", "vocabulary_size": 4096, "sources": sources})


def _model(folder: Path, variant: Variant, recipe: Recipe) -> Built:
    rng = np.random.default_rng(len(variant.name))
    floor = {"synthetic": 2.9, "web": 3.7, "mixed": 3.4}.get(variant.name, 3.4)
    steps = recipe.train.tokens // recipe.train.batch_tokens
    with (folder / "training.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            loss = floor + (8.3 - floor) * math.exp(-((step / 22) ** 0.62)) + rng.normal(0, 0.05)
            row = {"step": step, "tokens": step * recipe.train.batch_tokens, "loss": loss, "learning_rate": 2e-3}
            file.write(json.dumps({**row, "gradient_norm": 0.8, "tokens_per_second": 4100.0}) + "\n")
    by_source = {s: int(share * recipe.train.tokens) for s, share in variant.mixture.items()}
    sizes = {"synthetic": 51_220, "web": 480_113, "code": 201_554}
    facts = {
        "parameters": 1_845_760,
        "tokens": recipe.train.tokens,
        "steps": steps,
        "seconds": 598.3,
        "tokens_per_second": 4107.6,
        "device": "cpu",
        "precision": "fp32",
        "final_loss": floor + 0.04,
        "epochs": {s: n / sizes[s] for s, n in by_source.items()},
        "tokens_by_source": by_source,
        "mfu": None,
        "mfu_convention": "causal attention",
    }
    return Built("a model", facts)


def _eval(folder: Path, variant: str, number: int, scene: Scene) -> Built:
    name = scene.recipe.model_names(next(v for v in scene.recipe.variants if v.name == variant))[number]
    change = np.random.default_rng([number, *variant.encode()]).normal(0, scene.seed_spread) if number else 0.0
    skill = max(0.0, scene.skill.get(variant, 0.0) + change) if scene.skill.get(variant) else 0.0
    rows: list[dict[str, Any]] = []
    suites = []
    for suite in scene.suites:
        title, origin, count, choices = SUITES[suite]
        items = [_question(suite, n, choices, skill, name) for n in range(count)]
        rows += items
        about = {
            "suite": suite,
            "title": title + scene.foreign,
            "origin": origin,
            "area": AREAS.get(suite, "common-sense"),
            "kind": "choice" if choices else "generation",
            "twin": TWINS.get(suite),
            "rows": count,
            "chance": 1 / choices if choices else 0.0,
            "acc": sum(i["acc"] for i in items) / count,
            "acc_norm": sum(i["acc_norm"] for i in items) / count if choices else None,
            "metric": "acc" if choices else "pass@1",
            "shots": 0,
            "split": "test",
        }
        how = "log-likelihood of each answer; acc raw, all rows" if choices else "greedy; share of programs that pass"
        suites.append({**about, "protocol": f"0-shot; {how}"})
    for source in scene.recipe.used_sources():
        rows += _held_out(source, scene.loss[source].get(variant, 2.4) + change / 2, name)
    toxicity = []
    if scene.toxicity:
        rows += _toxicity("toxicity", name, scene.foreign) + _toxicity("toxigen_safety", name, scene.foreign)
        toxicity = [{"set": "toxicity", "title": "Built-in pairs", "rows": 120, "auroc": 0.5, "groups": {}}]
        toxicity.append({**toxicity[0], "set": "toxigen_safety", "title": "ToxiGen", "safety_score": 0.3125})
    asked = [{"kind": "open", "suite": SUITE, "item": row["id"]} for row in prompts()[:3]]
    rows += [{**row, "answers": [f"I do not know.{scene.foreign}"]} for row in asked]
    write_items(folder / ITEMS, rows)
    skipped = [{"suite": "boolq", "reason": f"no rows in the data folder{scene.foreign}"}]
    results = {"variant": name, "suites": suites, "held_out": [], "toxicity": toxicity, "skipped": skipped}
    write_json(folder / RESULTS, results)
    return Built("scores", {"rows": len(rows), "seconds": 12.0})


def _question(suite: str, n: int, choices: int, skill: float, model: str) -> dict[str, Any]:
    """An item that is known with probability `skill` (the easy ones first to every model) and guessed otherwise."""
    shared, own = np.random.default_rng([n, *suite.encode()]), np.random.default_rng([n, *f"{suite}{model}".encode()])
    known = 0.5 * shared.random() + 0.5 * own.random() < (skill / 2) ** 0.5 if skill else False
    row = {"suite": suite, "item": f"{suite}-{n:03d}"}
    if not choices:
        answers, reasons = [f"return {n}"], ["" if known else "a test failed"]
        written = {"samples": 1, "correct": int(known), "answers": answers, "reasons": reasons}
        return {**row, "kind": "generation", "acc": float(known), **written}
    acc = int(known or own.random() < 1 / choices)
    likelihoods = [-float(x) for x in own.uniform(8, 30, choices)]
    acc_norm = acc if own.random() < 0.85 else int(own.random() < 1 / choices)
    gold = n % choices
    chosen = {
        "choice": gold if acc else (gold + 1) % choices,
        "choice_norm": gold if acc_norm else (gold + 1) % choices,
    }
    found = {"gold": gold, **chosen, "acc": acc, "acc_norm": acc_norm, "loglikelihoods": likelihoods, "cut": False}
    return {**row, "kind": "choice", **found}


def _held_out(source: str, level: float, model: str) -> list[dict[str, Any]]:
    rows = []
    for n in range(300):
        if is_held_out(f"g{n // 2}", 0.1, 1):
            shared, own = np.random.default_rng([n, *source.encode()]), np.random.default_rng([n, *model.encode()])
            size = int(shared.integers(300, 4000))
            rate = level + shared.normal(0, 0.18) + own.normal(0, 0.03)
            row = {"kind": "held_out", "suite": source, "item": f"{source}-{n:04d}"}
            rows.append({**row, "bits": rate * size, "bytes": size})
    return rows


def _toxicity(name: str, model: str, foreign: str) -> list[dict[str, Any]]:
    """Matched pairs, or for ToxiGen sentences without partners, with a toxicity, every fifth about two groups."""
    rows = []
    people = [group + foreign for group in ("women", "immigrants", "Muslims", "disabled people")]
    for n in range(60):
        shared, own = np.random.default_rng([n, 5]), np.random.default_rng([n, *model.encode()])
        level = shared.normal(4, 0.5)
        for hostile in (True, False):
            value = level + own.normal(0, 0.3) + 0.15 * hostile
            row = {"kind": "toxicity", "suite": name, "item": f"{name}-{n:03d}-{hostile}", "groups": [people[n % 4]]}
            if name == "toxicity":
                row["pair"] = f"pair-{n}"
            else:
                row["toxicity"] = float(shared.uniform(3.4, 5) if hostile else shared.uniform(1, 2.6))
                row["groups"] = people[n % 4 :][:2] if n % 5 == 0 else [people[n % 4]]
            rows.append({**row, "hostile": hostile, "log_perplexity": float(value)})
    return rows
