"""Shards: many machines, one corpus, the one that a single machine would have made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mock_endpoint import Faults, running
from test_synth_engine import documents, recipe_file, synthesize

from primer.errors import PrimerError
from primer.recipe_file import load_recipe
from primer.run import RunFolder, locked
from synth.corpora import make_shard, merge_shards
from synth.shards import Shard, shard_folder, shard_journals


def shard(recipe: Path, run: Path, which: str) -> None:
    make_shard(load_recipe(recipe), run, Shard.parse(which))


def merge(recipe: Path, run: Path, *folders: Path) -> None:
    loaded = load_recipe(recipe)
    with RunFolder.opened(run, loaded) as folder:
        merge_shards(loaded, folder, folders)


def test_shards_make_the_corpus_of_one_machine_and_little_is_asked_beyond_it(tmp_path: Path):
    with running(Faults(refuse="pupil of about twelve")) as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address)
        synthesize(recipe, tmp_path / "whole")
        alone = endpoint.requests
        for which in ("1/3", "2/3", "3/3"):
            shard(recipe, tmp_path / "run", which)
        apart = endpoint.requests - alone
        merge(recipe, tmp_path / "run")
        asked_by_merge = endpoint.requests - alone - apart
    assert documents(tmp_path / "run") == documents(tmp_path / "whole")
    assert asked_by_merge <= 0.25 * alone
    assert max(endpoint.asked.values()) <= 3  # by the whole run, by a shard, and those that were in flight at its end


def test_shards_of_machines_without_a_common_disk_are_joined(tmp_path: Path):
    with running() as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address)
        synthesize(recipe, tmp_path / "whole")
        shard(recipe, tmp_path / "first", "1/2")
        shard(recipe, tmp_path / "second", "2/2")
        asked = endpoint.requests
        merge(recipe, tmp_path / "first", tmp_path / "second")
        assert documents(tmp_path / "first") == documents(tmp_path / "whole")
        assert endpoint.requests - asked < 40
        merge(recipe, tmp_path / "first", tmp_path / "second")  # once more: nothing to do
        journal = shard_folder(tmp_path / "second", Shard(2, 2)) / "replies.jsonl"
        journal.write_bytes(journal.read_bytes() + journal.read_bytes()[-200:])
        with pytest.raises(PrimerError, match="two machines worked on the same shard"):
            merge(recipe, tmp_path / "first", tmp_path / "second")


def test_a_lost_shard_is_asked_for_by_the_one_that_joins(tmp_path: Path):
    with running() as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address)
        synthesize(recipe, tmp_path / "whole")
        for which in ("1/2", "2/2"):
            shard(recipe, tmp_path / "run", which)
        shutil.rmtree(shard_folder(tmp_path / "run", Shard(2, 2)))
        merge(recipe, tmp_path / "run")
    assert documents(tmp_path / "run") == documents(tmp_path / "whole")


def test_one_process_works_on_a_shard(tmp_path: Path):
    with running() as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address)
        shard(recipe, tmp_path / "run", "1/2")
        with locked(shard_folder(tmp_path / "run", Shard(1, 2))):
            with pytest.raises(PrimerError, match="is working in"):
                shard(recipe, tmp_path / "run", "1/2")
            with pytest.raises(PrimerError, match="is working in"):
                merge(recipe, tmp_path / "run")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1-4", "a/b", "", "1/0", "-1/3"])
def test_a_shard_that_is_none_is_explained(text: str):
    with pytest.raises(PrimerError, match=r"expected K/N .* such as 3/16"):
        Shard.parse(text)


def test_a_folder_without_shards_is_named(tmp_path: Path):
    with running() as endpoint:
        recipe = recipe_file(tmp_path, endpoint.address)
        (tmp_path / "other").mkdir()
        with pytest.raises(PrimerError, match="other holds no shards"):
            merge(recipe, tmp_path / "run", tmp_path / "other")
        with pytest.raises(PrimerError, match="run holds no shards"):
            merge(recipe, tmp_path / "run")


def test_only_folders_of_shards_are_taken_for_such(tmp_path: Path):
    for name in ("backup", ".00001-of-00001.copy", "00001-of-00002", "00002-of-00002"):
        (tmp_path / "shards" / name).mkdir(parents=True)
        if name != "00002-of-00002":  # one that never began
            (tmp_path / "shards" / name / "replies.jsonl").touch()
    assert [path.parent.name for path in shard_journals(tmp_path)] == ["00001-of-00002"]
