"""Deduplication of whole corpora: recall by theory, greedy in order, the same in blocks, online and by brute force."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from primer.errors import PrimerError
from primer.recipe_corpora import Duplicates
from synth.duplicate_index import EarlierTexts, IndexWriter
from synth.duplicates import Removals, find_duplicates
from synth.near_duplicates import NearDuplicates
from synth.removed import Removed, RemovedReader, RemovedWriter
from synth.signatures import (
    HASHES,
    SIGNATURE,
    Found,
    Signatures,
    SignatureWriter,
    each_signature,
    open_signatures,
    signature,
    signature_blocks,
    similarity_of,
)

VOCABULARY = [f"word{number}" for number in range(20_000)]


def prose(generator: random.Random, words: int = 200) -> list[str]:
    return generator.choices(VOCABULARY, k=words)


def edited(generator: random.Random, words: Sequence[str], share: float) -> list[str]:
    """So many of the words replaced, at random places."""
    other = list(words)
    for place in generator.sample(range(len(words)), round(share * len(words))):
        other[place] = f"other{generator.randrange(10**9)}"
    return other


def jaccard(one: Sequence[str], other: Sequence[str], shingle: int = 5) -> float:
    ours, theirs = ({tuple(t[n : n + shingle]) for n in range(len(t) - shingle + 1)} for t in (one, other))
    return len(ours & theirs) / len(ours | theirs)


def planted(seed: int, families: int = 25) -> list[str]:
    """Texts of which many are copies or edits of each other, in an order of chance."""
    generator, texts = random.Random(seed), []
    for _ in range(families):
        words = prose(generator, 120)
        texts.append(" ".join(words))
        texts.append(" ".join(words).upper().replace(" ", " \n", 7))
        texts += [" ".join(edited(generator, words, share)) for share in (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)]
    generator.shuffle(texts)
    return texts


def written(folder: Path, texts: Sequence[Signatures], files: int = 1) -> list[Path]:
    paths = [folder / f"{number}.npy" for number in range(files)]
    for number, path in enumerate(paths):
        with SignatureWriter(path) as writer:
            for each in texts[number * len(texts) // files : (number + 1) * len(texts) // files]:
                writer.add(each)
    return paths


def deduplicated(
    folder: Path,
    texts: Sequence[Signatures],
    settings: Duplicates | None = None,
    earlier: Sequence[Path] = (),
    **options: int,
) -> Removals:
    folder.mkdir(exist_ok=True)
    files = written(folder, texts, options.pop("files", 1))
    return find_duplicates(files, settings or Duplicates(), earlier, folder / "scratch", **options)


def everything(removals: Removals) -> list[Found | None]:
    return [removals.kept_by(number) for number in range(removals.documents)]


def by_brute_force(texts: Sequence[Signatures], settings: Duplicates) -> list[Found | None]:
    """The definition: greedy in order, every kept text compared."""
    kept: list[Signatures] = []
    result: list[Found | None] = []
    for ours in texts:
        best: tuple[float, int] | None = None
        for number, theirs in enumerate(kept):
            same = ours["minhash"] == theirs["minhash"]
            if (ours["text"] == theirs["text"]).all():
                result.append(Found(number, 1.0, "exact"))
                break
            similarity = float(similarity_of(same.sum()))
            banded = same.reshape(-1, settings.rows).all(axis=1).any()
            if banded and similarity > settings.threshold and (best is None or similarity > best[0]):
                best = (similarity, number)
        else:
            result.append(Found(best[1], best[0], "near") if best else None)
            if best is None:
                kept.append(ours)
    return result


@pytest.mark.parametrize("rows", [4, 8])
def test_recall_follows_the_theory(tmp_path: Path, rows: int):
    settings = Duplicates.model_validate({"rows": rows, "threshold": 0.0})  # whatever shares a band
    generator = random.Random(rows)
    for share in (0.05, 0.1, 0.2, 0.3):
        pairs = [(words, edited(generator, words, share)) for words in (prose(generator) for _ in range(250))]
        texts = [signature(" ".join(pair[which]), 5) for which in (0, 1) for pair in pairs]
        found = everything(deduplicated(tmp_path, texts, settings))[250:]
        agree = [similarity + (1 - similarity) / 256 for similarity in (jaccard(*pair) for pair in pairs)]
        expected = np.mean([1 - (1 - p**rows) ** (HASHES / rows) for p in agree])
        recall = np.mean([match is not None for match in found])
        assert recall == pytest.approx(expected, abs=3 * (expected * (1 - expected) / 250) ** 0.5 + 0.01)
        assert all(match is None or match.number == place for place, match in enumerate(found))


def test_copies_and_light_edits_go_and_everything_else_stays(tmp_path: Path):
    generator = random.Random(1)
    originals = [prose(generator) for _ in range(150)]
    for share, least, most in ((0.0, 1.0, 1.0), (0.01, 0.99, 1.0), (0.05, 0.0, 0.1), (0.3, 0.0, 0.0)):
        others = [edited(generator, words, share) for words in originals]
        texts = [signature(" ".join(words), 5) for words in [*originals, *others]]
        removals = deduplicated(tmp_path, texts)
        found = everything(removals)
        assert found[:150] == [None] * 150
        assert least <= np.mean([match is not None for match in found[150:]]) <= most
        assert all(match is None or match.number == place for place, match in enumerate(found[150:]))
        for match, words, other in zip(found[150:], originals, others, strict=True):
            assert match is None or match.similarity == pytest.approx(jaccard(words, other), abs=0.16)  # 4 deviations
        assert removals.counts["exact"] == (150 if share == 0 else 0)


@pytest.mark.parametrize(
    "changes", [{}, {"rows": 8}, {"rows": 2, "threshold": 0.3}, {"threshold": 1.0}, {"words": 3, "threshold": 0.5}]
)
def test_blocks_brute_force_and_the_index_of_generation_agree(tmp_path: Path, changes: dict[str, float]):
    settings = Duplicates.model_validate(changes)
    texts = [signature(text, settings.words) for text in planted(2)]
    expected = by_brute_force(texts, settings)
    assert {match.kind for match in expected if match} == ({"exact"} if settings.threshold == 1 else {"exact", "near"})
    for block, files in ((1 << 19, 1), (50, 3), (7, 11)):
        removals = deduplicated(tmp_path, texts, settings, block=block, files=files)
        assert everything(removals) == expected
        assert sum(removals.counts.values()) == len(removals) == sum(match is not None for match in expected)
    online = NearDuplicates(settings)
    for ours, match in zip(texts, expected, strict=True):
        assert online.find(ours) == match
        if match is None:
            online.add(ours)


def test_the_first_stays_and_a_removed_text_removes_no_other(tmp_path: Path):
    generator = random.Random(3)
    words = prose(generator, 1000)
    steps = [words]
    for number in range(3):  # each takes the next 35 words away from the one before it: 0.7 < similarity < 0.85
        steps.append([f"other{n}" if n // 50 == number else word for n, word in enumerate(steps[-1])])
    one, two, three, four = (signature(" ".join(step), 5) for step in steps)
    found = everything(deduplicated(tmp_path, [one, two, three, four], Duplicates(threshold=0.85)))
    assert [match is not None for match in found] == [False, True, False, True]
    assert [match.number for match in found if match] == [0, 1]  # numbered among the kept: the third one is the second


def test_texts_of_earlier_corpora_are_found_and_the_best_match_is_named(tmp_path: Path):
    generator = random.Random(4)
    texts = [prose(generator) for _ in range(60)]
    folders = [tmp_path / "web", tmp_path / "code"]
    for folder, part in zip(folders, (texts[:20], texts[15:40]), strict=True):
        folder.mkdir()
        with IndexWriter(folder, folder.name, Duplicates(), segment=6) as index:
            for words in part:
                index.add(signature(" ".join(words), 5))
    near = " ".join(edited(generator, texts[30], 0.01))
    asked = [signature(" ".join(words), 5) for words in texts] + [signature(near, 5)]
    found = everything(deduplicated(tmp_path / "own", asked, earlier=folders, block=9))
    assert found[:20] == [Found(number, 1.0, "exact", "web") for number in range(20)]
    assert found[20:40] == [Found(number - 15, 1.0, "exact", "code") for number in range(20, 40)]
    assert found[40:60] == [None] * 20
    earlier = EarlierTexts(folders, Duplicates())
    assert [earlier.find(one) for one in asked] == found
    assert found[60] is not None
    assert (found[60].number, found[60].kind, found[60].corpus) == (15, "near", "code")


def test_an_index_is_the_same_bytes_and_of_other_settings_it_is_refused(tmp_path: Path):
    texts = [signature(text, 5) for text in planted(5, 3)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with IndexWriter(tmp_path / name, "web", Duplicates(), segment=10) as index:
            for each in texts:
                index.add(each)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 1 + 6 * 3
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    with pytest.raises(PrimerError, match="'rows': 4"):
        EarlierTexts([tmp_path / "one"], Duplicates(rows=8))
    (tmp_path / "two" / "index.json").unlink()
    with pytest.raises(PrimerError, match=r"index\.json cannot be read"):
        EarlierTexts([tmp_path / "two"], Duplicates())


def test_a_damaged_index_is_an_error_that_says_what_to_do(tmp_path: Path):
    with IndexWriter(tmp_path, "web", Duplicates()) as index:
        index.add(signature("One text.", 5))
    about = json.loads((tmp_path / "index.json").read_text())
    assert EarlierTexts([tmp_path], Duplicates()).find(signature("one  text.", 5)) == Found(0, 1.0, "exact", "web")
    without = {key: value for key, value in about.items() if key != "corpus"}
    for damaged in ([], None, 5, {}, without, about | {"segments": None}, about | {"segments": [1, "2"]}):
        (tmp_path / "index.json").write_text(json.dumps(damaged))
        with pytest.raises(PrimerError, match=r"index\.json (is damaged|was made with)") as caught:
            EarlierTexts([tmp_path], Duplicates())
        assert f"Delete {tmp_path}" in caught.value.remedy


def test_an_empty_corpus_and_a_single_text_are_corpora_too(tmp_path: Path):
    assert everything(deduplicated(tmp_path / "none", [])) == []
    one = signature("One text alone.", 5)
    assert everything(deduplicated(tmp_path / "one", [one])) == [None]
    (tmp_path / "empty").mkdir()
    with IndexWriter(tmp_path / "empty", "code", Duplicates()):
        pass
    assert EarlierTexts([tmp_path / "empty"], Duplicates()).find(one) is None
    assert everything(deduplicated(tmp_path / "two", [one, one], earlier=[tmp_path / "empty"]))[1] is not None


def random_signatures(count: int) -> Signatures:
    generator = np.random.default_rng(0)
    signatures = np.empty(count, SIGNATURE)
    signatures["text"] = generator.integers(0, 2**63, (count, 2))
    signatures["minhash"] = generator.integers(0, 256, (count, HASHES))
    return signatures


def each_of(signatures: Signatures) -> list[Signatures]:
    return [signatures[place, ...] for place in range(len(signatures))]


def test_memory_is_that_of_a_block(tmp_path: Path):
    signatures = random_signatures(200_000)
    signatures[100_000:105_000] = signatures[:5000]  # equal
    signatures["minhash"][150_000:152_000, :96] = signatures["minhash"][:2000, :96]  # three quarters equal
    with SignatureWriter(tmp_path / "all.npy") as writer:
        writer.add(signatures)
    del signatures
    tracemalloc.start()
    removals = find_duplicates([tmp_path / "all.npy"], Duplicates(), [], tmp_path / "scratch", block=20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert removals.counts == {"exact": 5000, "near": 2000}
    assert removals.kept_by(104_999) == Found(4999, 1.0, "exact")
    assert removals.kept_by(3) is None  # also out of order
    assert peak < 30e6  # all the signatures alone are 29 MB, their index 84


def test_very_many_equal_texts_and_a_band_that_all_texts_share_cost_little(tmp_path: Path):
    signatures = random_signatures(10_000)
    signatures["minhash"][:, :8] = 7  # boilerplate: two whole bands
    signatures[2000:7000] = signatures[17]
    with SignatureWriter(tmp_path / "all.npy") as writer:
        writer.add(signatures)
    results = []
    for block in (10_000, 3000):
        removals = find_duplicates([tmp_path / "all.npy"], Duplicates(), [], tmp_path / "scratch", block=block)
        assert removals.counts == {"exact": 5000, "near": 0}
        results.append({removals.kept_by(number) for number in range(2000, 7000)})
    assert results == [{Found(17, 1.0, "exact")}] * 2


@pytest.mark.parametrize("threshold", [0.99, 1.0])
def test_equal_texts_are_found_however_many_are_alike(tmp_path: Path, threshold: float):
    texts = random_signatures(420)
    variants = texts["minhash"][:, ::4] % 2 if threshold < 1 else 0
    texts["minhash"] = 7
    texts["minhash"][:, ::4] = variants  # each band is shared by all texts, or by half of them
    copies = texts[300:400]
    everyone = each_of(np.concatenate([texts, copies, copies[:20]]))
    settings = Duplicates(threshold=threshold)
    expected = by_brute_force(everyone, settings)
    assert expected == [None] * len(texts) + [Found(300 + n % 100, 1.0, "exact") for n in range(120)]
    for block in (1 << 18, 400, 90):
        assert everything(deduplicated(tmp_path, everyone, settings, block=block)) == expected
    online = NearDuplicates(settings)
    for ours, match in zip(everyone, expected, strict=True):
        assert online.find(ours) == match
        if match is None:
            online.add(ours)
    with IndexWriter(tmp_path, "web", settings, segment=200) as index:
        for each in each_of(texts):
            index.add(each)
    earlier = EarlierTexts([tmp_path], settings)
    assert [earlier.find(each) for each in each_of(copies)] == [Found(300 + n, 1.0, "exact", "web") for n in range(100)]


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from primer.errors import PrimerError
from primer.recipe_corpora import Duplicates
from synth.duplicates import find_duplicates

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
try:
    removals = find_duplicates([Path(sys.argv[1]) / "0.npy"], Duplicates(), [], Path(sys.argv[1]) / "scratch", block=20)
    print(removals.counts, removals.kept_by(1199))
except PrimerError as error:
    print(f"error: {error} {error.remedy}")
"""


