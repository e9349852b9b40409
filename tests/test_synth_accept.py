"""Acceptance: each rule on text that should break it and on text that should not."""

from __future__ import annotations

import random

import pytest

from primer.documents import text_hash
from primer.recipe import Accept
from synth.accept import (
    REASONS,
    Judge,
    is_meta_talk,
    repeated_line_share,
    repeated_share,
    shared_share,
    trim_to_sentence,
)
from synth.journal import Reply

PROMPT = [{"role": "user", "content": "Write a section of a physics textbook about why ice floats on a pond."}]
TEXT = """
water ice pond cold warm light heavy float sink because winter fish layer surface freeze melt
bottom top
"""
WORDS = TEXT.split()


def prose(seed: int, words: int = 120) -> str:
    generator = random.Random(seed)
    text = " ".join(generator.choice(WORDS) + f"{generator.randint(0, 99)}" for _ in range(words))
    return text.capitalize() + "."


def reply(text: str, finish: str = "stop", tokens: int | None = 150) -> Reply:
    return Reply(text, finish, 20, tokens, 1.0)


def reason(text: str, finish: str = "stop", rules: Accept | None = None, known: set[str] | None = None) -> str | None:
    return Judge(rules or Accept(), known or set()).judge(reply(text, finish), PROMPT).reason


def test_every_reason_can_happen_and_good_prose_has_none():
    copied = PROMPT[0]["content"] + " " + prose(1, 30)
    seen = {
        reason(""),
        reason(prose(1), "content_filter"),
        reason(prose(1)[:-1], "length", Accept(truncated="reject")),
        reason(f"Sure! {prose(1)}"),
        reason("Ice floats."),
        reason(prose(1, 30) + " " + "So the ice floats on the pond again. " * 20),
        reason(copied),
        reason(prose(1), known={text_hash(prose(1))}),
    }
    judge = Judge(Accept(), set())
    assert judge.judge(reply(prose(1)), PROMPT).reason is None
    seen.add(judge.judge(reply(prose(1) + " One more end."), PROMPT).reason)
    assert seen == set(REASONS)


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here is a story about a pond. One day the ice came.",
        "Certainly! Ice floats because it is light.",
        "Here is a short story about ice:\n\nOnce there was a pond.",
        "Here's a numbered step-by-step guide for skating.",
        "**Here are five questions and answers about ice.**",
        "I'm sorry, but I can't write that.",
        "I cannot provide a section about ice.",
        "As an AI language model I have never seen ice. But it floats.",
        "Ice floats. I'm an AI, so I have never been cold.",
        "Ice floats. I hope this helps!",
        "Ice floats on ponds. Let me know if you have any other questions.",
        "Dear [Your Name], the ice on the pond floats.",
        "This passage provides a clear explanation of how ice floats.",
        "The passage highlights the role of ice. It is cold.",
        "The following section is written for a reader of ten years. Ice floats.",
    ],
)
def test_assistant_talk_is_seen(text: str):
    assert is_meta_talk(text)


@pytest.mark.parametrize(
    "text",
    [
        "Here is the pond where the ice formed. It floats.",
        "Here are the two of them, skating, as they did each winter.",
        "Of course ice is cold, yet it keeps the fish warm.",
        '"Sure," said Mara, "I cannot skate either. I am sorry."',
        "Tom: Of course! The ice is lighter.\nMara: I hope that it holds.",
        "Sorry is a small word with much weight.",
        "A passage led to the pond.",
        "Let me know when the kettle boils, she said.",
        "x = [names for names in pond]",
        "The assistant at the shop hopes this ice helps.",
    ],
)
def test_ordinary_text_is_not_taken_for_assistant_talk(text: str):
    assert not is_meta_talk(text)


def test_repeated_share_counts_each_character_once():
    assert repeated_share(["a", "b", "c", "d", "e", "f", "g", "h"], 5) == 0
    # The second "a b c d e" is repeated: 5 of 11 one-letter words.
    assert repeated_share(["a", "b", "c", "d", "e", "x", "a", "b", "c", "d", "e"], 5) == pytest.approx(5 / 11)
    # Overlapping repeats count once: all but the first five words.
    assert repeated_share(["so"] * 20, 5) == pytest.approx(15 / 20 + 4 / 20)
    assert repeated_share([], 5) == 0


def test_repeated_lines_are_seen_where_they_are_short():
    song = "\n".join(["Ice floats.", "Stones sink."] * 5)
    assert repeated_line_share(song) == pytest.approx(0.8)
    assert repeated_line_share("Ice floats.\n\nStones sink.") == 0


def test_copied_text_is_measured_against_the_prompt():
    prompt = [f"p{i}" for i in range(50)]
    assert shared_share(prompt[:20], prompt, 8) == 1
    assert shared_share([*prompt[:7], "x", *prompt[8:15]], prompt, 8) == 0
    judge = Judge(Accept(), set())
    passage = " ".join(f"word{i}" for i in range(60))
    messages = [{"role": "user", "content": f"Passage: {passage}\nWrite about ice."}]
    assert judge.judge(reply(passage + "."), messages).reason == "copied_prompt"
    assert judge.judge(reply(prose(3, 200)), messages).reason is None


def test_trimming_ends_at_a_whole_sentence():
    assert trim_to_sentence("Ice floats. Stones sink. And the wa") == "Ice floats. Stones sink."
    assert trim_to_sentence('She said "no." Then she le') == 'She said "no."'
    assert trim_to_sentence("It froze in 1990. Then the") == "It froze in 1990."
    assert trim_to_sentence("1. Boil it.\n2. Cool it.\n3.") == "1. Boil it.\n2. Cool it."
    assert trim_to_sentence("no end at all") == ""
    assert trim_to_sentence("Run this.\n```\nprint(1)\n``") == "Run this."
    assert trim_to_sentence("Run this.\n```\nprint(1)\n```\nIt pri") == "Run this.\n```\nprint(1)\n```"


def test_a_trimmed_reply_counts_the_tokens_that_were_kept():
    whole = prose(5) + " And then the"
    verdict = Judge(Accept(), set()).judge(reply(whole, "length", 1000), PROMPT)
    assert verdict.reason is None
    assert verdict.text == prose(5)
    assert verdict.tokens == round(1000 * len(prose(5)) / len(whole))
    assert Judge(Accept(), set()).judge(reply(prose(5), tokens=None), PROMPT).tokens == len(prose(5)) // 4


def test_near_duplicates_follow_the_threshold():
    words = prose(7, 400).split()
    for changed, expected in ((2, "near_duplicate"), (120, None)):  # of 5-word shingles: about 5% and nearly all
        generator = random.Random(changed)
        other = list(words)
        for at in generator.sample(range(len(other)), changed):
            other[at] = f"changed{at}"
        judge = Judge(Accept(), set())
        assert judge.judge(reply(" ".join(words)), PROMPT).reason is None
        assert judge.judge(reply(" ".join(other)), PROMPT).reason == expected


def test_a_rejected_reply_makes_no_later_one_a_duplicate():
    judge = Judge(Accept(min_words=100), set())
    short = prose(8, 90)
    assert judge.judge(reply(short), PROMPT).reason == "too_short"
    assert judge.judge(reply(short + " " + prose(9, 20)), PROMPT).reason is None


def test_the_text_is_tidied():
    verdict = Judge(Accept(min_words=1), set()).judge(reply("\r\n Ice  \r\n\r\n\r\n\r\nfloats here. \n"), PROMPT)
    assert verdict.text == "Ice\n\nfloats here."
