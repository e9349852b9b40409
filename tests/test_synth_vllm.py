"""vLLM teachers: the server's life and death, `primer teacher`, and the real vLLM where there is one."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import METRICS
from mock_endpoint import running

from primer.errors import PrimerError
from primer.recipe_synth import EndpointTeacher, Sampling, Synth, VllmTeacher
from synth.ask import ask_teacher
from synth.backend import RequestError
from synth.journal import Reply
from synth.presets import load_presets
from synth.vllm_engine import open_vllm_engine
from synth.vllm_metrics import parse_load, read_load
from synth.vllm_server import find_vllm, run_vllm, serve_vllm

QUESTION = [{"role": "user", "content": "Name a colour and say where one sees it."}]


def vllm_teacher(model: str = "some/model", *arguments: str, **fields: Any) -> VllmTeacher:
    return VllmTeacher(kind="vllm", model=model, arguments=list(arguments), **{"startup_seconds": 30, **fields})


def test_the_load_is_read_from_vllms_metrics():
    load = parse_load(METRICS.format(answered=5))
    assert load is not None
    assert (load.running, load.waiting, load.answered) == (7, 2, 5)
    assert (load.prompt_tokens, load.generated_tokens, load.cache_used) == (900, 1200, 0.25)
    assert parse_load("# HELP up\nup 1\nnonsense\n") is None


class Fake:
    """A virtual environment whose `vllm` is tests/fake_vllm.py."""

    def __init__(self, folder: Path) -> None:
        self.environment, self._call, self._worker = folder / "venv", folder / "call", folder / "worker"
        program = self.environment / "bin" / "vllm"
        program.parent.mkdir(parents=True)
        fake = Path(__file__).with_name("fake_vllm.py")
        variables = f"FAKE_VLLM_CALL='{self._call}' FAKE_VLLM_WORKER='{self._worker}'"
        program.write_text(f"#!/bin/sh\n{variables} exec '{sys.executable}' '{fake}' \"$@\"\n", encoding="utf-8")
        program.chmod(0o755)

    @property
    def call(self) -> list[str]:
        arguments: list[str] = json.loads(self._call.read_text(encoding="utf-8"))
        return arguments

    @property
    def worker(self) -> int | None:
        text = self._worker.read_text(encoding="utf-8") if self._worker.exists() else ""
        return int(text) if text else None

    def teacher(self, *arguments: str, **fields: Any) -> VllmTeacher:
        return vllm_teacher("some/model", *arguments, environment=str(self.environment), **fields)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] if Path("/proc").exists() else True


def started(teacher: VllmTeacher) -> str:
    async def start() -> str:
        async with serve_vllm(teacher) as address:
            return address

    return asyncio.run(start())


def test_vllm_is_started_asked_and_stopped_with_its_workers(fake: Fake):
    synth = Synth(teacher=fake.teacher("--max-model-len", "2048"))
    [reply] = ask_teacher(synth, Sampling(), [QUESTION], 1)
    assert isinstance(reply, Reply)
    assert reply.text
    assert fake.call[:2] == ["serve", "some/model"]
    assert fake.call[fake.call.index("--served-model-name") + 1] == "some/model"
    assert fake.call[-2:] == ["--max-model-len", "2048"]
    assert not alive(fake.worker)


def test_vllm_that_dies_shows_the_cause_and_its_last_lines(fake: Fake):
    with pytest.raises(PrimerError, match=r"exit status 3") as error:
        started(fake.teacher("--die"))
    assert "It says: torch.OutOfMemoryError: CUDA out of memory: tried [much]" in error.value.problem
    assert "frame 39" in error.value.problem
    assert "root cause" not in error.value.problem


def test_vllm_that_does_not_answer_is_stopped(fake: Fake):
    teacher = fake.teacher("--stall").model_copy(update={"startup_seconds": 2})
    with pytest.raises(PrimerError, match=r"did not answer within 2 s.*\n.*Loading weights"):
        started(teacher)


def test_vllm_is_found_in_the_environment_then_beside_primer(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(PrimerError, match="no `vllm` program") as error:
        find_vllm(None)
    assert "make vllm" in error.value.remedy
    with pytest.raises(PrimerError, match=r"no program elsewhere/bin/vllm"):
        find_vllm("elsewhere")
    program = fake.environment / "bin" / "vllm"
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_vllm(None) == program
    other = tmp_path / ".venv-vllm" / "bin" / "vllm"
    other.parent.mkdir(parents=True)
    other.symlink_to(program)
    assert find_vllm(None) == other
    assert find_vllm(str(fake.environment)) == program


def test_a_port_that_is_taken_is_not_mistaken_for_the_new_server(fake: Fake):
    async def start(port: int) -> None:
        async with run_vllm(fake.teacher(), "127.0.0.1", port):
            pass

    with running() as mock, pytest.raises(PrimerError, match="Nothing can listen on"):
        asyncio.run(start(int(mock.address.rsplit(":", 1)[1].removesuffix("/v1"))))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_vllm_does_not_outlive_primer(fake: Fake, number: int):
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent was killed")
    script = (
        "import asyncio, json, signal, sys\n"
        "from primer.recipe_synth import VllmTeacher\n"
        "from synth.vllm_server import serve_vllm\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored, if the tests run behind a shell's `&`
        "async def main():\n"
        "    async with serve_vllm(VllmTeacher(**json.loads(sys.argv[1]))): await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, fake.teacher().model_dump_json()], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while fake.worker is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    assert alive(fake.worker)
    process.send_signal(number)
    process.wait(20)
    server = server_of(fake.worker) if number == signal.SIGKILL else None
    while server is not None and alive(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server is None or not alive(server)
    if number == signal.SIGINT:
        assert not alive(fake.worker)
    else:
        os.kill(fake.worker or 0, signal.SIGKILL)  # the fake does not stop its worker as vLLM does


def server_of(worker: int | None) -> int | None:
    """The worker's parent, if it still is the server."""
    parent = int(Path(f"/proc/{worker}/stat").read_text().split()[3])
    return parent if parent > 1 and b"vllm" in Path(f"/proc/{parent}/cmdline").read_bytes() else None


