"""What the clients of synth_peers.py have in common: arguments, prompts, the measuring and the line that reports it.

The standard library alone: these programs run with the Python of the package they measure.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

# What every client asks for, as Primer's own defaults are.
SAMPLING = {"max_tokens": 1000, "temperature": 0.7}


def arguments(description: str | None, *options: str) -> argparse.Namespace:
    """The arguments every client takes, with some switches of its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base-url", required=True, help="of the endpoint, without /v1")
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder to write to")
    for option in options:
        parser.add_argument(option, action="store_true")
    return parser.parse_args()


def prompts(requests: int) -> list[str]:
    """Different prompts of about a kilobyte, the same as synth_speed.py sends."""
    return [f"Question {index} " + "word " * 150 for index in range(requests)]


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the block: seconds, CPU seconds of all threads, and MB of memory the whole process had at most."""
    figures: dict[str, float] = {}
    wall, cpu = time.monotonic(), time.process_time()
    yield figures
    figures["wall"] = time.monotonic() - wall
    figures["cpu"] = time.process_time() - cpu
    figures["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def report(figures: dict[str, float], package: str, rows: int) -> None:
    """Print one line of JSON for synth_peers.py; `rows` is how many replies the client ended with."""
    print(json.dumps({"version": version(package), "rows": rows, **figures}), flush=True)
