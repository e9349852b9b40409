"""The formats of questions, and where an answer ends in what a base model goes on to write."""

from __future__ import annotations

import random

import pytest

from eval.formats import FORMATS, FormatName, Turn, prompt, read_answer


def answer(form: FormatName, written: str, asked: str = "") -> str:
    return read_answer(form, written, complete=True, asked=asked).text


def ended(form: FormatName, written: str, asked: str = "") -> bool:
    return read_answer(form, written, complete=True, asked=asked).ended


def test_the_prompts_are_those_of_phi_1_5s_model_card():
    assert prompt("qa", " Why is the sky blue?\n") == "Why is the sky blue?\n\nAnswer:"
    assert prompt("chat", "Hello!") == "Alice: Hello!\n\nBob:"
    earlier = [Turn("Hello!", "Hi."), Turn("Rain?", "No.")]
    assert prompt("chat", "Sun?", earlier) == (
        "Alice: Hello!\n\nBob: Hi.\n\nAlice: Rain?\n\nBob: No.\n\nAlice: Sun?\n\nBob:"
    )
    assert prompt("code", 'def f():\n    """One."""') == 'def f():\n    """One."""\n'
    assert prompt("text", "The sea ") == "The sea "


@pytest.mark.parametrize(
    "heading",
    [
        "Exercise 2:",
        "Question: why",
        "Exercises\n",
        "**Exercise 12.**",
        "## Questions\n",
        "Q: Why",
        "Answer:",
        "Problem 3)",
    ],
)
def test_an_answer_ends_where_another_exercise_begins(heading: str):
    written = f" Because of the air.\n\nIt scatters blue light.\n \n{heading} of the next"
    assert answer("qa", written) == "Because of the air.\n\nIt scatters blue light."
    assert ended("qa", written)


@pytest.mark.parametrize(
    "paragraph",
    [
        "Exercise is good for you: it",
        "Questions of this kind are hard.",
        "A. One way",
        "Quite so: yes",
        "Answering: no",
    ],
)
def test_a_paragraph_that_only_looks_like_a_heading_is_part_of_the_answer(paragraph: str):
    written = f"First.\n\n{paragraph}"
    assert answer("qa", written) == written
    assert not ended("qa", written)
    assert (
        answer("qa", "One line\nQuestion: still the same paragraph") == "One line\nQuestion: still the same paragraph"
    )


def test_a_reply_ends_where_the_other_speaks():
    assert answer("chat", " Water it.\n\nEvery day.\n\nAlice: Thanks!\n\nBob: Ah") == "Water it.\n\nEvery day."
    assert answer("chat", " Ask Alice: she knows.\nAlicia: no") == "Ask Alice: she knows.\nAlicia: no"
    assert answer("chat", "\n\nAlice: you say nothing") == ""


def test_code_ends_after_the_functions_body():
    body = "    total = 0\n\n    for x in xs:\n        total += x\n    return total"
    assert answer("code", f"\n{body}\n\n\nprint(f([1]))\n") == body
    assert answer("code", f"{body}\n# next") == body
    long = '    text = """\nnot indented\n"""\n    call(\n        1\n)\n    return text'
    assert answer("code", f"{long}\ndef g():\n    pass") == long
    assert answer("code", "x = 1\ny = 2") == "x = 1\ny = 2"  # no body has begun


def test_a_docstring_that_the_prompt_leaves_open_is_no_end_of_the_body():
    asked = 'def f(x):\n    """Add one\n'
    written = '    to x.\n\nAs in school.\n    """\n    return x + 1\nprint(f(1))'
    assert answer("code", written, asked) == written.removesuffix("\nprint(f(1))")


def test_plain_text_has_no_end_of_its_own():
    written = "  a\n\nQuestion: b\n\nAlice: c\n\n"
    assert answer("text", written) == written


def test_a_reader_of_growing_text_never_sees_what_is_taken_back():
    parts = [
        "\n",
        "\n\n",
        " ",
        "    ",
        "Alice",
        ":",
        "Al",
        "Exercise",
        "Exercises",
        " 1",
        "**",
        "Answer:",
        "word",
        "def g():",
    ]
    parts += ['"""', "return", "x = 1", ")", "Question 12. why", "é", "\u2028", "\x0c"]
    rng = random.Random(0)
    for _ in range(400):
        written = "".join(rng.choices(parts, k=rng.randint(1, 25)))
        for form in FORMATS:
            final = read_answer(form, written, complete=True)
            shown = ""
            for length in range(len(written) + 1):
                now = read_answer(form, written[:length], complete=False)
                assert now.text.startswith(shown), (form, written[:length])
                assert final.text.startswith(now.text), (form, written, length)
                assert not now.ended or now.text == final.text, (form, written, length)
                shown = now.text


def test_what_cannot_be_an_end_is_shown_at_once():
    assert read_answer("qa", " Because of", complete=False).text == "Because of"
    assert read_answer("qa", "One.\n\nTherefore it is certain that", complete=False).text.endswith("that")
    assert read_answer("qa", "One.\n\nTheref", complete=False).text == "One."
    assert read_answer("chat", "One.\n\nAnd", complete=False).text == "One.\n\nAnd"
    assert read_answer("chat", "One.\n\nAl", complete=False).text == "One."
    assert read_answer("code", "    return x", complete=False).text == "    return x"
