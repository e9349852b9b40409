"""Generation on a Ray cluster: the same corpus as without one, whoever is killed on the way, and a key in no file."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from generation import Collected, Questions, collect, settings
from mock_endpoint import Endpoint, Faults, running
from test_synth_engine import KEY, lines_in, no_file_holds

from primer.errors import PrimerError
from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher, Synth, VllmTeacher
from synth.engine import Asker, Units, asking
from synth.ray_room import Node, gpus_of, lay_out

# Looked for, not imported: Ray reads its environment when it is, and the cluster's token must be there by then.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the extra `ray`)")

# A cluster of the tests' own: in a process of its own, on ports that are free, gone when its standard input closes.
_CLUSTER = """
import logging, sys
from synth.ray_cluster import import_ray
ray = import_ray()
ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=80 * 2**20, logging_level="ERROR",
         log_to_driver=False, _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""

_DRIVER = """
import sys
from pathlib import Path
from mock_endpoint import Endpoint, Faults
from test_synth_ray import collect_on
collect_on(sys.argv[1], Endpoint(Faults(), address=sys.argv[2]), Path(sys.argv[3]), tokens=5000)
"""


@dataclass
class Cluster:
    address: str
    folder: Path

    def workers(self) -> list[int]:
        """Processes of workers."""
        return [pid for pid, line in _processes() if line.startswith("ray::Asker") and self._owns(pid)]

    def _owns(self, pid: int) -> bool:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return any(found == parent and str(self.folder) in line for found, line in _processes())


def _processes() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


@pytest.fixture(scope="module")
def cluster(repository: Path) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("PRIMER_TEST_KEY", "")  # what the cluster starts with; a worker must be handed the key
        patch.delenv("RAY_ADDRESS", raising=False)
        process = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER, folder],
            cwd=repository,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Cluster(process.stdout.readline().strip(), Path(folder))
        finally:
            process.stdin.close()
            process.wait(30)
            process.stdout.close()


def workers_of(address: str, synth: Synth) -> Asker:
    """Two workers of a cluster ask."""
    from synth.ray_pool import open_ray

    return asking(lambda: open_ray(synth, address, 2))


def collect_on(
    address: str, endpoint: Endpoint, journal: Path, units: Units | None = None, **changes: Any
) -> Collected:
    """As `collect`, on a cluster."""
    return collect(endpoint, journal, units, workers_of(address, settings(endpoint, **changes)), **changes)


@contextmanager
def killing_a_worker(cluster: Cluster, journal: Path, records: int) -> Iterator[list[int]]:
    """Kill one of the workers as soon as the journal has so many records."""
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and lines_in(journal) < records:
            time.sleep(0.01)
        victim = cluster.workers()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    thread.join()


@needs_ray
@pytest.mark.timeout(120)
def test_a_killed_worker_costs_nothing_and_the_corpus_is_that_without_ray(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)
    faults = Faults(delay=0.1, key=KEY, refuse="FORBIDDEN", echo_key="ECHO")
    units = Questions({4: "FORBIDDEN", 9: "ECHO", 70: "FORBIDDEN"})
    with running(faults) as endpoint:
        alone = collect(endpoint, tmp_path / "alone", units, tokens=10_000)
        endpoint.asked.clear()
        with killing_a_worker(cluster, tmp_path / "journal", 30) as killed:
            outcome = collect_on(cluster.address, endpoint, tmp_path / "journal", units, tokens=10_000)
    assert len(killed) == 1
    assert outcome.documents == alone.documents
    assert (outcome.units, outcome.failed, outcome.rejected) == (alone.units, alone.failed, alone.rejected)
    assert outcome.units == outcome.accepted + outcome.failed.total() + outcome.rejected.total()
    assert outcome.failed.total() == 3
    # Only what the worker was asked when it died was asked again.
    assert 1 <= sum(count - 1 for count in endpoint.asked.values()) <= 8
    assert no_file_holds(tmp_path, KEY)
    assert no_file_holds(cluster.folder, KEY)
    assert any(path.stat().st_size for path in cluster.folder.rglob("python-core-worker*.log")), "no logs: nothing seen"
    shown = capfd.readouterr()
    assert "2 of 2 Ray workers ready" in shown.err
    assert "raylet" not in shown.out + shown.err
    assert gone(cluster)


@needs_ray
@pytest.mark.timeout(120)
def test_a_killed_driver_loses_nothing_and_leaves_no_worker(
    cluster: Cluster, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)
    journal = tmp_path / "journal"
    with running(Faults(delay=0.1, key=KEY)) as endpoint:
        command = [sys.executable, "-c", _DRIVER, cluster.address, endpoint.address, str(journal)]
        environment = os.environ | {"PYTHONPATH": f"{repository}:{repository / 'tests'}"}
        process = subprocess.Popen(command, cwd=repository, env=environment)
        while process.poll() is None and lines_in(journal) < 30:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert gone(cluster)
        outcome = collect_on(cluster.address, endpoint, journal, tokens=5000)
        assert outcome.reused >= 10
        assert sum(count - 1 for count in endpoint.asked.values()) <= 8  # in flight at the kill
        assert outcome.documents == collect(endpoint, tmp_path / "alone", tokens=5000).documents


