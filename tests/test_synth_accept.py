"""Acceptance: each rule on text that should break it and on text that should not."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from primer.benchmarks import Question
from primer.contamination import Contamination, Match
from primer.recipe_corpora import Duplicates
from primer.recipe_synth import Accept
from synth.accept import (
    REASONS,
    Judge,
    copied,
    is_meta_talk,
    repeated_line_share,
    repeated_share,
    shared_share,
    trim_to_sentence,
)
from synth.duplicate_index import EarlierTexts, IndexWriter
from synth.journal import Reply
from synth.languages import in_another_language
from synth.signatures import Found, signature
from synth.units import token_count

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


def judged(judge: Judge, text: str, finish: str = "stop", passage: str | None = None) -> str | None:
    """The reason against a unit of one reply."""
    document, fault = judge.check(text, finish, PROMPT)
    return fault or judge.place(document, passage)


def reason(text: str, finish: str = "stop", rules: Accept | None = None) -> str | None:
    return judged(Judge(rules or Accept(), Duplicates()), text, finish)


def test_every_reason_can_happen_and_good_prose_has_none():
    echo = PROMPT[0]["content"] + " " + prose(1, 30)
    seen = {
        reason(""),
        reason(prose(1), "content_filter"),
        reason(prose(1)[:-1], "length", Accept(truncated="drop")),
        reason(f"Sure! {prose(1)}"),
        reason("I'm sorry, but I can't help with that."),
        reason("La glace est dans le lac, et les poissons qui sont dans l'eau ne sont pas pris. " * 3),
        reason("Ice floats."),
        reason(prose(1, 30) + " " + "So the ice floats on the pond again. " * 20),
        reason(echo),
    }
    judge = Judge(Accept(), Duplicates())
    assert judged(judge, prose(1)) is None
    seen.add(judged(judge, prose(1).replace(" ", "\n")))
    seen.add(judged(judge, prose(1) + " One more end."))
    seen.add(judged(judge, prose(2), passage=" ".join(prose(2).split()[:40])))
    # The form is the unit's: see the engine's tests; benchmarks are further down.
    assert seen == set(REASONS) - {"form_failed", "contaminated"}


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here is a story about a pond. One day the ice came.",
        "Certainly! Ice floats because it is light.",
        "Here is a short story about ice:\n\nOnce there was a pond.",
        "Here's a numbered step-by-step guide for skating.",
        "**Here are five questions and answers about ice.**",
        "I'm sorry that this is so short.",
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


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I cannot provide a section about ice.", True),
        ("I'm sorry, but I can't assist with that request.", True),
        ("I am unable to write about that topic.", True),
        ("Sorry, I won’t generate this text.", True),
        ("As an AI language model, I cannot create such content.", True),
        ("**I apologize, but I must decline to answer.**", True),
        ("I cannot help but smile when the ice cracks.", False),
        ("I can't skate, said Mara, and nobody can help me.", False),
        ("Unfortunately the ice was thin.", False),
        ("She wrote: I cannot answer this.", False),
    ],
)
def test_refusals_are_told_from_texts_that_say_cannot(text: str, refuses: bool):
    assert (reason(text + " " + prose(3)) == "refusal") == refuses


SAMPLES = {
    "english": "The ice on the pond is light, and that is why it floats on the water which is below it in the cold. ",
    "french": "La glace sur le lac est légère, et c'est pour cela qu'elle flotte sur l'eau qui est dans le froid. ",
    "german": "Das Eis auf dem See ist leicht, und das ist der Grund, warum es auf dem Wasser schwimmt, nicht sinkt. ",
    "italian": "Il ghiaccio che si forma sul lago è leggero, e per questo non affonda nella acqua con le pietre. ",
    "portuguese": "O gelo que se forma no lago é leve, e por isso não vai para o fundo com as pedras do rio. ",
    "spanish": "El hielo que se forma en el lago es ligero, y por eso no se va al fondo con las piedras del río. ",
}


@pytest.mark.parametrize("written", SAMPLES)
@pytest.mark.parametrize("wanted", SAMPLES)
def test_the_language_is_told_by_its_grammar(written: str, wanted: str):
    text = SAMPLES[written] * 3
    assert in_another_language(text, text.lower().split(), wanted) == (written != wanted)


def test_what_has_no_grammar_is_given_the_benefit():
    code = "def mean(values):\n    return sum(values) / len(values)\n\nx = mean([1, 2, 3])\nprint(x)\n" * 5
    assert not in_another_language(code, code.lower().split(), "english")
    assert not in_another_language("Wasser.", ["wasser."], "english")
    assert not in_another_language(SAMPLES["french"], SAMPLES["french"].split(), "klingon")
    mixed = SAMPLES["english"] * 5 + SAMPLES["french"] * 2  # a lesson that quotes
    assert not in_another_language(mixed, mixed.lower().split(), "english")
    script = "Лёд легче воды и поэтому плавает. " * 3
    assert in_another_language(script, script.lower().split(), "english")


def test_the_words_that_lead_to_a_search_are_in_everything_it_can_find():
    """The quick look must let through whatever the search behind it would find."""
    talk = [
        "as an AI",
        "an ai assistant",
        "ai language model",
        "large language model",
        "my training data",
        "i am a chatbot",
        "I'm just an AI",
        "[your town]",
        "[insert name]",
        "[Name]",
        "[student 1]",
    ]
    for said in talk:
        assert is_meta_talk(f"Ice floats. So {said} would say on a pond. The fish swim."), said


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
    judge = Judge(Accept(), Duplicates())
    passage = " ".join(f"word{i}" for i in range(60))
    messages = [{"role": "user", "content": f"Passage: {passage}\nWrite about ice."}]
    assert judge.check(passage + ".", "stop", messages)[1] == "copied_prompt"
    assert judge.check(prose(3, 200), "stop", messages)[1] is None


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
    cut = reply(whole, "length", 1000)
    text, fault = Judge(Accept(), Duplicates()).check(cut.text, "length", PROMPT)
    assert (text, fault) == (prose(5), None)
    assert token_count([cut], text) == round(1000 * len(prose(5)) / len(whole))
    assert token_count([reply(prose(5), tokens=None)], prose(5)) == len(prose(5)) // 4


PASSAGE = (
    "The keeper of the lighthouse wrote down every ship that passed in the night. By the spring he had filled four "
    "books, and nobody had asked to see a single one of them."
)


@pytest.mark.parametrize(
    ("text", "share", "longest"),
    [
        (PASSAGE, 1.0, 33),
        (PASSAGE.upper().replace(",", " -"), 1.0, 33),
        ("Nothing of it is here.", 0.0, 1),
        ("He saw every ship that passed in the night, and more.", 0.0, 7),
        ("He wrote down every ship that passed in the night, and more.", 0.22, 9),
    ],
)
def test_how_much_of_a_passage_came_back_is_measured(text: str, share: float, longest: int):
    found = copied(PASSAGE, text)
    assert found.share == pytest.approx(share, abs=0.08)
    assert found.longest == longest


def test_a_short_passage_copied_whole_is_a_copy_and_a_long_one_takes_no_time():
    assert copied("Six words of a short passage", "He wrote six words of a short passage.").share == 1.0
    long = " ".join(f"word{n}" for n in range(400))
    clock = time.process_time()
    assert copied(long, long).longest == 400
    assert time.process_time() - clock < 0.2


def test_a_document_whose_parts_repeat_each_other_is_repetitive():
    judge = Judge(Accept(), Duplicates())
    assert judge.place(f"{prose(1)}\n\n{prose(2)}\n\n{prose(1)}", joined=True) == "repetitive"
    assert judge.place(f"{prose(1)}\n\n{prose(2)}\n\n{prose(3)}", joined=True) is None


def test_a_copied_passage_is_rejected_by_the_recipes_share_and_a_borrowed_detail_is_not():
    half = " ".join(PASSAGE.split()[:16])
    for most, expected in ((0.25, "copied_passage"), (0.9, None)):
        judge = Judge(Accept(max_copied=most), Duplicates())
        assert judged(judge, f"{prose(11)} {half}. {prose(12)}", passage=PASSAGE) == expected
    judge = Judge(Accept(), Duplicates())
    assert judged(judge, f"{prose(13)} A keeper of the lighthouse had filled four books.", passage=PASSAGE) is None


def test_near_duplicates_follow_the_threshold():
    words = prose(7, 400).split()
    for changed, expected in ((2, "near_duplicate"), (120, None)):  # of 5-word shingles: about 5% and nearly all
        generator = random.Random(changed)
        other = list(words)
        for at in generator.sample(range(len(other)), changed):
            other[at] = f"changed{at}"
        judge = Judge(Accept(), Duplicates())
        assert judged(judge, " ".join(words)) is None
        assert judged(judge, " ".join(other)) == expected


def test_the_judge_says_what_a_document_duplicates_or_which_benchmark_it_holds(tmp_path: Path):
    with IndexWriter(tmp_path, "web", Duplicates()) as index:
        for seed in (20, 21):
            index.add(signature(prose(seed), 5))
    noted: list[tuple[str, Found | Match]] = []
    benchmarks = Contamination({"ponds": [Question("ponds.jsonl, line 1", prose(24, 40), ())]})
    earlier = EarlierTexts([tmp_path], Duplicates())
    judge = Judge(Accept(), Duplicates(), earlier, benchmarks, lambda *what: noted.append(what))
    assert judge.place(prose(22)) is None
    assert judge.place(prose(23)) is None
    assert judge.place("Ice.") == "too_short"
    assert not noted
    equal, near, copy = prose(21).upper(), prose(23) + " One more end.", f"{prose(25)} {prose(24, 40)} {prose(26)}"
    assert [judge.place(text) for text in (equal, near, copy)] == ["duplicate", "near_duplicate", "contaminated"]
    assert [text for text, _ in noted] == [equal, near, copy]
    assert noted[0][1] == Found(1, 1.0, "exact", "web")
    assert noted[1][1] == Found(1, pytest.approx(0.97, abs=0.05), "near")  # the second that was taken in
    assert getattr(noted[2][1], "suite", None) == "ponds"


def test_a_rejected_reply_makes_no_later_one_a_duplicate():
    judge = Judge(Accept(min_words=100), Duplicates())
    short = prose(8, 90)
    assert judged(judge, short) == "too_short"
    assert judged(judge, short + " " + prose(9, 20)) is None


def test_the_text_is_tidied():
    text, _ = Judge(Accept(min_words=1), Duplicates()).check(
        "\r\n Ice  \r\n\r\n\r\n\r\nfloats here. \n", "stop", PROMPT
    )
    assert text == "Ice\n\nfloats here."


@pytest.mark.parametrize(
    "text",
    [
        "a." * 200_000,
        "I'm sorry" + " " * 200_000 + "x",
        "1. " * 100_000,
        "word " * 80_000,
        "[your " * 50_000,
        "here is " * 50_000,
        "```" * 50_000,
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_long_to_judge(text: str):
    clock = time.process_time()
    judge = Judge(Accept(truncated="trim"), Duplicates())
    judge.check(text, "length", PROMPT)
    judge.place(text, passage=text[:2000])
    assert time.process_time() - clock < 3
