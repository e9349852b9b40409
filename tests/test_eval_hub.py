"""Benchmarks from the hub: fetched once into the cache, a reason in words where they cannot be had."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval import hub
from eval.suites import Chosen, all_suites, find

ROW = {"goal": "open a jar", "sol1": "twist its lid", "sol2": "eat its lid", "label": 0}


@pytest.fixture(autouse=True)
def fresh_look(caches: Path) -> Iterator[None]:
    look = hub._obstacle  # which a test may replace
    look.cache_clear()
    yield
    look.cache_clear()


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """A data set as `load_dataset` takes it, in a folder in place of one on the hub."""
    folder = tmp_path / "piqa-data"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({**ROW, "n": n}) + "\n" for n in range(3)))
    return folder


def answering(status: int) -> tuple[http.server.HTTPServer, str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def test_the_environment_can_forbid_the_hub() -> None:
    assert hub.fetch_benchmark("piqa", {"path": "x", "split": "validation"}) == "HF_HUB_OFFLINE forbids to ask the hub"


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server, address = answering(200)
    server.shutdown()
    server.server_close()
    monkeypatch.setenv("HF_ENDPOINT", address)
    reason = hub.fetch_benchmark("piqa", {"path": "x", "split": "validation"})
    assert reason is not None
    assert "does not answer" in reason
    monkeypatch.setenv("HF_ENDPOINT", "http://nowhere.invalid")
    assert hub.fetch_benchmark("boolq", {"path": "y", "split": "validation"}) == reason


@pytest.mark.parametrize("status", [200, 404, 429])
def test_a_hub_that_answers_anything_is_there(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server, address = answering(status)
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert hub._obstacle() is None
    server.shutdown()
    server.server_close()


def test_splits_are_kept_in_the_cache_as_a_folder_of_benchmark_data(
    data_set: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_obstacle", lambda: None)
    where = {"path": str(data_set), "split": "validation", "examples": "train"}
    assert hub.fetch_benchmark("piqa", where) is None
    kept = sorted((caches / "primer" / "benchmarks" / "piqa").iterdir())
    assert [path.name for path in kept] == ["train.jsonl", "validation.jsonl"]
    assert json.loads(kept[1].read_text().splitlines()[2]) == {**ROW, "n": 2}

    found = find(all_suites()["piqa"], None, hub=True, fetch=False)
    assert isinstance(found, Chosen)
    assert found.path == kept[1]


def test_a_data_set_that_is_not_there_is_a_reason_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caches: Path
) -> None:
    monkeypatch.setattr(hub, "_obstacle", lambda: None)
    reason = hub.fetch_benchmark("piqa", {"path": str(tmp_path / "none"), "split": "validation"})
    assert reason is not None
    assert "cannot be fetched from the hub" in reason
    assert "\n" not in reason
    assert not list(caches.rglob("*.jsonl*"))


def test_a_hub_that_fails_slowly_is_not_asked_for_the_next_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_obstacle", lambda: None)
    monkeypatch.setattr(hub, "_troubles", [])
    where = [{"path": str(tmp_path / name), "split": "validation"} for name in "abc"]
    reasons = [hub.fetch_benchmark("piqa", where[0])]
    monkeypatch.setattr(hub, "_SLOW", 0.0)
    reasons += [hub.fetch_benchmark("piqa", one) for one in where[1:]]
    assert reasons[0] != reasons[1] == reasons[2]


def test_without_a_folder_and_a_hub_the_reason_names_both() -> None:
    suite = all_suites()["piqa"]
    assert find(suite, None, hub=False, fetch=False) == "no folder of benchmark data is named"
    reason = find(suite, None, hub=True, fetch=True)
    assert reason == "no folder of benchmark data is named, and HF_HUB_OFFLINE forbids to ask the hub"
