"""Everything that a report is made of, read from the folders once: what the page, the Markdown and the JSON share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from eval.compare import compare_subjects
from eval.comparison import Comparison
from eval.contamination import Contamination, read_contamination
from eval.grading import GradingSummary, summarise_subjects
from eval.quoted import Quoted, read_quoted
from eval.run_facts import (
    Sample,
    TrainingLog,
    choose_samples,
    complete_stages,
    machine,
    read_training_log,
    read_validation_log,
    reproduce_commands,
    versions,
)
from eval.run_tables import cost_rows, left_out, mixtures
from eval.subjects import Subject
from eval.verdict import Training, Verdict, give_verdict
from primer.fingerprint import changed_keys
from primer.recipe import SOURCES, Recipe
from primer.recipe_file import dump_recipe
from primer.run import Manifest

# Sample documents shown of each source.
_SAMPLES = {"synthetic": 10, "web": 3, "code": 2}


@dataclass(frozen=True)
class TrainedModel:
    """One training: a variant has one for each seed.

    Attributes:
        subject: Position of its variant.
        held_out: Bits per byte of held-out text by tokens, for each source.
    """

    name: str
    subject: int
    manifest: Manifest
    training: TrainingLog
    held_out: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Experiment:
    """One run, as its folder tells it.

    Attributes:
        stages: The manifests of its complete stages.
        corpora: Those of its corpora, by source.
        mixed: What each variant took of each source (`eval.run_tables.mixtures`).
        commands: What makes it again.
        shipped: Whether they name a recipe that comes with Primer.
    """

    name: str
    recipe: Recipe
    stages: Mapping[str, Manifest]
    corpora: Mapping[str, Manifest]
    contamination: Contamination | None
    mixed: Mapping[str, Mapping[str, Mapping[str, Any]]]
    samples: Mapping[str, Sequence[Sample]]
    commands: Sequence[str]
    shipped: bool

    @property
    def diversity(self) -> Mapping[str, Mapping[str, float]]:
        """Measures of each corpus, by source."""
        found = self.stages.get("corpus/diversity")
        measured: Mapping[str, Mapping[str, float]] = found.facts.get("diversity") or {} if found else {}
        return measured


@dataclass(frozen=True)
class Material:
    """Everything.

    Attributes:
        grades: Of the open prompts' answers; None where there are no answers.
        samples: Resamples behind every interval.
        command: What makes a comparison again; empty for the report of a run.
    """

    comparison: Comparison
    verdict: Verdict
    models: Sequence[TrainedModel]
    experiments: Sequence[Experiment]
    grades: GradingSummary | None
    quoted: Sequence[Quoted]
    machine: Sequence[tuple[str, str]]
    samples: int
    command: str
    date: str

    @property
    def stages(self) -> list[Manifest]:
        """The manifests of all runs."""
        return [manifest for experiment in self.experiments for manifest in experiment.stages.values()]


def gather(subjects: Sequence[Subject], seed: int, samples: int, command: str = "") -> Material:
    """Read and compare.

    Args:
        subjects: What is compared, at least one.
        seed: Of resampling, and of the choice of documents.
        samples: Bootstrap resamples of each interval.
        command: What makes a comparison again.

    Raises:
        PrimerError: If a file is missing or damaged, or the subjects were not asked the same items.
    """
    comparison = compare_subjects(subjects, seed, samples)
    experiments = _experiments(subjects, seed)
    training = {
        s.name: Training(m.facts.get("tokens"), m.facts.get("epochs") or {}) for s in subjects for m in s.manifests[:1]
    }
    grades = summarise_subjects(subjects, seed)
    dates = [manifest.started for experiment in experiments for manifest in experiment.stages.values()]
    return Material(
        comparison=comparison,
        verdict=give_verdict(comparison, training),
        models=_models(subjects),
        experiments=experiments,
        grades=grades if grades.answers else None,
        quoted=read_quoted(),
        machine=machine(),
        samples=samples,
        command=command,
        date=max(dates, default=datetime.now(UTC).isoformat())[:10],
    )


def recipe_differences(experiments: Sequence[Experiment]) -> list[tuple[str, list[str]]]:
    """Keys in which the recipes of several runs differ, each with its value in every run."""
    plain = [experiment.recipe.model_dump(mode="json") for experiment in experiments]
    keys = sorted({key for other in plain[1:] for key in changed_keys(plain[0], other)})
    return [(key, [_value(recipe, key) for recipe in plain]) for key in keys]


def as_data(material: Material) -> dict[str, Any]:
    """The report as numbers, for `results.json`."""
    return {
        "date": material.date,
        **asdict(material.comparison),
        "tests": material.comparison.tests,
        "verdict": asdict(material.verdict),
        "grades": asdict(material.grades) if material.grades else None,
        "quoted": [asdict(quoted) for quoted in material.quoted],
        "models": [
            {
                "name": model.name,
                "variant": material.comparison.variants[model.subject],
                "facts": model.manifest.facts,
                "training_loss": model.training.points,
                "held_out_bits_per_byte": model.held_out,
            }
            for model in material.models
        ],
        "runs": [_run_data(experiment) for experiment in material.experiments],
        "command": material.command,
        "versions": dict(versions(material.stages)),
        "machine": dict(material.machine),
    }


def _run_data(experiment: Experiment) -> dict[str, Any]:
    return {
        "name": experiment.name,
        "recipe": experiment.recipe.model_dump(mode="json"),
        "commands": list(experiment.commands),
        "contamination": asdict(experiment.contamination) if experiment.contamination else None,
        "corpora": {source: left_out(manifest) for source, manifest in experiment.corpora.items()},
        "corpora_facts": {source: manifest.facts for source, manifest in experiment.corpora.items()},
        "diversity": experiment.diversity,
        "mixtures": experiment.mixed,
        "costs": [
            {"work": work, "seconds": seconds, "dollars": paid}
            for work, seconds, paid in cost_rows(list(experiment.stages.values()))
        ],
        "stages": {
            name: {"started": stage.started, "seconds": stage.seconds} for name, stage in experiment.stages.items()
        },
    }


def settings_of(experiment: Experiment) -> str:
    """The whole recipe of a run, as YAML."""
    return dump_recipe(experiment.recipe)


def _models(subjects: Sequence[Subject]) -> list[TrainedModel]:
    return [
        TrainedModel(
            name=subject.name if number == 1 else f"{subject.name}, seed {number}",
            subject=position,
            manifest=manifest,
            training=read_training_log(folder / "training.jsonl"),
            held_out=read_validation_log(folder / "validation.jsonl"),
        )
        for position, subject in enumerate(subjects)
        for number, (folder, manifest) in enumerate(zip(subject.models, subject.manifests, strict=True), start=1)
    ]


def _experiments(subjects: Sequence[Subject], seed: int) -> list[Experiment]:
    """The runs that the subjects belong to, each once."""
    found: dict[str, Experiment] = {}
    for subject in subjects:
        if subject.run is not None and subject.recipe is not None:
            path = str(subject.run.path.resolve())
            if path not in found:
                names = {s.models[0].name: s.name for s in subjects if s.run is subject.run and s.models}
                found[path] = _experiment(subject, names, seed)
    return list(found.values())


def _experiment(subject: Subject, names: Mapping[str, str], seed: int) -> Experiment:
    """The run of a subject; `names` are its variants', as the comparison calls them."""
    recipe, run = subject.recipe, subject.run
    assert recipe is not None
    assert run is not None
    stages = complete_stages(recipe, run)
    corpora: dict[str, Manifest] = {s: stages[f"corpus/{s}"] for s in SOURCES if f"corpus/{s}" in stages}
    evaluated = [stages[f"eval/{folder.name}"] for folder in subject.scores if f"eval/{folder.name}" in stages]
    commands, shipped = reproduce_commands(recipe)
    return Experiment(
        name=run.path.resolve().name,
        recipe=recipe,
        stages=stages,
        corpora=corpora,
        contamination=read_contamination(run, corpora, evaluated[0]) if evaluated else None,
        mixed={names[variant]: parts for variant, parts in mixtures(recipe, stages).items() if variant in names},
        samples={source: choose_samples(run.folder(f"corpus/{source}"), seed, _SAMPLES[source]) for source in corpora},
        commands=commands,
        shipped=shipped,
    )


def _value(recipe: Any, key: str) -> str:
    for part in key.split("."):
        recipe = recipe.get(part) if isinstance(recipe, dict) else None
    return recipe if isinstance(recipe, str) else json.dumps(recipe, ensure_ascii=False)
