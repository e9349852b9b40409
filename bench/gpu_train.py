"""Training speed on a GPU: checks, the ceiling of matrix products, the trainer, each technique switched off, a peer.

    python bench/gpu_train.py                            # everything, as far as nine minutes go
    python bench/gpu_train.py --only "plain head" fp16   # the rest; figures join those in the file

On a GPU: phi-1.5's shape (1.4 billion parameters, context 2,048), random tokens out of shards, steps of 262,144 tokens
through the engine and the batches that `primer train` uses, each configuration for at least ten seconds after its
warm-up; Hugging Face's Trainer at the same shape, uncompiled and compiled. Measurements stand in the order of what they
tell; one for which no time is left is named. The file of results is written after each. Without a GPU, or with
`--device cpu`: everything but compilation at a tiny size, to see that it runs; those speeds mean nothing, and no file
is written unless `--output` names a folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gpu_train_cases import CASES, WHOLE
from gpu_train_ceiling import ceiling
from gpu_train_checks import checks
from gpu_train_peer import measure_trainer
from gpu_train_run import Case, Pace, Place, Runner, make_place
from rich.console import Console
from rich.table import Table

from primer.gpus import known_gpus
from train.cpu import prepare_cpu
from train.head_loss import chunk_places
from train.shape import Shape, flops_per_token, parameter_count

PHI = Shape(24, 32, 64, 32, 8192, 2048, 51_200)  # arXiv 2309.05463, section 2.1
TINY = Shape(2, 2, 16, 8, 128, 64, 512)
PEERS = {"Hugging Face Trainer": False, "Hugging Face Trainer, compiled": True}
_COMPILING = 120.0  # seconds that compiling is taken to need until it has been seen
_RESULTS = Path(__file__).parent / "results"


@dataclass
class Report:
    """What has been found, and where it is written."""

    path: Path | None
    content: dict[str, Any]
    deadline: float
    compiling: float = _COMPILING
    skipped: list[str] = field(default_factory=list)

    def has_time(self, name: str, seconds: float) -> bool:
        """Whether so much time is left; if not, the name is noted."""
        if time.monotonic() + seconds <= self.deadline:
            return True
        self.skipped.append(name)
        return False

    def note(self, section: str, name: str, value: Any) -> None:
        """Add or replace a figure, and write the file: what is known stays known if the next measurement fails."""
        self.content.setdefault(section, {})[name] = value
        if self.path:
            self.path.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")


def opened(path: Path | None, head: dict[str, Any], minutes: float) -> Report:
    """A report that goes on in the file of an earlier call, if there is one of the same hardware and versions."""
    content = head
    if path and path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if all(earlier.get(key) == head[key] for key in ("hardware", "versions", "shape", "step tokens")):
            content = earlier | head
    return Report(path, content, time.monotonic() + 60 * minutes)


def heading(place: Place) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python bench/gpu_train.py", *sys.argv[1:]]),
        "hardware": place.name,
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "cuda": torch.version.cuda,
            "transformers": version("transformers"),
        },
        "shape": asdict(place.shape),
        "parameters": parameter_count(place.shape),
        "step tokens": place.step_tokens,
        "peak": place.peak,
    }


def row(pace: Pace, place: Place, top: float | None) -> dict[str, Any]:
    """A pace as it stands in the file, with its shares of the peak and of the measured ceiling."""
    full, causal = (flops_per_token(place.shape, causal=causal) * pace.tokens_per_second for causal in (False, True))
    return asdict(pace) | {
        "mfu full": full / place.peak if place.peak else None,
        "mfu causal": causal / place.peak if place.peak else None,
        "share of ceiling": causal / top if top else None,
    }


def run_checks(place: Place, report: Report, compiled: bool, console: Console) -> bool:
    """Make all checks; whether all passed."""
    passed = True
    for check in checks(place, compiled=compiled):
        passed &= check.passed
        report.note("checks", check.name, asdict(check) | {"passed": check.passed})
        verdict = "as it should be" if check.passed else "WRONG"
        console.print(f"{check.name}: {check.difference:.1e} apart, {check.allowed:.0e} allowed: {verdict}")
    return passed


def run_ceilings(place: Place, report: Report, micro_batch: int) -> float:
    """Measure the ceiling in bf16 and fp16; that of bf16."""
    found = {}
    seconds = 0.5 if place.device.type == "cuda" else 0.005
    head = chunk_places(place.device.type, place.shape.vocabulary)
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        found[name], kinds = ceiling(place.shape, micro_batch * place.shape.context, head, dtype, place.device, seconds)
        report.note("ceiling", name, {"all": found[name]} | kinds)
    return found["bf16"]


def attempt(place: Place, report: Report, name: str, about: str, measure: Callable[[], Pace]) -> Pace | None:
    """Measure and note; None if it failed, which is noted in words: one configuration must not cost the others."""
    report.content.get("failed", {}).pop(name, None)  # of an earlier call
    try:
        pace = measure()
    except Exception as error:  # whatever a kernel or a compiler may raise
        report.note("failed", name, f"{type(error).__name__}: {error}"[:400])
        return None
    top = report.content.get("ceiling", {}).get("bf16", {}).get("all")
    report.note("paces", name, {"about": about} | row(pace, place, top))
    return pace


def run_cases(place: Place, report: Report, runner: Runner, cases: list[Case], micro_batch: int) -> int:
    """Measure the trainer as far as time goes; the micro-batch that fitted."""
    for case in cases:
        compiling = runner.needs_compiling(case)
        if not report.has_time(case.name, 2 * place.seconds + (report.compiling if compiling else 0)):
            continue
        limit = min(case.micro_batch or micro_batch, micro_batch)
        pace = attempt(place, report, case.name, case.about, partial(runner.measure, case, limit))
        if pace is None:
            runner.forget()
            continue
        if compiling:
            report.compiling = pace.warm_up + 10
        if case.name == WHOLE.name:
            micro_batch = pace.micro_batch
    return micro_batch


def run_peers(place: Place, report: Report, runner: Runner, wanted: list[str], micro_batch: int) -> None:
    """Measure the peer as far as time goes."""
    about = "transformers.Trainer with PhiForCausalLM, sdpa"
    for name in wanted:
        runner.forget()
        compiled = PEERS[name]
        if report.has_time(name, 3 * place.seconds + (report.compiling if compiled else 0)):
            pace = attempt(place, report, name, about, partial(measure_trainer, place, micro_batch, compiled=compiled))
            micro_batch = pace.micro_batch if pace else micro_batch


def table_of(report: Report) -> Table:
    """The table for people."""
    table = Table(title=f"{report.content['hardware']}, {report.content['parameters']:,} parameters")
    table.add_column("configuration")
    for title in (
        "sequences a pass",
        "tokens/s",
        "beside the whole",
        "MFU full/causal",
        "of ceiling",
        "GB",
        "warm-up s",
    ):
        table.add_column(title, justify="right")
    paces = report.content.get("paces", {})
    whole = paces.get(WHOLE.name, {}).get("tokens_per_second")
    for name, found in paces.items():
        share, top = found["mfu full"], found["share of ceiling"]
        table.add_row(
            name,
            str(found["micro_batch"]),
            f"{found['tokens_per_second']:,.0f}",
            f"{found['tokens_per_second'] / whole:.3f}" if whole else "-",
            f"{share:.1%} / {found['mfu causal']:.1%}" if share else "-",
            f"{top:.1%}" if top else "-",
            f"{found['memory'] / 1e9:.1f}",
            f"{found['warm_up']:.0f}",
        )
    return table


def choose_place(device: str, sequences: int, seconds: float, folder: Path) -> tuple[Place, str]:
    """Where to measure, and what the file of results is called."""
    if device == "cpu":
        prepare_cpu(1)
        return make_place(torch.device("cpu"), "CPU, tiny shape", TINY, 4, 0.05, None, folder), "gpu-train-cpu.json"
    name = torch.cuda.get_device_name()
    key, gpu = next(((key, gpu) for key, gpu in known_gpus().items() if gpu.name in name), (None, None))
    file = f"gpu-train-{key or name.lower().replace(' ', '-')}.json"
    peak = 1e12 * gpu.tflops if gpu else None
    return make_place(torch.device("cuda", 0), name, PHI, sequences, seconds, peak, folder), file


def arguments(given: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    names = [case.name for case in CASES] + list(PEERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU if there is")
    parser.add_argument("--minutes", type=float, default=9.0, help="time to take, about (default 9)")
    parser.add_argument("--seconds", type=float, default=10.0, help="least time of a configuration (default 10)")
    parser.add_argument("--sequences", type=int, default=128, help="of a step (default 128: 262,144 tokens)")
    parser.add_argument("--micro-batch", type=int, default=32, help="of a pass, halved until it fits (default 32)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--output", type=Path, help="folder for the file of results (default bench/results)")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Check, measure and print; 1 if a check failed."""
    options = arguments(given)
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)
    gpu = torch.cuda.is_available()
    if options.device == "cuda" and not gpu:
        raise SystemExit("--device cuda: PyTorch sees no CUDA device here.")
    device = "cuda" if gpu and options.device != "cpu" else "cpu"
    if device == "cpu":
        console.print("No GPU is used: checks at a tiny size on the CPU, nothing compiled; speeds mean nothing.")
    with tempfile.TemporaryDirectory(prefix="primer-bench-") as folder:
        place, file = choose_place(device, options.sequences, options.seconds, Path(folder))
        output = options.output or (_RESULTS if device == "cuda" else None)
        if output:
            output.mkdir(parents=True, exist_ok=True)
        report = opened(output / file if output else None, heading(place), options.minutes)
        micro_batch = min(options.micro_batch, place.sequences)
        passed = True
        if not options.only or "ceiling" not in report.content:
            passed = run_checks(place, report, device == "cuda", console)
            run_ceilings(place, report, micro_batch)
        micro_batch = report.content.get("paces", {}).get(WHOLE.name, {}).get("micro_batch", micro_batch)
        wanted = options.only or [case.name for case in CASES] + list(PEERS)
        cases = [case if device == "cuda" else on_cpu(case) for case in CASES if case.name in wanted]
        peers = [name for name in PEERS if name in wanted and (device == "cuda" or not PEERS[name])]
        # What shares the whole trainer's compiled model comes first, then the peer, then what is compiled anew.
        runner = Runner(place)
        whole = WHOLE if device == "cuda" else on_cpu(WHOLE)
        same = [case for case in cases if case.graph == whole.graph]
        micro_batch = run_cases(place, report, runner, same, micro_batch)
        run_peers(place, report, runner, peers, micro_batch)
        run_cases(place, report, runner, [case for case in cases if case not in same], micro_batch)
    finish(report, console)
    return 0 if passed else 1


def on_cpu(case: Case) -> Case:
    """The case without what takes a GPU, or minutes."""
    return replace(
        case, compiled=False, model_patch=nullcontext if case.name == "cuDNN attention" else case.model_patch
    )


def finish(report: Report, console: Console) -> None:
    """Print what was found and what was not."""
    top = report.content["ceiling"]
    console.print(
        "Ceiling of matrix products: " + ", ".join(f"{k} {v['all'] / 1e12:,.1f} TFLOP/s" for k, v in top.items())
    )
    console.print(table_of(report))
    for name, reason in report.content.get("failed", {}).items():
        console.print(f"failed: {name}: {reason}")
    if report.skipped:
        console.print(f"No time was left for: {', '.join(report.skipped)}. Name them with --only.")
    if report.path:
        console.print(f"Figures: {report.path}")


if __name__ == "__main__":
    raise SystemExit(main())
