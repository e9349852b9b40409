"""Where the tasks of a pipeline run: on this machine, on Slurm, or on a Ray cluster, by datatrove's executors.

A task that is complete is not run again, wherever it ran. The caller's process waits for all of them.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from loguru import logger

from primer.environment import usable_cores
from primer.errors import PrimerError
from primer.fingerprint import fingerprint
from primer.progress import bar, say

# What of Slurm's options datatrove takes by name, with the type of each; all others go to sbatch as they are.
_SLURM_NUMBERS = ("cpus_per_task", "mem_per_cpu_gb", "gpus_per_task", "workers", "max_array_size", "tasks_per_job")
_SLURM_WORDS = ("partition", "time", "qos")

_POLL = 5.0  # seconds

# A job that has left the queue may have written its last file a little earlier than this machine sees it.
_GRACE = 60.0

Pipeline = Sequence[Any]
Execute = Callable[[Pipeline, int, Path], None]
"""Runs a pipeline's tasks, so many, with a folder for logs, marks and notes."""


def run_tasks(execute: Execute, pipeline: Pipeline, tasks: int, folder: Path, title: str, characters: int) -> None:
    """Run the tasks of a pipeline whose last step is `synth.refine_steps.WriteDocuments`, and show how far they are.

    Args:
        execute: Where.
        pipeline: Its steps.
        tasks: How many tasks.
        folder: For logs, marks of what is complete, and what tasks say (`notes`).
        title: What is going on.
        characters: About how many will be written.

    Raises:
        PrimerError: If a task failed; what it raised, if that was meant for people.
    """
    (folder / "notes").mkdir(parents=True, exist_ok=True)
    for note in (folder / "notes").glob("failure-*.json"):  # of an earlier run
        note.unlink()
    with _watched(folder / "notes", title, characters):
        try:
            execute(pipeline, tasks, folder)
        except PrimerError:
            raise
        except BrokenProcessPool:
            raise PrimerError(
                f"{title}: the system ended one of the processes that filter; most often there is too little memory.",
                "Take fewer of them (corpus.workers, or --workers). The same command goes on with what is missing.",
            ) from None
        except Exception:
            _raise_note(folder)
            raise
    missing = [task for task in range(tasks) if not (folder / "completions" / f"{task:05d}").is_file()]
    if missing:
        _raise_note(folder)
        raise PrimerError(
            f"{title}: {len(missing):,} of {tasks:,} tasks did not finish (the first is {missing[0]}).",
            f"See {folder}/logs/task_{missing[0]:05d}.log; the same command runs what is missing.",
        )


def locally(workers: int | None) -> Execute:
    """On this machine, in so many processes (one a core, if None)."""

    def execute(pipeline: Pipeline, tasks: int, folder: Path) -> None:
        _LocalExecutor(
            pipeline=list(pipeline),
            tasks=tasks,
            workers=min(tasks, workers or usable_cores()),
            logging_dir=str(folder),
        ).run()

    return execute


class _LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor without its messages, over a pool that notices when the system kills a process of it.

    multiprocessing's would wait for ever for what that one was to bring.
    """

    def run(self) -> None:
        logger.disable("datatrove")
        missing = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in missing:
                copy.deepcopy(self)._run_for_rank(rank)  # its steps count for one task
            return
        with _processes(self.workers) as pool:
            for ended in as_completed([pool.submit(self._run_for_rank, rank, 1) for rank in missing]):
                ended.result()


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, which end at once when the work is given up."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"), _begin)
    try:
        yield pool
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


def _begin() -> None:
    """How a process of the pool begins: quiet, without an ear for Ctrl-C, and ended with whoever started it."""
    logger.disable("datatrove")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Linux could tell of the death of the parent alone, which is the server that forks, and it outlives whoever began.
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    """End this process with another one: two must never write the same files."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def on_slurm(options: Mapping[str, str]) -> Execute:
    """As an array of jobs on Slurm; this process waits for them, and may be stopped and started again meanwhile.

    Args:
        options: `partition` and `time`; `cpus_per_task`, `mem_per_cpu_gb`, `gpus_per_task`, `workers` (jobs at once),
            `qos`, `max_array_size`, `tasks_per_job`; anything else goes to sbatch (`account`).

    Raises:
        PrimerError: If an option is missing or no number, or there is no `sbatch` here.
    """
    known: dict[str, Any] = {"qos": ""} | {key: options[key] for key in _SLURM_WORDS if key in options}
    for key in ("partition", "time"):
        if key not in known:
            raise PrimerError(
                f"--slurm names no {key}.", "For example: --slurm partition=cpu --slurm time=12:00:00 (per job)."
            )
    for key in _SLURM_NUMBERS:
        if key in options:
            if not options[key].isdecimal():
                raise PrimerError(f"--slurm {key}={options[key]}: expected a number.", f"Write {key}=4, for example.")
            known[key] = int(options[key])
    others = {key: value for key, value in options.items() if key not in (*_SLURM_WORDS, *_SLURM_NUMBERS)}
    if shutil.which("sbatch") is None:
        raise PrimerError("There is no `sbatch` here.", "Run this on a machine that submits to Slurm.")
    return partial(_submit_and_wait, known, others)


