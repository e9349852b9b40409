from __future__ import annotations

import difflib
import itertools
import os
import pydoc_data.topics
import random
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest

from primer.alignment import is_telling, shared
from primer.benchmarks import Question, read_every_benchmark
from primer.contamination import Contamination, Match
from primer.errors import PrimerError
from primer.words import text_words

# Prose of a few hundred words each, by the authors of Python: hosts for planted items, and clean texts.
PROSE = [text for text in pydoc_data.topics.topics.values() if 150 < len(text.split()) < 800]
REAL_WORDS = [word for text in PROSE[:20] for word in text.split() if word.isalpha()]

FARM = Question(
    "farm.jsonl, line 7",
    "A farmer wants to know which soil holds the most water after a long rain. What should she do first?",
    ("Weigh a pot of each soil before and after pouring.", "Ask a neighbour.", "Plant oats.", "Wait for snow."),
)
SHORT = Question(
    "short.jsonl, line 1", "Why is fresh snow quiet?", ("Tiny holes between crystals swallow sound.", "Cold")
)
PASSAGE = (
    "The lighthouse at Skarv was built by a widow who had lost two sons on the reef below it. She sold her herd of "
    "goats, hired three masons from the mainland, and carried the sand for the mortar herself, in a basket, for two "
    "summers. When the lamp was lit for the first time, in the autumn of 1841, forty boats lay in the bay to see it. "
    "The fishermen promised her a barrel of herring each winter, and their grandchildren still bring one to the door."
)
READING = Question("reading.jsonl, line 3", "did the widow of Skarv carry the sand alone", (PASSAGE,))
GAP = Question(
    "gap.jsonl, line 2",
    "The violin would not fit into the wooden case because the _ was much too narrow for it.",
    (
        "The violin would not fit into the wooden case because the case was much too narrow for it.",
        "The violin would not fit into the wooden case because the violin was much too narrow for it.",
    ),
)
SUM = Question(
    "code.jsonl, line 1",
    "def squares(lengths):\n    total = 0\n    for length in lengths:\n        total += length ** 2\n    return total",
    ("assert squares([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]) == 2870",),
)
FEW = {"farm": [FARM], "short": [SHORT], "reading": [READING], "gap": [GAP], "code": [SUM]}


@pytest.fixture(scope="module")
def few() -> Contamination:
    return Contamination(FEW)


@pytest.fixture(scope="module")
def own() -> Contamination:
    return Contamination(read_every_benchmark(None))


def planted(text: str, rng: random.Random) -> str:
    host = rng.choice(PROSE).split("\n\n")
    host.insert(len(host) // 2, text)
    return "\n\n".join(host)


def written(row: Question) -> str:
    """Passage, question, and answers with their letters."""
    others = [text for text in row.texts if text not in row.text]
    long = [text for text in others if len(text_words(text)) >= 20]
    short = [text for text in others if text not in long]
    lettered = [f"{letter}. {text}" for letter, text in zip("ABCDEFGHIJ", short, strict=False)]
    return "\n".join([*long[:1], row.text, *lettered])


def one_in_ten(text: str, rng: random.Random, how: str) -> str:
    words = text.split()
    for place in sorted(rng.sample(range(len(words)), max(1, round(len(words) / 10))), reverse=True):
        if how != "inserted":
            del words[place]
        if how != "deleted":
            words.insert(place, rng.choice(REAL_WORDS))
    return " ".join(words)


def test_a_match_says_which_item_stands_where(few: Contamination) -> None:
    text = f"The mill was old.\n\n{FARM.text.upper()}\n\nNobody knew."
    match = few.find(text)
    assert match == Match("farm", "farm.jsonl, line 7", FARM.text, FARM.text.upper(), 1.0, 20)


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("case", str.upper),
        ("punctuation", lambda text: text.replace(" ", " - ").replace(".", "!")),
        ("white space", lambda text: text.replace(" ", " \n\t ")),
        ("accents", lambda text: text.replace("o", "ó").replace("a", "\u00e4")),
        ("full width", lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in text)),
        ("quotes", lambda text: f"\u201c{text}\u201d"),
    ],
)
def test_an_item_is_found_however_its_letters_are_changed(few: Contamination, how: str, change: object) -> None:
    assert callable(change)
    for suite, rows in FEW.items():
        if suite not in {"short", "code"}:
            match = few.find(planted(change(rows[0].text), random.Random(how)))
            assert match is not None, (how, suite)
            assert (match.suite, match.ratio) == (suite, 1.0)


