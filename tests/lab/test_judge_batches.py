"""The known-truth judge's Batch API, through the provider's own client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai.types import Batch

from safesail.judging import render
from safesail.lab.judge import BatchBehaviour, KnownTruthJudge


@contextmanager
def serving(**behaviour: Any) -> Iterator[tuple[KnownTruthJudge, openai.OpenAI]]:
    batches = BatchBehaviour(**{"delay": 0.05, **behaviour})
    with (
        KnownTruthJudge("perfect", batches=batches) as judge,
        openai.OpenAI(base_url=judge.url, api_key="none", max_retries=0) as client,
    ):
        yield judge, client


def lines(count: int, **changed: Any) -> bytes:
    found = []
    for number in range(count):
        prompt = render("items", explanation="fraud", items=[f"⟪{number} forged the visa⟫"])
        body = {"model": "x", "messages": prompt.messages}
        line = {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions"}
        found.append(json.dumps({**line, "body": body, **changed}))
    return "\n".join(found).encode() + b"\n"


def submit(client: openai.OpenAI, content: bytes) -> Batch:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert client.files.content(file.id).read() == content
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    return batch


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    text = client.files.content(file_id).text
    return {one["custom_id"]: one for one in map(json.loads, text.splitlines())}


def test_a_batch_is_answered_like_single_questions() -> None:
    with serving() as (judge, client):
        batch = submit(client, lines(5))
        assert batch.status == "validating"
        batch = ended(client, batch)
        assert batch.status == "completed"
        assert batch.error_file_id is None
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (5, 5)
        found = results(client, batch.output_file_id)
        single = client.chat.completions.create(**json.loads(lines(3).splitlines()[2])["body"])
    assert list(found) == [f"id-{number}" for number in range(5)]
    response = found["id-2"]["response"]
    assert response["status_code"] == 200
    assert response["body"]["choices"][0]["message"] == {
        "role": "assistant",
        "content": single.choices[0].message.content,
        "refusal": None,
    }
    assert judge.log.asked == 6
    assert sorted(judge.log.paid.values()) == [1, 1, 1, 1, 2]


def test_failures_stand_in_the_error_file_and_may_pass_the_next_time() -> None:
    with serving(failures=0.4) as (judge, client):
        first = ended(client, submit(client, lines(40)))
        good, bad = (results(client, f) for f in (first.output_file_id, first.error_file_id))
        again = ended(client, submit(client, lines(40)))
        failed_again = results(client, again.error_file_id)
    assert first.status == "completed"
    assert len(good) + len(bad) == 40
    assert not set(good) & set(bad)
    assert 5 < len(bad) < 28
    assert {one["response"]["status_code"] for one in bad.values()} == {500}
    assert set(bad) - set(failed_again)
    assert judge.log.answered == 80 - len(bad) - len(failed_again)


def test_a_batch_that_expires_keeps_what_was_done() -> None:
    with serving(expiring=1) as (judge, client):
        batch = ended(client, submit(client, lines(4)))
        bad = results(client, batch.error_file_id)
        assert ended(client, submit(client, lines(4))).status == "completed"
    assert batch.status == "expired"
    assert {key: one["error"]["code"] for key, one in bad.items()} == {
        "id-1": "batch_expired",
        "id-3": "batch_expired",
    }
    assert judge.log.answered == 6


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{no json\n", "invalid_json_line"),
        (lines(2, custom_id="same"), "duplicate_custom_id"),
        (lines(1, url="/v1/embeddings"), "invalid_url"),
        (b"\n", "empty_file"),
    ],
)
def test_a_file_that_is_not_valid_fails(content: bytes, code: str) -> None:
    with serving() as (judge, client):
        batch = ended(client, submit(client, content))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == code
    assert judge.log.asked == 0


def test_batches_are_listed_newest_first_and_can_be_cancelled() -> None:
    with serving(delay=5) as (judge, client):
        batches = [submit(client, lines(1)) for _ in range(5)]
        listed = [one.id for one in client.batches.list(limit=2)]  # follows the pages
        assert listed == [one.id for one in reversed(batches)]
        assert client.batches.cancel(batches[0].id).status == "cancelled"
        with pytest.raises(openai.NotFoundError):
            client.batches.retrieve("batch_none")
        with pytest.raises(openai.NotFoundError):
            client.files.content("file-none")
        with pytest.raises(openai.BadRequestError, match="no such input file"):
            client.batches.create(
                input_file_id="x", endpoint="/v1/chat/completions", completion_window="24h"
            )
    assert judge.log.asked == 0
