"""Primer's model and MMLU's examples for lm-evaluation-harness itself: `lm_eval run --model primer ...`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.api.samplers import ContextSampler
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from eval.language_model import Query, Writing
from eval.model import TorchModel
from eval.suites import all_suites, dataset
from eval.task import few_shot


@register_model("primer")
class PrimerLM(LM):  # type: ignore[misc]
    """A model directory as the harness's language model.

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
        device: str | None = "auto",
        batch_size: int | str | None = None,  # noqa: ARG002 - part of the harness's interface
        max_batch_size: int | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.model = TorchModel(pretrained, device or "auto")

    def loglikelihood(
        self,
        requests: Sequence[Instance],
        disable_tqdm: bool = True,  # noqa: ARG002 - part of the harness's interface
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each request's continuation after its context, and whether it is the likeliest text.

        Raises:
            AnswerTooLongError: If a continuation alone is longer than the model's context.
        """
        # The answers of one row are neighbours in the harness's list.
        rows = [[request.args for request in row] for _, row in groupby(requests, key=_row)]
        return [score for found in self.model.ask(rows) for score in found.scores]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:  # noqa: ARG002
        """Log-likelihood of each request's whole text, in the harness's windows."""
        groups: list[list[Query]] = []
        owners: list[int] = []
        first, length = self.model.prefix_token_id, self.model.max_length
        for number, tokens in enumerate(self.model.encode([request.args[0] for request in requests])):
            for window in get_rolling_token_windows(tokens, first, length, context_len=1):
                context, continuation = make_disjoint_window(window)
                groups.append([Query([*context, *continuation], len(continuation))])
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, group in zip(owners, self.model.score(groups), strict=True):
            totals[number] += group[0][0]
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
        """Continue each request's text, up to its stop strings or its number of tokens.

        Raises:
            PrimerError: If a task asks for more tokens than the context holds.
        """
        wanted = [_writing(request.args[1]) for request in requests]
        answers = [""] * len(requests)
        for writing in dict.fromkeys(wanted):
            numbers = [number for number, own in enumerate(wanted) if own == writing]
            texts = self.model.generate([requests[number].args[0] for number in numbers], writing)
            for number, (text,) in zip(numbers, texts, strict=True):
                answers[number] = text
        return answers


class OwnExamples(ContextSampler):  # type: ignore[misc]
    """Takes the examples that `dataset_with_examples` has put into the row itself."""

    def sample(self, n: int, eval_doc: Mapping[str, Any] | None = None, **_: Any) -> Sequence[Mapping[str, Any]]:
        """The first `n` of them."""
        assert eval_doc is not None, "fewshot_split and test_split of the task are the same, so there is a row"
        examples: Sequence[Mapping[str, Any]] = eval_doc["examples"]
        return examples[:n]


def dataset_with_examples(suite: str, **settings: Any) -> dict[str, Any]:
    """The rows of a suite, each with examples of its own: by itself the harness takes all rows' from one list."""
    found = dataset(suite, **settings)
    known, examples = all_suites()[suite], list(found["examples"])
    return {"rows": found["rows"].map(lambda row: {"examples": few_shot(known, row, examples)})}


def _writing(settings: Mapping[str, Any]) -> Writing:
    wanted = normalize_gen_kwargs(dict(settings))
    sampled = wanted.get("do_sample", False)
    return Writing(
        tokens=wanted["max_gen_toks"],
        stops=tuple(stop for stop in wanted["until"] if stop),
        temperature=wanted.get("temperature", 1.0) if sampled else 0.0,
        top_p=wanted.get("top_p", 1.0) if sampled else 1.0,
    )


def _row(request: Instance) -> Any:
    """What the requests of one row have in common; a request that belongs to none stands alone."""
    if request.task_name is None or request.doc_id is None:
        return id(request)
    return request.task_name, request.doc_id
