"""Tokenizers of model directories: the library's own where it gives transformers' ids, which imports in no time.

Texts that a suite asks about repeat each other: the examples before each question, the question before each answer.
Where a tokenizer can be seen to keep words apart (byte-level BPE), a text is cut where a word ends and white space
begins, each piece is tokenised once, and their ids together are the ids of the whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from eval.language_model import Pair
from primer.errors import PrimerError

# Before an empty line: where the examples of a prompt end, as those of its passage.
_PARAGRAPH = re.compile(r"(?<=\S)(?=\n\n)")
# Classes in tokenizer_config.json that add nothing to tokenizer.json, and settings there that mean nothing for ids.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_HARMLESS = {
    *("tokenizer_class", "backend", "model_max_length", "clean_up_tokenization_spaces", "name_or_path", "is_local"),
    *("bos_token", "eos_token", "pad_token", "unk_token"),
}


class FastTokenizer:
    """A `tokenizer.json`, called as transformers' tokenizers are.

    Args:
        tokenizer: It.
        settings: Of `tokenizer_config.json`.
    """

    def __init__(self, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id: int | None = _token(tokenizer, settings.get("bos_token"))
        self.eos_token_id: int | None = _token(tokenizer, settings.get("eos_token"))
        self.model_max_length = int(settings.get("model_max_length") or 10**30)

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        """Ids of a text, or of each of several; the further options of transformers change none of them."""
        self._tokenizer.encode_special_tokens = split_special_tokens
        some = [texts] if isinstance(texts, str) else list(texts)
        found = self._tokenizer.encode_batch_fast(some, add_special_tokens=add_special_tokens)
        ids = [encoding.ids for encoding in found]
        return {"input_ids": ids[0] if isinstance(texts, str) else ids}

    def decode(self, ids: int | Iterable[int], *, skip_special_tokens: bool = False, **_: Any) -> str:
        """The text of some tokens."""
        some = [ids] if isinstance(ids, int) else [int(token) for token in ids]
        text: str = self._tokenizer.decode(some, skip_special_tokens=skip_special_tokens)
        return text

    def get_vocab(self) -> dict[str, int]:
        """Tokens and their ids."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model directory.

    Raises:
        PrimerError: If there is none, or a damaged one.
    """
    try:
        return _load_plain(folder) or _load_any(folder)
    except Exception as error:  # damaged files surface as many types
        raise PrimerError(
            f"The tokenizer in {folder} cannot be loaded: {type(error).__name__}: {error}",
            "Make or copy the model again.",
        ) from error


def keeps_words_apart(folder: Path) -> bool:
    """Whether a text that is cut before white space has the ids of its two halves together.

    So it is where texts are divided into words with the white space before them (GPT-2's rule) and nothing is changed,
    put between, or taken across such a border.
    """
    try:
        settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        first = settings["pre_tokenizer"]
        steps = first["pretokenizers"] if first["type"] == "Sequence" else [first]
        ending = settings["post_processor"] or {"type": "ByteLevel"}
        adds_nothing = ending["type"] == "ByteLevel" or (
            ending["type"] == "TemplateProcessing" and [list(part) for part in ending["single"]] == [["Sequence"]]
        )
        return (
            settings["normalizer"] is None
            and adds_nothing
            and all(step["type"] in ("Digits", "ByteLevel") for step in steps)
            and any(step["type"] == "ByteLevel" and step["use_regex"] for step in steps)
            and not any(step.get("add_prefix_space") for step in steps)
            and not any(_takes_more(token) for token in settings["added_tokens"])
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _takes_more(token: Mapping[str, Any]) -> bool:
    across = re.search(r"\S\s", token["content"]) is not None
    return across or token["lstrip"] or token["rstrip"] or token["single_word"]


def encode_pairs(
    pairs: Sequence[Pair], encode: Callable[[list[str]], list[list[int]]], *, apart: bool
) -> list[tuple[list[int], int]]:
    """Tokens of contexts with their continuations, and how many of them the context alone has.

    Args:
        pairs: Contexts without white space at their ends, and continuations.
        encode: Texts to ids.
        apart: `keeps_words_apart`.
    """
    divided = [_divide(context, continuation, apart) for context, continuation in pairs]
    texts = list(dict.fromkeys(text for whole, context in divided for text in (*whole, *context)))
    ids = dict(zip(texts, encode(texts), strict=True))
    return [
        (list(chain.from_iterable(ids[text] for text in whole)), sum(len(ids[text]) for text in context))
        for whole, context in divided
    ]


def _divide(context: str, continuation: str, apart: bool) -> tuple[list[str], list[str]]:
    """The pieces that are tokenised of both together, and of the context alone."""
    if not context:
        return [continuation], []
    if not (apart and continuation.startswith((" ", "\n"))):
        return [context + continuation], [context]
    known = _PARAGRAPH.split(context)
    return [*known, continuation], known


def _load_plain(folder: Path) -> FastTokenizer | None:
    path, about = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not (path.is_file() and about.is_file()):
        return None
    settings = json.loads(about.read_text(encoding="utf-8"))
    special = [settings.get(key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")]
    if settings.get("tokenizer_class") not in _PLAIN_CLASSES or not set(settings) <= _HARMLESS:
        return None
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    return FastTokenizer(tokenizer, settings) if {name for name in special if name is not None} <= known else None


def _load_any(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _token(tokenizer: Tokenizer, text: str | None) -> int | None:
    token: int | None = tokenizer.token_to_id(text) if text is not None else None
    return token