@pytest.mark.parametrize("limit", [40, 14])
def test_many_blocks_open_few_files_and_too_few_allowed_say_so(tmp_path: Path, limit: int):
    texts = random_signatures(1200)
    texts[1199] = texts[5]
    written(tmp_path, each_of(texts))
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(limit)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    if limit == 40:  # 60 blocks
        assert result.stdout == f"{ {'exact': 1, 'near': 0} } {Found(5, 1.0, 'exact')}\n"
        assert len(list((tmp_path / "scratch").glob("*-keys.npy"))) == 60 // 16 + 60 % 16
    else:
        assert "Too many open files" in result.stdout
        assert "ulimit -n" in result.stdout


def test_signature_files_are_whole_or_absent_and_read_across_files(tmp_path: Path):
    texts = [signature(f"text number {number}", 5) for number in range(25)]
    paths = written(tmp_path, texts, files=4)
    assert [len(block) for block in signature_blocks(paths, 10)] == [10, 10, 5]
    assert all(ours == theirs for ours, theirs in zip(each_signature(paths), texts, strict=True))
    assert len(open_signatures(paths[0])) == 6
    with pytest.raises(AttributeError), SignatureWriter(tmp_path / "half.npy") as writer:
        writer.add(None)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.npy" for number in range(4)]
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    with pytest.raises(PrimerError, match=r"1\.npy cannot be read"):
        list(each_signature(paths))


def test_the_list_of_what_was_removed_comes_back_row_by_row(tmp_path: Path):
    def removed(number: int) -> Removed:
        return {
            "kind": "exact" if number % 3 == 0 else "near",
            "similarity": 0.8,
            "title": None,
            "origin": "https://example.org",
            "text": f"text {number}",
            "kept": f"web-{number:06d}",
            "kept_corpus": "web",
        }

    with RemovedWriter(tmp_path) as writer:
        for number in range(1, 2501):
            writer.add(removed(number))
    reader = RemovedReader(tmp_path)
    assert reader.total == 2500
    assert [reader.row(number) for number in (1, 2, 1025, 2500)] == [removed(n) for n in (1, 2, 1025, 2500)]
    assert reader.row(3)["text"] is None  # an equal one is not kept twice
    assert list(reader.numbers("exact")) == list(range(3, 2501, 3))
    assert list(reader.numbers()) == list(range(1, 2501))
    assert not list(tmp_path.glob("train-*.parquet"))
    with pytest.raises(PrimerError, match="cannot be read"):
        RemovedReader(tmp_path / "nothing")