@pytest.mark.parametrize("how", ["replaced", "deleted", "inserted"])
def test_our_own_items_are_found_with_one_word_in_ten_changed(own: Contamination, how: str) -> None:
    rng, found, total = random.Random(how), 0, 0
    for suite, rows in read_every_benchmark(None).items():
        for row in rows[::2]:
            match = own.find(planted(one_in_ten(written(row), rng, how), rng))
            total += 1
            found += match is not None
            assert match is None or match.suite == suite
    assert found > 0.95 * total > 190


def test_our_own_items_are_found_word_for_word_and_with_answers_in_another_order(own: Contamination) -> None:
    rng, missed = random.Random(1), []
    for suite, rows in read_every_benchmark(None).items():
        for row in rows:
            turned = Question(row.where, row.text, row.texts[::-1])
            for text in (written(row), written(turned)):
                match = own.find(planted(text, rng))
                if match is None:
                    missed.append(row)
                else:
                    assert match.suite == suite
    assert all(len(text_words(row.text)) <= 11 for row in missed)
    assert len(missed) < 10


def test_a_short_question_is_found_with_its_answer_and_not_alone(few: Contamination) -> None:
    question, answers = SHORT.text, SHORT.texts
    assert few.find(f"He asked: {question} Nobody knew.") is None
    assert few.find(f"He wrote that tiny holes between crystals swallow sound. {question[:3]}") is None
    found = few.find(f"{question}\nAnswer: {answers[0]}")
    assert found is not None
    assert found.suite == "short"
    assert answers[0] in found.item


def test_answers_alone_are_no_items(own: Contamination) -> None:
    for rows in read_every_benchmark(None).values():
        for row in rows:
            answers = [text for text in row.texts if text not in row.text and len(text_words(text)) < 8]
            assert own.find(". ".join(answers[:1])) is None, row


def test_a_quoted_sentence_is_no_copy_of_a_passage_and_a_long_block_is(few: Contamination) -> None:
    words = PASSAGE.split()
    sentence = PASSAGE.split(". ")[1]
    assert few.find(planted(f"As the book says: {sentence}.", random.Random(0))) is None
    assert few.find(" ".join(words[5:45])) is None
    block = few.find(" ".join(words[10:65]))
    assert block is not None
    assert (block.suite, block.longest) == ("reading", 55)
    rng = random.Random(2)
    most = few.find(planted(one_in_ten(PASSAGE, rng, "replaced"), rng))
    assert most is not None
    assert 0.85 < most.ratio < 0.95


def test_a_gap_may_be_filled_with_either_word(few: Contamination) -> None:
    for text in (GAP.text, *GAP.texts, GAP.text.replace("_", "hollow")):
        match = few.find(f"They argued. {text} So it stayed outside.")
        assert match is not None
        assert match.suite == "gap"


def test_words_that_any_test_has_are_no_copy() -> None:
    row = Question("x.jsonl, line 1", "Which of the following is not a form of precipitation?", ("rain", "fog"))
    generic = Question("x.jsonl, line 2", "Which of the following statements about this is not true at all?", ())
    contamination = Contamination({"x": [row, generic]})
    assert contamination.find("Quiz: Which of the following is not a form of new media? A. blogs B. films") is None
    assert contamination.find("Which of the following statements about this is not true at all?") is None
    found = contamination.find("1. Which of the following is not a form of precipitation? A. rain B. fog C. hail")
    assert found is not None


def test_numbers_and_ordinary_programs_are_no_copy(few: Contamination) -> None:
    assert few.find(" ".join(map(str, range(200)))) is None
    assert few.find("def total(numbers):\n    return sum(number for number in numbers)\n" * 5) is None
    assert few.find(f"# util\n{SUM.text}\n") is not None


def library() -> list[str]:
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def test_pythons_library_and_its_manual_hold_no_item_of_ours(own: Contamination) -> None:
    for text in [*library(), *PROSE]:
        assert (match := own.find(text)) is None, match


def test_real_rows_are_found_and_pythons_library_is_not(benchmark_data: Path) -> None:
    every = read_every_benchmark(benchmark_data)
    contamination = Contamination(every)
    rng = random.Random(5)
    for suite, rows in every.items():
        chosen = [row for row in rng.sample(rows, min(60, len(rows))) if len(text_words(row.text)) >= 10]
        chosen = [row for row in chosen if sum(map(is_telling, text_words(row.text))) >= 3]
        for how, least in (("verbatim", 0.97), ("replaced", 0.9)):
            texts = [written(row) if how == "verbatim" else one_in_ten(written(row), rng, how) for row in chosen]
            found = [contamination.find(planted(text, rng)) for text in texts]
            assert sum(match is not None for match in found) >= least * len(chosen) - 1, (suite, how)
    assert not [match for text in library()[::4] if (match := contamination.find(text))]


