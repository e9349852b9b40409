"""The run folder: stages are skipped, continued and redone, and nothing half-done is ever final."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.run import Built, RunFolder, Stage, write_json, write_text

REPOSITORY = Path(__file__).parent.parent
RECIPE = Recipe(name="x")


class Builder:
    """A build that writes one file and counts how often it ran."""

    def __init__(self, text: str = "data") -> None:
        self.text, self.runs = text, 0
        self.found: list[list[str]] = []

    def __call__(self, folder: Path) -> Built:
        self.runs += 1
        self.found.append(sorted(p.name for p in folder.iterdir()))
        (folder / "data.txt").write_text(self.text, encoding="utf-8")
        return Built("made", {"n": 1})


def test_a_complete_stage_is_skipped_and_redone_when_settings_inputs_or_material_change(tmp_path: Path):
    with RunFolder.opened(tmp_path / "run", RECIPE) as run:
        first, second = Builder("one"), Builder()

        def both(setting: int = 1, text: str = "one", material: str = "m") -> tuple[int, int]:
            first.text = text
            run.complete(Stage("corpus/web", {"s": setting}, first))
            run.complete(Stage("tokens", {"t": 1}, second, reads=("corpus/web",), material={"file": material}))
            return first.runs, second.runs

        assert both() == (1, 1)
        assert both() == (1, 1)
        assert both(setting=2) == (2, 1)  # made again with the same content: what reads it stays
        assert both(setting=3, text="two") == (3, 2)
        assert both(setting=3, text="two", material="n") == (3, 3)
        manifest = run.require("tokens")
        assert manifest.facts == {"n": 1}
        assert set(manifest.inputs) == {"corpus/web", "file"}
        assert manifest.inputs["corpus/web"] == run.require("corpus/web").content
        assert set(manifest.outputs) == {"data.txt"}
        assert not list((run.path / "partial").iterdir())


def test_a_failed_build_is_continued_and_other_settings_start_anew(tmp_path: Path):
    builder = Builder()

    def fail(folder: Path) -> Built:
        (folder / "half.txt").write_text("half", encoding="utf-8")
        raise RuntimeError("power cut")

    with RunFolder.opened(tmp_path / "run", RECIPE) as run:
        with pytest.raises(RuntimeError, match="power cut"):
            run.complete(Stage("tokens", {"s": 1}, fail))
        assert run.manifest("tokens") is None
        with pytest.raises(PrimerError, match="primer train"):
            run.require("tokens")
        run.complete(Stage("tokens", {"s": 2}, builder))
        assert builder.found == [[]]
        with pytest.raises(RuntimeError):
            run.complete(Stage("tokens", {"s": 3}, fail))
        assert (run.folder("tokens") / "data.txt").exists()  # the earlier result stays until the new one is whole
        run.complete(Stage("tokens", {"s": 3}, builder))
        assert builder.found[1] == ["half.txt"]


def test_a_stage_does_not_run_before_what_it_reads(tmp_path: Path):
    builder = Builder()
    with RunFolder.opened(tmp_path / "run", RECIPE) as run:
        with pytest.raises(PrimerError, match=r"Run `primer synth` with this recipe first"):
            run.complete(Stage("tokens", {}, builder, reads=("corpus/web",)))
        assert builder.runs == 0


def test_stages_with_a_common_beginning_keep_their_partials_apart(tmp_path: Path):
    def fail(folder: Path) -> Built:
        (folder / "half.txt").touch()
        raise RuntimeError

    with RunFolder.opened(tmp_path / "run", RECIPE) as run:
        with pytest.raises(RuntimeError):
            run.complete(Stage("models/web-only", {}, fail))
        run.complete(Stage("models/web", {}, Builder()))
        builder = Builder()
        run.complete(Stage("models/web-only", {}, builder))
        assert builder.found == [["half.txt"]]


_PROGRAM = """
import sys, time
from pathlib import Path

from primer.recipe import Recipe
from primer.run import Built, RunFolder, Stage
def build(folder):
    (folder / "half.txt").write_text("half")
    print("building", flush=True)
    time.sleep(60)
