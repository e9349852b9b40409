"""What the sandbox costs: its start, and a program in it, beside the same program as a bare `python -c`.

    .venv/bin/python bench/sandbox_overhead.py --programs 300

The program is a function with one assert, which itself takes microseconds. A bare `python -c` protects nothing. The
kinds take turns, so that other work on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from unittest import mock

import numpy as np

from primer.sandbox import Sandbox, bubblewraps

PROGRAM = "def double(x):\n    return 2 * x\n\nassert double(2) == 4"
STARTS = 10


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that something takes."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def enter(*, weak: bool) -> Sandbox:
    """A sandbox; a weak one as on a machine without bubblewrap."""
    with mock.patch("primer.sandbox.bubblewraps", (lambda: iter(())) if weak else bubblewraps):
        return Sandbox(weak=weak).__enter__()


def start_and_stop(*, weak: bool) -> float:
    """Milliseconds until a sandbox is ready."""
    started = time.perf_counter()
    opened = enter(weak=weak)
    taken = 1000 * (time.perf_counter() - started)
    opened.__exit__(None, None, None)
    return taken


def passes(sandbox: Sandbox) -> None:
    """Run the program.

    Raises:
        SystemExit: If it does not pass.
    """
    result = sandbox.run(PROGRAM, seconds=5, memory_mib=256)
    if not result.passed:
        raise SystemExit(f"the program did not pass: {result}")


def bare() -> None:
    """Run the program without protection."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=300)
    count: int = parser.parse_args().programs
    kinds = {"namespaces": False, "weak": True}
    starts = {kind: [start_and_stop(weak=weak) for _ in range(STARTS)] for kind, weak in kinds.items()}
    times: dict[str, list[float]] = {**{kind: [] for kind in kinds}, "python -c": []}
    with ExitStack() as stack:
        sandboxes = {kind: stack.push(enter(weak=weak)) for kind, weak in kinds.items()}
        for _ in range(count):
            for kind, sandbox in sandboxes.items():
                times[kind].append(timed(partial(passes, sandbox)))
            times["python -c"].append(timed(bare))
    print(f"{count} programs each; milliseconds")
    print(f"{'':12}{'start':>8}{'median':>8}{'95%':>8}")
    for kind, taken in times.items():
        start = f"{np.median(starts[kind]):8.1f}" if kind in starts else " " * 8
        print(f"{kind:12}{start}{np.median(taken):8.1f}{np.quantile(taken, 0.95):8.1f}")


if __name__ == "__main__":
    main()
