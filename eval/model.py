"""A model directory in Hugging Face layout, run by PyTorch: lm-evaluation-harness's answers, sooner.

What makes it faster: `eval.scoring` (beginnings once, logits where needed), batches of similar length, and texts
tokenised piece by piece, each once (`eval.encoding`). What makes the answers equal: the same rule for dividing a text
into context and continuation, the same cut from the left, log-softmax in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.encoding import encode_pairs, keeps_words_apart
from eval.language_model import CannotAskError, Pair, Progress, Query, RowScores, Score, Writing
from eval.loading import context_length, find_device, open_model
from eval.scoring import Scorer
from primer.errors import PrimerError


class AnswerTooLongError(CannotAskError):
    """An answer that does not fit into the model's context."""


class TorchModel:
    """A loaded model (see `eval.language_model.LanguageModel`).

    Args:
        folder: The directory.
        device: `auto` takes the GPU if there is one.

    Raises:
        PrimerError: If the directory holds no such model, or there is no such device.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        self.folder = Path(folder)
        self.model, self.tokenizer, decoder = open_model(self.folder, find_device(device))
        self.max_length = context_length(self.model.config, self.tokenizer)
        self._scorer = Scorer(decoder)
        self._apart = keeps_words_apart(self.folder)
        self._prefix_text: str = self.tokenizer.decode(self.prefix_token_id)

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

    def _tokenise(self, texts: Sequence[str], **options: bool) -> list[list[int]]:
        if not texts:
            return []
        # verbose=False: texts longer than the context are cut or divided later, which needs no warning.
        ids: list[list[int]] = self.tokenizer(list(texts), return_attention_mask=False, verbose=False, **options)[
            "input_ids"
        ]
        return ids

    def score(self, groups: Sequence[Sequence[Query]], progress: Progress | None = None) -> list[list[Score]]:
        """Score queries (see `eval.scoring.Scorer.score`).

        Raises:
            PrimerError: If a log-likelihood is not a finite number.
        """
        scores = self._scorer.score(groups, progress)
        broken = sum(not abs(value) < float("inf") for group in scores for value, _ in group)
        if broken:
            raise PrimerError(
                f"{broken:,} log-likelihoods from the model in {self.folder} are not finite numbers: it has diverged.",
                "Train it again with a lower train.learning_rate, or in train.precision fp32.",
            )
        return scores

    def ask(self, rows: Sequence[Sequence[Pair]], progress: Progress | None = None) -> list[RowScores]:
        """Log-likelihoods of each row's continuations after their contexts, and whether each is the likeliest text.

        Raises:
            AnswerTooLongError: If a continuation alone is longer than the model's context.
            PrimerError: If a continuation has no tokens of its own, or a log-likelihood is not a number.
        """
        queries = iter(self._queries([pair for row in rows for pair in row]))
        groups = [[next(queries) for _ in row] for row in rows]
        longest = self.max_length + 1  # the last token is predicted, not read
        fitting = [[Query(query.tokens[-longest:], query.scored) for query in group] for group in groups]
        return [
            RowScores(scores, any(len(query.tokens) > longest for query in group))
            for group, scores in zip(groups, self.score(fitting, progress), strict=True)
        ]

    def generate(self, prompts: Sequence[str], writing: Writing, progress: Progress | None = None) -> list[list[str]]:
        """Continue each prompt `writing.samples` times (see `eval.batched.generate`)."""
        from eval.batched import generate

        return generate(self.model, self.tokenizer, prompts, writing, self.max_length, progress)

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
            raise PrimerError(
                f"The answer {pair[1]!r} after {pair[0][-40:]!r} has no tokens of its own in this tokenizer.",
                "Leave the suite out, or mend the row.",
            )
        if query.scored > self.max_length:
            raise AnswerTooLongError(
                f"an answer has {query.scored} tokens, more than the model's context of {self.max_length}",
                "Leave the suite out, or train with a longer model.context.",
            )
        return query
