"""The prompt stream: random access, weights, coverage, levels, hostile passages; and what cuts the passages."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from primer.errors import PrimerError
from primer.recipe import Prompts, Recipe, Topics, TopicWeights
from prompts.draw import Shares, draws
from prompts.snippets import cut_snippets, is_prose
from prompts.stream import Prompt, PromptStream, Snippet, material
from prompts.tables import PROMPTS_FOLDER, load_tables
from topics import LEVELS, load_topics

SNIPPETS = [
    Snippet(f"web-{i}#0", f"The harbour master of town {i} counted the boats and wrote it down.") for i in range(9)
]


def recipe(seed: int = 0, fields: list[str] | None = None, **prompts: object) -> Recipe:
    return Recipe(name="test", seed=seed, topics=Topics(fields=fields or []), prompts=Prompts(**prompts))


@pytest.fixture(scope="module")
def stream() -> PromptStream:
    return PromptStream(recipe(), SNIPPETS)


def text_of(prompt: Prompt) -> str:
    assert [message["role"] for message in prompt.messages] == ["system", "user"]
    return "\n".join(message["content"] for message in prompt.messages)


def digest(prompts: list[Prompt]) -> str:
    return hashlib.sha256("\n".join(map(repr, prompts)).encode()).hexdigest()


def test_any_order_and_any_stream_object_give_the_same_prompts(stream: PromptStream) -> None:
    indices = [*range(50), 999, 1010, 5_000, 123_456, 10**9, 10**15]
    forward = {i: stream[i] for i in indices}
    random.Random(1).shuffle(indices)
    other = PromptStream(recipe(), list(SNIPPETS))
    assert {i: other[i] for i in indices} == forward
    assert len({prompt.seed for prompt in forward.values()}) == len(forward)
    assert all(0 <= prompt.seed < 2**31 for prompt in forward.values())


def test_another_process_with_another_hash_seed_gives_the_same_prompts(stream: PromptStream) -> None:
    indices = [0, 7, 1011, 40_000, 3, 10**12]
    program = (
        "import json, sys; from tests.test_prompts import *;"
        "s = PromptStream(recipe(), SNIPPETS); print(digest([s[i] for i in json.loads(sys.argv[1])]))"
    )
    for hash_seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(indices)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(PROMPTS_FOLDER.parent)},
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
    tables = load_tables().forms
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
        assert tables.audiences[prompt.audience].writing in text_of(prompt)
        levels[prompt.level] += 1
    assert set(levels) == set(LEVELS)
    covered = {level for audience in tables.audiences.values() for level in audience.levels}
    assert covered == set(LEVELS)
    assert len(tables.audiences) >= 6


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

    def share(some: list[Prompt], field: str) -> float:
        return sum(p.topic.field == field for p in some) / len(some)

    odds = (share(prompts, "physics") / share(prompts, "biology")) / (
        share(before, "physics") / share(before, "biology")
    )
    assert odds == pytest.approx(3.0, rel=0.15)
    both = [p for p in prompts if p.topic.levels == ("middle", "high") and p.audience == "curious-child"]
    assert {p.level for p in both} == {"middle"}, "a reader keeps to his levels"
    either = [p for p in prompts if p.topic.levels == ("middle", "high") and p.audience == "schoolwork"]
    assert sum(p.level == "high" for p in either) / len(either) == pytest.approx(0.8, abs=0.08)


# What a template leaves behind when something in it went wrong.
SIGNS = ("{{", "{%", "{#", "  ", "\n\n\n", "None")


def test_every_form_renders_for_every_topic_it_suits() -> None:
    tables = load_tables()
    topics = load_topics()
    assert len(tables.forms) >= 8
    kinds_seen: dict[str, set[str]] = {}
    for name, form in tables.forms.items():
        for share in (0.0, 1.0):
            stream = PromptStream(recipe(forms={name: 1.0}, snippet_share=share), SNIPPETS)
            assert stream.topics == [topic for topic in topics if form.suits(topic)]
            for i in range(min(len(stream.topics), 1000) if share else 200):
                prompt = stream[i]
                text = text_of(prompt)
                assert prompt.topic.title in text
                assert f"about {form.about.words} words" in text
                assert not any(sign in text.replace(prompt.topic.title, "") for sign in SIGNS), text
                assert (prompt.snippet_id is not None) == (share == 1.0 and form.about.snippets)
                if prompt.snippet_id is None:
                    assert "Passage:" not in text
                    assert "detail or setting" not in text
                    assert 60 <= len(text.split()) <= 120, (name, len(text.split()))
                kinds_seen.setdefault(name, set()).add(prompt.topic.kind)
        assert not form.about.kinds or kinds_seen[name] <= set(form.about.kinds)
    python = [form for form in tables.forms.values() if form.name.startswith("python-")]
    assert all(not form.suits(topic) for form in python for topic in load_topics(["physics", "cooking-and-food"]))


def test_every_topic_has_several_forms() -> None:
    forms = load_tables().forms.values()
    assert min(sum(form.suits(topic) for form in forms) for topic in load_topics()) >= 4


def test_passages_come_by_their_share_and_in_full() -> None:
    for share in (0.0, 0.25, 1.0):
        stream = PromptStream(recipe(fields=["history", "biology"], snippet_share=share), SNIPPETS)
        tables = load_tables().forms
        able = [prompt for prompt in (stream[i] for i in range(2_000)) if tables[prompt.form].about.snippets]
        with_passage = 0
        for prompt in able:
            if prompt.snippet_id is not None:
                with_passage += 1
                assert next(s.text for s in SNIPPETS if s.id == prompt.snippet_id) in text_of(prompt)
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
        if plain[i].snippet_id is not None:
            assert expected.count("@@@") == 1
        assert text_of(attacked[i]) == expected.replace("@@@", hostile)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forms": {"dialog": 1.0}}, r"(?s)prompts\.forms: there is no 'dialog'.*Did you mean dialogue"),
        ({"audiences": {"sceptic": 1.0}}, r"(?s)prompts\.audiences: there is no 'sceptic'.*skeptic"),
        ({"forms": {"dialogue": 0.0}}, r"prompts\.forms: every weight is 0"),
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


def copied_tables(folder: Path) -> Path:
    shutil.copytree(PROMPTS_FOLDER / "forms", folder / "forms")
    for name in ("audiences.yaml", "names.yaml"):
        shutil.copy(PROMPTS_FOLDER / name, folder / name)
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("forms/letter.j2", "words: 250", "words: many", r"letter\.j2: words is 'many'"),
        ("forms/letter.j2", "words: 250", "word: 250", r"letter\.j2: (word|words) is"),
        ("forms/letter.j2", "python-programming", "python", r"not_fields names 'python'"),
        ("forms/letter.j2", "{#", "", r"letter\.j2: does not begin with a comment"),
        ("forms/letter.j2", "{{ title }}", "{{ titel }}", r"letter\.j2.*'titel' is undefined"),
        ("forms/letter.j2", "{{ title }}", "{{ title", r"letter\.j2, line \d+: is not a valid form"),
        ("forms/letter.j2", "{{ title }}", "{{ title.__class__.mro() }}", r"letter\.j2.*not a valid form"),
        ("forms/two-cases.j2", "concept, social", "consept", r"(?s)kinds names 'consept'.*Did you mean concept"),
        ("audiences.yaml", "[early, primary]", "[early, second]", r"beginner-reader\.levels names 'second'"),
        ("audiences.yaml", "  adult: a grown-up\n", "", r"levels lacks adult"),
        ("names.yaml", "Abena, ", "Abena, Abena, ", r"Abena is there more than once"),
        ("names.yaml", "names: [", "names: {", r"not valid YAML"),
    ],
)
def test_a_damaged_table_is_refused_before_the_first_prompt(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    path = copied_tables(tmp_path) / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(PrimerError, match=message):
        load_tables(tmp_path)


def test_material_names_every_file_and_changes_with_it() -> None:
    found = material(Topics())
    files = {"topics/physics", "prompts/forms/dialogue.j2", "prompts/forms/_system.j2", "prompts/audiences.yaml"}
    assert files <= set(found)
    assert found == material(Topics())
    assert not {"topics/physics"} & set(material(Topics(fields=["algebra"]))), "only what is drawn from counts"
    assert found["topics/physics"] != found["topics/algebra"]


WEB = "\n".join(
    [
        "A Heading Without An End",
        "The mill stood by the river for two hundred years. Dr. Brown bought it in 1920 from J. R. Finch, who was "
        "tired of it. He made paper there.",
        "",
        "- The first item of a list that looks like a sentence.",
        "See https://example.com for the whole history of this mill and more.",
        "| a | b | and a table row that ends in a full stop here. |",
        "The [[wiki]] link is not clean prose for anyone who reads it.",
        'Did anybody ever ask the miller what he thought of the new road? "Nobody did," said his wife. "They never '
        'do." The road was built all the same and it flooded in the spring.',
    ]
)


def test_passages_are_whole_sentences_of_clean_prose() -> None:
    found = cut_snippets([{"id": "mill", "text": WEB}], max_words=32, seed=3)
    assert [snippet.text for snippet in found] == [
        "The mill stood by the river for two hundred years. "
        "Dr. Brown bought it in 1920 from J. R. Finch, who was tired of it. He made paper there.",
        'Did anybody ever ask the miller what he thought of the new road? "Nobody did," said his wife.',
        "The road was built all the same and it flooded in the spring.",
    ]
    assert len({snippet.id for snippet in found}) == len(found)
    assert all(snippet.id.startswith("mill#") for snippet in found)


def test_passages_are_few_bounded_and_the_same_again() -> None:
    rng = random.Random(5)
    words = ["river", "stone", "bread", "quiet", "evening", "garden", "letter", "window", "market", "copper", "lantern"]
    documents = []
    for number in range(100):
        sentences = [
            f"{rng.choice(words).capitalize()} {' '.join(rng.choices(words, k=rng.randint(3, 30)))}." for _ in range(30)
        ]
        documents.append({"id": f"d{number}", "text": " ".join(sentences)})
    found = cut_snippets(iter(documents), 40, 1)
    assert found == cut_snippets(iter(documents), 40, 1)
    assert [s.id for s in found] != [s.id for s in cut_snippets(iter(documents), 40, 2)]
    assert max(Counter(snippet.id.split("#")[0] for snippet in found).values()) == 3
    assert all(40 / 3 <= len(snippet.text.split()) <= 40 for snippet in found)
    sources = {document["id"]: document["text"] for document in documents}
    assert all(snippet.text in sources[snippet.id.split("#")[0]] for snippet in found)
    assert len(cut_snippets([*documents, *documents], 40, 1)) == len(found), "the same passage is taken once"


def test_a_large_corpus_is_sampled_alike_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prompts.snippets._MOST", 50)
    documents = [
        {"id": f"d{i}", "text": f"The keeper of lighthouse number {i} counted ships through the night."}
        for i in range(2_000)
    ]
    found = cut_snippets(documents, 20, 0)
    assert len(found) == 50
    assert {s.id for s in found} == {s.id for s in cut_snippets(documents[::-1], 20, 0)}
    numbers = sorted(int(snippet.id[1:].split("#")[0]) for snippet in found)
    assert numbers[0] < 400
    assert numbers[-1] > 1_600


@pytest.mark.parametrize(
    "sentence",
    [
        "Visit www.example.org for more about the old mill today.",
        "The value of x_1 is larger than the other one.",
        "He wrote {{ title }} on the wall of the mill.",
        "It was <b>very</b> late when the train came in.",
        "this one does not begin with a capital letter.",
        "This one just stops in the middle of",
        "THE WHOLE SENTENCE IS SHOUTED AT THE READER.",
        "He said ( and nothing closes it at all here.",
        "Please accept all cookies before you read this page.",
        "数学 は とても おもしろい です and so on for ever.",
        "Too short.",
    ],
)
def test_what_is_not_prose_is_left_out(sentence: str) -> None:
    assert not is_prose(sentence)
    assert is_prose("The ferry left the island at noon and came back at six.")


def test_the_stream_is_fast(stream: PromptStream) -> None:
    clock = time.process_time()
    for i in range(3_000):
        stream[i]
    rate = 3_000 / (time.process_time() - clock)
    assert rate >= 3_000, f"{rate:.0f} prompts per CPU second"