def _submit_and_wait(
    known: Mapping[str, Any], others: Mapping[str, str], pipeline: Pipeline, tasks: int, folder: Path
) -> None:
    # Of the stage and its fingerprint, and of the place: another run may have the same settings.
    name = f"primer-{folder.stem}-{fingerprint(str(folder))[:8]}"
    executor = _Jobs(
        pipeline=list(pipeline),
        tasks=tasks,
        logging_dir=str(folder.resolve()),
        job_name=name,
        venv_path=str(Path(sys.prefix) / "bin" / "activate"),
        sbatch_args=dict(others),
        **known,
    )
    logger.disable("datatrove")
    if _in_queue(name):
        say(f"  jobs named {name} are in Slurm's queue already: waiting for them")
    else:
        try:
            executor.run()
        except (subprocess.CalledProcessError, OSError) as error:
            raise PrimerError(f"sbatch refused the jobs: {error}", "Check the --slurm options.") from None
        say(f"  submitted {tasks:,} tasks to Slurm as {name}; stopping this command stops none of them")
    left = time.monotonic()
    while executor.get_incomplete_ranks():
        if _in_queue(name):
            left = time.monotonic()
        elif time.monotonic() - left > _GRACE or any((folder / "notes").glob("failure-*.json")):
            return  # the caller tells what is missing
        time.sleep(_POLL)


class _Jobs(SlurmPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor without its job that adds up statistics, which stays queued for ever after a failure."""

    def launch_merge_stats(self) -> None:
        pass


def _in_queue(name: str) -> bool:
    asked = ["squeue", "--noheader", "--me", "--name", name]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        why = getattr(error, "stderr", "") or str(error)
        raise PrimerError(f"squeue failed: {why.strip()}", "Is Slurm's controller running?") from None
    return bool(found.stdout.strip())


def on_ray(address: str, workers: int | None) -> Execute:
    """On the nodes of a Ray cluster.

    Args:
        address: `auto`, `HOST:PORT`, or `local` for a Ray on this machine.
        workers: Tasks at once; None: as many as the cluster has cores.

    Raises:
        PrimerError: If Ray is not installed, or the cluster cannot be reached.
    """

    def execute(pipeline: Pipeline, tasks: int, folder: Path) -> None:
        from datatrove.executor.ray import RayPipelineExecutor

        from synth.ray_cluster import connected

        logger.disable("datatrove")
        with connected(address):
            RayPipelineExecutor(
                pipeline=list(pipeline), tasks=tasks, workers=workers or -1, logging_dir=str(folder.resolve())
            ).run()

    return execute


def _raise_note(folder: Path) -> None:
    """Raise what a task said of its failure, if one did."""
    for path in sorted((folder / "notes").glob("failure-*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        raise PrimerError(said["problem"], said["remedy"]) from None


@contextmanager
def _watched(notes: Path, title: str, characters: int) -> Iterator[None]:
    """Show how far the tasks are, by what they write."""
    ended = threading.Event()

    def watch() -> None:
        started = time.monotonic()
        first = _written(notes)[1]
        while not ended.wait(1.0):
            written, documents = _written(notes)
            pace = (documents - first) / (time.monotonic() - started)
            shown.update(written, f"{documents:,} documents, {pace:,.0f} documents/s")

    with bar(title, characters, "characters") as shown:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def _written(notes: Path) -> tuple[int, int]:
    """Characters and documents that the tasks have written."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in notes.glob("progress-*.json")]
    return sum(one[0] for one in found), sum(one[1] for one in found)
