"""What a batch brought: its answers into the journal, each once, and what its failures mean."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from primer.errors import PrimerError
from synth.backend import RequestError
from synth.batch_api import FINAL, BatchApi, read_answers
from synth.batch_log import Batch, BatchLog
from synth.endpoint import EndpointBackend
from synth.journal import Failure, Journal, Reply

if TYPE_CHECKING:
    from openai.types import Batch as RemoteBatch

# The limit of a reply's length goes by the first of these names; OpenAI's newer models know the second alone.
OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"

# A request that failed in passing is asked so often in one run; then it has failed for good.
_TRIES = 3

# A batch of at least so many requests of which none was answered stops the run, and its failures are not kept: what
# they have in common, a person can mend.
_TELLING_FAILURES = 20

_NOT_BEGUN = frozenset({"batch_expired", "batch_cancelled"})  # codes of requests that cost nothing


@dataclass
class Answers:
    """What a batch brought.

    Attributes:
        keys: Of the requests that its files tell of.
        replies: How many there are.
        failures: Requests that failed, by key.
        refuses_limit: Whether the model wants the limit of a reply's length under its newer name.
        unmetered: A reply of which the endpoint did not say how many tokens it took.
    """

    keys: set[str] = field(default_factory=set)
    replies: int = 0
    failures: dict[str, RequestError] = field(default_factory=dict)
    refuses_limit: bool = False
    unmetered: Reply | None = None


class Collector:
    """Puts answers of batches into the journal.

    Args:
        api: Where the answers are.
        backend: Reads them.
        journal: Where they go.
        log: Knows the batches.
    """

    def __init__(self, api: BatchApi, backend: EndpointBackend, journal: Journal, log: BatchLog) -> None:
        self._api, self._backend, self._journal, self._log = api, backend, journal, log
        self._failed: Counter[str] = Counter()  # how often a request failed in passing, by key
        self._replies = 0  # in this run

    async def collect(self, batch: Batch, keys: Set[str], seen: RemoteBatch) -> Answers:
        """Fetch the files of a batch that has ended, and keep the replies in them; `keep` does so with the failures.

        Args:
            batch: As it is known here.
            keys: Of its requests.
            seen: As the provider knows it.

        Raises:
            PrimerError: If a file is missing or damaged; nothing is lost, and another run tries again.
        """
        files = [file for file in (seen.output_file_id, seen.error_file_id) if file]
        counts = seen.request_counts
        if not files and counts is not None and counts.completed:
            raise PrimerError(
                f"The batch {seen.id} has {counts.completed:,d} answers, and the endpoint names no file of them.",
                f"Run the same command again later, or {self._log.give_up(batch)}",
            )
        answers, path = Answers(), self._log.download(batch.label)
        self._journal.settle()  # an earlier run may have ended while it collected
        for file in files:
            await self._api.download(seen.id, file, path, self._log.give_up(batch))
            for row in read_answers(path, seen.id, file):
                if row["custom_id"] in keys and row["custom_id"] not in answers.keys:
                    answers.keys.add(row["custom_id"])
                    self._take(batch, row, answers)
        if seen.status == "completed":
            silence = self._api.error(None, {"message": "the batch has neither an answer nor an error"})
            answers.failures |= dict.fromkeys(sorted(keys - answers.keys), silence)
        self._replies += answers.replies
        self._flush()
        return answers

    def telling(self, answers: Answers) -> RequestError | None:
        """The failure that all of a batch has in common, or that none but a person can mend."""
        final = [error for error in answers.failures.values() if error.trouble in FINAL]
        # Where nothing is answered at all, it is no fault of the single requests.
        outage = not self._replies and any(self._failed[key] >= _TRIES - 1 for key in answers.failures)
        if not (final or outage or (not answers.replies and len(answers.failures) >= _TELLING_FAILURES)):
            return None
        errors = final or list(answers.failures.values())
        (commonest, _), *_ = Counter(str(error) for error in errors).most_common(1)
        return next(error for error in errors if str(error) == commonest)

    def keep(self, batch: Batch, answers: Answers) -> None:
        """Record the failures; those in passing are asked again, for a while."""
        for key, error in answers.failures.items():
            self._failed[key] += 1
            over = self._failed[key] >= _TRIES
            failure = error.failure
            self._journal.put(key, Failure(failure.status, failure.reason, failure.permanent or over), batch.tag)

    def _flush(self) -> None:
        """Have the journal on the disk before the log says that a batch is collected: also against a power cut."""
        with self._journal.path.open("rb") as file:
            os.fsync(file.fileno())

    def _take(self, batch: Batch, row: Mapping[str, Any], answers: Answers) -> None:
        """Take in one row; a failure waits until all of them are known."""
        key, problem, response = row["custom_id"], row.get("error"), row.get("response") or {}
        if isinstance(problem, dict) and problem.get("code") in _NOT_BEGUN:
            return
        known = self._journal.get(key)
        if known is not None:
            answers.replies += isinstance(known, Reply)
            return
        status, body = response.get("status_code"), response.get("body")
        try:
            if problem or status != 200:
                raise self._api.error(status, problem or body)
            reply = self._backend.read(json.dumps(body).encode(), 0.0)
        except RequestError as error:
            if batch.limit == OLD_LIMIT and NEW_LIMIT in error.failure.reason:
                answers.refuses_limit = True  # asked again under the name that the model knows
            else:
                answers.failures[key] = error
            return
        self._journal.put(key, reply, batch.tag)
        answers.replies += 1
        if None in (reply.prompt_tokens, reply.completion_tokens):
            answers.unmetered = reply
