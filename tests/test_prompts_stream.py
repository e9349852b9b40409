"""The prompt stream: random access, weights, coverage, levels, hostile passages; and what cuts the passages."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from prompt_samples import SNIPPETS, recipe, text_of

from primer.errors import PrimerError
from primer.recipe import TopicWeights
from prompts.draw import Shares, draws
from prompts.forms import load_forms
from prompts.passages import Snippet
from prompts.stream import PromptStream, material
from prompts.tables import load_tables
from prompts.unit import Unit
from topics import LEVELS, load_topics


@pytest.fixture(scope="module")
def stream() -> PromptStream:
    return PromptStream(recipe(), SNIPPETS)


def digest(units: list[Unit]) -> str:
    return hashlib.sha256("\n".join(f"{unit!r} {unit.messages()}" for unit in units).encode()).hexdigest()


def test_any_order_and_any_stream_object_give_the_same_prompts(stream: PromptStream) -> None:
    indices = [*range(50), 999, 1010, 5_000, 123_456, 10**9, 10**15]
    forward = {i: stream[i] for i in indices}
    random.Random(1).shuffle(indices)
    other = PromptStream(recipe(), list(SNIPPETS))
    assert {i: other[i] for i in indices} == forward
    assert len({prompt.seed for prompt in forward.values()}) == len(forward)
    assert all(0 <= prompt.seed < 2**31 for prompt in forward.values())


def test_another_process_with_another_hash_seed_gives_the_same_prompts(stream: PromptStream, repository: Path) -> None:
    indices = [0, 7, 1011, 40_000, 3, 10**12]
    program = (
        "import json, sys; from test_prompts_stream import *;"
        "s = PromptStream(recipe(), SNIPPETS); print(digest([s[i] for i in json.loads(sys.argv[1])]))"
    )
    for hash_seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(indices)],
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": f"{repository / 'tests'}{os.pathsep}{repository}",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == digest([stream[i] for i in indices])


def test_a_prompt_depends_on_the_recipe_seed_and_on_no_setting_of_another_room(stream: PromptStream) -> None:
    elsewhere = recipe().model_copy(update={"name": "other", "description": "x"})
    assert PromptStream(elsewhere, SNIPPETS)[5] == stream[5]
    reseeded = PromptStream(recipe(seed=1), SNIPPETS)
    assert [reseeded[i].topic for i in range(20)] != [stream[i].topic for i in range(20)]


def test_every_topic_comes_once_in_each_epoch_in_an_order_of_its_own(stream: PromptStream) -> None:
    count = len(stream.topics)
    assert (count, stream.left_out) == (len(load_topics()), 0)
    orders = [[stream[epoch * count + i].topic.id for i in range(count)] for epoch in (0, 70)]
    for order in orders:
        assert sorted(order) == sorted(topic.id for topic in stream.topics)
    same_place = sum(a == b for a, b in zip(orders[0], orders[1], strict=True))
    assert same_place < 25, "two orders at random agree in few places, the more so as fields keep their rhythm"


def test_a_topic_gets_another_form_in_the_next_epoch() -> None:
    tables = load_forms()
    for settings in ({}, {"forms": {"everyday-story": 8.0, "letter": 1.0, "dialogue": 1.0}}):
        stream = PromptStream(recipe(snippet_share=0.0, fields=["history", "python-programming"], **settings), [])
        count = len(stream.topics)
        forms: dict[str, list[str]] = {topic.id: [] for topic in stream.topics}
        for i in range(12 * count):
            forms[stream[i].topic.id].append(stream[i].form)
        for topic in stream.topics:
            suitable = [name for name in settings.get("forms", tables) if tables[name].suits(topic)]
            repeats = sum(a == b for a, b in pairwise(forms[topic.id]))
            assert repeats == (0 if len(suitable) > 1 else 11), topic


def test_a_weighed_topic_gets_another_form_each_time_too() -> None:
    for forms in ({"dialogue": 1.0, "everyday-story": 1.0}, {"dialogue": 1.0, "everyday-story": 1.0, "letter": 1.0}):
        base = recipe(snippet_share=0.0, fields=["physics", "algebra"], forms=forms)
        for weight in (1.5, 8.0):
            weights = TopicWeights(fields={"algebra": weight})
            settings = base.model_copy(update={"topics": base.topics.model_copy(update={"weights": weights})})
            stream = PromptStream(settings, [])
            seen: dict[str, list[str]] = {}
            for i in range(8 * len(stream.topics)):
                seen.setdefault(stream[i].topic.id, []).append(stream[i].form)
            assert not any(a == b for order in seen.values() for a, b in pairwise(order))


def test_weights_of_forms_and_audiences_hold_and_zero_means_never() -> None:
    forms = {"textbook-section": 1.0, "dialogue": 2.0, "everyday-story": 3.0, "letter": 2.0, "key-words": 0.0}
    audiences = {"curious-child": 3.0, "schoolwork": 1.0, "exam-student": 0.0}
    stream = PromptStream(
        recipe(fields=["geography", "earth-and-space"], snippet_share=0.0, forms=forms, audiences=audiences), []
    )
    # Of these, textbook-section does not suit every kind of topic: the shares are counted where all four do.
    everywhere = [p for p in (stream[i] for i in range(8_000)) if p.topic.kind == "cause"]
    form_count, audience_count = Counter(p.form for p in everywhere), Counter()
    for name in ("textbook-section", "dialogue", "everyday-story", "letter"):
        assert form_count[name] / len(everywhere) == pytest.approx(forms[name] / 8, abs=0.03)
    both = [p for p in everywhere if {"primary", "middle"} & set(p.topic.levels)]
    audience_count.update(p.audience for p in both)
    assert audience_count["curious-child"] / len(both) == pytest.approx(0.75, abs=0.03)
    assert set(form_count) == {name for name, weight in forms.items() if weight}
    assert set(audience_count) == {"curious-child", "schoolwork"}


def test_choices_follow_the_weights_in_every_turn_and_never_repeat() -> None:
    for weights in ([1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 2.0, 2.0], [1.0, 4.0, 1.0], [20.0, 1.0, 1.0], [1.0, 5.0]):
        shares = Shares(weights)
        largest = max(weights) / sum(weights)
        for turn in (0, 1, 17, 1_000):
            picks = Counter(shares.pick_unlike_last(draws("t", i)[0], turn) for i in range(3_000))
            if turn == 0 or largest <= 0.38:
                for item, weight in enumerate(weights):
                    assert picks[item] / 3_000 == pytest.approx(weight / sum(weights), abs=0.04)
        for i in range(200):
            walk = [shares.pick_unlike_last(draws("w", i)[0], turn) for turn in range(60)]
            assert all(a != b for a, b in pairwise(walk)), (weights, i)


def test_readers_suit_the_topic(stream: PromptStream) -> None:
    tables = load_tables()
    levels = Counter()
    for i in range(4_000):
        prompt = stream[i]
        assert prompt.level in prompt.topic.levels
        assert prompt.level in tables.audiences[prompt.audience].levels
        assert tables.levels[prompt.level] in text_of(prompt)
        assert (tables.audiences[prompt.audience].writing in text_of(prompt)) == prompt.kept[0]
        levels[prompt.level] += 1
    assert set(levels) == set(LEVELS)
    covered = {level for audience in tables.audiences.values() for level in audience.levels}
    assert covered == set(LEVELS)
    assert len(tables.audiences) >= 8


def test_a_recipe_for_one_reader_uses_the_topics_that_suit_it() -> None:
    stream = PromptStream(recipe(snippet_share=0.0, audiences={"beginner-reader": 1.0}), [])
    suitable = [topic for topic in load_topics() if {"early", "primary"} & set(topic.levels)]
    assert stream.topics == suitable
    assert stream.left_out == len(load_topics()) - len(suitable) > 0
    assert {stream[i].audience for i in range(500)} == {"beginner-reader"}


def test_the_recipes_weights_of_topics_reach_the_prompts() -> None:
    weights = TopicWeights(fields={"physics": 3.0}, kinds={"story": 0.0}, levels={"early": 0.0, "high": 4.0})
    settings = recipe(snippet_share=0.0, fields=["physics", "biology"])
    weighted = settings.model_copy(update={"topics": settings.topics.model_copy(update={"weights": weights})})
    stream, plain = PromptStream(weighted, []), PromptStream(settings, [])
    prompts, before = [stream[i] for i in range(3_000)], [plain[i] for i in range(3_000)]
    assert not any(p.topic.kind == "story" or p.level == "early" for p in prompts)
    assert stream.left_out == sum(t.kind == "story" or t.levels == ("early",) for t in plain.topics) > 0

    def share(some: list[Unit], field: str) -> float:
        return sum(p.topic.field == field for p in some) / len(some)

    odds = (share(prompts, "physics") / share(prompts, "biology")) / (
        share(before, "physics") / share(before, "biology")
    )
    assert odds == pytest.approx(3.0, rel=0.15)
    both = [p for p in prompts if p.topic.levels == ("middle", "high") and p.audience == "curious-child"]
    assert {p.level for p in both} == {"middle"}, "a reader keeps to his levels"
    either = [p for p in prompts if p.topic.levels == ("middle", "high") and p.audience == "schoolwork"]
    assert sum(p.level == "high" for p in either) / len(either) == pytest.approx(0.8, abs=0.08)


def test_passages_come_by_their_share_and_in_full() -> None:
    for share in (0.0, 0.25, 1.0):
        stream = PromptStream(recipe(fields=["history", "biology"], snippet_share=share), SNIPPETS)
        tables = load_forms()
        able = [prompt for prompt in (stream[i] for i in range(2_000)) if tables[prompt.form].about.snippets]
        with_passage = 0
        for prompt in able:
            if prompt.snippet is not None:
                with_passage += 1
                assert prompt.snippet.text in text_of(prompt)
        assert with_passage / len(able) == pytest.approx(share, abs=0.04)


HOSTILE = [
    "{{ title }} {{ 7 * 7 }}",
    "{% for x in range(99999999) %}x{% endfor %}",
    "{# gone #} stays",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% include '_system.j2' %}{% raw %}",
    "{{ undefined_name }} {%",
    "}} %} #} {{",
    "<script>alert(1)</script> & \"quotes\" 'too' \\n \\ %s %(x)s ${HOME} \x00 \u202e",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_passage_changes_nothing_but_the_passage(hostile: str) -> None:
    plain = PromptStream(recipe(snippet_share=1.0), [Snippet("s", "@@@")])
    attacked = PromptStream(recipe(snippet_share=1.0), [Snippet("s", hostile)])
    for i in range(60):
        expected = text_of(plain[i])
        if plain[i].snippet is not None:
            assert expected.count("@@@") == 1
        assert text_of(attacked[i]) == expected.replace("@@@", hostile)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forms": {"dialog": 1.0}}, r"(?s)prompts\.forms: there is no 'dialog'.*Did you mean dialogue"),
        ({"audiences": {"sceptic": 1.0}}, r"(?s)prompts\.audiences: there is no 'sceptic'.*skeptic"),
        ({"lengths": {"short": 0, "usual": 0, "long": 0}}, r"prompts\.lengths: every weight is 0"),
        ({"registers": {"plane": 1.0}}, r"(?s)prompts\.registers: there is no 'plane'.*Did you mean plain"),
        ({"languages": {"klingon": 1.0}}, r"prompts\.languages: there is no 'klingon'"),
        ({"folders": ["/nowhere"]}, r"/nowhere is no folder"),
        ({"snippet_share": 0.5, "snippets": []}, r"(?s)snippet_share is 0\.5.*to 0"),
        ({"fields": ["physics"], "forms": {"python-lesson": 1.0}}, r"None of the \d+ topics"),
        ({"fields": ["fysics"]}, "no field 'fysics'"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_with_a_remedy(settings: dict[str, object], message: str) -> None:
    snippets = settings.pop("snippets", SNIPPETS)
    with pytest.raises(PrimerError, match=message):
        PromptStream(recipe(**settings), snippets)  # type: ignore[arg-type]


def test_an_index_below_zero_is_an_error(stream: PromptStream) -> None:
    with pytest.raises(IndexError):
        stream[-1]


def test_material_names_every_file_and_changes_with_it() -> None:
    found = material(recipe())
    files = {"topics/physics", "prompts/forms/dialogue.j2", "prompts/forms/_system.j2", "prompts/styles.yaml"}
    assert files <= set(found)
    assert found == material(recipe())
    assert not {"topics/physics"} & set(material(recipe(fields=["algebra"]))), "only what is drawn from counts"
    assert found["topics/physics"] != found["topics/algebra"]


def test_styles_follow_their_weights_and_cross_each_other(stream: PromptStream) -> None:
    styles = load_tables().styles
    units = [stream[i] for i in range(12_000)]
    for axis, known in (("length", styles.lengths), ("register", styles.registers)):
        counts = Counter(getattr(unit, axis) for unit in units)
        assert set(counts) == set(known)
        assert max(counts.values()) < 1.15 * min(counts.values()), "all equally often, as no weights are given"
    assert {unit.language for unit in units} == {"english"}
    # Orthogonal: within each register the lengths keep their shares.
    for register in styles.registers:
        lengths = Counter(unit.length for unit in units if unit.register == register)
        assert max(lengths.values()) / sum(lengths.values()) < 0.39
    weighted = PromptStream(
        recipe(snippet_share=0.0, lengths={"short": 3.0, "long": 1.0}, languages={"german": 1.0, "english": 1.0}), []
    )
    units = [weighted[i] for i in range(4_000)]
    assert sum(unit.length == "short" for unit in units) / 4_000 == pytest.approx(0.75, abs=0.03)
    german = [unit for unit in units if unit.language == "german"]
    assert len(german) / 4_000 == pytest.approx(0.5, abs=0.03)
    for unit in german[:50]:
        assert "all in German" in text_of(unit)
        assert ("(in German)" in text_of(unit)) == unit.kept[0]
    assert not any(
        "German" in text_of(unit) for unit in units if unit.language == "english" and "Germ" not in unit.topic.title
    )


def test_the_length_changes_how_many_words_are_asked_for() -> None:
    asked = {}
    for length in ("short", "usual", "long"):
        stream = PromptStream(recipe(snippet_share=0.0, forms={"letter": 1.0}, lengths={length: 1.0}), [])
        asked[length] = re.search(r"Write about (\d+) words", text_of(stream[3]))[1]  # type: ignore[index]
    assert asked == {"short": "170", "usual": "350", "long": "700"}


def test_required_words_come_by_their_share_and_stock_openers_are_forbidden() -> None:
    for share in (0.0, 0.3, 1.0):
        stream = PromptStream(recipe(snippet_share=0.0, required_words=share), [])
        units = [stream[i] for i in range(2_000)]
        assert sum(bool(unit.required_words) for unit in units) / 2_000 == pytest.approx(share, abs=0.04)
        for unit in units[:300]:
            text = text_of(unit)
            assert len(set(unit.required_words)) in (0, 3)
            assert all(word in text for word in unit.required_words)
            for opener in ("In the realm of", "Imagine you are", "Once upon a time"):
                assert (f'"{opener}"' in text) == unit.kept[0], "a plan is not what anyone reads"


def test_a_table_of_zeros_leaves_out_what_it_names() -> None:
    stream = PromptStream(recipe(snippet_share=0.0, forms={"book": 0.0, "letter": 0.0}), [])
    used = {stream[i].form for i in range(5_000)}
    assert used == set(load_forms()) - {"book", "letter"}


@pytest.mark.timeout(300)
def test_of_a_million_prompts_no_two_are_equal_at_default_settings() -> None:
    stream = PromptStream(recipe(snippet_share=0.0), [])  # passages would only add differences
    seen: set[bytes] = set()
    for i in range(1_000_000):
        messages = stream[i].messages()
        seen.add(hashlib.blake2b(f"{messages[0]}{messages[1]}".encode(), digest_size=12).digest())
    assert len(seen) == 1_000_000


def test_the_stream_is_fast(stream: PromptStream) -> None:
    bare = PromptStream(recipe(snippet_share=0.0), [])
    for some, least in ((bare, 10_000), (stream, 3_000)):
        clock = time.process_time()
        for i in range(6_000):
            some[i].messages()
        rate = 6_000 / (time.process_time() - clock)
        assert rate >= least, f"{rate:.0f} prompts per CPU second"
