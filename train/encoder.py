"""Documents to token ids, fast: a text is cut into words, and each different word is given to the tokenizer only once.

Byte-level BPE never merges across the words of its first step, so a text's ids are its words' ids, one after another.
Words repeat: with a table of them the tokenizer sees one in sixty, and the rest is a regular expression and a look-up.
The ids are the tokenizer's own, exactly (`tests/test_train_encoder.py`). Where characters beyond ASCII stand, whose
classes are a matter of Unicode's versions, the cut is made only at white space that certainly divides words, and what
lies between goes to the tokenizer whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models

from train.tokenizer import CODEGEN_WHITESPACE, END_OF_TEXT, end_of_text

# A table of words begins anew when it is full (about 50 MB), and longer words are not kept: they seldom come back.
_LARGEST_TABLE = 2**18
_LONGEST_WORD = 64

_BATCH_DOCUMENTS = 512
_BATCH_CHARACTERS = 4_000_000

# White space of ASCII, and all of Unicode's property White_Space (the same since version 6.3).
_SPACE = r"[\t-\r ]"
_ANY_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_BEYOND = r"[^\x00-\x7f]"
_OTHER = r"[!-/:-@\[-`{-~\x00-\x08\x0e-\x1f\x7f]"
# From where we are to where a character that is no white space is followed by one of ASCII that is.
_STRETCH = rf"(?s:.)+?(?:(?<=[^{_ANY_SPACE}])(?={_SPACE})|\Z)"
_WORD = rf"(?={_SPACE}++{_BEYOND}){_STRETCH}|'(?:[stmd]|re|ve|ll)| ?[A-Za-z]++(?!{_BEYOND})"

# GPT-2's words: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+. Once with codegen's runs of
# white space cut out before, once with every digit on its own.
_CODEGEN = re.compile(
    rf" {{2,31}}|\t{{2,9}}|{_WORD}| ?[0-9]++(?!{_BEYOND})| ?{_OTHER}++(?!{_BEYOND})"
    rf"|(?: (?! )|\t(?!\t)|[\n-\r])+(?![^\t-\r ])|[\t-\r]|{_STRETCH}"
)
_TRAINED = re.compile(
    rf"{_WORD}|[0-9]| ?{_OTHER}++(?!{_BEYOND})|{_SPACE}+(?![^\t-\r 0-9])|[\t-\r]|{_STRETCH}",
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


@dataclass(frozen=True)
class Encoded:
    """Some documents as ids.

    Attributes:
        ids: Of all documents, each followed by `<|endoftext|>`: little-endian uint16, or uint32 for a vocabulary of
            more than 65,536 tokens.
        lengths: Ids of each document, its end included.
        size: UTF-8 bytes of their text.
    """

    ids: bytes
    lengths: npt.NDArray[np.int64]
    size: int


class Encoder:
    """Turns texts into ids, and remembers words.

    Args:
        tokenizer: Whose ids; one that is neither codegen's nor trained here is asked about every text as a whole.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True  # a text that spells out <|endoftext|> gets ordinary tokens for it
        self.dtype = id_type(tokenizer)
        self._words = _Words(tokenizer, self.dtype)
        self._pattern = _pattern(tokenizer)
        self._end = np.array([end_of_text(tokenizer)], dtype=self.dtype).tobytes()

    @property
    def cuts(self) -> bool:
        """Whether texts are cut into words."""
        return self._pattern is not None

    def encode(self, text: str) -> bytes:
        """The ids of a text, without an end."""
        if self._pattern is None:
            return self._words.ask(text)
        return b"".join(map(self._words.__getitem__, self._pattern.findall(text)))

    def documents(self, texts: list[str]) -> Encoded:
        """The ids of some documents."""
        parts = [self.encode(text) + self._end for text in texts]
        lengths = np.array([len(part) for part in parts], dtype=np.int64) // self.dtype.itemsize
        return Encoded(b"".join(parts), lengths, sum(len(text.encode()) for text in texts))

    def stream(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """The ids of a stream of documents, some megabytes of text at a time."""
        batch: list[str] = []
        characters = 0
        for text in texts:
            batch.append(text)
            characters += len(text)
            if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
                yield self.documents(batch)
                batch, characters = [], 0
        if batch:
            yield self.documents(batch)


class _Words(dict[str, bytes]):
    """Ids of words, asked for when first seen."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self._tokenizer, self._dtype = tokenizer, dtype

    def ask(self, text: str) -> bytes:
        """Ids by the tokenizer itself."""
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoding.ids, dtype=self._dtype).tobytes()

    def __missing__(self, word: str) -> bytes:
        ids = self.ask(word)
        if len(word) <= _LONGEST_WORD:
            if len(self) >= _LARGEST_TABLE:
                self.clear()
            self[word] = ids
        return ids


def id_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The smallest type that holds a tokenizer's ids: little-endian uint16 or uint32."""
    return np.dtype("<u2" if tokenizer.get_vocab_size() <= 2**16 else "<u4")


def _pattern(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """How a tokenizer cuts words; None if it is neither of the two that Primer makes."""
    model, steps = tokenizer.model, tokenizer.pre_tokenizer
    if not isinstance(model, models.BPE) or model.dropout or tokenizer.normalizer is not None or steps is None:
        return None
    added = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    described = json.loads(steps.__getstate__())
    if described == _BYTE_LEVEL and added == [END_OF_TEXT, *CODEGEN_WHITESPACE]:
        return _CODEGEN
    if described == {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTE_LEVEL]} and added == [END_OF_TEXT]:
        return _TRAINED
    return None