class ServeCommand:
    """`primer teacher serve` as a person starts it, its output read line by line."""

    def __init__(self, teacher: VllmTeacher) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [sys.executable, "-m", "primer.cli", "teacher", "serve", "--model", teacher.model]
        command += ["--port", str(self.port), "--environment", teacher.environment or "", "--", *teacher.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        over = False
        while not over and time.monotonic() < deadline:
            over = not self._reader.is_alive()  # looked up first: what came before the end counts
            if found := [line for line in self.lines if text in line]:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"no {text!r} in:\n{''.join(self.lines)}")

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join(10)
        return status

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)


@pytest.fixture
def serve() -> Iterator[Any]:
    commands: list[ServeCommand] = []

    def start(teacher: VllmTeacher) -> ServeCommand:
        commands.append(ServeCommand(teacher))
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            command.stop(signal.SIGTERM)


def ask_eight(port: int, model: str, sampling: Sampling) -> list[Reply]:
    teacher = EndpointTeacher(kind="openai", base_url=f"http://127.0.0.1:{port}/v1", model=model)
    questions = [[{"role": "user", "content": f"Explain {thing} to a child."}] for thing in THINGS]
    replies = ask_teacher(Synth(teacher=teacher, concurrency=8), sampling, questions, 1)
    assert not [reply for reply in replies if isinstance(reply, RequestError)]
    return [reply for reply in replies if isinstance(reply, Reply)]


THINGS = ("rain", "bread", "the moon", "a magnet", "winter", "a bridge", "money", "sleep")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_primer_teacher_serve_runs_until_it_is_stopped(fake: Fake, serve: Any, number: int):
    command = serve(fake.teacher("--dtype", "float32"))
    command.wait_for("Ctrl-C stops it", 60)
    assert f"    base_url: http://127.0.0.1:{command.port}/v1\n" in command.lines
    assert fake.call[-2:] == ["--dtype", "float32"]
    assert len(ask_eight(command.port, "some/model", Sampling())) == 8
    assert command.stop(number) == 0, "".join(command.lines)
    assert "nothing of it is left running" in command.lines[-1]
    assert not alive(fake.worker)


def test_primer_teacher_serve_ends_with_its_server(fake: Fake, serve: Any):
    command = serve(fake.teacher())
    command.wait_for("Ctrl-C stops it", 60)
    server = server_of(fake.worker)
    os.kill(server or 0, signal.SIGKILL)
    assert command.process.wait(20) == 1
    command.wait_for("stopped by itself with exit status -9", 5)
    assert not alive(fake.worker)


def test_primer_teacher_ask_prints_the_answer_and_how_it_came(tmp_path: Path, repository: Path):
    recipe = tmp_path / "recipe.yaml"
    with running() as mock:
        teacher = f"{{kind: openai, base_url: '{mock.address}', model: mock, system_prompt: merge}}"
        extends = repository / "recipes" / "demo.yaml"
        recipe.write_text(f"extends: {extends}\nname: asked\nsynth:\n  teacher: {teacher}\n", encoding="utf-8")
        command = [sys.executable, "-m", "primer.cli", "teacher", "ask", str(recipe), "Why?", "--system", "Be brief."]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert mock.bodies[0]["messages"] == [{"role": "user", "content": "Be brief.\n\nWhy?"}]
    assert len(done.stdout.split()) >= 80
    assert "finish reason stop (it ended by itself); 3 tokens asked" in done.stderr
    assert "tokens/s" in done.stderr


def test_primer_teacher_presets_shows_them_all():
    command = [sys.executable, "-m", "primer.cli", "teacher", "presets"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    for name, preset in load_presets().items():
        assert name in shown
        assert preset.model in shown


def test_a_missing_engine_names_what_installs_it():
    async def opened() -> None:
        async with open_vllm_engine(vllm_teacher(mode="in_process")):
            pass

    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed beside Primer: its engine is not missing")
    with pytest.raises(PrimerError, match=r"in_process\) needs the Python package") as error:
        asyncio.run(opened())
    assert ".venv-vllm" in error.value.remedy


# Small and quick to start on a CPU; a GPU takes them as well.
REAL_ARGUMENTS = (
    "--enforce-eager",
    "--max-model-len",
    "1024",
    "--gpu-memory-utilization",
    "0.3",
    "--dtype",
    "bfloat16",
)
REAL_START_SECONDS = 400
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=32)


