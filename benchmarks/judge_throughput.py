"""What the judge costs over a bare client, and over a bare read of its answers.

python benchmarks/judge_throughput.py [--json] [--rounds N] [--requests N] [--features N]

The endpoint is an instant one on loopback, in a process of its own, which answers every request
with the same valid answer for its prompt. Questions are what explaining and scoring features asks:
for each feature the explain prompt (10 active and 5 silent windows of 24 words), then the items
prompt twice (20 items each), rendered from the real templates with the lab's texts. All bodies
differ.

`ratio_to_bare_client` is requests a second through `Judge.ask` (typed answers, each committed to an
empty cache on disk before it is used) over those of a bare loop over `AsyncOpenAI`, which sends the
same bodies, takes the text of each answer and does nothing with it. Both run in this process with
32 requests at once, in turn; the median over rounds. The judge uses the same client, but has it
return the body as it came, which is stored, instead of typed objects: it may be the faster one.

`cached_ratio` is the time in which all questions of `--features` features are asked through
`Judge.ask` again, all answers being in the cache, over the time that SQLite alone takes: a new
connection, then one `SELECT status_code, response ... WHERE key = ?` for each answer, in the same
order, the keys known beforehand and the text left as it is. Both include opening the file, neither
the rendering of the prompts; in turn, the median over rounds. `cached_requests` is how many
requests reached the endpoint meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import re
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import openai
from pydantic import BaseModel, ConfigDict, Field

from safesail.builtin import builtin_path
from safesail.corpus import Corpus
from safesail.judging import Judge, Question, render
from safesail.study import CorpusSource

CONCURRENCY = 32
ACTIVE, SILENT, WORDS = 10, 5, 24
ITEMS, ITEM_PROMPTS = 20, 2
MODEL = "instant"
GRADES = " ".join(f"{number}:0" for number in range(1, ITEMS + 1))
CLOSED = ConfigDict(json_schema_extra={"additionalProperties": False})


class Explanation(BaseModel):
    """Answer to the explain prompt."""

    model_config = CLOSED

    explanation: Annotated[str, Field(min_length=1)]
    concepts: list[str]
    confidence: Annotated[float, Field(ge=0, le=1)]


class Grades(BaseModel):
    """Answer to the items prompt."""

    model_config = CLOSED

    grades: Annotated[str, Field(pattern=r"^(\d+:\d ?)+$")]


ANSWERS = {
    "explain": json.dumps({"explanation": "words of harm", "concepts": [], "confidence": 0.5}),
    "items": json.dumps({"grades": GRADES}),
}


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1_500, help="of each side in each round")
    parser.add_argument("--features", type=int, default=5_000, help="of the cached run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Server() as server:
        result = throughput(server, Path(name), options.rounds, options.requests)
        result |= cached(server, Path(name), options.rounds, options.features)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key:<28}{value}")


def throughput(server: Server, folder: Path, rounds: int, requests: int) -> dict[str, Any]:
    """Requests a second of the judge and of the bare client, in turn."""
    features = questions_of(-(-requests // (1 + ITEM_PROMPTS)))
    rates: dict[str, list[float]] = {"bare": [], "judge": []}
    bodies: list[dict[str, Any]] = []
    for number in range(rounds + 1):
        path = folder / f"round-{number}.sqlite"
        judge_rate = rate(server, partial(ask_all, server.url, path, features))
        bodies = bodies or [json.loads(text) for text in column(path, "request")]
        bare_rate = rate(server, partial(send_all, server.url, bodies))
        # The first round warms everything; it does not count.
        if number:
            rates["judge"].append(judge_rate)
            rates["bare"].append(bare_rate)
    ratios = [judge / bare for judge, bare in zip(rates["judge"], rates["bare"], strict=True)]
    return {
        "ratio_to_bare_client": statistics.median(ratios),
        "ratios": ratios,
        "requests_per_second": {name: statistics.median(found) for name, found in rates.items()},
        "requests": len(bodies),
        "mean_request_bytes": sum(len(json.dumps(body)) for body in bodies) / len(bodies),
        "concurrency": CONCURRENCY,
    }


def cached(server: Server, folder: Path, rounds: int, features: int) -> dict[str, Any]:
    """Time of a run that finds every answer in the cache, and of SQLite alone."""
    questions = questions_of(features)
    path = folder / "cached.sqlite"
    asyncio.run(ask_all(server.url, path, questions))
    keys = column(path, "key")
    asked_before = server.received
    took: dict[str, list[float]] = {"sqlite": [], "judge": []}
    for number in range(rounds + 1):
        floor = seconds(lambda: read_all(path, keys))
        judge = seconds(lambda: asyncio.run(ask_all(server.url, path, questions)))
        if number:
            took["sqlite"].append(floor)
            took["judge"].append(judge)
    ratios = [judge / floor for judge, floor in zip(took["judge"], took["sqlite"], strict=True)]
    return {
        "cached_ratio": statistics.median(ratios),
        "cached_ratios": ratios,
        "cached_requests": server.received - asked_before,
        "cached_seconds": {name: statistics.median(found) for name, found in took.items()},
        "cached_questions": len(keys),
    }


async def ask_all(url: str, path: Path, features: list[list[Question]]) -> None:
    """Ask as explaining does: some features at once, each feature's questions in turn."""
    async with Judge(url, MODEL, cache=path, concurrency=CONCURRENCY) as judge:

        async def of_feature(questions: list[Question]) -> None:
            for question in questions:
                answer = await judge.ask(question)
                assert answer.status == "answered"

        await in_parallel(of_feature, features)


