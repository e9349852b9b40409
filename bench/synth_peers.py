"""Clients for generation side by side: requests per second, CPU time, memory, and what each leaves on the disk.

    export PRIMER_BENCH_DATATROVE=/path/to/venv/bin/python   # datatrove, aiofiles, aiosqlite, httpx, orjson, xxhash
    export PRIMER_BENCH_CURATOR=/path/to/venv/bin/python     # bespokelabs-curator
    python bench/synth_peers.py --requests 5000 --rounds 5 --json figures.json

Each client is a process of its own against a fresh mock endpoint (tests/mock_endpoint.py), which answers at once; the
clients take turns, in another order each round. The time is that of the work: of the peers neither Python's start nor
imports count, nor the preparation of prompts. Memory is that of the whole process. Written is what the process gave the
disk from start to end, also what it deleted again (0 on a file system in memory). Each peer has the same number of
requests in flight, its limits of rate lifted, its retries as it comes. The endpoint may be the slowest part: then the
CPU seconds still tell the clients apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
MOCK = HERE.parent / "tests" / "mock_endpoint.py"
TIMEOUT = 900  # seconds for one run of one client
_BLOCK = 512  # bytes; the unit of ru_oublock on Linux


@dataclass(frozen=True)
class Client:
    """A client: the program that drives it, whose Python runs it, and what it keeps."""

    name: str
    program: str
    keeps: str
    variable: str | None = None  # names the Python that has the package; None: this one
    options: tuple[str, ...] = ()

    @property
    def python(self) -> str | None:
        return sys.executable if self.variable is None else os.environ.get(self.variable)


OURS = Client(
    "primer",
    "synth_speed.py",
    "journal: every reply written as it comes, flushed to the disk in groups; acceptance rules on",
)
CLIENTS = (
    OURS,
    Client("aiohttp, bare", "peers/aiohttp_client.py", "nothing: the floor, no checks and no retries"),
    Client(
        "datatrove",
        "peers/datatrove_client.py",
        "output alone: a buffered JSON Lines file, nothing flushed; a killed run begins again",
        "PRIMER_BENCH_DATATROVE",
    ),
    Client(
        "datatrove, checkpoints",
        "peers/datatrove_client.py",
        "output, a chunk file written but not flushed, and SQLite, a flushed transaction a reply, behind a queue",
        "PRIMER_BENCH_DATATROVE",
        ("--checkpoints",),
    ),
    Client(
        "bespokelabs-curator",
        "peers/curator_client.py",
        "cache: requests, replies with the raw response, and a data set of Arrow; written as they come, not flushed",
        "PRIMER_BENCH_CURATOR",
    ),
)


@dataclass(frozen=True)
class Run:
    """One run of one client."""

    version: str
    rows: int  # replies it ended with
    rate: float  # of them, a second
    cpu: float  # seconds per 1,000
    memory: int  # MB at most
    written: float  # MB given to the disk


MEASURES: dict[str, Callable[[Run], float]] = {
    "rate": lambda run: run.rate,
    "cpu": lambda run: run.cpu,
    "memory": lambda run: run.memory,
    "written": lambda run: run.written,
}


class ClientError(Exception):
    """A client ended without figures."""


@contextmanager
def endpoint(replies: list[str]) -> Iterator[str]:
    """A fresh mock endpoint on a free loopback port, which answers as these options say; its address, without /v1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(MOCK), "--port", str(port), "--delay", "0", *replies])
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        else:
            raise SystemExit("The mock endpoint did not start.")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def run_client(client: Client, options: argparse.Namespace) -> Run:
    """One run, in an empty folder that is deleted afterwards.

    Raises:
        ClientError: it failed, or told no figures.
    """
    asked = ["--requests", str(options.requests), "--concurrency", str(options.concurrency)]
    command = [str(client.python), str(HERE / client.program), *asked, *client.options]
    replies = ["--words", str(options.words)]
    if options.rate_limit_share:
        replies += ["--rate-limit-share", str(options.rate_limit_share)]
    with tempfile.TemporaryDirectory(prefix="primer-bench-") as name:
        if client is OURS:  # it starts its own endpoint
            output, written = execute([*command, *replies], Path(name))
            return our_run(output, written)
        with endpoint(replies) as address:
            output, written = execute([*command, "--base-url", address, "--folder", f"{name}/work"], Path(name))
    try:
        found = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise ClientError(f"no figures in {output[-200:]!r}") from None
    rows = int(found["rows"])
    if not rows:
        raise ClientError("it ended without a single reply")
    rate, cpu = rows / found["wall"], 1000 * found["cpu"] / rows
    return Run(found["version"], rows, rate, cpu, found["memory"], written)


