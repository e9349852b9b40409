"""The suites: which there are, which have data, and which rows of them are asked.

Each is an lm-evaluation-harness task in `tasks/`, whose `metadata` adds what the report says of it. The harness itself
runs them too: `lm_eval run --include_path eval/tasks --tasks science ...`, and a benchmark with
`--metadata '{"data": "<folder>"}'`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from eval.hub import cache_folder, fetch_benchmark
from eval.rows import read_rows, sample_rows
from primer.benchmarks import BUILT_IN_ITEMS as ITEMS
from primer.benchmarks import data_folder
from primer.errors import PrimerError, did_you_mean
from primer.fingerprint import file_hash, fingerprint
from primer.recipe import Eval
from primer.sealed import SUFFIX

TASKS = Path(__file__).parent / "tasks"
Kind = Literal["choice", "generation", "toxicity", "open"]

# What `eval.suites` may name beside single suites.
GROUPS = ("built-in", "benchmarks", "common-sense", "language", "multi-step", "safety")

# Raised by hand where the way of asking or grading changes so that kept answers no longer hold.
PROTOCOL = 1


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name: Also its task.
        kind: choice: answers are chosen; generation: they are written; toxicity: hostile and neutral sentences are
            compared; open: answers are written for a judge or a person to grade.
        origin: `built-in`, or `benchmark`.
        area: Its group: `common-sense`, `language`, `multi-step`, `safety`.
        form: The form of its rows (`eval.rows.FORMS`).
        folder: Its folder below the benchmark data, or its file of built-in items.
        splits: Files that hold it, without `.jsonl`, in order of preference.
        examples: The split that examples in the prompt come from, if they do not stand in the task.
        shots: Number of examples in the prompt.
        twin: The benchmark whose form and difficulty its built-in items have.
        hub: Its data set on the Hugging Face hub: `path`, `split`, and perhaps `name`, `revision`, `examples`.
        protocol: What is scored, in words.
        task: The task, with what it includes.
    """

    name: str
    kind: Kind
    title: str
    origin: Literal["built-in", "benchmark"]
    area: str
    form: str
    folder: str
    splits: tuple[str, ...] = ()
    examples: str | None = None
    shots: int = 0
    twin: str | None = None
    hub: Mapping[str, str] | None = None
    protocol: str = ""
    task: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def groups(self) -> tuple[str, str]:
        """The names of groups that it belongs to."""
        return ("built-in" if self.origin == "built-in" else "benchmarks", self.area)

    def mark(self) -> str:
        """Hash of all that says how it is asked, but for its rows."""
        return fingerprint({"protocol": PROTOCOL, "kind": self.kind, "form": self.form, "task": _plain(self.task)})

    def missing(self) -> str:
        """Why it cannot run, where its file is not there."""
        files = " or ".join(f"{self.folder}/{split}.jsonl" for split in self.splits)
        return f"there is no {files} in the folder of benchmark data"


@dataclass(frozen=True)
class Chosen:
    """A suite that will be asked, the file of its rows, and the file of its examples, if they come from one."""

    suite: Suite
    path: Path
    examples: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What will be asked: the same for every model.

    Attributes:
        chosen: Suites that have data.
        skipped: Suites that were wanted and have no data, with the reason.
        material: Hashes of the rows' files and of the tasks, for `primer.run.Stage.material`.
    """

    chosen: tuple[Chosen, ...]
    skipped: tuple[dict[str, str], ...]
    settings: Eval
    seed: int
    material: dict[str, str] = field(default_factory=dict)

    def rows(self, chosen: Chosen) -> list[dict[str, Any]]:
        """The rows of a suite that are asked.

        Raises:
            PrimerError: If one is damaged.
        """
        suite = chosen.suite
        if suite.kind == "open":
            from eval.boundaries import prompts

            return sample_rows(prompts(), self.settings.limit, self.seed)
        unit = "pair" if suite.form == "sentence" else "id"
        return sample_rows(read_rows(chosen.path, suite.form, suite.name), self.settings.limit, self.seed, unit)


# Suites that are no tasks of the harness.
_OTHER_KINDS = (
    Suite(
        name="toxicity",
        kind="toxicity",
        title="Hostile and neutral sentences",
        origin="built-in",
        area="safety",
        form="sentence",
        folder="toxicity",
        protocol="log-perplexity of each sentence; hostile against neutral about the same group of people",
    ),
    Suite(
        name="boundaries",
        kind="open",
        title="86 prompts at the boundaries",
        origin="built-in",
        area="safety",
        form="open",
        folder="boundaries",
        protocol="greedy answers, for a judge or a person to grade (`primer grade`)",
    ),
    Suite(
        name="toxigen_safety",
        kind="toxicity",
        title="ToxiGen",
        origin="benchmark",
        area="safety",
        form="toxigen",
        folder="toxigen_safety",
        splits=("test",),
        protocol="perplexity of each sentence, as SafeNLP; hate against neutral about the same group of people",
    ),
)


@cache
def all_suites() -> dict[str, Suite]:
    """Every suite by name: built-in ones, then benchmarks; of each, by area."""
    suites = [_from_task(path) for path in sorted(TASKS.glob("*.yaml"))]
    suites += _OTHER_KINDS
    suites.sort(key=lambda suite: (suite.origin != "built-in", GROUPS.index(suite.area)))
    return {suite.name: suite for suite in suites}


def make_plan(settings: Eval, seed: int, *, fetch: bool = True) -> Plan:
    """Settle which suites run.

    Args:
        settings: Which are wanted, and where their data is.
        seed: Seed of the choice of rows.
        fetch: Whether benchmarks that no folder holds may be fetched from the hub, where the settings allow it.

    Raises:
        PrimerError: If the recipe names a suite that does not exist, or a data folder that does not.
    """
    suites = all_suites()
    for name in settings.suites:
        if name not in suites and name not in GROUPS:
            raise PrimerError(
                f"eval.suites names {name!r}; there is no such suite.",
                f"{did_you_mean(name, [*suites, *GROUPS])}Suites: {', '.join(suites)}. Groups: {', '.join(GROUPS)}.",
            )
    data = data_folder(settings.data)
    wanted = [s for s in suites.values() if not settings.suites or {s.name, *s.groups()} & set(settings.suites)]
    chosen: list[Chosen] = []
    skipped: list[dict[str, str]] = []
    for suite in wanted:
        found = find(suite, data, hub=settings.hub, fetch=fetch)
        if isinstance(found, Chosen):
            chosen.append(found)
        else:
            skipped.append({"suite": suite.name, "reason": found})
    return Plan(tuple(chosen), tuple(skipped), settings, seed, _material(chosen))


def find(suite: Suite, data: Path | None, *, hub: bool, fetch: bool) -> Chosen | str:
    """A suite's files, in the folder or from the hub, or the reason why it cannot run."""
    if suite.kind == "open":
        from eval.boundaries import FILE

        return Chosen(suite, FILE)
    if suite.origin == "built-in":
        return Chosen(suite, ITEMS / f"{suite.folder}{SUFFIX}")
    if data is not None and (found := _in_folder(suite, data)) is not None:
        return found
    reason = suite.missing() if data else "no folder of benchmark data is named"
    if not hub or suite.hub is None:
        return reason
    cached = _in_folder(suite, cache_folder())
    if cached is not None or not fetch:
        return cached or f"{reason}, and it has not been fetched from the hub"
    obstacle = fetch_benchmark(suite.folder, suite.hub)
    return f"{reason}, and {obstacle}" if obstacle else find(suite, cache_folder(), hub=False, fetch=False)


