"""The Batch API as OpenAI documents it, with its state in memory.

Sources: https://platform.openai.com/docs/guides/batch and the references of `files` and `batches`.
A batch is validated, waits for `delay` seconds, is answered, and ends as `completed`, `expired` or
`failed`. Errors stand in a file of their own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from safesail.lab.judge._noise import BatchBehaviour, chance

Body = dict[str, Any]

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS = 50_000


@dataclass
class _Batch:
    """A batch with its requests; `number` counts from 1."""

    number: int
    view: Body
    requests: list[Body] = field(default_factory=list)


class Batches:
    """Files and batches of one server.

    Args:
        answer: from a request's body to the HTTP status and the body of its response; called in a
            thread.
        behaviour: how batches go.
    """

    def __init__(
        self, answer: Callable[[Body], tuple[int, Body]], behaviour: BatchBehaviour
    ) -> None:
        self._answer = answer
        self._behaviour = behaviour
        self._files: dict[str, tuple[Body, bytes]] = {}
        self._batches: dict[str, _Batch] = {}
        self._submitted: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        """The endpoints."""
        return [
            Route("/v1/files", self._upload, methods=["POST"]),
            Route("/v1/files/{id}", self._file),
            Route("/v1/files/{id}/content", self._content),
            Route("/v1/batches", self._create, methods=["POST"]),
            Route("/v1/batches", self._list, methods=["GET"]),
            Route("/v1/batches/{id}", self._retrieve),
            Route("/v1/batches/{id}/cancel", self._cancel, methods=["POST"]),
        ]

    async def _upload(self, request: Request) -> Response:
        form = _multipart(request.headers.get("content-type", ""), await request.body())
        if "file" not in form or form.get("purpose", ("", b""))[1] != b"batch":
            return _error(400, "a file and purpose=batch are wanted", "invalid_request_error")
        name, content = form["file"]
        return JSONResponse(self._add_file(name, content, "batch"))

    async def _file(self, request: Request) -> Response:
        found = self._files.get(request.path_params["id"])
        return JSONResponse(found[0]) if found else _missing("File", request)

    async def _content(self, request: Request) -> Response:
        found = self._files.get(request.path_params["id"])
        if not found:
            return _missing("File", request)
        return Response(found[1], media_type="application/octet-stream")

    async def _create(self, request: Request) -> Response:
        wanted = await request.json()
        file_id = wanted.get("input_file_id")
        if file_id not in self._files:
            return _error(400, f"no such input file: {file_id}", "invalid_request_error")
        if wanted.get("endpoint") != ENDPOINT or wanted.get("completion_window") != "24h":
            return _error(400, f"only {ENDPOINT} within 24h is offered", "invalid_request_error")
        now = int(time.time())
        batch = _Batch(
            len(self._batches) + 1,
            {
                "id": f"batch_{uuid4().hex}",
                "object": "batch",
                "endpoint": ENDPOINT,
                "errors": None,
                "input_file_id": file_id,
                "completion_window": "24h",
                "status": "validating",
                "output_file_id": None,
                "error_file_id": None,
                "created_at": now,
                "expires_at": now + 86_400,
                "request_counts": {"total": 0, "completed": 0, "failed": 0},
                "metadata": wanted.get("metadata"),
            },
        )
        self._batches[batch.view["id"]] = batch
        task = asyncio.get_running_loop().create_task(self._work(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return JSONResponse(batch.view)

    async def _list(self, request: Request) -> Response:
        limit = int(request.query_params.get("limit", 20))
        views = [batch.view for batch in reversed(self._batches.values())]
        after = request.query_params.get("after")
        if after in self._batches:
            views = views[[view["id"] for view in views].index(after) + 1 :]
        page = views[:limit]
        return JSONResponse(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(views) > limit,
            }
        )

    async def _retrieve(self, request: Request) -> Response:
        batch = self._batches.get(request.path_params["id"])
        return JSONResponse(batch.view) if batch else _missing("Batch", request)

    async def _cancel(self, request: Request) -> Response:
        batch = self._batches.get(request.path_params["id"])
        if not batch:
            return _missing("Batch", request)
        if batch.view["status"] not in ("validating", "in_progress"):
            return _error(400, f"the batch is {batch.view['status']}", "invalid_request_error")
        batch.view |= {"status": "cancelled", "cancelled_at": int(time.time())}
        return JSONResponse(batch.view)

    async def _work(self, batch: _Batch) -> None:
        """Take a batch through its states; one that was cancelled meanwhile stays so."""
        delay = self._behaviour.delay
        await asyncio.sleep(delay / 4)
        batch.requests, errors = _read(self._files[batch.view["input_file_id"]][1])
        if batch.view["status"] != "validating":
            return
        if errors:
            batch.view |= {"errors": {"object": "list", "data": errors}}
            batch.view |= {"status": "failed", "failed_at": int(time.time())}
            return
        batch.view |= {"status": "in_progress", "in_progress_at": int(time.time())}
        batch.view["request_counts"] = {"total": len(batch.requests), "completed": 0, "failed": 0}
        await asyncio.sleep(delay * 3 / 4)
        if batch.view["status"] != "in_progress":
            return
        batch.view |= {"status": "finalizing", "finalizing_at": int(time.time())}
        answered, failed = await asyncio.to_thread(self._results, batch)
        for key, lines in (("output_file_id", answered), ("error_file_id", failed)):
            if lines:
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
                file = self._add_file(f"{batch.view['id']}_{key}.jsonl", content, "batch_output")
                batch.view[key] = file["id"]
        counts = {"completed": len(answered), "failed": len(failed)}
        batch.view["request_counts"] = {"total": len(batch.requests), **counts}
        end = "expired" if batch.number <= self._behaviour.expiring else "completed"
        batch.view |= {"status": end, f"{end}_at": int(time.time())}

    def _results(self, batch: _Batch) -> tuple[list[Body], list[Body]]:
        """Lines of the output and of the error file."""
        answered: list[Body] = []
        failed: list[Body] = []
        expiring = batch.number <= self._behaviour.expiring
        for index, request in enumerate(batch.requests):
            custom_id = request["custom_id"]
            line: Body = {"id": f"batch_req_{uuid4().hex}", "custom_id": custom_id}
            if expiring and index % 2:
                message = "This request could not be executed before the completion window expired."
                error = {"code": "batch_expired", "message": message}
                failed.append({**line, "response": None, "error": error})
                continue
            self._submitted[custom_id] += 1
            draw = chance(self._behaviour.seed, custom_id, self._submitted[custom_id], "batch")
            if draw < self._behaviour.failures:
                status, body = 500, {"error": {"message": "scripted fault", "code": None}}
            else:
                status, body = self._answer(request["body"])
            response = {"status_code": status, "request_id": uuid4().hex, "body": body}
            place = answered if status == 200 else failed
            place.append({**line, "response": response, "error": None})
        return answered, failed

    def _add_file(self, name: str, content: bytes, purpose: str) -> Body:
        view: Body = {
            "id": f"file-{uuid4().hex}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[view["id"]] = view, content
        return view


def _read(content: bytes) -> tuple[list[Body], list[Body]]:
    """Requests of an input file and, where it is not valid, its errors."""
    requests: list[Body] = []
    errors = []
    seen = set()
    for number, line in enumerate(content.decode().split("\n"), start=1):
        if not line.strip():
            continue
        fault = None
        try:
            request = json.loads(line)
        except ValueError:
            fault = "invalid_json_line", "This line is not parseable as valid JSON."
        else:
            custom_id = request.get("custom_id")
            if not isinstance(custom_id, str):
                fault = "missing_required_parameter", "custom_id is missing."
            elif custom_id in seen:
                fault = "duplicate_custom_id", f"custom_id {custom_id} stands here twice."
            elif request.get("url") != ENDPOINT or request.get("method") != "POST":
                fault = "invalid_url", f"POST {ENDPOINT} is wanted."
            elif requests and request["body"].get("model") != requests[0]["body"].get("model"):
                fault = "mismatched_model", "All requests must be of one model."
            seen.add(custom_id)
            requests.append(request)
        if fault:
            errors.append({"code": fault[0], "message": fault[1], "line": number, "param": None})
    if not requests and not errors:
        errors = [{"code": "empty_file", "message": "no requests", "line": None, "param": None}]
    if len(requests) > MOST_REQUESTS:
        message = f"more than {MOST_REQUESTS} requests"
        errors = [{"code": "invalid_file", "message": message, "line": None, "param": None}]
    return requests, errors


def _multipart(content_type: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """Fields of a multipart form: name -> (file name, content)."""
    boundary = _header(content_type).get_boundary()
    form: dict[str, tuple[str, bytes]] = {}
    for part in body.split(b"--" + str(boundary).encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        for line in head.decode().splitlines():
            if line.lower().startswith("content-disposition:"):
                disposition = _header(line.partition(":")[2].strip())
                name = str(disposition.get_param("name"))
                form[name] = disposition.get_filename() or "", content.removesuffix(b"\r\n")
    return form


def _header(value: str) -> Message:
    """A header's value with parameters; both kinds of header are read as one content type."""
    message = Message()
    message["Content-Type"] = value
    message["Content-Disposition"] = value
    return message


def _error(status: int, message: str, code: str) -> Response:
    error = {"message": message, "type": code, "param": None, "code": code}
    return JSONResponse({"error": error}, status)


def _missing(what: str, request: Request) -> Response:
    return _error(404, f"No such {what} object: {request.path_params['id']}", "not_found")
