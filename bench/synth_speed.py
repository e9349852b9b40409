"""The generation engine against a mock endpoint: requests per second, with the journal on.

    python bench/synth_speed.py --requests 5000 --concurrency 256

The endpoint (tests/mock_endpoint.py) answers at once from another process, so what is measured is the client: HTTP,
journal, acceptance rules, in one Python process.
"""

from __future__ import annotations

import argparse
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from primer.recipe_corpora import Duplicates
from primer.recipe_synth import EndpointTeacher, Synth
from synth.accept import Judge
from synth.engine import asking, generate
from synth.plan import make_plan, open_journal
from synth.teachers import open_teacher
from synth.view import View

MOCK = Path(__file__).parent.parent / "tests" / "mock_endpoint.py"


@dataclass(frozen=True)
class Unit:
    """A unit of one prompt, as the engine sees it."""

    text: str
    seed: int
    kept: tuple[bool, ...] = (True,)
    snippet: None = None
    language: str = "english"

    def messages(self, _replies: Sequence[str] = ()) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.text}]


class Units:
    """An endless stream of different prompts of about a kilobyte."""

    def __getitem__(self, index: int) -> Unit:
        return Unit(f"Question {index} " + "word " * 150, index)


def start_endpoint(words: int, rate_limit_share: float = 0.0) -> tuple[subprocess.Popen[bytes], str]:
    """The mock endpoint on a free loopback port, ready to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            str(MOCK),
            "--port",
            str(port),
            "--words",
            str(words),
            "--rate-limit-share",
            str(rate_limit_share),
        ]
    )
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
            return server, f"http://127.0.0.1:{port}/v1"
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    server.kill()
    raise SystemExit("The mock endpoint did not start.")


def main() -> None:
    """Generate until about so many requests have been answered, and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000, help="how many, about (default 5000)")
    parser.add_argument("--concurrency", type=int, default=256, help="requests in flight (default 256)")
    parser.add_argument("--rate-limit-share", type=float, default=0.0, help="share of requests that get 429")
    parser.add_argument("--words", type=int, default=600, help="length of a reply (default 600, about 4 kB)")
    arguments = parser.parse_args()
    server, address = start_endpoint(arguments.words, arguments.rate_limit_share)
    try:
        synth = Synth(
            teacher=EndpointTeacher(kind="openai", base_url=address, model="mock"),
            tokens=None,
            documents=arguments.requests,
            concurrency=arguments.concurrency,
        )
        with tempfile.TemporaryDirectory() as folder:
            wall, cpu = time.monotonic(), time.process_time()
            with open_journal(Path(folder) / "replies.jsonl", synth) as journal:
                outcome = generate(
                    Units(),
                    make_plan(synth),
                    Judge(synth.accept, Duplicates()),
                    journal,
                    asking(lambda: open_teacher(synth)),
                    lambda _attempt: None,
                    View(None),
                )
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"{outcome.units:,} requests, {outcome.units / wall:.0f} a second, {outcome.units / cpu:.0f} per CPU "
            f"second of the client, {memory} MB at most"
        )
    finally:
        server.kill()


if __name__ == "__main__":
    main()
