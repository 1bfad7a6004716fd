"""The files of the Batch API: requests written as lines, results read from lines; their pace.

Format and limits: https://platform.openai.com/docs/guides/batch and the reference of
`POST /batches`: at most 50,000 requests and 200 MB a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

_MOST_REQUESTS = 50_000
_MOST_BYTES = 200_000_000
# Asked again in the next batch; everything else that is no answer would fail the same way.
_PASSING = (0, 408, 409, 429)


@dataclass(frozen=True)
class BatchPace:
    """Times and numbers of batches.

    Attributes:
        quiet: seconds without a new question after which those gathered are submitted.
        first_poll: seconds between the first polls of a batch.
        longest_poll: seconds to which the intervals grow, by half each time.
        attempts: batches that a request is put into before it has failed.
        settling: seconds that a batch may take to appear in the provider's list.
        patience: polls in a row that may fail.
        at_once: questions that may be asked together. Whoever asks holds what they are about in
            memory, and with fewer a run needs more batches, one after another.
        most_requests: requests of one batch.
        most_bytes: bytes of one input file.
    """

    quiet: float = 0.5
    first_poll: float = 2.0
    longest_poll: float = 60.0
    attempts: int = 3
    settling: float = 30.0
    patience: int = 30
    at_once: int = 2_000
    most_requests: int = _MOST_REQUESTS
    most_bytes: int = _MOST_BYTES


@dataclass(frozen=True)
class BatchRequest:
    """One request of a batch with what the answer is stored under.

    Attributes:
        key: of the answer in the cache, and the request's `custom_id` (64 characters).
        task: of the question.
        version: of its prompt.
        replicate: number of the independent repetition.
        body: as sent, canonical JSON.
    """

    key: str
    task: str
    version: str
    replicate: int
    body: str

    def line(self) -> bytes:
        """The request's line in the input file, with its line break."""
        return (
            json.dumps(
                {
                    "custom_id": self.key,
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": json.loads(self.body),
                }
            ).encode()
            + b"\n"
        )


@dataclass(frozen=True)
class Result:
    """What a batch says of one request.

    Attributes:
        status_code: of HTTP; 0 where the request was not carried out.
        text: the response's body, or why there is none.
    """

    status_code: int
    text: str

    @property
    def passing(self) -> bool:
        """The same request may well be answered another time."""
        return self.status_code in _PASSING or self.status_code >= 500


def read_results(text: str) -> dict[str, Result]:
    """Results by `custom_id` from an output or error file; lines that are no result are skipped."""
    found = {}
    # Not splitlines: it would also break at the line separators that JSON strings may hold.
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            found[str(entry["custom_id"])] = _result(entry)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def _result(entry: dict[str, Any]) -> Result:
    response = entry.get("response") or {}
    if response.get("body") and response.get("status_code"):
        return Result(
            int(response["status_code"]), json.dumps(response["body"], ensure_ascii=False)
        )
    error = entry.get("error") or {"message": "the batch holds no response to this request"}
    return Result(0, f"{error.get('code') or 'error'}: {error.get('message')}")


def write_requests(requests: Iterable[BatchRequest]) -> str:
    """Requests as JSON, to be stored until their batch has ended."""
    return json.dumps([asdict(request) for request in requests], ensure_ascii=False)


def read_requests(text: str) -> list[BatchRequest]:
    """The reverse of `write_requests`."""
    return [BatchRequest(**fields) for fields in json.loads(text)]