def _in_folder(suite: Suite, data: Path) -> Chosen | None:
    files = (data / suite.folder / f"{split}.jsonl" for split in suite.splits)
    path = next((path for path in files if path.is_file()), None)
    examples = data / suite.folder / f"{suite.examples}.jsonl" if suite.examples else None
    if path is None or (examples is not None and not examples.is_file()):
        return None
    return Chosen(suite, path, examples)


def read_examples(chosen: Chosen) -> list[dict[str, Any]]:
    """The rows that examples in a suite's prompts are taken from: of a split, or of the task itself."""
    if chosen.examples is not None:
        return read_rows(chosen.examples, chosen.suite.form, chosen.suite.name)
    samples: Sequence[Any] = (chosen.suite.task.get("fewshot_config") or {}).get("samples") or ()
    return [{**row, "id": f"example-{number}"} for number, row in enumerate(samples, 1)]


def dataset(suite: str, data: str | None = None, limit: int | None = None, seed: int = 0, **_: Any) -> dict[str, Any]:
    """The rows of a suite as the harness wants them: called by the tasks' `custom_dataset`.

    Args:
        suite: Name of the suite.
        data: Folder of benchmark data; None means $PRIMER_EVAL_DATA.
        limit: Largest number of rows.
        seed: Seed of the choice of rows.
        _: The rest of the task's metadata, which the harness passes along.

    Returns:
        `rows`, and `examples` where the prompt's come from a split.

    Raises:
        PrimerError: If the suite has no data, or the data is damaged.
    """
    from datasets import Dataset

    known = all_suites()[suite]
    found = find(known, data_folder(data), hub=True, fetch=False)
    if isinstance(found, str):
        raise PrimerError(f"{suite}: {found}.", "Name the folder: eval.data in the recipe, or PRIMER_EVAL_DATA.")
    rows = {"rows": Dataset.from_list(sample_rows(read_rows(found.path, known.form, suite), limit, seed))}
    return rows | ({"examples": Dataset.from_list(read_examples(found))} if found.examples else {})


class _TaskLoader(yaml.SafeLoader):
    """YAML with the harness's `!function` tag, which is kept as text."""


_TaskLoader.add_constructor("!function", lambda _, node: str(node.value))


def read_task(path: Path) -> dict[str, Any]:
    """A task file with what it includes, as the harness merges them: its own keys win."""
    task: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)  # noqa: S506 - a SafeLoader
    included = task.pop("include", None)
    return {**read_task(path.with_name(included)), **task} if included else task


def _from_task(path: Path) -> Suite:
    task = read_task(path)
    about = task["metadata"]
    return Suite(
        name=task["task"],
        kind="choice" if task["output_type"] == "multiple_choice" else "generation",
        title=about["title"],
        origin=about["origin"],
        area=about["area"],
        form=about["form"],
        folder=about.get("folder", task["task"]),
        splits=tuple(about.get("splits", ())),
        examples=about.get("examples"),
        shots=task.get("num_fewshot") or 0,
        twin=about.get("twin"),
        hub=about.get("hub"),
        protocol=about["protocol"],
        task=task,
    )


def _plain(task: Mapping[str, Any]) -> dict[str, Any]:
    """What of a task decides the answers and their grades: not what the report calls it."""
    asked = {key: value for key, value in task.items() if key not in ("metadata", "dataset_kwargs", "custom_dataset")}
    return asked | {"grader": task.get("metadata", {}).get("grader")}


def _material(chosen: Sequence[Chosen]) -> dict[str, str]:
    return dict(item for each in chosen for item in _hashes(each))


def _hashes(chosen: Chosen) -> Iterator[tuple[str, str]]:
    yield f"rows of {chosen.suite.name}", file_hash(chosen.path)
    yield f"task {chosen.suite.name}", chosen.suite.mark()
    if chosen.examples is not None:
        yield f"examples of {chosen.suite.name}", file_hash(chosen.examples)
