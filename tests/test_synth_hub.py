"""Hub data sets without a network: a local folder is read by the same library; a hub that fails is on loopback."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import parts_of, problem, prose, texts_of

from primer.recipe_corpora import HubDataset


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # After a stream's end the library waits 5 s for its network threads; a local folder has none.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    folder = tmp_path / "dataset"
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
        table = pa.table({"text": [f"{name} {prose(i)}" for i in range(60)], "n": list(range(60))})
        pq.write_table(table, folder / name / "train.parquet")
    configurations = "".join(f"- config_name: {n}\n  data_files: {n}/*.parquet\n" for n in ("first", "second"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n", encoding="utf-8")
    return str(folder)


def test_a_data_set_is_streamed_in_an_order_of_the_seed(hub_folder: str):
    source = HubDataset(kind="dataset", path=hub_folder, name="second")
    first, again, other = (texts_of(source, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other) == sorted(f"second {prose(i)}" for i in range(60))


@pytest.mark.parametrize("files", [1, 5])
def test_parts_hold_each_text_once(files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    for number in range(files):
        table = pa.table({"text": [prose(1000 * number + i) for i in range(40)]})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=10)
    source = HubDataset(kind="dataset", path=str(tmp_path))
    parts = parts_of(source, characters=96_000_000)
    assert len(parts) == 3
    assert all(parts)
    texts = [text.text for part in parts for text in part]
    assert sorted(texts) == sorted(prose(1000 * number + i) for number in range(files) for i in range(40))
    assert len(parts_of(source, characters=32_000_000_000)) == (4 if files == 1 else 20)  # row groups


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "available configs: ['first', 'second']"),
        (
            {"name": "third"},
            "has no configuration 'third': BuilderConfig 'third' not found. Available: ['first', 'second']",
        ),
        ({"split": "test"}, "Bad split: test. Available splits: ['train']"),
        ({"split": "train[:10]"}, "slices cannot be streamed"),
        ({"text_column": "body"}, "there is no column 'body'; there are 'n', 'text'"),
        ({"text_column": "n"}, "column 'n' holds int"),
    ],
)
def test_mistakes_about_a_data_set_are_explained(change: dict[str, Any], said: str, hub_folder: str):
    settings = {"kind": "dataset", "path": hub_folder, "name": "first"} | change
    assert said in problem(HubDataset(**settings))


def test_a_damaged_data_set_is_named(hub_folder: str):
    (Path(hub_folder) / "first" / "train.parquet").write_bytes(b"junk")
    source = HubDataset(kind="dataset", path=hub_folder, name="first")
    assert "dataset (first), split train cannot be read" in problem(source)


def test_a_data_set_without_data_is_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    source = HubDataset(kind="dataset", path=str(tmp_path / "empty"))
    assert "empty, split train cannot be read" in problem(source)


_HUB_PROGRAM = """
import http.server, os, sys, threading, time
status, header = sys.argv[1:3]
if status == "closed":
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
else:
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(status))
            self.send_header("X-Error-Code", header)
            self.send_header("Content-Length", "0")
            self.end_headers()
        do_HEAD = do_GET
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from primer.errors import PrimerError
from primer.recipe_corpora import HubDataset
from synth.sources import open_source
source = HubDataset(kind="dataset", path="some/dataset")
started = time.monotonic()
try:
    open_source(source, "web.source", 0, 3_000_000)
except PrimerError as error:
    print(error)
assert time.monotonic() - started < 30
"""


@pytest.mark.parametrize(
    ("status", "header", "said"),
    [
        ("closed", "", "cannot be read from the hub (ConnectError"),
        ("401", "RepoNotFound", "the hub has no data set 'some/dataset'"),
        ("403", "GatedRepo", "the data set 'some/dataset' is gated"),
        ("500", "", "cannot be read from the hub (HfHubHTTPError"),
    ],
)
def test_a_hub_that_cannot_help_says_so_quickly(status: str, header: str, said: str, tmp_path: Path):
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()
    }
    command = [sys.executable, "-c", _HUB_PROGRAM, status, header]
    process = subprocess.run(
        command,
        env=environment | {"HF_HOME": str(tmp_path / "home")},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert said in process.stdout


def test_a_hub_that_may_not_be_asked():
    source = HubDataset(kind="dataset", path="some/dataset")
    assert "HF_HUB_OFFLINE forbids asking it" in problem(source)
