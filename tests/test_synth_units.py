"""A unit under way: other tries with other seeds, replies cut short and continued, system prompts merged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from generation import Question, Questions, collect, texts
from mock_endpoint import Faults, prose, running

from primer.errors import PrimerError
from primer.recipe_corpora import Duplicates
from primer.recipe_synth import Accept, Sampling
from synth.accept import Judge
from synth.journal import Failure, Reply
from synth.teachers import merge_system_prompt
from synth.units import Attempt

SENTENCES = [f"{prose(random.Random(number), 8)}" for number in range(24)]


def cut(text: str, tokens: int = 10) -> Reply:
    return Reply(text, "length", 5, tokens, 0.1)


def whole(text: str, tokens: int = 10) -> Reply:
    return Reply(text, "stop", 5, tokens, 0.1)


def attempt(rules: Accept) -> Attempt:
    return Attempt(Question(["Tell of rain."], 7), Judge(rules, Duplicates()))


def contents(of: Attempt) -> list[str]:
    question = of.next_question()
    assert question is not None
    return [message["content"] for message in question.messages]


def test_a_reply_cut_short_is_continued_from_its_last_whole_sentence():
    unit = attempt(Accept(truncated="continue"))
    assert contents(unit) == ["Tell of rain."]
    unit.take(cut(" ".join(SENTENCES[:4]) + " Sentence that is bro"))
    asked = contents(unit)
    assert asked[:2] == ["Tell of rain.", " ".join(SENTENCES[:4])]
    assert "from the next sentence" in asked[2]
    unit.take(cut(" ".join(SENTENCES[4:6]) + "\n\nA new paragraph that is bro"))
    assert contents(unit)[1] == " ".join(SENTENCES[:6])
    unit.take(whole("\n" + " ".join(SENTENCES[6:8])))
    assert unit.next_question() is None
    assert unit.reason is None
    # Where a paragraph began in what was lost, one begins in what takes its place.
    assert unit.document == " ".join(SENTENCES[:6]) + "\n\n" + " ".join(SENTENCES[6:8])
    assert (unit.continuations, unit.tries, len(unit.replies)) == (2, 0, 3)
    assert unit.joined
    assert 20 < unit.tokens <= 30


def test_what_has_no_end_is_trimmed_after_three_continuations():
    unit = attempt(Accept(truncated="continue"))
    for start in range(0, 16, 4):
        assert unit.next_question() is not None
        unit.take(cut(" ".join(SENTENCES[start : start + 4]) + " Bro"))
    assert unit.next_question() is None
    assert unit.document == " ".join(SENTENCES[:16])


def test_a_reply_cut_short_can_be_trimmed_or_dropped():
    trimmed, dropped = attempt(Accept(truncated="trim")), attempt(Accept(truncated="drop"))
    for unit in (trimmed, dropped):
        assert unit.next_question() is not None
        unit.take(cut(" ".join(SENTENCES[:4]) + " Bro"))
        assert unit.next_question() is None
    assert trimmed.document == " ".join(SENTENCES[:4])
    assert dropped.reason == "truncated"


def test_a_rejected_reply_is_asked_for_again_with_other_seeds_and_not_for_ever():
    unit = attempt(Accept(retries=2))
    seeds = []
    for _ in range(3):
        question = unit.next_question()
        assert question is not None
        seeds.append(question.seed)
        unit.take(whole("As an AI language model, I cannot write this."))
    assert unit.next_question() is None
    assert unit.reason == "refusal"
    assert (len(set(seeds)), seeds[0], unit.tries) == (3, 7, 2)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_retry_that_is_usable_is_the_document():
    unit = attempt(Accept(retries=2))
    unit.next_question()
    unit.take(whole("Sure! Here is the textbook section."))
    question = unit.next_question()
    assert question is not None
    unit.take(whole(" ".join(SENTENCES[:5])))
    assert (unit.document, unit.tries, unit.seed) == (" ".join(SENTENCES[:5]), 1, question.seed)
    assert unit.tokens == 10  # of the reply that was kept
    assert len(unit.replies) == 2  # both were paid


def test_a_failure_is_not_tried_again():
    unit = attempt(Accept(retries=2))
    unit.next_question()
    unit.take(Failure(400, "refused", True))
    assert unit.next_question() is None


def test_a_system_prompt_goes_before_the_question_where_the_model_knows_no_such_role():
    messages = [{"role": "system", "content": "You write."}, {"role": "user", "content": "Of rain."}]
    assert merge_system_prompt(messages) == [{"role": "user", "content": "You write.\n\nOf rain."}]
    assert merge_system_prompt(messages[1:]) == messages[1:]


def test_continued_documents_are_the_same_after_a_restart_and_cost_nothing_again(tmp_path: Path):
    changes = {"accept": Accept(truncated="continue"), "sampling": Sampling(max_tokens=50)}
    with running(Faults(words=120)) as endpoint:
        first = collect(endpoint, tmp_path / "journal", tokens=3000, **changes)
        asked = endpoint.requests
        again = collect(endpoint, tmp_path / "journal", tokens=3000, **changes)
        assert endpoint.requests == asked
        assert texts(again) == texts(first)
        assert again.reused == first.units
        assert first.continuations > first.units
        trimmed = collect(endpoint, tmp_path / "journal", tokens=1000, sampling=Sampling(max_tokens=50))
        # The first replies are known; only units beyond those of the first run are asked for.
        assert trimmed.reused >= min(first.units, trimmed.units) - 8


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("La maison est dans la forêt, et le chat qui est sur la table regarde par la fenêtre.", "wrong_language"),
        ("水从高处落下，孩子们看着。", "wrong_language"),
        ("I'm sorry, but I can't help with that request.", "refusal"),
    ],
)
def test_replies_of_the_wrong_kind_are_counted_by_their_reason(sentence: str, reason: str, tmp_path: Path):
    with (
        running(Faults(language=sentence)) as endpoint,
        pytest.raises(PrimerError, match=rf"Of 200 prompts only 0.*\n +200  {reason}"),
    ):
        collect(endpoint, tmp_path / "journal", Questions(), tokens=2000, concurrency=32)
