"""Our byte-level tokenizers in the terms of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf

from primer.errors import PrimerError
from train.tokenizer import END_OF_TEXT


def add_tokenizer(writer: gguf.GGUFWriter, path: Path, vocabulary: int) -> None:
    """Add a tokenizer: tokens, merges, and how a text is divided before them.

    Args:
        writer: Of the file.
        path: `tokenizer.json`.
        vocabulary: Rows of the model's embedding; those beyond the tokenizer's become unused tokens.

    Raises:
        PrimerError: If llama.cpp would divide a text into other tokens than this tokenizer does.
    """
    try:
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        division = _division(tokenizer)
        tokens, types = _tokens(tokenizer, vocabulary)
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
        end = tokens.index(END_OF_TEXT)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PrimerError(
            f"{path} is no byte-level BPE tokenizer as Primer makes them: {error}",
            "Take a model that `primer train` made, or llama.cpp's own convert_hf_to_gguf.py.",
        ) from None
    writer.add_tokenizer_model("gpt2")  # byte-level BPE, whoever's
    writer.add_tokenizer_pre(division)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)


def _division(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of the way in which a text is divided before the merges.

    "gpt-2" is GPT-2's regular expression, "smollm" the same after every digit has been set apart.
    """
    steps = tokenizer["pre_tokenizer"]
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    kinds = [step["type"] for step in steps]
    plain = tokenizer["normalizer"] is None and tokenizer["model"]["type"] == "BPE"
    if not plain or tokenizer["model"].get("ignore_merges") or steps[-1].get("add_prefix_space"):
        raise ValueError("it changes texts first, or does not merge by rank")
    if not steps[-1].get("use_regex", True) or not all(step.get("individual_digits", True) for step in steps):
        raise ValueError("it divides texts in a way of its own")
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"]:
        return "smollm"
    raise ValueError(f"it divides texts by {', '.join(kinds)}")


def _tokens(tokenizer: dict[str, Any], vocabulary: int) -> tuple[list[str], list[gguf.TokenType]]:
    """The token of each id and its type; ids that no token has are unused."""
    tokens = [f"[unused {number}]" for number in range(vocabulary)]
    types = [gguf.TokenType.UNUSED] * vocabulary
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        number = added["id"]
        tokens[number] = added["content"]
        types[number] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    return tokens, types