@pytest.fixture
def real() -> VllmTeacher:
    """The real vLLM: its environment in $PRIMER_VLLM_ENV, a small instruct model's folder in $PRIMER_VLLM_MODEL."""
    environment, model = os.environ.get("PRIMER_VLLM_ENV"), os.environ.get("PRIMER_VLLM_MODEL")
    if not environment or not model:
        pytest.skip("PRIMER_VLLM_ENV (an environment with vLLM) and PRIMER_VLLM_MODEL (a model's folder) are not set")
    return vllm_teacher(model, *REAL_ARGUMENTS, environment=environment)


def session_of(parent: int) -> list[int]:
    """The processes of the server that a process started: they are a session of their own."""
    sessions = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        sessions[int(path.parent.name)] = (fields[0], int(fields[1]), int(fields[3]))
    leaders = {pid for pid, (_, above, session) in sessions.items() if above == parent and session == pid}
    return [pid for pid, (state, _, session) in sessions.items() if session in leaders and state != "Z"]


IN_PROCESS = """
import asyncio, json, sys
from dataclasses import asdict
from primer.recipe_synth import Sampling, VllmTeacher
from synth.backend import RequestError
from synth.vllm_engine import open_vllm_engine

async def main(teacher, sampling, questions):
    async with open_vllm_engine(VllmTeacher(**teacher)) as backend:
        await backend.check()
        sampling = Sampling(**sampling)
        together = await asyncio.gather(*(backend.complete(q, sampling, i + 1) for i, q in enumerate(questions)))
        greedy = await backend.complete(questions[0], sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0}), 1)
        try:
            await backend.complete([{"role": "user", "content": "rain " * 5000}], sampling, 1)
        except RequestError as error:
            refused = [error.trouble, error.failure.permanent, error.failure.reason]
    print(json.dumps({"replies": [asdict(reply) for reply in together], "greedy": asdict(greedy), "refused": refused}))

if __name__ == "__main__":  # the engine's process begins with this file, too
    asyncio.run(main(*json.loads(sys.argv[1])))
"""


@pytest.mark.timeout(900)
def test_the_real_vllm_answers_as_a_server_and_in_process(real: VllmTeacher, serve: Any, tmp_path: Path):
    command = serve(real)
    ready = command.wait_for("vLLM answers after", REAL_START_SECONDS).partition(".")[0]
    before = time.monotonic()
    replies = ask_eight(command.port, real.model, Sampling(max_tokens=64))
    seconds = time.monotonic() - before
    greedy = ask_eight(command.port, real.model, GREEDY)[0]
    load = read_load(f"http://127.0.0.1:{command.port}")
    assert load is not None
    assert (load.answered, load.running, load.waiting) == (16, 0, 0)
    assert load.generated_tokens >= sum(reply.completion_tokens or 0 for reply in replies)
    processes = session_of(command.process.pid)
    assert len(processes) >= 2  # the API's and the engine's
    assert command.stop(signal.SIGINT) == 0, "".join(command.lines)
    assert not [pid for pid in processes if alive(pid)]
    tokens = sum(reply.completion_tokens or 0 for reply in replies)
    print(f"\n{ready}. Server: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s")

    script = tmp_path / "in_process.py"
    script.write_text(IN_PROCESS, encoding="utf-8")
    questions = [[{"role": "user", "content": f"Explain {thing} to a child."}] for thing in THINGS]
    given = [real.model_dump() | {"mode": "in_process"}, {"max_tokens": 64}, questions]
    python = Path(real.environment or "") / "bin" / "python"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [python, script, json.dumps(given)], env=environment, capture_output=True, text=True, timeout=REAL_START_SECONDS
    )
    assert done.returncode == 0, done.stderr[-4000:]
    engine = json.loads(done.stdout.splitlines()[-1])
    assert [reply["prompt_tokens"] for reply in engine["replies"]] == [reply.prompt_tokens for reply in replies]
    assert all(0 < reply["completion_tokens"] <= 64 for reply in engine["replies"])
    assert len({reply["text"] for reply in engine["replies"]}) == 8
    assert {reply["finish_reason"] for reply in engine["replies"]} <= {"stop", "length"}
    assert re.match(r"\w+", greedy.text)
    assert engine["greedy"]["text"].startswith(greedy.text[:40])  # the same model, template and settings
    assert engine["refused"][:2] == ["request", True]
    slowest = max(reply["seconds"] for reply in engine["replies"])
    tokens = sum(reply["completion_tokens"] for reply in engine["replies"])
    print(f"In process: {tokens} tokens in {slowest:.1f} s, {tokens / slowest:.0f} tokens/s. {engine['refused'][2]}")
