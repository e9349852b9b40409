"""Which suites the corpora were compared with before training, and how many documents held items of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.suites import all_suites
from primer.benchmarks import OWN_ITEMS
from primer.run import Manifest, RunFolder

if TYPE_CHECKING:
    from eval.comparison import Accuracy


@dataclass(frozen=True)
class Contamination:
    """Where items of the suites were looked for in the corpora, and how many documents held some.

    Attributes:
        sources: Corpora that were searched.
        left_out: Documents that were left out, by suite as the corpora name it, then source.
        compared: For a suite that was asked, the sources that were compared with the very rows that were asked.
    """

    sources: tuple[str, ...]
    left_out: Mapping[str, Mapping[str, int]]
    compared: Mapping[str, tuple[str, ...]]

    def documents(self, suite: Accuracy) -> dict[str, int]:
        """Documents left out for one suite, by source; a source that was not compared with it is missing."""
        known = self.left_out.get(name_in_corpora(suite), {})
        return {s: known.get(s, 0) for s in self.sources if s in known or s in self.compared.get(suite.name, ())}

    def not_compared(self, suites: Sequence[Accuracy]) -> list[str]:
        """Titles of the suites that some corpus was not compared with."""
        return [suite.title for suite in suites if len(self.documents(suite)) < len(self.sources)]


def read_contamination(run: RunFolder, corpora: Mapping[str, Manifest], evaluation: Manifest) -> Contamination | None:
    """What the manifests say of it; None if no corpus was searched.

    Args:
        run: The run folder.
        corpora: Manifests of the corpora by source.
        evaluation: A variant's evaluation: the hashes of the rows that were asked.
    """
    searched = {source: manifest for source, manifest in corpora.items() if "contaminated" in manifest.facts}
    if not searched:
        return None
    left_out: dict[str, dict[str, int]] = {}
    for source, manifest in searched.items():
        for suite, documents in manifest.facts["contaminated"].items():
            left_out.setdefault(suite, {})[source] = documents
    rows = {key.removeprefix("rows of "): mark for key, mark in evaluation.inputs.items() if key.startswith("rows of ")}
    seen = {source: _benchmark_files(run, source) for source in searched}
    compared = {suite: tuple(source for source in searched if mark in seen[source]) for suite, mark in rows.items()}
    return Contamination(tuple(searched), left_out, compared)


def name_in_corpora(suite: Accuracy) -> str:
    """The name that facts of a corpus give to a suite (`primer.benchmarks.read_every_benchmark`): that of its items.

    Suites that ask the same items in two ways have one name there.
    """
    known = all_suites().get(suite.name)
    folder = known.folder if known else suite.name
    return OWN_ITEMS + folder if suite.origin == "built-in" else folder


def _benchmark_files(run: RunFolder, source: str) -> set[str]:
    """Hashes of the benchmark files that a corpus was compared with (`primer.benchmarks.benchmark_material`)."""
    manifests = [run.manifest(f"{room}/{source}") for room in ("refined", "corpus")]
    inputs = [item for manifest in manifests if manifest for item in manifest.inputs.items()]
    return {mark for key, mark in inputs if key.startswith("benchmark ")}
