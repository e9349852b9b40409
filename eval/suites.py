"""The suites: which there are, which have data, and how a model answers a multiple-choice one.

Each is an lm-evaluation-harness task in `tasks/`, whose `metadata` adds what the report says of it. The harness itself
runs them too: `lm_eval run --include_path eval/tasks --tasks science ...`, and a benchmark with
`--metadata '{"data": "<folder>"}'`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from eval.rows import read_rows, sample_rows
from primer.benchmarks import BUILT_IN_ITEMS as ITEMS
from primer.benchmarks import data_folder
from primer.errors import PrimerError, did_you_mean
from primer.fingerprint import file_hash
from primer.recipe import Eval

if TYPE_CHECKING:
    from eval.model import PrimerLM

TASKS = Path(__file__).parent / "tasks"
Kind = Literal["choice", "toxicity"]


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name: Also its folder below the benchmark data, and its task.
        kind: Whether answers are chosen, or hostile and neutral sentences compared.
        origin: `built-in`, or `benchmark`.
        form: The form of its rows (`eval.rows.FORMS`).
        splits: Files that hold it, without `.jsonl`, in order of preference.
        protocol: What is scored, in words.
    """

    name: str
    kind: Kind
    title: str
    origin: str
    form: str
    splits: tuple[str, ...] = ()
    protocol: str = ""

    def file(self, data: Path | None) -> Path | None:
        """Where its rows lie, or None if they are not there."""
        if self.origin == "built-in":
            return ITEMS / f"{self.name}.jsonl"
        candidates = [data / self.name / f"{split}.jsonl" for split in self.splits] if data else []
        return next((path for path in candidates if path.is_file()), None)

    def missing(self) -> str:
        """Why it cannot run, where its file is not there."""
        files = " or ".join(f"{self.name}/{split}.jsonl" for split in self.splits)
        return f"there is no {files} in the folder of benchmark data"


@dataclass(frozen=True)
class Plan:
    """What will be asked: the same for every variant.

    Attributes:
        chosen: Suites and the files of their rows.
        skipped: Suites that were wanted and have no data, with the reason.
        material: Hashes of the rows' files and the task files, for `primer.run.Stage.material`.
    """

    chosen: tuple[tuple[Suite, Path], ...]
    skipped: tuple[dict[str, str], ...]
    settings: Eval
    seed: int
    data: Path | None
    material: dict[str, str] = field(default_factory=dict)

    def rows(self, suite: Suite, path: Path) -> list[dict[str, Any]]:
        """The rows of a suite that are asked."""
        unit = "pair" if suite.form == "sentence" else "id"
        return sample_rows(read_rows(path, suite.form, suite.name), self.settings.limit, self.seed, unit)


@cache
def all_suites() -> dict[str, Suite]:
    """Every suite by name: the tasks, then the toxicity sets."""
    suites = [_from_task(path) for path in sorted(TASKS.glob("*.yaml"))]
    suites.sort(key=lambda suite: suite.origin != "built-in")
    suites.append(Suite("toxicity", "toxicity", "Sentences about groups of people", "built-in", "sentence"))
    suites.append(Suite("toxigen_safety", "toxicity", "ToxiGen", "benchmark", "toxigen", splits=("test",)))
    return {suite.name: suite for suite in suites}


def make_plan(settings: Eval, seed: int) -> Plan:
    """Settle which suites run.

    Raises:
        PrimerError: If the recipe names a suite that does not exist, or a data folder that does not.
    """
    suites = all_suites()
    for name in settings.suites:
        if name not in suites:
            raise PrimerError(
                f"eval.suites names {name!r}; there is no such suite.",
                f"{did_you_mean(name, suites)}Suites: {', '.join(suites)}.",
            )
    data = data_folder(settings.data)
    wanted = [suite for suite in suites.values() if not settings.suites or suite.name in settings.suites]
    chosen: list[tuple[Suite, Path]] = []
    skipped: list[dict[str, str]] = []
    for suite in wanted:
        path = suite.file(data)
        if path is None:
            skipped.append({"suite": suite.name, "reason": suite.missing()})
        else:
            chosen.append((suite, path))
    return Plan(tuple(chosen), tuple(skipped), settings, seed, data, _material(chosen))


def dataset(suite: str, data: str | None = None, limit: int | None = None, seed: int = 0, **_: Any) -> dict[str, Any]:
    """The rows of a suite as the harness wants them: called by the tasks' `custom_dataset`.

    Args:
        suite: Name of the suite.
        data: Folder of benchmark data; None means $PRIMER_EVAL_DATA.
        limit: Largest number of rows.
        seed: Seed of the choice of rows.
        _: The rest of the task's metadata, which the harness passes along.

    Raises:
        PrimerError: If the suite has no data, or the data is damaged.
    """
    from datasets import Dataset

    known = all_suites()[suite]
    path = known.file(data_folder(data))
    if path is None:
        raise PrimerError(
            f"{suite}: {known.missing()}.", "Name the folder: eval.data in the recipe, or PRIMER_EVAL_DATA."
        )
    return {"rows": Dataset.from_list(sample_rows(read_rows(path, known.form, suite), limit, seed))}