async def send_all(url: str, bodies: list[dict[str, Any]]) -> None:
    """Send the bodies with the bare client."""
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def send(body: dict[str, Any]) -> None:
            completion = await client.chat.completions.create(**body)
            assert completion.choices[0].message.content

        await in_parallel(send, bodies)


async def in_parallel(
    work: Callable[[Any], Coroutine[Any, Any, None]], items: Iterable[Any]
) -> None:
    """Work through items, so many at once as there may be requests."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(worker())


def read_all(path: Path, keys: list[str]) -> None:
    """The floor of a cached run: every answer by its key, out of SQLite."""
    connection = sqlite3.connect(path, isolation_level=None)
    for key in keys:
        row = connection.execute(
            "SELECT status_code, response FROM answers WHERE key = ?", (key,)
        ).fetchone()
        assert row is not None
    connection.close()


def column(path: Path, name: str) -> list[str]:
    """A column of the stored answers, in the order in which they came."""
    connection = sqlite3.connect(path)
    rows = connection.execute(f"SELECT {name} FROM answers ORDER BY rowid").fetchall()
    connection.close()
    return [value for (value,) in rows]


def rate(server: Server, work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Requests a second that the server receives while work is done."""
    before = server.received
    took = seconds(lambda: asyncio.run(work()))
    return (server.received - before) / took


def seconds(work: Callable[[], object]) -> float:
    """Wall time of some work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def questions_of(features: int) -> list[list[Question]]:
    """The questions of each feature, all different."""
    source = CorpusSource(path=str(builtin_path("lab", "corpus.parquet")))
    words = " ".join(document.text for document in Corpus([source], Path())).split()
    windows = [words[start : start + WORDS] for start in range(0, len(words) - WORDS, WORDS)]
    place = 0

    def take(count: int) -> list[str]:
        # The running number makes texts that come again different.
        nonlocal place
        place += count
        numbers = range(place - count, place)
        return [f"{number} {' '.join(windows[number % len(windows)])}" for number in numbers]

    found = []
    for _ in range(features):
        active = [text.replace(" ", " ⟪7⟫ ", 3) for text in take(ACTIVE)]
        values = {"concepts": ["weapons", "self_harm"], "language": "en"}
        prompts = [render("explain", active=active, silent=take(SILENT), **values)]
        for _ in range(ITEM_PROMPTS):
            items = [f"{text[:30]}⟪{text[30:60]}⟫" for text in take(ITEMS)]
            prompts.append(render("items", explanation="words of harm", items=items))
        types: list[type[BaseModel]] = [Explanation, *[Grades] * ITEM_PROMPTS]
        found.append(
            [
                Question(prompt.task, prompt.version, prompt.messages, kind, 400)
                for prompt, kind in zip(prompts, types, strict=True)
            ]
        )
    return found


class Server:
    """The instant endpoint in a process of its own."""

    def __enter__(self) -> Server:
        here, there = multiprocessing.Pipe()
        self._received = multiprocessing.get_context("spawn").Value("q", 0)
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(there, self._received), daemon=True
        )
        self._process.start()
        self.url = f"http://127.0.0.1:{here.recv()}/v1"
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def received(self) -> int:
        """Chat completion requests so far."""
        return int(self._received.value)


def serve(ready: Connection, received: Any) -> None:
    """Answer until the process is ended."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Instant(received), "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class Instant(asyncio.Protocol):
    """Just enough of HTTP/1.1: bodies with a length, connections that stay open."""

    length = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

    def __init__(self, received: Any) -> None:
        self._received = received
        self._data = b""
        self._good = {task: http(completion(text)) for task, text in ANSWERS.items()}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, rest = self._data.split(b"\r\n\r\n", 1)
            found = self.length.search(head)
            size = int(found[1]) if found else 0
            if len(rest) < size:
                return
            body, self._data = rest[:size], rest[size:]
            if not head.startswith(b"POST"):
                self._transport.write(http(b'{"object": "list", "data": []}'))
                continue
            self._received.value += 1
            # Words of the items prompt's instructions.
            self._transport.write(self._good["items" if b"double brackets" in body else "explain"])


def completion(content: str) -> bytes:
    """A chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 900, "completion_tokens": 40, "total_tokens": 940}
    whole = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL}
    return json.dumps(whole | {"choices": [choice], "usage": usage}).encode()


def http(body: bytes) -> bytes:
    """A response."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    main()
