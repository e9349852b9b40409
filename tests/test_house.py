"""Rules of the house that a reader relies on: which room imports which, and no heavy import at start."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ALLOWED = {
    "primer": {"primer"},
    "topics": {"primer", "topics"},
    "prompts": {"primer", "topics", "prompts"},
    "synth": {"primer", "topics", "prompts", "synth"},
    "train": {"primer", "train"},
    "eval": {"primer", "eval"},
}


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names} & set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_the_design_allows(room: str, repository: Path):
    files = sorted((repository / room).rglob("*.py"))
    assert files
    for path in files:
        if path.stem.endswith("cli"):
            continue  # the command line alone sees every room
        assert imported_rooms(path) <= ALLOWED[room], path


def test_files_stay_readable(repository: Path):
    for room in ALLOWED:
        for path in (repository / room).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, f"{path} holds more than one subject"


def test_the_readmes_commands_exist(repository: Path):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    targets = set()
    for line in (repository / "Makefile").read_text(encoding="utf-8").splitlines():
        if ":" in line and line[:1].isalpha():
            targets.add(line.split(":")[0].strip())
    commands = [line.split()[1] for line in readme.splitlines() if line.strip().startswith("make ")]
    assert {"demo", "test"} <= set(commands)
    assert set(commands) <= targets
    for word in readme.split():
        name = word.strip("`(),.;")
        if name.startswith("recipes/") and name.endswith(".yaml") and "NAME" not in name:
            assert (repository / name).exists(), name
