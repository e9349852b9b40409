"""Training speed on a CPU: Primer's trainer beside others, in turns, on the same data with the same settings.

    export PRIMER_BENCH_LITGPT=/path/to/venv/bin/python   # a Python that has litgpt
    export PRIMER_BENCH_NANOGPT=/path/to/nanoGPT          # a checkout of nanoGPT: its model.py
    python bench/train_speed.py --rounds 5 --json bench/results/train-speed.json

Two phis in float32: 1.8 million parameters (4 layers, width 128, context 256, vocabulary 4,096, 16 sequences a step)
and 10 million (8 layers, width 256, context 512, vocabulary 8,192, 8 sequences). Each loop is a process of its own;
start, imports and three steps of warm-up, compilation included, do not count. Prints tokens per CPU second and per
second, and how many times as many ours made in the same round: median, least and most.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from peers.train_loops import SHAPES, Sizes
from random_tokens import random_mixture
from rich.console import Console
from rich.table import Table

LOOPS = Path(__file__).parent / "peers" / "train_loops.py"
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """A loop of peers/train_loops.py: what it is, and which environment variable says where its program lies."""

    title: str
    variable: str | None = None
    foreign: bool = False  # whether the variable names the Python to run it with

    @property
    def present(self) -> bool:
        return self.variable is None or bool(os.environ.get(self.variable))

    @property
    def python(self) -> str:
        return os.environ[self.variable] if self.foreign and self.variable else sys.executable


PEERS = {
    OURS: Peer("Primer"),
    "trainer": Peer("Hugging Face Trainer, Phi"),
    "bare": Peer("bare loop over Hugging Face's Phi"),
    "litgpt": Peer("litgpt, its phi-1_5", "PRIMER_BENCH_LITGPT", foreign=True),
    "nanogpt": Peer("nanoGPT, its GPT-2", "PRIMER_BENCH_NANOGPT"),
    "ours-compiled": Peer("Primer, compiled"),
    "litgpt-compiled": Peer("litgpt, compiled", "PRIMER_BENCH_LITGPT", foreign=True),
}


@dataclass(frozen=True)
class Run:
    """One run of one loop: tokens per CPU second and per second, and the package measured."""

    per_cpu_second: float
    per_second: float
    version: str


def run_loop(name: str, shape: str, tokens: Path, threads: int) -> Run | str:
    """The figures of a run, or the last line of what went wrong."""
    command = [PEERS[name].python, str(LOOPS), name, shape, str(tokens), str(threads)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or ["no message"])[-1][:200]
    found = json.loads(ended.stdout.splitlines()[-1])
    sizes = SHAPES[shape]
    count = sizes.steps * sizes.sequences * sizes.context
    return Run(count / found["cpu"], count / found["wall"], found["version"])


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def measure(shape: str, names: list[str], rounds: int, threads: int, console: Console) -> dict[str, list[Run]]:
    """All loops in turns, beginning with another one each round; a loop that fails is named and left out."""
    runs: dict[str, list[Run]] = {name: [] for name in names}
    sizes = SHAPES[shape]
    with tempfile.TemporaryDirectory(prefix="primer-bench-") as folder:
        mixture = random_mixture(Path(folder), sizes.vocabulary, sizes.context, sizes.needed)
        (shard,) = mixture.shards.values()
        for turn in range(rounds):
            order = list(runs)
            first = turn % len(order)
            for name in order[first:] + order[:first]:
                run = run_loop(name, shape, shard.path, threads)
                if isinstance(run, str):
                    console.print(f"{shape}, {name}: left out, it failed: {run}", markup=False)
                    del runs[name]
                    continue
                runs[name].append(run)
                line = f"{run.per_cpu_second:,.0f} tokens per CPU second, {run.per_second:,.0f} per second"
                console.print(f"{shape}, round {turn + 1}, {PEERS[name].title}: {line}", markup=False, highlight=False)
    return runs


def summary(runs: dict[str, list[Run]]) -> dict[str, dict[str, object]]:
    """Of each loop its figures, and ours divided by them, round by round."""
    found: dict[str, dict[str, object]] = {}
    for name, each in runs.items():
        pairs = list(zip(runs[OURS], each, strict=True))
        found[name] = {
            "title": PEERS[name].title,
            "version": each[0].version,
            "tokens per CPU second": spread([run.per_cpu_second for run in each]),
            "tokens per second": spread([run.per_second for run in each]),
            "ours / it, per CPU second": spread([own.per_cpu_second / run.per_cpu_second for own, run in pairs]),
            "ours / it, per second": spread([own.per_second / run.per_second for own, run in pairs]),
            "runs": [asdict(run) for run in each],
        }
    return found


def shown(values: object, digits: int) -> str:
    """Median and range in a cell of the table."""
    assert isinstance(values, dict)
    return f"{values['median']:,.{digits}f} ({values['least']:,.{digits}f} to {values['most']:,.{digits}f})"


def table_of(shape: str, sizes: Sizes, figures: dict[str, dict[str, object]]) -> Table:
    """The table for people."""
    table = Table(title=f"{shape} parameters, {sizes.context} context: median (least to most)")
    table.add_column("loop")
    for heading in ("tokens per CPU second", "ours / it", "tokens per second", "ours / it"):
        table.add_column(heading, justify="right")
    for figure in figures.values():
        table.add_row(
            str(figure["title"]),
            shown(figure["tokens per CPU second"], 0),
            shown(figure["ours / it, per CPU second"], 2),
            shown(figure["tokens per second"], 0),
            shown(figure["ours / it, per second"], 2),
        )
    return table


def processor() -> str:
    """The CPU's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    """Run all loops there are in turns; print the tables, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each loop is measured (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="default both")
    parser.add_argument("--loops", nargs="+", choices=list(PEERS), default=list(PEERS), help="default all there are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    wanted = list(dict.fromkeys([OURS, *options.loops]))
    for name in wanted:
        peer = PEERS[name]
        if not peer.present:
            what = "the path of a Python that has litgpt" if peer.foreign else "the path of a checkout of nanoGPT"
            console.print(f"{peer.title}: skipped; set {peer.variable} to {what}", markup=False)
        elif shutil.which(peer.python) is None:
            raise SystemExit(
                f"{peer.variable}: there is no program {peer.python}. Name the Python that has the package."
            )
    names = [name for name in wanted if PEERS[name].present]
    load = os.getloadavg()[0]
    figures = {}
    for shape in options.shapes:
        figures[shape] = summary(measure(shape, names, options.rounds, options.threads, console))
        console.print(table_of(shape, SHAPES[shape], figures[shape]))
    if options.json:
        content = {
            "date": datetime.date.today().isoformat(),
            "command": f"python bench/train_speed.py --rounds {options.rounds} --threads {options.threads}",
            "machine": f"{processor()}; load at the start {load:.1f}",
            "python": platform.python_version(),
            "shapes": {shape: asdict(SHAPES[shape]) for shape in options.shapes},
            "figures": figures,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
