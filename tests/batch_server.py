"""A judge for tests that offers the Batch API too, on the same loopback server.

    with BatchServer() as server:
        judge = Judge(server.url, "test-judge", cache=folder / "judge.sqlite", batch=True)

Lines of a batch get what the same body would get by itself, `server.faults` included; what comes
of whole batches stands in `server.endings`, one for each of the next batches.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from judge_server import Body, Fault, JudgeServer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class Ending:
    """What comes of a batch.

    Attributes:
        status: in the end.
        lines: so many lines are carried out, all where None.
        errors: of the validation.
        cut: break the connection instead of saying that the batch was created.
        status_code: of the creation; above 200 nothing is created.
    """

    status: str = "completed"
    lines: int | None = None
    errors: list[Body] = field(default_factory=list)
    cut: bool = False
    status_code: int = 200


class BatchServer(JudgeServer):
    """The server.

    Attributes:
        endings: of the next batches.
        offered: whether there is a Batch API.
        seconds: from the creation of a batch to its end.
        listed_after: seconds until a batch stands in the list.
        billed: `custom_id` of every line that was answered with status 200, in order.
        batches: as they are reported, by id.
        files: by id.
        polls: how often each batch was asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.endings: deque[Ending] = deque()
        self.offered = True
        self.seconds = 0.05
        self.listed_after = 0.0
        self.billed: list[str] = []
        self.batches: dict[str, Body] = {}
        self.files: dict[str, bytes] = {}
        self.polls: dict[str, int] = {}
        self._made_at: dict[str, float] = {}
        self._ending: dict[str, Ending] = {}
        application: Any = self._server.config.app
        application.router.routes += [
            Route("/v1/files", self._upload, methods=["POST"]),
            Route("/v1/files/{id}/content", self._content),
            Route("/v1/batches", self._create, methods=["POST"]),
            Route("/v1/batches", self._list),
            Route("/v1/batches/{id}", self._retrieve),
        ]

    async def _upload(self, request: Request) -> Response:
        if not self.offered:
            return JSONResponse({"error": {"message": "Not Found"}}, 404)
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + await request.body())
        parts = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in form.iter_parts()
        }
        assert parts["purpose"] == b"batch"
        return JSONResponse({"id": self._keep(parts["file"]), "object": "file"})

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    async def _content(self, request: Request) -> Response:
        return Response(self.files[request.path_params["id"]])

    async def _create(self, request: Request) -> Response:
        asked = await request.json()
        assert asked["endpoint"] == "/v1/chat/completions"
        ending = self.endings.popleft() if self.endings else Ending()
        if ending.status_code != 200:
            return JSONResponse({"error": {"message": "scripted"}}, ending.status_code)
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "completion_window": asked["completion_window"],
            "input_file_id": asked["input_file_id"],
            "created_at": int(time.time()),
            "status": "in_progress",
        }
        self._made_at[name] = time.monotonic()
        self._ending[name] = ending
        if ending.cut:
            return self._respond({}, Fault(cut=True))
        return JSONResponse(self.batches[name])

    async def _list(self, request: Request) -> Response:
        listed = [
            batch
            for name, batch in reversed(self.batches.items())
            if time.monotonic() - self._made_at[name] >= self.listed_after
        ]
        return JSONResponse({"object": "list", "data": listed, "has_more": False})

    async def _retrieve(self, request: Request) -> Response:
        name = request.path_params["id"]
        if name not in self.batches:
            return JSONResponse({"error": {"message": "no such batch"}}, 404)
        self.polls[name] = self.polls.get(name, 0) + 1
        batch = self.batches[name]
        due = time.monotonic() - self._made_at[name] >= self.seconds
        if batch["status"] == "in_progress" and due:
            self._end(batch, self._ending[name])
        return JSONResponse(batch)

    def _end(self, batch: Body, ending: Ending) -> None:
        batch["status"] = ending.status
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        if ending.status == "failed":
            batch["errors"] = {"object": "list", "data": ending.errors}
            return
        count = len(lines) if ending.lines is None else ending.lines
        good, bad = [], []
        # Results come in any order.
        for line in reversed(lines[:count]):
            entry = {"id": "x", "custom_id": line["custom_id"], "error": None}
            response = self._answer_line(line["body"])
            if response is None:
                bad.append(entry | {"response": None, "error": {"code": "x", "message": "lost"}})
                continue
            entry["response"] = response
            (good if response["status_code"] == 200 else bad).append(entry)
            if response["status_code"] == 200:
                self.billed.append(line["custom_id"])
        error = {"code": f"batch_{ending.status}", "message": "not carried out"}
        for line in lines[count:]:
            bad.append({"custom_id": line["custom_id"], "response": None, "error": error})
        for key, entries in (("output_file_id", good), ("error_file_id", bad)):
            if entries:
                text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in entries)
                batch[key] = self._keep(text.encode())

    def _answer_line(self, body: Body) -> Body | None:
        self.requests.append(body)
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.cut:
            return None
        response = self._respond(body, fault)
        return {"status_code": response.status_code, "body": json.loads(bytes(response.body))}
