"""The Files and Batch APIs of the mock endpoint: every request of a batch is answered as the endpoint would at once.

A batch is validated, in progress and completed by the clock. `asked` counts requests as they are taken in for good:
when a batch is made. Faults act on batches one after another, or on requests whose prompt contains a word.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from mock_endpoint import _error, completion, question_of

if TYPE_CHECKING:
    from mock_endpoint import Endpoint


@dataclass
class BatchFaults:
    """What goes wrong with batches."""

    seconds: float = 0.0  # from the making of a batch to its end
    durations: list[float] = field(default_factory=list)  # the same, of the next batches
    absent: bool = False  # every route is 404
    refusals: list[dict[str, Any]] = field(default_factory=list)  # the next batches fail with these errors
    most_requests: int | None = None  # larger batches fail: the queue is full
    most_enqueued: int | None = None  # batches fail that would bring more requests than this under way
    largest_file: int | None = None  # larger uploads are HTTP 413
    unwilling: list[tuple[int, str]] = field(default_factory=list)  # the next makings get this status and code
    expiring: list[int] = field(default_factory=list)  # the next batches expire after so many answers
    unsure: int = 0  # so many next batches are made, and the answer to that is lost (HTTP 500)
    lost: bool = False  # no file of answers can be fetched
    cut: int = 0  # so many next downloads break off in the middle
    damaged: bool = False  # the second line of a download is no JSON
    silent: str | None = None  # requests with this word have neither answer nor error
    failing: str | None = None  # requests with this word fail in passing
    failing_first: int = 0  # so many requests fail in passing, of any batch
    error: tuple[int, dict[str, Any]] | None = None  # every request ends with this
    trickle: float = 0.0  # seconds between two lines of a download
    no_usage: bool = False  # answers do not say their tokens
    on: Callable[[str], None] | None = None  # called with "upload", "create", "created", "look", "content"


@dataclass
class Batches:
    """The state of the mock's batches."""

    endpoint: Endpoint
    faults: BatchFaults = field(default_factory=BatchFaults)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)  # by question
    events: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def add_routes(self, application: web.Application) -> None:
        routes = application.router
        routes.add_post("/v1/files", self._upload)
        routes.add_get("/v1/files/{id}/content", self._content)
        routes.add_post("/v1/batches", self._create)
        routes.add_get("/v1/batches", self._list)
        routes.add_get("/v1/batches/{id}", self._retrieve)
        routes.add_post("/v1/batches/{id}/cancel", self._cancel)

    def _refused(self, request: web.Request, event: str) -> web.Response | None:
        self.events[event] += 1
        if self.faults.on is not None:
            self.faults.on(event)
        if self.faults.absent:
            return _error(404, "Not Found")
        if not self.endpoint._allowed(request):
            return _error(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
        return None

    async def _upload(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, "upload"):
            return refused
        data, fields = b"", {}
        async for part in await request.multipart():
            if part.name == "file":
                data = bytes(await part.read())
            else:
                fields[part.name] = await part.text()
        assert fields["purpose"] == "batch"
        if self.faults.largest_file is not None and len(data) > self.faults.largest_file:
            return _error(413, "The file is too large")
        name = self._keep(data)
        return web.json_response({"id": name, "object": "file", "bytes": len(data), "created_at": 0, "filename": "x"})

    def _keep(self, data: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return name

    async def _create(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, "create"):
            return refused
        if self.faults.unwilling:
            status, code = self.faults.unwilling.pop(0)
            return _error(status, "Not now", {"Retry-After": "0"}, code)
        body = await request.json()
        assert (body["completion_window"], body["endpoint"]) == ("24h", "/v1/chat/completions")
        requests = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        now, faults = time.time(), self.faults
        batch: dict[str, Any] = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "created_at": int(now),
            "expires_at": int(now) + 86_400,
            "metadata": body["metadata"],
            "started": now,
            "seconds": faults.durations.pop(0) if faults.durations else None,
            "requests": requests,
            "errors": None,
        }
        too_many = faults.most_requests is not None and len(requests) > faults.most_requests
        if faults.most_enqueued is not None:
            busy = [b for b in self.batches.values() if self._shown(b)["status"] in ("validating", "in_progress")]
            too_many = sum(len(b["requests"]) for b in (*busy, batch)) > faults.most_enqueued
        full = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached for mock."}] * too_many
        errors = full or ([faults.refusals.pop(0)] if faults.refusals else [])
        if errors:
            batch["errors"] = {"object": "list", "data": errors}
        else:
            batch["answered"] = faults.expiring.pop(0) if faults.expiring else len(requests)
            self.bodies += [row["body"] for row in requests]
            self.asked.update(question_of(row["body"]) for row in requests[: batch["answered"]])
        self.batches[batch["id"]] = batch
        if faults.on is not None:
            faults.on("created")
        if faults.unsure:
            faults.unsure -= 1
            return _error(500, "The server broke")
        return web.json_response(self._shown(batch))

    async def _list(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, "list"):
            return refused
        newest = [self._shown(batch) for batch in reversed(self.batches.values())]
        if after := request.query.get("after"):
            newest = newest[[batch["id"] for batch in newest].index(after) + 1 :]
        page = newest[:2]  # short pages, so that a client has to turn them
        return web.json_response(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(newest) > 2,
            }
        )

    async def _retrieve(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, "look"):
            return refused
        batch = self.batches.get(request.match_info["id"])
        return web.json_response(self._shown(batch)) if batch else _error(404, "No batch found")

    async def _cancel(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, "cancel"):
            return refused
        batch = self.batches[request.match_info["id"]]
        state = self._shown(batch)
        if state["status"] in ("validating", "in_progress"):
            batch |= {"cancelled": True, "answered": state["request_counts"]["completed"]}
        return web.json_response(self._shown(batch))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request, "content"):
            return refused
        data = self.files.get(request.match_info["id"])
        if data is None or self.faults.lost:
            return _error(404, "No such File object")
        lines = data.splitlines(keepends=True)
        if self.faults.damaged and len(lines) > 1:
            lines[1] = b'{"custom_id": "\n'
        response = web.StreamResponse(headers={"Content-Length": str(sum(map(len, lines)))})
        await response.prepare(request)
        for number, line in enumerate(lines):
            if self.faults.cut and number == len(lines) // 2:
                self.faults.cut -= 1
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(line)
            if self.faults.trickle:
                await asyncio.sleep(self.faults.trickle)
        return response

    def _shown(self, batch: dict[str, Any]) -> dict[str, Any]:
        shown = {
            key: value for key, value in batch.items() if key not in ("requests", "started", "seconds", "answered")
        }
        passed, total = time.time() - batch["started"], len(batch["requests"])
        seconds = self.faults.seconds if batch["seconds"] is None else batch["seconds"]
        if batch["errors"]:
            return shown | {"status": "failed"}
        if batch.get("cancelled") or passed >= seconds:
            if "output" not in batch:
                batch["output"], batch["error_file"] = self._answer(batch)
            status = "completed" if batch["answered"] == total else "expired"
            answers = batch["output"] and self.files[batch["output"]].count(b"\n")
            return shown | {
                "status": "cancelled" if batch.get("cancelled") else status,
                "output_file_id": batch["output"],
                "error_file_id": batch["error_file"],
                "request_counts": {"total": total, "completed": answers or 0, "failed": total - (answers or 0)},
            }
        done = int(total * passed / seconds)
        status = "validating" if passed < 0.2 * seconds else "in_progress"
        return shown | {"status": status, "request_counts": {"total": total, "completed": done, "failed": 0}}

    def _answer(self, batch: dict[str, Any]) -> tuple[str | None, str | None]:
        """The files of answers and of errors, in no particular order of rows."""
        answers, errors = [], []
        rows = batch["requests"][: batch["answered"]]
        for row in rows:
            text = " ".join(message["content"] for message in row["body"]["messages"])
            if self.faults.silent and self.faults.silent in text:
                continue
            status, body = self._reply(row["body"], text)
            answer = {"id": "batch_req_1", "custom_id": row["custom_id"], "error": None}
            answer["response"] = {"status_code": status, "request_id": "r", "body": body}
            (answers if status == 200 else errors).append(answer)
        code = "batch_cancelled" if batch.get("cancelled") else "batch_expired"
        for row in batch["requests"][batch["answered"] :]:
            error = {"code": code, "message": "This request could not be executed."}
            errors.append({"id": "r", "custom_id": row["custom_id"], "response": None, "error": error})
        random.Random(0).shuffle(answers)
        return tuple(
            self._keep(b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in rows)) if rows else None
            for rows in (answers, errors)
        )  # type: ignore[return-value]

    def _reply(self, body: dict[str, Any], text: str) -> tuple[int, dict[str, Any]]:
        faults, own = self.endpoint.faults, self.faults
        if own.error is not None:
            return own.error[0], {"error": own.error[1]}
        if faults.new_limit_name and "max_tokens" in body:
            return 400, _problem("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if faults.refuse and faults.refuse in text:
            return 400, _problem("The prompt was refused")
        if faults.echo_key and faults.echo_key in text:
            return 400, _problem(f"Refused for {faults.key}")
        if (own.failing and own.failing in text) or own.failing_first > 0:
            own.failing_first -= 1
            return 500, _problem("The server broke")
        reply = completion(self.endpoint._text(question_of(body), text), body)
        if own.no_usage:
            del reply["usage"]
        return 200, reply


def _problem(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "mock", "param": None, "code": None}}
