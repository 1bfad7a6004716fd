"""A judge with mixed faults and a log of its own, in a process of its own.

    python tests/soak_server.py LOG SHARE

prints its URL and serves until its input ends. Questions are `Rate number N.`, their answers
`{"verdict": N}`. A share of the requests goes wrong: in transport, drawn anew for each request, or
in what is said, drawn once for each question, so that the same comes of it however often it is
asked. LOG gets one JSON line a request, written before the response leaves: the number, whether the
request repairs an answer, and what was sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
from pathlib import Path

from judge_server import Body, Fault, JudgeServer
from starlette.requests import Request
from starlette.responses import Response

# What goes wrong in transport: no answer, nothing paid.
TRANSPORT = {
    "rate limit": Fault(status=429, headers={"Retry-After": "0.2"}),
    "rate limit without a time": Fault(status=429),
    "server error": Fault(status=500),
    "unavailable": Fault(status=503),
    "timed out there": Fault(status=408),
    "cut": Fault(cut=True),
    "hang": Fault(status=503, hang=7.0),
    "no choices": Fault(raw='{"id": "1", "object": "chat.completion", "choices": []}'),
    "half a body": Fault(raw='{"id": "1", "choices": [{"index": 0, "mess'),
}
# Hangs are rarer: each holds one of the client's slots until it times out.
WEIGHTS = [0.1 if name == "hang" else 1.0 for name in TRANSPORT]
# What goes wrong in what is said; paid for all the same.
REFUSALS = {
    "refusal": Fault(refusal="I will not rate this."),
    "refusal in prose": Fault(content="I'm sorry, but I can't help with that."),
    "filter": Fault(content="", finish_reason="content_filter"),
    "filter by status": Fault(status=400, error={"message": "no", "code": "content_filter"}),
}
MISTAKES = {
    "prose": Fault(content="It is hard to say."),
    "wrong type": Fault(content='{"verdict": "many"}'),
    "cut off": Fault(content='{"verd', finish_reason="length"),
}
_TRANSPORT_SHARE = 2 / 3


def is_mended(number: int) -> bool:
    """Whether a question whose answer is unreadable gets a readable one when it is repaired."""
    return number % 2 == 0


def number_of(body: Body) -> int:
    """The number that a request asks about."""
    return int(re.findall(r"\d+", body["messages"][0]["content"])[0])


class SoakServer(JudgeServer):
    """The server.

    Args:
        log: file of the log.
        share: of the requests that go wrong.
    """

    def __init__(self, log: Path, share: float) -> None:
        super().__init__()
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._share = share
        self._random = random.Random(0)
        self.answer = lambda body: json.dumps({"verdict": number_of(body)})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        number = number_of(body)
        repairs = len(body["messages"]) > 1
        name, fault = self._fate(number, repairs)
        entry = {"number": number, "repairs": repairs, "sent": name}
        os.write(self._log, json.dumps(entry).encode() + b"\n")
        await asyncio.sleep(fault.hang)
        return self._respond(body, fault)

    def _fate(self, number: int, repairs: bool) -> tuple[str, Fault]:
        if self._random.random() < _TRANSPORT_SHARE * self._share:
            (name,) = self._random.choices(list(TRANSPORT), WEIGHTS)
            return name, TRANSPORT[name]
        drawn = random.Random(number)
        said = {**REFUSALS, **MISTAKES}
        name = drawn.choice(list(said))
        at_fault = drawn.random() < (1 - _TRANSPORT_SHARE) * self._share
        if at_fault and not (repairs and is_mended(number)):
            return name, said[name]
        return "answer", Fault()


def main() -> None:
    """Serve until the input ends."""
    with SoakServer(Path(sys.argv[1]), float(sys.argv[2])) as server:
        print(server.url, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main()
