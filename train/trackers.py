"""Trackers: curves beside `training.jsonl`, for TensorBoard and for Weights & Biases.

A tracker only looks on. One that fails says so in a line and is off; the training goes on.
"""

from __future__ import annotations

import html
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.markup import escape

from primer.errors import PrimerError, require
from primer.progress import say

# Sections of a recipe that hold no address, no path of this machine and no name of a key.
_SECTIONS = ("name", "seed", "tokenizer", "model", "train", "variants")

_WANDB_PROJECT = "primer"
_WANDB_ID = "wandb-id.txt"
_WANDB_PATIENCE = 60.0  # seconds that an upload may keep the end of a training waiting


class _Tracker(Protocol):
    title: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def text(self, step: int, name: str, text: str) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """The trackers of one training, open after `step` steps; what was written of later ones is dropped.

    Args:
        folder: The model's folder.
        names: `tensorboard`, `wandb`, both or none.
        title: What the training is called.
        settings: The recipe; of its sections those that describe the model and its training are recorded.
        step: Steps done.

    Raises:
        PrimerError: If a tracker is not installed.
    """

    def __init__(self, folder: Path, names: Sequence[str], title: str, settings: dict[str, Any], step: int) -> None:
        self._trackers: list[_Tracker] = []
        check_trackers(names)
        shown = {key: settings[key] for key in _SECTIONS if key in settings}
        makers: dict[str, Callable[[], _Tracker]] = {
            "tensorboard": lambda: _TensorBoard(folder / "tensorboard", shown, step),
            "wandb": lambda: _WeightsAndBiases(folder, title, shown),
        }
        for name in names:
            try:
                self._trackers.append(makers[name]())
            except Exception as error:  # networks, disks, and what libraries make of them
                _off(name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record values after a step; finite ones."""
        self._each(lambda tracker: tracker.scalars(step, values))

    def text(self, step: int, name: str, text: str) -> None:
        """Record a text after a step, shown as it is, not as Markdown."""
        self._each(lambda tracker: tracker.text(step, name, text))

    def close(self) -> None:
        """Bring everything to where it belongs."""
        self._each(lambda tracker: tracker.close())
        self._trackers = []

    def _each(self, act: Callable[[_Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                act(tracker)
            except Exception as error:  # as above
                self._trackers.remove(tracker)
                _off(tracker.title, error)


def check_trackers(names: Sequence[str]) -> None:
    """Make sure that what a recipe names is installed.

    Raises:
        PrimerError: If not.
    """
    purpose = "train.trackers: [{}]"
    if "tensorboard" in names:
        require("tensorboard", install="pip install tensorboard", purpose=purpose.format("tensorboard"))
    if "wandb" in names:
        require("wandb", install="pip install 'primer-lab[wandb]'", purpose=purpose.format("wandb"))


def _off(name: str, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = reason if len(reason) <= 200 else f"{reason[:199]}…"
    say(f"[yellow]  The tracker {name} is off from here on; the training goes on. It said: {escape(reason)}[/]")


class _TensorBoard:
    """Event files in a folder, one for each time that the training is begun or continued.

    TensorBoard's own record format, but no thread and no buffer: a step is one event and one write (the thread of its
    event file writer prints a traceback where a disk is full). A session's start makes TensorBoard drop what earlier
    files hold of later steps.
    """

    title = "tensorboard"

    def __init__(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # Read in the order of their names: a count, because two sessions may begin in the same second.
        number = len(list(folder.glob("events.out.tfevents.*")))
        self._file = (folder / f"events.out.tfevents.{number:06d}").open("xb", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(step + 1, file_version="brain.Event:2")
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))
        self.text(step, "settings", json.dumps(settings, indent=1, ensure_ascii=False))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def text(self, step: int, name: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        shown = "\n".join(f"    {line}" for line in text.split("\n"))  # Markdown for: as it is
        plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype=DT_STRING, string_val=[shown.encode("utf-8", "replace")])
        self._write(step, [Summary.Value(tag=name, metadata=plugin, tensor=tensor)])

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, values: Sequence[Any] = (), **others: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if values:
            others["summary"] = Summary(value=values)
        self._records.write(Event(wall_time=time.time(), step=step, **others).SerializeToString())


class _WeightsAndBiases:
    """A run at wandb.ai, or in a folder where WANDB_MODE says `offline`.

    Its identity is kept in the model's folder, so a training that is continued continues its curves. The service takes
    steps only in rising order; what it has of a step is kept. A continued training repeats the steps after its
    checkpoint bit for bit, so nothing differs; after a rollback the curve shows what led to it.
    """

    title = "wandb"

    def __init__(self, folder: Path, title: str, settings: Mapping[str, Any]) -> None:
        import wandb

        path = folder / _WANDB_ID
        if not path.is_file():
            path.write_text(secrets.token_hex(8), encoding="ascii")
        self._folder = folder
        # No output captured, no look into the repository, no question about a missing key that waits for ever.
        quiet = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, login_timeout=30)
        self._run: Any = wandb.init(
            project=_WANDB_PROJECT,
            name=f"{settings['name']}/{title}" if "name" in settings else title,
            id=path.read_text(encoding="ascii").strip(),
            resume="allow",
            dir=str(folder),
            config=dict(settings),
            settings=quiet,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._run.step:  # it would warn of every other
            self._run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        import wandb

        if step >= self._run.step:
            self._run.log({name: wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)}, step=step)

    def close(self) -> None:
        # Without a network it would try for hours.
        end = threading.Thread(target=self._run.finish, daemon=True)
        end.start()
        end.join(_WANDB_PATIENCE)
        if end.is_alive():
            raise PrimerError(
                f"not everything was sent within {_WANDB_PATIENCE:.0f} seconds",
                f"`wandb sync {self._folder}/wandb/run-*` sends it later.",
            )
