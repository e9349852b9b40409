"""The refined source and the corpus made of it: filters, tasks, duplicates, and where it runs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from primer.benchmarks import BUILT_IN_ITEMS
from primer.documents import SPLITS, read_documents
from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.recipe_corpora import Code, Corpus, LocalFiles, Screens, Web
from primer.run import RunFolder
from primer.sealed import read_items
from synth.corpora import filtering
from synth.executors import locally, run_tasks
from synth.filtered import complete_corpus
from synth.refine import read_contaminated, sample_texts
from synth.refine_steps import ReadSource, WriteDocuments
from synth.removed import RemovedReader
from synth.text import SourceText

_WORDS = [
    *("river", "stone", "garden", "letter", "winter", "market", "window", "teacher", "bridge", "forest", "animal"),
    *("number", "paper", "silver", "planet", "engine", "morning", "village", "harbour", "kitchen", "painter"),
    *("soldier", "library", "weather", "country", "station", "picture", "evening", "history", "journey"),
]


def prose(seed: int, sentences: int = 12) -> str:
    """A text that heuristic rules take for prose."""
    chance = random.Random(seed)
    made = []
    for _ in range(sentences):
        chosen = chance.choices(_WORDS, k=9)
        made.append(
            f"The {chosen[0]} of the {chosen[1]} is {' '.join(chosen[2:6])} and a {chosen[6]} with that {chosen[7]}."
        )
    return " ".join(made)


def files(folder: Path, texts: list[list[str]]) -> LocalFiles:
    folder.mkdir()
    for number, part in enumerate(texts):
        lines = [json.dumps({"text": text, "url": f"https://example.org/{number}/{n}"}) for n, text in enumerate(part)]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return LocalFiles(kind="files", paths=[f"{folder}/*.jsonl"])


def experiment(source: LocalFiles, characters: int = 10_000_000, **web: Any) -> Recipe:
    about = {"screens": Screens(personal_data=True, toxicity=True), "characters": characters} | web
    return Recipe(name="x", web=Web(source=source, **about), corpus=Corpus(held_out_share=0.2))


def built(recipe: Recipe, run: Path, workers: int = 1) -> RunFolder:
    with RunFolder.opened(run, recipe) as folder:
        complete_corpus(filtering(recipe, folder, locally(workers)), "web", ())
    return RunFolder(run)


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [row for split in SPLITS for row in read_documents(folder.folder("corpus/web"), split)]


def test_texts_are_screened_filtered_and_freed_of_duplicates_and_benchmarks(tmp_path: Path):
    lines = read_items(BUILT_IN_ITEMS / "science.sealed").splitlines()
    asked = max((json.loads(line)["question"] for line in lines), key=len)
    good = [prose(n) for n in range(40)]
    planted = [
        good[3],  # a copy
        good[5].replace("The ", "THE "),  # a copy but for case
        good[7].replace("river", "stream", 1),  # nearly a copy
        "buy now " * 200,  # repeats itself
        "too short",
        f"{prose(100)} {asked} {prose(101)}",
        f"{prose(102)} Write to somebody.else@some-company.com for more about the letter of that bridge.",
    ]
    folder = built(experiment(files(tmp_path / "web", [good + planted])), tmp_path / "run")
    kept = rows(folder)
    refined, corpus = folder.require("refined/web").facts, folder.require("corpus/web").facts
    assert len(kept) == 41
    assert refined["read"] == 47
    assert refined["too_short"] == 1
    assert sum(refined["rules"].values()) == 1
    assert sum(refined["contaminated"].values()) == 1
    assert refined["personal_data"] == {"email": 1}
    assert (corpus["exact_duplicates"], corpus["near_duplicates"]) == (2, 1)
    masked = [row for row in kept if row["masked"]]
    assert len(masked) == 1
    assert "some-company" not in masked[0]["text"]
    assert all(0 <= row["toxicity"] < 0.5 for row in kept)
    [passage] = read_contaminated(folder.folder("refined/web"))
    assert asked.split()[0] in passage["passage"]
    ids = {row["id"]: row["text"] for row in kept}
    reader = RemovedReader(folder.folder("corpus/web"))
    removed = [reader.row(number) for number in reader.numbers()]
    assert [row["kind"] for row in removed] == ["exact", "exact", "near"]
    for row, original in zip(removed, (good[3], good[5], good[7]), strict=True):
        assert ids[row["kept"]] == original  # whoever doubts it can look at both


def test_the_number_of_workers_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("synth.parts.PART_CHARACTERS", 20_000)
    monkeypatch.setattr("synth.parts._LEAST_BYTES", 1)
    texts = [[prose(n * 100 + k) for k in range(20)] + [prose(7), prose(n)] for n in range(6)]
    recipe = experiment(files(tmp_path / "web", texts), characters=80_000)
    one, two = built(recipe, tmp_path / "one", 1), built(recipe, tmp_path / "two", 2)
    parts = sorted(path.name for path in one.folder("refined/web").glob("part-*.parquet"))
    assert len(parts) > 1
    for stage in ("refined/web", "corpus/web"):
        assert one.require(stage).outputs == two.require(stage).outputs, stage
    assert sum(len(row["text"]) for row in rows(one)) <= 80_000


def test_a_task_that_failed_is_the_only_one_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("synth.parts.PART_CHARACTERS", 20_000)
    monkeypatch.setattr("synth.parts._LEAST_BYTES", 1)
    source = files(tmp_path / "web", [[prose(n * 100 + k) for k in range(20)] for n in range(4)])
    recipe = experiment(source, characters=100_000)
    broken = tmp_path / "web" / "2.jsonl"
    whole = broken.read_text(encoding="utf-8")
    times = broken.stat()
    broken.write_text(whole[:-3] + "xxx", encoding="utf-8")  # as long as before
    os.utime(broken, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(PrimerError, match="not valid JSON"):
        built(recipe, tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "partial").rglob("part-*.npy")}
    assert 0 < len(before) < 4
    broken.write_text(whole, encoding="utf-8")
    os.utime(broken, ns=(times.st_atime_ns, times.st_mtime_ns))
    folder = built(recipe, tmp_path / "run")
    after = {path.name: path.stat().st_mtime_ns for path in folder.folder("refined/web").glob("part-*.npy")}
    assert before.items() <= after.items()
    assert not list((tmp_path / "run" / "partial").iterdir())
    assert len(rows(folder)) == 80


def killed(part: int) -> Iterator[SourceText]:
    if part == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    yield SourceText(prose(part))


def test_a_process_that_the_system_ends_ends_the_work_with_a_message(tmp_path: Path):
    steps = [ReadSource(killed, 5), WriteDocuments(tmp_path, tmp_path / "tasks" / "notes", "web", 10_000, 10_000, 5)]
    with pytest.raises(PrimerError, match="ended one of the processes") as caught:
        run_tasks(locally(2), steps, 3, tmp_path / "tasks", "refined/web", 30_000)
    assert "corpus.workers" in caught.value.remedy


def test_a_failure_in_another_process_reaches_the_person_in_the_same_words(tmp_path: Path):
    source = files(tmp_path / "web", [[prose(n) for n in range(3)]])
    (tmp_path / "web" / "0.jsonl").write_text('{"body": "no text here"}\n', encoding="utf-8")
    recipe = experiment(source)
    with pytest.raises(PrimerError, match="no column 'text'; there are 'body'"):
        built(recipe, tmp_path / "run")


def test_samples_for_labels_are_those_that_the_rules_keep(tmp_path: Path):
    texts = [prose(1), "buy now " * 200, prose(2), "short", prose(3)]
    texts[2] += " Write to somebody.else@some-company.com about it."
    recipe = experiment(files(tmp_path / "web", [texts]))
    assert [sample.text for sample in sample_texts(recipe, "web")] == [
        prose(1),
        f"{prose(2)} Write to email@example.com about it.",
        prose(3),
    ]


def test_a_source_of_which_nothing_passes_says_why(tmp_path: Path):
    recipe = experiment(files(tmp_path / "web", [["short", "buy now " * 200]]))
    with pytest.raises(PrimerError, match=r"of 2 texts were left out: .*1 too short") as caught:
        built(recipe, tmp_path / "run")
    assert "web.rules" in caught.value.remedy


def test_rules_can_be_left_out(tmp_path: Path):
    recipe = experiment(files(tmp_path / "web", [[prose(n) for n in range(9)] + ["buy now " * 200]]), rules=[])
    assert len(rows(built(recipe, tmp_path / "run"))) == 10


def test_the_corpus_ends_at_its_size_and_says_so(tmp_path: Path):
    source = files(tmp_path / "web", [[prose(n) for n in range(30)]])
    folder = built(experiment(source, characters=20 * len(prose(0))), tmp_path / "run")
    facts = folder.require("corpus/web").facts
    assert 17 <= facts["documents"] <= 20
    assert facts["characters"] <= 20 * len(prose(0))
    assert not facts["exhausted"]
    with RunFolder.opened(tmp_path / "all", experiment(source)) as every:
        assert complete_corpus(filtering(experiment(source), every), "web", ()).facts["exhausted"]


def test_texts_too_long_for_the_corpus_are_left_out_and_said(tmp_path: Path):
    source = files(tmp_path / "web", [[prose(n) for n in range(3)]])
    with pytest.raises(PrimerError, match=r"of 3 texts were left out: 3 too long"):
        built(experiment(source, characters=100), tmp_path / "run")
    assert not (tmp_path / "run" / "corpus").exists()


def test_splits_share_no_group(tmp_path: Path):
    folder = built(experiment(files(tmp_path / "web", [[prose(n) for n in range(60)]])), tmp_path / "run")
    train, held_out = ({row["group"] for row in read_documents(folder.folder("corpus/web"), split)} for split in SPLITS)
    assert len(train) + len(held_out) == 60
    assert not train & held_out
    assert 3 <= len(held_out) <= 25


def test_code_leaves_out_what_stands_in_the_web_corpus(tmp_path: Path):
    texts = [prose(n) for n in range(30)]
    web, code = files(tmp_path / "web", [texts]), files(tmp_path / "code", [[*texts[:10], *map(prose, range(50, 80))]])
    recipe = experiment(web).model_copy(update={"code": Code(source=code)})
    with RunFolder.opened(tmp_path / "run", recipe) as run:
        complete_corpus(filtering(recipe, run), "web", ())
        facts = complete_corpus(filtering(recipe, run), "code", ("corpus/web",)).facts
        assert (facts["documents"], facts["exact_duplicates"]) == (30, 10)
        kept = RemovedReader(run.folder("corpus/code")).row(1)
    assert (kept["kept_corpus"], kept["kept"]) == ("web", "web-000000")


def test_what_an_interrupted_build_left_torn_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("synth.parts.PART_CHARACTERS", 20_000)
    monkeypatch.setattr("synth.parts._LEAST_BYTES", 1)
    recipe = experiment(files(tmp_path / "web", [[prose(n * 100 + k) for k in range(20)] for n in range(4)]), 100_000)
    whole = built(recipe, tmp_path / "whole").require("refined/web").outputs
    with monkeypatch.context() as patched:
        patched.setattr("synth.refine._facts", interrupt)  # all tasks are complete
        with pytest.raises(KeyboardInterrupt):
            built(recipe, tmp_path / "run")
    [tasks] = (tmp_path / "run" / "partial").glob("refined-web-*.tasks")
    (tasks / "stats" / "00000.json").write_text("", encoding="utf-8")  # as a full disk leaves it
    next((tmp_path / "run" / "partial").rglob("part-00001.signatures.npy")).unlink()
    again = built(recipe, tmp_path / "run")
    assert again.require("refined/web").outputs == whole
    assert again.require("refined/web").facts == RunFolder(tmp_path / "whole").require("refined/web").facts


def interrupt(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_corpus_that_duplicates_make_too_small_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    text = [prose(n) for n in range(40)]
    source = files(tmp_path / "web", [[each for each in text for _ in range(3)]])
    folder = built(experiment(source, characters=30 * len(prose(0))), tmp_path / "run")
    assert folder.require("corpus/web").facts["documents"] < 20
    assert "corpus/web has" in " ".join(capfd.readouterr().err.split())


def test_samples_do_not_depend_on_how_much_is_taken(tmp_path: Path):
    source = files(tmp_path / "web", [[prose(n * 100 + k) for k in range(20)] for n in range(4)])
    samples = [[s.text for s in sample_texts(experiment(source, size), "web")] for size in (10_000, 10**9)]
    assert samples[0] == samples[1]
    assert len(samples[0]) == 80


def test_no_process_outlives_a_command_that_is_killed(tmp_path: Path):
    texts = [[f"{prose(n * 1000 + k, 40)}" for k in range(400)] for n in range(4)]
    source = files(tmp_path / "web", texts)
    recipe = tmp_path / "x.yaml"
    about = {"name": "x", "web": {"source": source.model_dump(), "characters": 200_000_000}}
    recipe.write_text(yaml.safe_dump(about), encoding="utf-8")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "primer.cli", "web", "filter", str(recipe), "--run", str(run), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(run.glob("partial/*.tasks/notes/progress-*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.kill()
    process.wait()
    while (left := members(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def members(session: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
