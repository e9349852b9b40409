"""The `primer` command as people type it: help at once, and one clear message for each mistake."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PRIMER = Path(sys.executable).parent / "primer"


def primer(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PRIMER, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def assert_one_clear_message(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    for word in words:
        assert word in result.stderr


def test_help_answers_within_half_a_second_of_cpu(repository: Path):
    code = (
        "import sys, time; sys.argv = ['primer', '--help']\n"
        "from primer.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'openai', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert time.process_time() < 0.5, time.process_time()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in ("synth", "train", "eval", "report", "status", "recipe", "prompts"):
        assert f"  {command} " in result.stdout


def test_unknown_recipe_names_the_ones_there_are(repository: Path):
    result = primer("synth", "recipes/dmo.yaml", cwd=repository)
    assert_one_clear_message(result, "recipes/dmo.yaml", "Did you mean recipes/demo.yaml?")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.tokenz=5", ["train.tokenz", "Did you mean train.tokens?"]),
        ("train.tokens=many", ["train.tokens", "'many'", "integer"]),
        ("variants=[{name: a, mixture: {web: 0.5}}]", ["variants.0", "add up to 0.5", "expected 1"]),
        ("nonsense", ["nonsense", "key=value"]),
        ("synth.teacher.kind=oracle", ["synth.teacher.kind", "oracle", "'embedded'"]),
    ],
)
def test_a_wrong_setting_names_key_value_and_what_was_expected(repository: Path, override: str, words: list[str]):
    assert_one_clear_message(primer("recipe", "recipes/smoke.yaml", "--set", override, cwd=repository), *words)


def test_resolved_recipe_can_be_printed_and_read_back(repository: Path, tmp_path: Path):
    printed = primer("recipe", "recipes/smoke.yaml", "--set", "train.learning_rate=2e-4", cwd=repository)
    again = tmp_path / "again.yaml"
    again.write_text(printed.stdout, encoding="utf-8")
    assert "learning_rate: 0.0002" in printed.stdout
    assert primer("recipe", str(again), cwd=repository).stdout == printed.stdout


def test_fields_are_documented(repository: Path):
    listing = primer("recipe", "--fields", cwd=repository).stdout
    assert "train.learning_rate\n    float, default 0.0002" in listing


def test_a_folder_that_is_no_run_folder_is_left_alone(repository: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = primer("synth", "recipes/smoke.yaml", "--run", str(tmp_path), cwd=repository)
    assert_one_clear_message(result, str(tmp_path), "not a run folder", "--run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_run_folder_of_another_recipe_is_refused(repository: Path, tmp_path: Path):
    frozen = primer("recipe", "recipes/demo.yaml", cwd=repository).stdout
    (tmp_path / "recipe.yaml").write_text(frozen)
    result = primer("synth", "recipes/smoke.yaml", "--run", str(tmp_path), cwd=repository)
    assert_one_clear_message(result, "'demo'", "'smoke'", "--run")


def test_unreachable_endpoint_names_the_address(repository: Path, tmp_path: Path):
    started = time.monotonic()
    result = primer(
        "synth", "recipes/smoke.yaml", "--run", str(tmp_path / "run"),
        "--set", "synth.teacher={kind: openai, base_url: 'http://127.0.0.1:9/v1', model: m, api_key_env: NO_SUCH_KEY}",
        cwd=repository,
    )  # fmt: skip
    assert_one_clear_message(result, "http://127.0.0.1:9/v1")
    assert time.monotonic() - started < 60


def test_status_of_a_run_that_was_never_begun(repository: Path, tmp_path: Path):
    result = primer("status", "recipes/smoke.yaml", "--run", str(tmp_path / "none"), cwd=repository)
    assert result.returncode == 0
    assert "corpus/synthetic" in result.stderr
    assert "not begun" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_missing_package_is_named(repository: Path, tmp_path: Path):
    code = (
        "import sys; sys.modules['mwparserfromhell'] = None\n"
        f"sys.argv = ['primer', 'synth', 'recipes/smoke.yaml', '--run', {str(tmp_path / 'run')!r}]\n"
        "from primer.cli import main\n"
        "sys.exit(main())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert_one_clear_message(result, "mwparserfromhell", "make setup")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "/there/scores: Permission denied."),
        (errno.EROFS, "Read-only"),
        (errno.ENOSPC, "The disk is full"),
    ],
)
def test_what_the_system_forbids_is_one_line(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from primer import cli

    def refused() -> None:
        raise OSError(number, os.strerror(number), "/there/scores")

    monkeypatch.setattr(cli, "app", refused)
    handlers = [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert cli.main() == 1
    finally:
        for which, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(which, handler)
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
