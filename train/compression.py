"""How well a vocabulary fits a text: bytes a token, and tokens a word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

from train.encoder import Encoder
from train.tokenizer import token_bytes


@dataclass(frozen=True)
class Compression:
    """What some text came to.

    Attributes:
        bytes: UTF-8 bytes.
        words: Stretches between white space.
        tokens: Without ends of documents.
    """

    bytes: int
    words: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """More is shorter: a model of so many tokens of context sees more text."""
        return self.bytes / max(1, self.tokens)

    @property
    def tokens_per_word(self) -> float:
        """Less is shorter."""
        return self.tokens / max(1, self.words)


def compression(tokenizer: Tokenizer, texts: Iterable[str]) -> Compression:
    """Measure a tokenizer on some documents."""
    encoder = Encoder(tokenizer)
    size = words = tokens = 0
    for text in texts:
        size += len(text.encode())
        words += len(text.split())
        tokens += len(encoder.encode(text)) // encoder.dtype.itemsize
    return Compression(size, words, tokens)


def longest_tokens(tokenizer: Tokenizer, count: int) -> list[str]:
    """The longest tokens that are text, without those that are punctuation or white space alone."""
    return sorted(_texts(tokenizer), key=lambda text: (-len(text), text))[:count]


def sample_tokens(tokenizer: Tokenizer, count: int) -> list[str]:
    """Tokens evenly spread over the vocabulary, in the order of their ids: first what was merged first."""
    found = _texts(tokenizer)
    return [found[place * len(found) // count] for place in range(count)] if len(found) >= count else found


def _texts(tokenizer: Tokenizer) -> list[str]:
    added = tokenizer.get_added_tokens_decoder()
    learnt = [token for token in range(tokenizer.get_vocab_size()) if token not in added]
    texts = []
    for piece in token_bytes(tokenizer, learnt):
        try:
            text = piece.decode()
        except UnicodeDecodeError:  # a part of a character
            continue
        if any(map(str.isalnum, text)):
            texts.append(text)
    return texts