def test_a_saved_index_finds_the_same(few: Contamination, tmp_path: Path) -> None:
    path = tmp_path / "index"
    few.save(path)
    loaded = Contamination.load(path)
    assert loaded.index.numbers_of == few.index.numbers_of
    assert all(np.array_equal(array, few.index.arrays[name]) for name, array in loaded.index.arrays.items())
    assert not loaded.index.arrays["words"].flags.writeable  # mapped, not read
    rng = random.Random(3)
    for row in itertools.chain(*FEW.values()):
        text = planted(one_in_ten(written(row), rng, "replaced"), rng)
        assert loaded.find(text) == few.find(text)
    assert [child.name for child in tmp_path.iterdir()] == ["index"]


def test_a_damaged_or_missing_index_is_named(few: Contamination, tmp_path: Path) -> None:
    path = tmp_path / "index"
    few.save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:40], whole[:-64], b"\xff" * 100, whole.replace(b"contamination-1", b"contamination-0")):
        path.write_bytes(damaged)
        with pytest.raises(PrimerError, match=r"index is no index of benchmarks"):
            Contamination.load(path)
    with pytest.raises(PrimerError, match="no index of benchmarks"):
        Contamination.load(tmp_path / "none")
    with pytest.raises(PrimerError, match="cannot be written"):
        few.save(tmp_path / "no folder" / "index")


def test_what_is_shared_is_what_difflib_finds() -> None:
    rng = random.Random(4)
    for _ in range(300):
        item = [rng.randrange(1, 30) for _ in range(rng.randrange(8, 60))]
        text = [rng.randrange(30) for _ in range(20)]
        text += [word if rng.random() < 0.9 else 0 for word in item] + [rng.randrange(30) for _ in range(20)]
        blocks = difflib.SequenceMatcher(None, item, text, autojunk=False).get_matching_blocks()
        found = shared(item, text)
        assert found is not None
        assert found.longest == max(block.size for block in blocks)
        assert found.words <= sum(block.size for block in blocks)
        known = {(block.a, block.a + block.size) for block in blocks}
        assert {(places.start, places.stop) for places in found.places} <= known
        assert found.words == sum(map(len, found.places))


def test_nothing_is_found_in_nothing_or_without_benchmarks(few: Contamination) -> None:
    for text in ("", " \n", "word", "\ud800 \udfff", "\x00" * 50):
        assert few.find(text) is None
    assert Contamination({}).find(PASSAGE) is None
    assert Contamination({"empty": []}).find(PASSAGE) is None


def test_surrogates_in_rows_and_texts_do_no_harm(tmp_path: Path) -> None:
    row = Question("odd.jsonl, line 1", f"{FARM.text} \ud800", ())
    Contamination({"odd": [row]}).save(tmp_path / "index")
    match = Contamination.load(tmp_path / "index").find(f"\udc00 {FARM.text}")
    assert match is not None
    assert match.item == row.text


@pytest.mark.parametrize(
    "make",
    [
        lambda count: "the " * count,
        lambda count: f"{' '.join(PASSAGE.split()[:20])} " * (count // 20),
        lambda count: " ".join(re.split(r"\s+", PASSAGE)[::-1]) * (count // 80),
        lambda count: "a" * (count * 5),
    ],
    ids=["one word", "a part of an item", "an item backwards", "no space"],
)
def test_time_grows_with_the_text_and_no_faster(few: Contamination, make: object) -> None:
    assert callable(make)

    def seconds(count: int) -> float:
        text = make(count)
        clock = time.process_time()
        assert few.find(text) is None
        return time.process_time() - clock

    short, long = seconds(10_000), seconds(80_000)
    assert long < 20 * short + 1
    assert long < 20


def test_a_very_long_text_is_searched_to_its_end(few: Contamination) -> None:
    words = PROSE[0].split()
    text = " ".join(itertools.islice(itertools.cycle(words), 300_000))
    assert few.find(text) is None
    match = few.find(f"{text}\n{FARM.text}")
    assert match is not None
    assert match.passage == FARM.text


def test_another_process_finds_the_same(few: Contamination, tmp_path: Path) -> None:
    few.save(tmp_path / "index")
    program = (
        "import sys; from pathlib import Path; from primer.contamination import Contamination\n"
        "match = Contamination.load(Path(sys.argv[1])).find(sys.argv[2]); print(match.where)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "index"), FARM.text]
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == FARM.where
