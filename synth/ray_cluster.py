"""The way to a Ray cluster, and what is free there."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from primer.errors import PrimerError, require
from synth.ray_room import Node

AUTO, LOCAL = "auto", "local"

_INSTALL = "pip install 'primer-lab[ray]' (or: .venv/bin/uv pip install ray)"
_PURPOSE = "Generation on a Ray cluster (--ray)"
_CONNECT_SECONDS = 10.0

# Read by Ray when it is imported. No usage statistics, no events on the terminal; and where a worker has no GPU,
# CUDA_VISIBLE_DEVICES stays as it is, which is to be Ray's default anyway and about which it would warn.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# A Ray on this machine passes messages alone: the smallest store for objects that Ray accepts is enough (75 MiB).
_OBJECT_STORE = 80 * 2**20

# Ray's sockets lie below its folder, and the name of a socket holds 107 characters: TMPDIR may be too long for it.
_TEMPORARY = "/tmp"  # noqa: S108 - a new folder of this user's own is made there


def check_installed() -> None:
    """See whether Ray is there, without importing it.

    Raises:
        PrimerError: If it is not.
    """
    if find_spec("ray") is None:
        raise PrimerError(
            f"{_PURPOSE} needs the Python package ray, which is not installed.", f"Install it: {_INSTALL}"
        )


def import_ray() -> Any:
    """Ray, told to be quiet.

    Raises:
        PrimerError: If it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray = require("ray", install=_INSTALL, purpose=_PURPOSE)
    # Ray prints what happens to workers on the standard output, whatever it is told about logs; the pool shows it.
    ray._private.worker.print_to_stdstream = lambda *_arguments, **_options: None
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Be a driver of a cluster.

    Args:
        address: `auto`, `local`, or host and port.

    Yields:
        The module `ray`.

    Raises:
        PrimerError: If Ray is not installed, or the cluster cannot be reached or is of another version.
    """
    if address == LOCAL and "RAY_AUTH_MODE" not in os.environ:
        # Ray would keep a token for all times in the home folder, and say so; this one is for this run alone. Ray reads
        # it when it is imported.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ray = import_ray()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=_TEMPORARY)) if address == LOCAL else None
    try:
        with _own_signals():
            _start(ray, folder) if folder else _join(ray, address)
        yield ray
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def free_nodes(ray: Any) -> list[Node]:
    """What is free on each node of the cluster."""
    free = ray._private.state.available_resources_per_node()
    alive = [node for node in ray.nodes() if node["Alive"]]
    resources = [free.get(node["NodeID"], node["Resources"]) for node in alive]
    return [Node(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in resources]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what a SIGTERM does here: Ray puts an end of its own in its place."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


def _start(ray: Any, folder: Path) -> None:
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE,
            _temp_dir=str(folder),
        )
    except Exception as error:
        raise PrimerError(
            f"Ray did not start on this machine: {_words(error)}",
            "Mend what it names, or start it with `ray start --head` and use --ray auto.",
        ) from None


def _join(ray: Any, address: str) -> None:
    where = os.environ.get("RAY_ADDRESS") or address if address == AUTO else address
    if where != AUTO:
        _knock(where)
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise PrimerError(
            f"There is no Ray cluster at {where!r}: {_words(error)}",
            "Run the command on a node of a cluster (`ray start` makes this machine one), give --ray HOST:PORT, or "
            "--ray local for a Ray on this machine alone. A cluster that wants a token needs it here too "
            "(RAY_AUTH_TOKEN, or ~/.ray/auth_token).",
        ) from None
    except Exception as error:
        if "ersion mismatch" in str(error):
            raise PrimerError(
                f"The Ray cluster at {where!r} has other versions than this Python ({sys.version.split()[0]}, Ray "
                f"{ray.__version__}): {_words(error)}",
                "Install the same Python and the same Ray here and on every node.",
            ) from None
        raise PrimerError(
            f"The Ray cluster at {where!r} cannot be used from here: {_words(error)}",
            "The command must run on a node of the cluster; `ray status` says whether this machine is one.",
        ) from None


def _knock(address: str) -> None:
    """See whether somebody listens: Ray itself would try for two minutes.

    Raises:
        PrimerError: If nobody does, or the address is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise PrimerError(
            f"{address!r} is no address of a Ray cluster.",
            f"Give {AUTO}, {LOCAL}, or host and port as `ray start --head` prints them (10.0.0.1:6379). Primer joins a "
            "cluster as one of its nodes, not through Ray Client (ray://).",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PrimerError(
            f"The Ray cluster at {address} cannot be reached: {error}",
            "Check the address (`ray start --head` prints it), and that the cluster runs (`ray status`).",
        ) from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
