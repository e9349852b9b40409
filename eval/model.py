"""A fast language model for lm-evaluation-harness, named `primer` there: its `hf` backend's answers, sooner.

What makes it faster: `eval.scoring` (shared contexts once, logits where needed), batches of similar length, and texts
tokenised together. What makes the answers equal: the same rule for dividing a text into context and continuation, the
same cut from the left, log-softmax in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text, resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from eval.loading import find_device, load_model
from eval.scoring import Query, Score, Scorer
from primer.errors import PrimerError


class AnswerTooLongError(PrimerError):
    """An answer that does not fit into the model's context."""


@register_model("primer")
class PrimerLM(LM):  # type: ignore[misc]
    """A Hugging Face model directory as the harness's language model.

    Args:
        pretrained: The directory.
        device: `auto` takes the GPU if there is one.
        batch_size: Not used: batches are made by tokens. The harness's command line passes it.
        max_batch_size: Likewise.

    Raises:
        PrimerError: If the directory holds no such model, or there is no such device.
    """

    def __init__(
        self,
        pretrained: str | Path,
        device: Literal["auto", "cpu", "cuda"] | str | None = "auto",
        batch_size: int | str | None = None,  # noqa: ARG002 - part of the harness's interface
        max_batch_size: int | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.folder = Path(pretrained)
        self._device = find_device(device or "auto")
        self.model, self.tokenizer = load_model(self.folder, self._device)
        self.max_length: int = resolve_max_length(self.model.config, self.tokenizer)
        self.rows_cut = 0
        body, head = self.model.base_model, self.model.get_output_embeddings()
        _check_head(self.model, body, head, self.folder)
        self._scorer = Scorer(body, head, self.model.config.vocab_size, self._device)
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
        """Token ids of each text, as the hf backend has them."""
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

    def score(
        self, groups: Sequence[Sequence[Query]], progress: Callable[[float], None] | None = None
    ) -> list[list[Score]]:
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

    def loglikelihood(
        self,
        requests: Sequence[Instance],
        disable_tqdm: bool = True,  # noqa: ARG002 - part of the harness's interface
        progress: Callable[[float], None] | None = None,
    ) -> list[Score]:
        """Log-likelihood of each request's continuation after its context, and whether it is the likeliest text.

        Afterwards `rows_cut` says of how many rows the context was cut to fit.

        Raises:
            AnswerTooLongError: If a continuation alone is longer than the model's context.
        """
        queries = self._queries([request.args for request in requests])
        self.rows_cut = 0
        groups: list[list[Query]] = []
        # The answers of one row are neighbours in the harness's list.
        for _, members in groupby(zip(requests, queries, strict=True), key=lambda pair: _row(pair[0])):
            group = [query for _, query in members]
            self.rows_cut += any(len(query.tokens) > self.max_length + 1 for query in group)
            groups.append([Query(query.tokens[-(self.max_length + 1) :], query.scored) for query in group])
        return [score for group in self.score(groups, progress) for score in group]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:  # noqa: ARG002
        """Log-likelihood of each request's whole text, in the harness's windows."""
        groups: list[list[Query]] = []
        owners: list[int] = []
        for number, tokens in enumerate(self.encode([request.args[0] for request in requests])):
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1):
                context, continuation = make_disjoint_window(window)
                groups.append([Query([*context, *continuation], len(continuation))])
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, group in zip(owners, self.score(groups), strict=True):
            totals[number] += group[0][0]
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
        """Continue each request's text greedily, up to its stop strings or its number of tokens.

        Raises:
            PrimerError: If a task asks for sampling, or for more tokens than the context holds.
        """
        return [self._generate(*request.args) for request in requests]

    def _generate(self, context: str, settings: dict[str, Any]) -> str:
        wanted = normalize_gen_kwargs(settings)
        if wanted.get("do_sample"):
            raise PrimerError(
                "A task asks for sampling; text is generated greedily here.", "Set do_sample: false in it."
            )
        room = self.max_length - wanted["max_gen_toks"]
        if room <= 0:
            raise PrimerError(
                f"A task asks for {wanted['max_gen_toks']} new tokens, but the model's context is {self.max_length}.",
                "Lower max_gen_toks in the task, or leave the suite out.",
            )
        end = self.tokenizer.eos_token_id
        stops = [*wanted["until"], *([self.tokenizer.decode(end)] if end is not None else [])]
        ids = torch.tensor([self.encode([context])[0][-room:]], device=self._device)
        with torch.inference_mode():
            generated = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=wanted["max_gen_toks"],
                do_sample=False,
                stop_strings=[stop for stop in stops if stop] or None,
                tokenizer=self.tokenizer,
                pad_token_id=end if end is not None else 0,
            )
        text = self.tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)
        continuation: str = postprocess_generated_text(text, stops, None)
        return continuation

    def _queries(self, pairs: Sequence[tuple[str, str]]) -> list[Query]:
        """Contexts and continuations as tokens, divided as the harness's `TemplateLM._encode_pair` does.

        White space at the end of a context goes to the continuation; the whole is tokenised, and the continuation's
        tokens are those after as many as the context alone has.
        """
        moved = [(context.rstrip(), context[len(context.rstrip()) :] + continuation) for context, continuation in pairs]
        whole = self.encode([context + continuation for context, continuation in moved])
        contexts = list(dict.fromkeys(context for context, _ in moved if context))
        lengths = {context: len(ids) for context, ids in zip(contexts, self.encode(contexts), strict=True)}
        queries = []
        for (context, continuation), tokens in zip(moved, whole, strict=True):
            query = self._query(tokens, lengths.get(context, 0))
            if query.scored < 1:
                raise PrimerError(
                    f"The answer {continuation!r} after {context[-40:]!r} has no tokens of its own in this tokenizer.",
                    "Leave the suite out, or mend the row.",
                )
            if query.scored > self.max_length:
                raise AnswerTooLongError(
                    f"an answer has {query.scored} tokens, more than the model's context of {self.max_length}",
                    "Leave the suite out, or train with a longer model.context.",
                )
            queries.append(query)
        return queries

    def _query(self, tokens: list[int], context: int) -> Query:
        if context == 0 and tokens[:1] != [self.prefix_token_id]:
            return Query([self.prefix_token_id, *tokens], len(tokens))
        return Query(tokens, len(tokens) - max(context, 1))


def _row(request: Instance) -> Any:
    """What the requests of one row have in common; a request that belongs to none stands alone."""
    if request.task_name is None or request.doc_id is None:
        return id(request)
    return request.task_name, request.doc_id


@torch.inference_mode()
def _check_head(model: Any, body: Any, head: Any, folder: Path) -> None:
    """Some architectures scale or cap their logits after the head; those are not scored rightly without it."""
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    expected, found = model(ids).logits, head(body(ids, use_cache=False).last_hidden_state)
    if not torch.allclose(expected.float(), found.float(), atol=1e-3, equal_nan=True):
        raise PrimerError(
            f"The model in {folder} ({type(model).__name__}) changes its logits after its head: that is not supported.",
            "Score it with the harness's own backend: lm_eval run --model hf --include_path eval/tasks ...",
        )
