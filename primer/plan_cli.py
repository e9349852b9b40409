"""`primer plan`: what an experiment would take, before anything is started or spent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from primer.cli_options import DataPath, Overrides, RecipePath, RunPath

if TYPE_CHECKING:
    from primer.recipe import Recipe, SourceName
    from primer.run import RunFolder
    from synth.estimate import Work
    from synth.estimate_measured import Measured
    from train.estimate import Training


def plan_command(
    recipe: RecipePath,
    set_: Overrides = None,
    run: RunPath = None,
    data: DataPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of tables.")] = False,
) -> None:
    """Say what the whole experiment would take: tokens, hours, dollars, disk. Starts and spends nothing.

    Assumptions are fields of the recipe (`plan.*`): --set plan.accepted=0.7, --set plan.teacher_gpu=h200,
    --set plan.price_per_gpu_hour.h200=2.5. What a run folder has measured takes their place.
    """
    from primer.recipe_file import load_recipe
    from primer.run import RunFolder

    settings = list(set_ or []) + ([f"eval.data={json.dumps(str(data))}"] if data else [])
    loaded = load_recipe(recipe, settings)
    found = make_plan(loaded, RunFolder(run or Path("runs") / loaded.name))
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
        return
    from primer.plan_screen import print_plan

    print_plan(found)


def make_plan(recipe: Recipe, run: RunFolder) -> dict[str, Any]:
    """The whole estimate as plain JSON values.

    Raises:
        PrimerError: If the recipe's topics, forms, suites or teacher cannot be used, or a manifest is damaged.
    """
    from synth.estimate import budget_sentence, corpora_disk, estimate_work, source_characters, source_tokens
    from synth.estimate_corpora import estimate_further
    from synth.estimate_measured import Measured, measured
    from train.estimate import estimate_training, training_disk

    known = measured(recipe, run)
    work = estimate_work(recipe, known) if "synthetic" in recipe.used_sources() else None
    generation = _generation(recipe, work, known) if work else None
    further = estimate_further(recipe)
    asked = [{"stage": part.stage, **_generation(part.recipe, part.work, Measured())} for part in further]
    for_code = sum(part.work.tokens for part in further)
    sources = source_tokens(recipe, work, for_code)
    training = estimate_training(recipe, run, sources)
    evaluation = _evaluation(recipe, source_characters(recipe, work, for_code), training)
    works = [*([generation] if generation else []), *asked]
    tokens = sum(found["work"]["prompt_tokens"] + found["work"]["completion_tokens"] for found in works)
    dollars = sum(found["dollars"] or 0.0 for found in works if found["kind"] == "openai")
    disk = corpora_disk(recipe, work, for_code) | training_disk(recipe, training.parameters, sources)
    notes = [*([known.note] if known.note else []), *training.notes]
    if work and work.answered:
        notes.append(f"{run.path} holds {work.answered:,} answers already: they are not paid for again.")
    if any(part.stage.startswith("labels") for part in further):
        notes.append("Labels: every sample is there, and as long as the teacher is shown at most.")
    notes.append("Not counted: reading and filtering web text and code, tokenisation, starting a GPU server.")
    return {
        "recipe": recipe.name,
        "run": str(run.path),
        "generation": generation,
        "further": asked,
        "budget": budget_sentence(recipe.synth, tokens, dollars) if works else None,
        "training": asdict(training),
        "evaluation": evaluation,
        "disk": {name: round(size) for name, size in disk.items()},
        "totals": _totals(works, training, evaluation, disk),
        "notes": notes,
        "assumptions": recipe.plan.model_dump(mode="json"),
    }


def _generation(recipe: Recipe, work: Work, known: Measured) -> dict[str, Any]:
    from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher
    from synth.estimate import endpoint_cost
    from synth.estimate_speed import embedded_bound, endpoint_bounds, gpu_table, known_size

    teacher = recipe.synth.teacher
    found: dict[str, Any] = {"teacher": teacher.model, "kind": teacher.kind, "work": asdict(work)}
    found |= {"snippet_words": recipe.prompts.snippet_words, "max_tokens": recipe.synth.sampling.max_tokens}
    dollars = gpu_hours = core_hours = None
    if isinstance(teacher, EndpointTeacher):
        cost, bounds = endpoint_cost(teacher, work), endpoint_bounds(recipe, teacher, work)
        dollars = cost.dollars
        found |= {"cost": asdict(cost), "prices": [teacher.price_input, teacher.price_output]}
        found |= {"bounds": [asdict(bound) for bound in bounds], "seconds": bounds[0].seconds}
    elif isinstance(teacher, EmbeddedTeacher):
        bound, cores = embedded_bound(recipe, teacher, work, known)
        core_hours = bound.seconds * cores / 3600
        found |= {"bounds": [asdict(bound)], "seconds": bound.seconds}
    else:
        rows = gpu_table(recipe, teacher, work)
        chosen = next(row for row in rows if row.gpu == recipe.plan.teacher_gpu)
        dollars, gpu_hours = chosen.dollars, chosen.gpu_hours
        found |= {"gpus": [asdict(row) for row in rows], "gpu": chosen.gpu, "seconds": chosen.seconds}
        found |= {"size": asdict(known_size(teacher.model, recipe.plan))}
    return found | {"dollars": dollars, "gpu_hours": gpu_hours, "core_hours": core_hours}


def _evaluation(recipe: Recipe, characters: Mapping[SourceName, float], training: Training) -> dict[str, Any]:
    from eval.estimate import START_SECONDS, estimate_questions
    from primer.gpus import known_gpus
    from train.estimate import forward_flops

    questions = estimate_questions(recipe, {source: characters[source] for source in recipe.used_sources()})
    device = training.device
    flops = device.flops
    if device.gpu:
        flops = known_gpus()[device.gpu].tflops * 1e12 * recipe.plan.evaluation_utilisation
    a_model = questions.tokens * forward_flops(recipe) / flops
    models = len(recipe.variants) * recipe.train.seeds
    seconds = START_SECONDS + a_model * models
    price = device.price / device.count if device.price is not None else None
    return {
        "start": START_SECONDS,
        "asked": [asdict(part) for part in questions.asked],
        "without_data": questions.without_data,
        "rows": questions.rows,
        "tokens": questions.tokens,
        "models": models,
        "seconds": seconds,
        "gpu_hours": seconds / 3600 if device.gpu else None,
        "dollars": seconds / 3600 * price if price is not None else None,
    }


def _totals(
    works: Sequence[Mapping[str, Any]], training: Training, evaluation: Mapping[str, Any], disk: Mapping[str, float]
) -> dict[str, Any]:
    """Sums; a part that is not known is left out of them and named in `without`."""
    made = {key: sum(found[key] or 0.0 for found in works) for key in ("dollars", "gpu_hours", "core_hours", "seconds")}
    without = []
    for found in works:
        if found["seconds"] is None:
            without.append(f"{found.get('stage', 'generation')} (the teacher does not fit on plan.teacher_gpu)")
        elif found["kind"] == "openai" and found["dollars"] is None:
            key = "synth.teacher"
            if found.get("stage", "").startswith("labels/"):
                key = f"{found['stage'].removeprefix('labels/')}.quality.teacher or {key}"
            without.append(f"the teacher's price ({key}.price_input, price_output)")
    without = list(dict.fromkeys(without))
    cores = made["core_hours"]
    trained, asked = sum(variant.seconds for variant in training.variants), evaluation["seconds"]
    if not training.device.gpu:
        cores += (trained + asked) / 3600 * training.device.count
    return {
        "dollars": made["dollars"]
        + sum(variant.dollars or 0.0 for variant in training.variants)
        + (evaluation["dollars"] or 0.0),
        "gpu_hours": made["gpu_hours"]
        + sum(variant.gpu_hours or 0.0 for variant in training.variants)
        + (evaluation["gpu_hours"] or 0.0),
        "core_hours": cores,
        "seconds": made["seconds"] + trained + asked,
        "disk_bytes": round(sum(disk.values())),
        "without": without,
    }
