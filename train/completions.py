"""Sample completions: how a model goes on with some prompts, looked at while it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.markup import escape
from tokenizers import Tokenizer

from train.model import Phi
from train.tokenizer import encode_documents, end_of_text
from train.validation import undisturbed

TOKENS = 48

# Characters that two lines of a terminal hold beside the names of things.
_SHOWN = 150


def complete(model: Phi, tokenizer: Tokenizer, prompts: Sequence[str], tokens: int = TOKENS) -> list[str]:
    """What a model writes after each prompt: always its likeliest token, so the same text every time.

    Each token is computed from the whole text before it: a cache would be more to go wrong than the second is worth.

    Args:
        model: On any device; it is left in the mode in which it came.
        tokenizer: Its tokenizer.
        prompts: Beginnings; of one longer than the context only the end is seen.
        tokens: Longest completion; it ends before where the model ends its text.
    """
    with undisturbed(model):
        # An empty prompt is the beginning of a document, which follows the end of another.
        begins = [ids or [end_of_text(tokenizer)] for ids in encode_documents(tokenizer, list(prompts))]
        return [_complete(model, tokenizer, ids, tokens) for ids in begins]


def shown(prompt: str, text: str, longest: int = _SHOWN) -> str:
    """A prompt and its completion as one line for `primer.progress.say`: nothing in it that a terminal would obey."""
    begin = visible(prompt.splitlines()[-1] if prompt.strip() else "")
    begin = begin if len(begin) <= longest // 2 else f"…{begin[1 - longest // 2 :]}"
    end, room = visible(text.replace("\n", "⏎")), longest - len(begin)
    end = end if len(end) <= room else f"{end[: room - 1]}…"
    return f"[dim]{escape(begin)}[/]{escape(end)}"


def visible(text: str, kept: str = "") -> str:
    """What is not printed in a text (escape sequences, direction marks, line ends) as its code, but for some.

    Args:
        text: The text.
        kept: Characters that stay as they are.
    """
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode("ascii") for c in text)


def _complete(model: Phi, tokenizer: Tokenizer, ids: list[int], tokens: int) -> str:
    end, context = end_of_text(tokenizer), model.shape.context
    known = tokenizer.get_vocab_size()  # rows beyond pad the vocabulary and stand for no text
    device = next(model.parameters()).device
    written = list(ids)
    for _ in range(tokens):
        seen = torch.tensor([written[-context:]], device=device)
        following = int(model.logits(seen)[0, -1, :known].argmax())
        if following == end:
            break
        written.append(following)
    return str(tokenizer.decode(written[len(ids) :], skip_special_tokens=False))