with RunFolder.opened(Path(sys.argv[1]), Recipe(name="x")) as run:
    run.complete(Stage("tokens", {}, build))
"""


def test_kill_during_a_build_leaves_nothing_final_and_the_lock_is_honoured(tmp_path: Path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "building\n"
        with (
            pytest.raises(PrimerError, match=rf"Another process \(pid {process.pid} on [^)]+\) is working in"),
            RunFolder.opened(path, RECIPE),
        ):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout
        process.stdout.close()
    with RunFolder.opened(path, RECIPE) as run:  # the lock died with its holder
        assert run.manifest("tokens") is None
        builder = Builder()
        run.complete(Stage("tokens", {}, builder))
        assert builder.found == [["half.txt"]]
        assert run.require("tokens").outputs.keys() == {"data.txt", "half.txt"}


def test_foreign_folders_are_refused_and_left_alone(tmp_path: Path):
    with RunFolder.opened(tmp_path / "run", RECIPE):
        pass
    with (
        pytest.raises(PrimerError, match="belongs to the recipe 'x', not to 'y'"),
        RunFolder.opened(tmp_path / "run", Recipe(name="y")),
    ):
        pass
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with (
            pytest.raises(PrimerError, match="is not a run folder"),
            RunFolder.opened(tmp_path / name, RECIPE),
        ):
            pass
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    with (
        pytest.raises(PrimerError, match="cannot be written"),
        RunFolder.opened(tmp_path / "file" / "run", RECIPE),
    ):
        pass


def test_a_damaged_manifest_says_what_to_delete(tmp_path: Path):
    with RunFolder.opened(tmp_path / "run", RECIPE) as run:
        run.complete(Stage("tokens", {}, Builder()))
        path = run.folder("tokens") / "manifest.json"
        for text in ("{", "[]", '{"stage": "tokens"}', json.dumps(json.loads(path.read_text()) | {"new": 1})):
            path.write_text(text, encoding="utf-8")
            with pytest.raises(PrimerError, match=r"manifest\.json is damaged") as caught:
                run.manifest("tokens")
            assert f"Delete {run.folder('tokens')}" in caught.value.remedy


def test_the_frozen_recipe_follows_the_last_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "run"
    for seed in (1, 1, 2):
        with RunFolder.opened(path, Recipe(name="x", seed=seed)):
            assert f"seed: {seed}\n" in (path / "recipe.yaml").read_text(encoding="utf-8")
    assert capsys.readouterr().err.count("The recipe changed since the last run (seed)") == 1


def _write_with_little_room(path: Path) -> int:
    """Exit status of a process that may write at most 4 kB to a file and tries to write 100 kB."""
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            write_text(path, "x" * 100_000)
        except OSError:
            status = 7
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    assert _write_with_little_room(path) == 7
    assert path.read_text(encoding="utf-8") == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert path.read_text(encoding="utf-8") == "before"


def test_a_kill_between_two_renames_costs_at_most_a_rebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The moment between retiring the old folder and renaming the new one: the next run completes."""
    with RunFolder.opened(tmp_path / "run", RECIPE) as run:
        run.complete(Stage("tokens", {"s": 1}, Builder("old")))
        rename, calls = Path.rename, 0

        def stop_at_second(self: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            run.complete(Stage("tokens", {"s": 2}, Builder("new")))
        monkeypatch.undo()
        run.complete(Stage("tokens", {"s": 2}, Builder("new")))
        assert (run.folder("tokens") / "data.txt").read_text(encoding="utf-8") == "new"


def test_settings_that_change_to_and_fro(tmp_path: Path):
    with RunFolder.opened(tmp_path / "run", RECIPE) as run:
        for setting in (1, 2, 1, 2):
            run.complete(Stage("tokens", {"s": setting}, Builder(str(setting))))
            assert (run.folder("tokens") / "data.txt").read_text(encoding="utf-8") == str(setting)
        assert not list((run.path / "partial").iterdir())