def load_tasks(plan: Plan) -> dict[str, Any]:
    """The harness's task objects of a plan's multiple-choice suites, by name.

    Raises:
        PrimerError: If the rows of one are damaged.
    """
    # The harness warns about every task that brings its own data; the errors that matter here are ours.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    _compile_templates_once()
    # include_defaults=False: the index of the harness's own 14,683 tasks takes 13 s of CPU.
    runtime = {"data": str(plan.data) if plan.data else None, "limit": plan.settings.limit, "seed": plan.seed}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=runtime)
    tasks: dict[str, Any] = manager.load([suite.name for suite, _ in plan.chosen if suite.kind == "choice"])["tasks"]
    return tasks


@cache
def _compile_templates_once() -> None:
    """The harness compiles a prompt's templates anew for every row, which can take longer than scoring it."""
    from lm_eval.utils import env

    env.from_string = cache(env.from_string)


def answer(
    suite: Suite, path: Path, task: Any, model: PrimerLM, progress: Callable[[float], None]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask a model every row of a multiple-choice suite.

    Args:
        suite: The suite.
        path: The file of its rows.
        task: The harness's task (`load_tasks`).
        model: The model.
        progress: Told the share of work that is done.

    Returns:
        The totals for `results.json` and one item a row.

    Raises:
        AnswerTooLongError: If an answer does not fit into the model's context.
        PrimerError: If the model's log-likelihoods are not numbers.
    """
    documents = list(task.eval_docs)
    requests = [_requests(task, document, number) for number, document in enumerate(documents)]
    results = iter(model.loglikelihood([request for row in requests for request in row], progress=progress))
    items = [
        _item(suite, task, document, row, [next(results) for _ in row])
        for document, row in zip(documents, requests, strict=True)
    ]
    chance = sum(1 / len(row) for row in requests) / len(requests)
    return _result(suite, path, items, chance, model), items


def _requests(task: Any, document: dict[str, Any], number: int) -> list[Any]:
    context = task.fewshot_context(document, num_fewshot=0)
    metadata = (task.config.task, number, 1)
    requests: list[Any] = task.construct_requests(doc=document, ctx=context, metadata=metadata)
    return requests


def _item(
    suite: Suite, task: Any, document: dict[str, Any], requests: Sequence[Any], results: Sequence[tuple[float, bool]]
) -> dict[str, Any]:
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    loglikelihoods = [loglikelihood for loglikelihood, _ in results]
    # The harness divides by the characters of the answer without the space before it. Where contexts differ and one
    # continuation is scored (WinoGrande), it defines no acc_norm; dividing by that continuation makes it equal to acc.
    lengths = [len(request.args[1]) - len(task.config.target_delimiter) for request in requests]
    choice = _best(loglikelihoods)
    choice_norm = _best([loglikelihood / length for loglikelihood, length in zip(loglikelihoods, lengths, strict=True)])
    return {
        "kind": "choice",
        "suite": suite.name,
        "item": document["id"],
        "gold": gold,
        "choice": choice,
        "choice_norm": choice_norm,
        "acc": int(task.process_results(document, list(results))["acc"]),
        "acc_norm": int(choice_norm == gold),
        "loglikelihoods": loglikelihoods,
    }


def _best(scores: Sequence[float]) -> int:
    """Position of the largest value, the first of equals, as numpy's argmax in the harness."""
    return max(range(len(scores)), key=scores.__getitem__)


def _result(
    suite: Suite, path: Path, items: Sequence[dict[str, Any]], chance: float, model: PrimerLM
) -> dict[str, Any]:
    rows = len(items)
    notes = ["0-shot", suite.protocol, "acc raw, acc_norm per character"]
    notes.append("built-in items" if suite.origin == "built-in" else f"{path.stem} split")
    cut = f", {model.rows_cut:,} of them cut from the left to the context of {model.max_length:,} tokens"
    notes.append(f"{rows:,} rows{cut * bool(model.rows_cut)}")
    return {
        "suite": suite.name,
        "title": suite.title,
        "origin": suite.origin,
        "rows": rows,
        "chance": chance,
        "acc": sum(item["acc"] for item in items) / rows,
        "acc_norm": sum(item["acc_norm"] for item in items) / rows,
        "metric": "acc",
        "protocol": "; ".join(notes),
        "rows_cut": model.rows_cut,
    }


class _TaskLoader(yaml.SafeLoader):
    """YAML with the harness's `!function` tag, which is kept as text."""


_TaskLoader.add_constructor("!function", lambda _, node: str(node.value))


def _read_task(path: Path) -> dict[str, Any]:
    task: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)  # noqa: S506 - a SafeLoader
    return task


def _from_task(path: Path) -> Suite:
    task = _read_task(path)
    about = task["metadata"]
    splits = tuple(about.get("splits", ()))
    return Suite(task["task"], "choice", about["title"], about["origin"], about["form"], splits, about["protocol"])


def _material(chosen: Iterable[tuple[Suite, Path]]) -> dict[str, str]:
    material: dict[str, str] = {}
    for suite, path in chosen:
        material[f"rows of {suite.name}"] = file_hash(path)
        if suite.kind == "choice":
            task = TASKS / f"{suite.name}.yaml"
            material[f"task {suite.name}"] = file_hash(task)
            if included := _read_task(task).get("include"):
                material[f"task {included}"] = file_hash(TASKS / included)
    return material
