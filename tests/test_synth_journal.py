"""The journal: what is written is found again, torn and damaged files, a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from primer.errors import PrimerError
from primer.recipe_synth import Sampling
from synth.journal import Failure, Journal, Reply, answer_key

TAG = "0123456789ab"


def key(number: int) -> str:
    return answer_key("teacher", [{"role": "user", "content": f"question {number}"}], Sampling(), number)


def reply(number: int) -> Reply:
    return Reply(f"Answer {number}: é ✓ \u2028 \n\ttab", "stop", 10, number, 0.5)


def write(path: Path, numbers: range, tag: str = TAG) -> None:
    with Journal(path, tag) as journal:
        for number in numbers:
            journal.put(key(number), reply(number))


def test_replies_and_failures_are_found_again(tmp_path: Path):
    path = tmp_path / "journal" / "replies.jsonl"
    with Journal(path, TAG) as journal:
        for number in range(200):
            journal.put(key(number), reply(number))
        journal.put(key(200), Failure(400, "refused", permanent=True))
        journal.put(key(201), Failure(500, "broken", permanent=False))
        assert journal.get(key(0)) is None  # only what it held when it was opened
    with Journal(path, TAG) as journal:
        assert [journal.get(key(n)) for n in range(200)] == [reply(n) for n in range(200)]
        assert journal.get(key(200)) == Failure(400, "refused", permanent=True)
        assert journal.get(key(201)) is None  # a passing failure is asked again
        assert journal.get(key(202)) is None
        journal.put(key(201), reply(201))
    with Journal(path, TAG) as journal:
        assert journal.get(key(201)) == reply(201)


def test_the_key_is_everything_that_changes_an_answer_and_nothing_else():
    messages = [{"role": "user", "content": "question"}]
    base = answer_key("teacher", messages, Sampling(), 1)
    others = [
        answer_key("teacher 2", messages, Sampling(), 1),
        answer_key("teacher", [*messages, {"role": "system", "content": ""}], Sampling(), 1),
        answer_key("teacher", [{"role": "user", "content": "question "}], Sampling(), 1),
        answer_key("teacher", messages, Sampling(), 2),
        *(
            answer_key("teacher", messages, Sampling().model_copy(update={name: value}), 1)
            for name, value in {
                "temperature": 0.7,
                "top_p": 0.9,
                "max_tokens": 601,
                "frequency_penalty": 0.1,
                "presence_penalty": 0.1,
            }.items()
        ),
    ]
    assert len({base, *others}) == len(others) + 1
    assert set(Sampling.model_fields) == {
        "temperature",
        "top_p",
        "max_tokens",
        "frequency_penalty",
        "presence_penalty",
    }, "a new sampling setting: add it above"
    assert answer_key("teacher", [{"content": "question", "role": "user"}], Sampling(), 1) == base


@pytest.mark.parametrize("lost", [1, 7, 60])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, lost: int):
    path = tmp_path / "replies.jsonl"
    write(path, range(10))
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    with Journal(path, TAG) as journal:
        assert all(journal.get(key(n)) == reply(n) for n in range(9))
        assert journal.get(key(9)) is None
        journal.put(key(9), reply(9))
    assert path.read_bytes() == whole


def test_a_damaged_line_is_named_and_nothing_is_changed(tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    write(path, range(10))
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"\x00" * 40 + b"\n", lines[3][:50] + b"\n", b"{}\n", b"\n", b'{"key": "ab", "tag": "x"}\n'):
        damaged = b"".join([*lines[:3], damage, *lines[4:]])
        path.write_bytes(damaged)
        with pytest.raises(PrimerError, match="line 4") as error:
            Journal(path, TAG)
        assert "sed -i '4d'" in error.value.remedy
        assert path.read_bytes() == damaged
    path.write_bytes(b"".join([*lines[:3], *lines[4:]]))  # what the remedy does
    with Journal(path, TAG) as journal:
        assert [n for n in range(10) if journal.get(key(n)) is None] == [3]


def test_a_full_disk_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "replies.jsonl"
    write(path, range(5))
    real, room = os.write, path.stat().st_size + 100

    def write_until_full(file: int, data: bytes) -> int:
        if os.fstat(file).st_size != path.stat().st_size:  # some other file
            return real(file, data)
        left = room - os.fstat(file).st_size
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:left])

    monkeypatch.setattr(os, "write", write_until_full)
    with pytest.raises(PrimerError, match="disk is full"):
        write(path, range(5, 5000))
    monkeypatch.undo()
    with Journal(path, TAG) as journal:
        assert [n for n in range(10) if journal.get(key(n)) is not None] == [0, 1, 2, 3, 4]


def test_totals_are_of_one_tag_and_of_all_runs(tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    write(path, range(5))
    write(path, range(5, 8), tag="ffffffffffff")
    with Journal(path, TAG) as journal:
        assert (journal.totals.replies, journal.totals.prompt_tokens) == (5, 50)
        journal.start_clock()
        journal.put(key(100), reply(100))
    assert journal.totals.completion_tokens == 0 + 1 + 2 + 3 + 4 + 100
    spent = journal.totals.seconds
    assert spent > 0
    with Journal(path, TAG) as journal:
        assert journal.totals.replies == 6
        assert journal.totals.seconds == pytest.approx(spent, abs=0.001)


def test_flushes_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), real(file))[1])
    write(tmp_path / "replies.jsonl", range(1000))
    assert 1 <= len(synced) <= 1000 // 64 + 2
    assert sum("reply" in json.loads(line) for line in (tmp_path / "replies.jsonl").open()) == 1000


def test_a_million_keys_take_16_bytes_each(tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    write(path, range(3000))
    with Journal(path, TAG) as journal:
        assert journal._prefixes.nbytes + journal._offsets.nbytes == 3000 * 16


RIGHT_REPLY = {"text": "Ice.", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": None, "seconds": 0.5}
RIGHT_FAILURE = {"status": 400, "reason": "refused", "permanent": True}


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"tag": 5, "elapsed": 1.0},
        *({"elapsed": value} for value in (-1.0, True, "1", float("nan"), 10**400)),
        *({"prices": value} for value in ("12", ["0.1", "0.2"], {}, [1], [1, 2, 3], [1, -1], [10**400, 1], True)),
        *({"key": value, "reply": RIGHT_REPLY} for value in ("ab", "-" + "a" * 63, "A" * 64, 5, None)),
        *({"reply": RIGHT_REPLY | change} for change in ({"text": 5}, {"prompt_tokens": "5"}, {"prompt_tokens": -5})),
        *({"reply": RIGHT_REPLY | change} for change in ({"seconds": -1}, {"prompt_tokens": 10**400}, {"more": 1})),
        *({"failure": RIGHT_FAILURE | change} for change in ({"permanent": "no"}, {"status": "400"}, {"reason": None})),
    ],
    ids=lambda record: json.dumps(record)[:60],
)
def test_a_record_with_a_value_that_cannot_be_is_damaged(record: Any, tmp_path: Path):
    if isinstance(record, dict) and ("reply" in record or "failure" in record):
        record = {"key": key(1), **record}
    whole = record if isinstance(record, list) else {"tag": TAG, **record}
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps(whole) + "\n")
    with pytest.raises(PrimerError, match="line 1: the record is damaged"):
        Journal(path, TAG)


def test_prices_are_told_by_each_file_for_its_own_answers(tmp_path: Path):
    with Journal(tmp_path / "shard", TAG, "t", (1.0, 1.0)) as journal:
        journal.put(key(1), reply(1))
    for number in (2, 3):  # opened twice: the prices must not be forgotten
        with Journal(tmp_path / "main", TAG, "t", (1.0, 1.0), [tmp_path / "shard"]) as journal:
            journal.put(key(number), reply(number))
    with Journal(tmp_path / "main", TAG, "t", (1.0, 1.0), [tmp_path / "shard"]) as journal:
        assert journal.totals.dollars == pytest.approx((3 * 10 + 1 + 2 + 3) / 1e6)
        assert journal.spent() == (pytest.approx(36 / 1e6), 36)