def our_run(output: str, written: float) -> Run:
    """The line of synth_speed.py in figures."""
    pattern = r"([\d,]+) requests, ([\d.]+) a second, ([\d.]+) per CPU second of the client, ([\d,]+) MB at most"
    match = re.search(pattern, output)
    if match is None:
        raise ClientError(f"no figures in {output[-200:]!r}")
    rows, rate, per_cpu, memory = (float(value.replace(",", "")) for value in match.groups())
    return Run("", int(rows), rate, 1000 / per_cpu, int(memory), written)


def execute(command: list[str], folder: Path) -> tuple[str, float]:
    """Run a program with `folder` as its home; what it printed, and the MB it gave the disk."""
    for part in ("home", "work"):
        (folder / part).mkdir()
    environment = dict(os.environ, HOME=str(folder / "home"), TMPDIR=str(folder), NO_COLOR="1")
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        limit = threading.Timer(TIMEOUT, process.kill)
        limit.start()
        # Popen.wait would lose the usage, which tells what a program wrote that has deleted its files.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        limit.cancel()
    if process.returncode:
        lines = (folder / "err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ClientError(f"exit status {process.returncode}: {lines[-1][:150] if lines else 'no message'}")
    return (folder / "out").read_text(encoding="utf-8"), usage.ru_oublock * _BLOCK / 1e6


def middle(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def summary(runs: list[Run | None], ours: list[Run | None]) -> dict[str, dict[str, dict[str, float]]]:
    """Of every measure its values, and their ratios to ours of the same round."""
    found = {}
    for measure, value in MEASURES.items():
        pairs = [(run, own) for run, own in zip(runs, ours, strict=True) if run is not None and own is not None]
        ratios = [value(run) / value(own) for run, own in pairs if value(own)]
        found[measure] = {"values": middle([value(run) for run in runs if run is not None])}
        if ratios:
            found[measure]["times ours"] = middle(ratios)
    return found


def shown(values: dict[str, float] | None, digits: int) -> str:
    """Median and range in a cell of the table."""
    if values is None:
        return "-"
    return f"{values['median']:,.{digits}f} ({values['least']:,.{digits}f}..{values['most']:,.{digits}f})"


def table_of(figures: dict[str, dict[str, dict[str, dict[str, float]]]], runs: dict[str, list[Run | None]]) -> Table:
    """The table for people."""
    table = Table(title="Medians, in brackets the least and the most of all rounds")
    table.add_column("client")
    for heading in ("requests/s", "times ours", "CPU s per 1,000", "times ours", "MB memory", "MB written", "replies"):
        table.add_column(heading, justify="right")
    for name, figure in figures.items():
        table.add_row(
            name,
            shown(figure["rate"]["values"], 0),
            shown(figure["rate"].get("times ours"), 2),
            shown(figure["cpu"]["values"], 2),
            shown(figure["cpu"].get("times ours"), 2),
            f"{figure['memory']['values']['median']:,.0f}",
            f"{figure['written']['values']['median']:,.1f}",
            f"{min(run.rows for run in runs[name] if run):,}",
        )
    return table


def main() -> None:
    """Run all installed clients in turns; print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000, help="of a run (default 5000)")
    parser.add_argument("--concurrency", type=int, default=256, help="requests in flight (default 256)")
    parser.add_argument("--words", type=int, default=600, help="of a reply (default 600, about 4 kB)")
    parser.add_argument(
        "--rate-limit-share", type=float, default=0.0, help="of requests answered by HTTP 429 (default 0)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of every client (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    for client in CLIENTS:
        if client.python and shutil.which(client.python) is None:
            raise SystemExit(f"{client.variable}: there is no program {client.python}. Name the Python that has it.")
    console = Console(width=None if sys.stdout.isatty() else 160)
    present = [client for client in CLIENTS if client.python]
    runs: dict[str, list[Run | None]] = {client.name: [] for client in present}
    for turn in range(options.rounds):
        first = turn % len(present)
        for client in present[first:] + present[:first]:
            try:
                run = run_client(client, options)
                line = f"{run.rate:,.0f} requests/s, {run.cpu:.2f} CPU s per 1,000, {run.memory} MB"
            except ClientError as error:
                run, line = None, f"failed: {error}"
            runs[client.name].append(run)
            console.print(f"round {turn + 1}, {client.name}: {line}", markup=False, highlight=False)
    figures = {name: summary(found, runs[OURS.name]) for name, found in runs.items() if any(found)}
    console.print(table_of(figures, runs))
    for client in CLIENTS:
        known = next((run.version for run in runs.get(client.name, []) if run), "")
        state = client.keeps if client.python else f"not installed (set {client.variable})"
        console.print(f"{client.name} {known}".strip() + f": {state}", markup=False, highlight=False)
    if options.json:
        content = {
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            **{
                key: getattr(options, key) for key in ("requests", "concurrency", "words", "rate_limit_share", "rounds")
            },
            "keeps": {client.name: client.keeps for client in present},
            "figures": figures,
            "runs": {name: [asdict(run) if run else None for run in found] for name, found in runs.items()},
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
