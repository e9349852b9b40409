"""From the texts that are asked about to tokens and back: what all that run a model have in common.

What makes the answers equal to lm-evaluation-harness's: the same rule for dividing a text into context and
continuation, and the same cut from the left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.encoding import encode_pairs, keeps_words_apart
from eval.language_model import CannotAskError, Pair, Progress, Query, RowScores, Score
from primer.errors import PrimerError


class AnswerTooLongError(CannotAskError):
    """An answer that does not fit into the model's context."""


class TokenisedModel(ABC):
    """A model that scores tokens, asked about texts (see `eval.language_model.LanguageModel`).

    Args:
        folder: The model directory.
        tokenizer: Called as transformers' are.
        max_length: Tokens of the context.
    """

    def __init__(self, folder: Path, tokenizer: Any, max_length: int) -> None:
        self.folder, self.tokenizer, self.max_length = folder, tokenizer, max_length
        self._apart = keeps_words_apart(folder)
        self._prefix_text: str = tokenizer.decode(self.prefix_token_id)

    @abstractmethod
    def score(self, groups: Sequence[Sequence[Query]], progress: Progress | None = None) -> list[list[Score]]:
        """Score queries; those of a group share a beginning."""

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context follows: the beginning-of-text token, or else the end-of-text token."""
        tokenizer = self.tokenizer
        token: int | None = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if token is None:
            raise PrimerError(
                f"The tokenizer in {self.folder} names no end-of-text token.", "Add eos_token to tokenizer_config.json."
            )
        return token

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, as the harness's `hf` backend has them."""
        ids = self._tokenise(texts)
        # As there, a text that brings its own beginning-of-text token gets no second one.
        bare = [text.startswith(self._prefix_text) for text in texts]
        if any(bare):
            plain = self._tokenise(texts, add_special_tokens=False)
            ids = [without if own else encoded for own, encoded, without in zip(bare, ids, plain, strict=True)]
        return ids

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of corpus text, as in training: nothing added, a spelled-out `<|endoftext|>` is ordinary text."""
        return self._tokenise(texts, add_special_tokens=False, split_special_tokens=True)

    def ask(self, rows: Sequence[Sequence[Pair]], progress: Progress | None = None) -> list[RowScores]:
        """Log-likelihoods of each row's continuations after their contexts, and whether each is the likeliest text.

        Raises:
            AnswerTooLongError: If a continuation alone is longer than the model's context.
            CannotAskError: If a continuation has no tokens of its own.
            PrimerError: If a log-likelihood is not a number.
        """
        queries = iter(self._queries([pair for row in rows for pair in row]))
        groups = [[next(queries) for _ in row] for row in rows]
        longest = self.max_length + 1  # the last token is predicted, not read
        fitting = [[Query(query.tokens[-longest:], query.scored) for query in group] for group in groups]
        return [
            RowScores(scores, any(len(query.tokens) > longest for query in group))
            for group, scores in zip(groups, self.score(fitting, progress), strict=True)
        ]

    def _finite(self, scores: list[list[Score]]) -> list[list[Score]]:
        """The scores.

        Raises:
            PrimerError: If a log-likelihood is not a finite number.
        """
        broken = sum(not abs(value) < float("inf") for group in scores for value, _ in group)
        if broken:
            raise PrimerError(
                f"{broken:,} log-likelihoods from the model in {self.folder} are not finite numbers: it has diverged.",
                "Train it again with a lower train.learning_rate, or in train.precision fp32.",
            )
        return scores

    def _tokenise(self, texts: Sequence[str], **options: bool) -> list[list[int]]:
        if not texts:
            return []
        # verbose=False: texts longer than the context are cut or divided later, which needs no warning.
        ids: list[list[int]] = self.tokenizer(list(texts), return_attention_mask=False, verbose=False, **options)[
            "input_ids"
        ]
        return ids

    def _queries(self, pairs: Sequence[Pair]) -> list[Query]:
        """Contexts and continuations as tokens, divided as the harness's `TemplateLM._encode_pair` does.

        White space at the end of a context goes to the continuation; the whole is tokenised, and the continuation's
        tokens are those after as many as the context alone has.
        """
        moved = [(context.rstrip(), context[len(context.rstrip()) :] + continuation) for context, continuation in pairs]
        encoded = encode_pairs(moved, self.encode, apart=self._apart)
        return [self._query(tokens, known, pair) for (tokens, known), pair in zip(encoded, moved, strict=True)]

    def _query(self, tokens: list[int], known: int, pair: Pair) -> Query:
        if not pair[0] and tokens[:1] != [self.prefix_token_id]:
            query = Query([self.prefix_token_id, *tokens], len(tokens))
        else:
            query = Query(tokens, len(tokens) - max(known, 1))
        if query.scored < 1:
            raise CannotAskError(
                f"the answer {pair[1]!r} after {pair[0][-40:]!r} has no tokens of its own in this tokenizer",
                "Leave the suite out, or mend the row.",
            )
        if query.scored > self.max_length:
            raise AnswerTooLongError(
                f"an answer has {query.scored} tokens, more than the model's context of {self.max_length}",
                "Leave the suite out, or train with a longer model.context.",
            )
        return query