@needs_ray
def test_a_lost_worker_is_replaced_and_has_the_key_again(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from synth.ray_pool import open_ray

    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)

    async def ask_twice() -> tuple[list[int], list[int]]:
        synth = settings(endpoint)
        async with open_ray(synth, cluster.address, 1) as pool:
            await pool.complete([{"role": "user", "content": "Before"}], synth.sampling, 1)
            before = cluster.workers()
            os.kill(before[0], signal.SIGKILL)
            await pool.complete([{"role": "user", "content": "After"}], synth.sampling, 1)
            return before, cluster.workers()

    with running(Faults(key=KEY)) as endpoint:
        before, after = asyncio.run(ask_twice())
    assert len(before) == len(after) == 1
    assert before != after
    assert endpoint.requests == 2
    assert gone(cluster)


@needs_ray
def test_what_stops_a_run_is_explained_as_without_ray(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PRIMER_TEST_KEY", KEY)
    with running(Faults(key="another")) as endpoint, pytest.raises(PrimerError, match="refused the key") as refused:
        collect_on(cluster.address, endpoint, tmp_path / "journal")
    assert "PRIMER_TEST_KEY" in refused.value.remedy
    assert KEY not in str(refused.value)
    embedded = workers_of(cluster.address, Synth(teacher=EmbeddedTeacher(model="nowhere.gguf")))
    with pytest.raises(PrimerError, match=r"worker \d: .*no such file"):
        collect(endpoint, tmp_path / "embedded", ask=embedded)
    assert gone(cluster)


@needs_ray
def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path):
    nowhere = Endpoint(Faults(), address="http://127.0.0.1:9/v1")
    started = time.monotonic()
    with pytest.raises(PrimerError, match=r"127\.0\.0\.1:9 cannot be reached"):
        collect_on("127.0.0.1:9", nowhere, tmp_path / "journal")
    with pytest.raises(PrimerError, match="no address of a Ray cluster"):
        collect_on("ray://somewhere:10001", nowhere, tmp_path / "journal")
    assert time.monotonic() - started < 10


def test_what_cannot_be_is_said_before_any_work_begins(monkeypatch: pytest.MonkeyPatch):
    from synth import ray_cluster
    from synth.ray_pool import on_ray

    in_batches = EndpointTeacher(kind="openai", model="mock", batch=True)
    with pytest.raises(PrimerError, match="answers in batches"):
        on_ray(Synth(teacher=in_batches), "auto", None)
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _name: None)
    with pytest.raises(PrimerError, match="needs the Python package ray") as error:
        on_ray(Synth(), "auto", None)
    assert "primer-lab[ray]" in error.value.remedy


def gone(cluster: Cluster) -> bool:
    """Whether no worker is left, after a moment."""
    until = time.monotonic() + 20
    while cluster.workers():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_a_vllm_server_takes_the_gpus_of_its_arguments_on_one_node():
    teacher = VllmTeacher(kind="vllm", model="a/b", arguments=["--tensor-parallel-size=2", "-pp", "2"])
    assert gpus_of(teacher) == 4
    assert gpus_of(VllmTeacher(kind="vllm", model="a/b", arguments=["--tensor_parallel_size", "8"])) == 8
    nodes = [Node(16, 8), Node(16, 7), Node(16, 3), Node(0, 8)]
    layout = lay_out(teacher, nodes, None)
    assert (layout.workers, layout.gpus) == (3, 4)
    assert lay_out(teacher, nodes, 2).workers == 2
    with pytest.raises(PrimerError, match="room for 3 of 4 workers, each of which needs 4 GPUs"):
        lay_out(teacher, nodes, 4)
    with pytest.raises(PrimerError, match="room for 0 of 1 workers"):
        lay_out(teacher, [Node(16, 0)], None)


def test_embedded_workers_share_the_cores_and_clients_need_none():
    def shared(nodes: list[Node], workers: int | None = None, threads: int | None = None) -> tuple[int, int]:
        layout = lay_out(EmbeddedTeacher(threads=threads), nodes, workers)
        assert isinstance(layout.teacher, EmbeddedTeacher)
        assert layout.teacher.threads == layout.cpus
        return layout.workers, layout.cpus

    assert shared([Node(8, 0), Node(8, 0)]) == (2, 8)
    assert shared([Node(2, 0), Node(64, 0)]) == (2, 32)
    assert shared([Node(8, 0), Node(8, 0)], workers=4) == (4, 4)
    assert shared([Node(8, 0), Node(7, 0)], threads=4) == (3, 4)
    with pytest.raises(PrimerError, match="room for 2 of 3 workers, each of which needs 1 CPU on"):
        shared([Node(2, 0)], workers=3)
    client = EndpointTeacher(kind="openai", model="mock")
    assert lay_out(client, [Node(0, 0), Node(0, 0)], None).workers == 2
    assert lay_out(client, [Node(0, 0)], 5).workers == 5
