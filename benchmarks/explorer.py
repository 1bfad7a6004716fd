"""How long pages take over the bare queries behind them, and how large and quick a report is.

python benchmarks/explorer.py [--json] [--features N] [--contexts N] [--requests N] [--report N]

A study is made up: 20,000 features of one SAE with a million contexts, explained by a judge.
Pages and searches are asked of the application in this process, without a network. The bare
query of each is what it asks of DuckDB, SQLite and Parquet, asked again alone, rows fetched. The
figure is the 95th percentile of the first over that of the second. Chromium (of `CHROMIUM` or the
system) then opens a report of 500 features from the disk: the time to the end of its parsing
(DOMContentLoaded) or to its first paint, whichever is later, median of five.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import numpy as np
import pyarrow as pa
from starlette.testclient import TestClient

from safesail.explorer import Explorer, write_report
from safesail.explorer._app import make_app
from safesail.explorer._catalog import Catalog
from safesail.explorer._search import Search
from safesail.study import Study
from safesail.tables import (
    CONTEXTS,
    EXPLANATIONS,
    FEATURES,
    read_contexts,
    table_from_rows,
    write_parts,
    write_table,
)

SAE = "layer12-resid-16k"
CONCEPTS = ("fraud", "violence", "violence/insult", "privacy", "self_harm", "cybercrime")
TOKENS, VOCABULARY = 32, 50_000
PORT = 8765


def main() -> None:
    """Make the study, time pages, searches and a report, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--contexts", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--report", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder) / "study", options.features, options.contexts)
        result: dict[str, Any] = {"features": options.features, "contexts": options.contexts}
        result |= time_pages(study, options.features, options.requests)
        result |= time_report(study, options.report)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"index built in {result['index_s']:.0f} s, {result['index_mb']:.0f} MB")
    for kind, times in result["by_kind"].items():
        print(f"{kind:10} p95 {times['p95_ms']:7.1f} ms, bare query {times['bare_p95_ms']:7.1f} ms")
    print(f"all pages  p95 {result['p95_ms']:.1f} ms, ratio {result['p95_ratio']:.2f} (claim: 3)")
    opened = "not opened: no Chromium" if result["open_ms"] is None else f"{result['open_ms']} ms"
    print(f"report of {options.report} features: {result['report_mb']:.1f} MB, {opened}")


def make_study(folder: Path, features: int, contexts: int) -> Study:
    """Write the tables of a study; words are as common as words are."""
    folder.mkdir(parents=True)
    settings = '[model]\nname = "builtin:lab"\n[candidates]\n[concepts]\nfiles = ["x.jsonl"]\n'
    (folder / "safesail.toml").write_text(settings + '[corpus]\n[[corpus.sources]]\npath = "x"\n')
    study = Study.open(folder)
    draw = random.Random(0)
    numbers = np.random.default_rng(0)
    words = _words(numbers)
    for path, rows, schema in (
        (study.features(SAE), (_feature(n, draw, words) for n in range(features)), FEATURES),
        (
            study.explanations(SAE),
            (_explanation(n, draw, words) for n in range(features)),
            EXPLANATIONS,
        ),
    ):
        write_table(path, table_from_rows(rows, schema), schema, {"sae": SAE})
    part = study.contexts(SAE) / "part-00000.parquet"
    write_parts(part, _contexts(features, contexts, numbers, words), CONTEXTS, {"sae": SAE})
    return study


def _words(numbers: np.random.Generator) -> list[str]:
    letters = numbers.integers(97, 123, (VOCABULARY, 8), dtype=np.uint8)
    lengths = np.clip(numbers.poisson(np.linspace(2, 6, VOCABULARY)), 1, 8)
    return [" " + bytes(row[:n]).decode() for row, n in zip(letters, lengths, strict=True)]


def _place(draw: random.Random) -> int:
    """Zipf's law: the chance of a word falls with its place."""
    return int(VOCABULARY ** draw.random()) - 1


def _feature(number: int, draw: random.Random, words: list[str]) -> dict[str, Any]:
    f, most = draw.random(), draw.uniform(1, 9)
    edges = np.geomspace(0.01, most, 33).tolist()
    return {
        "sae": SAE, "layer": 12, "feature": number, "concept": CONCEPTS[number % len(CONCEPTS)],
        "f": f, "f_low": f - 0.1, "f_high": f + 0.1, "called": True, "separation": draw.random(),
        "specificity": draw.random(), "q999": 0.9 * most, "tokens_seen": 10**7, "fired": 10**5,
        "density": 0.01, "max_activation": most, "histogram_edges": edges,
        "histogram_counts": [draw.randint(0, 9_000) for _ in range(32)],
        "top_logits": [words[_place(draw)] for _ in range(10)],
        "bottom_logits": [words[_place(draw)] for _ in range(10)],
        "nearest_features": [draw.randrange(number + 1) for _ in range(5)], "status": "collected",
    }  # fmt: skip


def _explanation(number: int, draw: random.Random, words: list[str]) -> dict[str, Any]:
    score = draw.uniform(0.4, 0.99)
    text = "".join(words[_place(draw)] for _ in range(20)).strip()
    return {
        "sae": SAE, "layer": 12, "feature": number, "language": "en",
        "concepts": [CONCEPTS[number % len(CONCEPTS)]], "explanation": text, "explainer": "judge",
        "judge_concepts": [CONCEPTS[number % len(CONCEPTS)]], "judge_model": "made-up",
        "correlation": score - 0.1, "correlation_low": score - 0.2, "correlation_high": score,
        "discrimination": score, "discrimination_low": score - 0.08,
        "discrimination_high": min(1.0, score + 0.08), "observations": 90, "calls": 6,
        "prompt_tokens": 1_900, "completion_tokens": 160, "cost_usd": 0.004, "status": "scored",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip


def _contexts(
    features: int, contexts: int, numbers: np.random.Generator, words: list[str]
) -> Iterator[pa.Table]:
    """Contexts of two hundred features at a time, half of them active."""
    each = contexts // features
    vocabulary = pa.array(words)
    schema = CONTEXTS.arrow()
    for first in range(0, features, 200):
        own = np.arange(first, min(first + 200, features))
        count = len(own) * each
        active = numbers.random(count) < 0.55
        fires = (numbers.random((count, TOKENS)) < 0.08) & active[:, None]
        fires[:, TOKENS // 2] = active
        values = np.where(fires, numbers.gamma(2, 1.5, fires.shape), 0).astype(np.float32)
        token = (VOCABULARY ** numbers.random(count * TOKENS) - 1).astype(np.int32)
        offsets = pa.array(np.arange(0, count * TOKENS + 1, TOKENS, dtype=np.int32))
        kind = np.where(active, 0, numbers.integers(1, 3, count))
        columns = {
            "sae": pa.array([SAE] * count),
            "layer": pa.array([12] * count),
            "feature": pa.array(np.repeat(own, each)),
            "split": pa.array(["explain", "score"]).take(pa.array(numbers.integers(0, 2, count))),
            "kind": pa.array(["active", "silent", "hard_silent"]).take(pa.array(kind)),
            "level": pa.array(np.where(active, numbers.integers(1, 11, count), 0)),
            "sample": pa.array(["top", "random"]).take(pa.array(numbers.integers(0, 2, count))),
            "document": pa.array([f"corpus.jsonl:{n}" for n in range(count)]),
            "start": pa.array(np.zeros(count, dtype=np.int64)),
            "tokens": pa.ListArray.from_arrays(offsets, vocabulary.take(pa.array(token))),
            "token_ids": pa.ListArray.from_arrays(offsets, pa.array(token)),
            "activations": pa.ListArray.from_arrays(offsets, pa.array(values.ravel())),
            "peak": pa.array(values.max(1)),
            "peak_at": pa.array(values.argmax(1)),
            "weight": pa.array(np.ones(count)),
        }
        yield pa.table([columns[n] for n in schema.names], names=schema.names).cast(schema)


def time_pages(study: Study, features: int, requests: int) -> dict[str, Any]:
    """Time pages and searches, and the queries behind each alone."""
    explorer = Explorer(study)
    started = time.perf_counter()
    explorer.search.refresh(explorer.catalog, wait=True)
    built = time.perf_counter() - started
    client = TestClient(make_app(explorer, PORT), base_url=f"http://127.0.0.1:{PORT}")
    words = _words(np.random.default_rng(0))
    draw = random.Random(1)
    kinds = {
        "list": lambda: (
            f"/features?page={draw.randint(1, features // 50)}"
            f"&sort={draw.choice(['correlation', 'separation', 'density'])}"
        ),
        "filter": lambda: f"/features?concept={draw.choice(CONCEPTS)}&low={draw.random():.2f}",
        "feature": lambda: f"/feature/{SAE}/{draw.randrange(features)}?concept=fraud",
        "concept": lambda: f"/concept?name={draw.choice(CONCEPTS)}",
        "search": lambda: (
            f"/features?q={words[_place(draw)].strip()}+{words[_place(draw)].strip()}"
        ),
    }
    pages: dict[str, list[float]] = {kind: [] for kind in kinds}
    bare: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(requests + len(kinds)):
        kind = [*kinds][number % len(kinds)]
        address = kinds[kind]()
        with recorded() as queries:
            started = time.perf_counter()
            answer = client.get(address)
            taken = time.perf_counter() - started
        assert answer.status_code == 200, address
        started = time.perf_counter()
        for query in queries:
            query()
        alone = time.perf_counter() - started
        if number >= len(kinds):  # the first of each kind warms up
            pages[kind].append(1000 * taken)
            bare[kind].append(1000 * alone)
    everything = [value for values in pages.values() for value in values]
    floor = [value for values in bare.values() for value in values]
    index = study.folder / "explorer" / "index.sqlite"
    return {
        "index_s": built,
        "index_mb": index.stat().st_size / 1e6,
        "p95_ratio": _p95(everything) / _p95(floor),
        "p95_ms": _p95(everything),
        "bare_p95_ms": _p95(floor),
        "by_kind": {
            kind: {"p95_ms": _p95(pages[kind]), "bare_p95_ms": _p95(bare[kind])} for kind in kinds
        },
    }


@contextmanager
def recorded() -> Iterator[list[Callable[[], object]]]:
    """Note down each query that a page asks, to ask it again alone."""
    queries: list[Callable[[], object]] = []
    rows, connect = Catalog.rows, Search._connection

    def record_rows(self: Catalog, query: str, values: Any = None) -> Any:
        queries.append(lambda: self._cursor().execute(query, dict(values or {})).fetchall())
        return rows(self, query, values)

    class Recorded:
        """An SQLite connection that notes down what it executes."""

        def __init__(self, search: Search) -> None:
            self._search, self._connection = search, connect(search)

        def execute(self, query: str, values: Any) -> Any:
            queries.append(lambda: connect(self._search).execute(query, values).fetchall())
            return self._connection.execute(query, values)

    def record_contexts(folder: Path, features: list[int]) -> Any:
        files = [str(path) for path in sorted(folder.glob("part-*.parquet"))]
        bare = "SELECT * FROM read_parquet(?) WHERE feature = ?"
        queries.append(lambda: _PARQUET.execute(bare, [files, features[0]]).fetchall())
        return read_contexts(folder, features)

    with (
        mock.patch.object(Catalog, "rows", record_rows),
        mock.patch.object(Search, "_connection", lambda search: Recorded(search)),
        mock.patch("safesail.explorer._explorer.read_contexts", record_contexts),
    ):
        yield queries


_PARQUET = duckdb.connect()


def _p95(values: list[float]) -> float:
    return float(np.percentile(values, 95))


def time_report(study: Study, features: int) -> dict[str, Any]:
    """Write a report, and open it in Chromium."""
    path = study.folder / "report.html"
    started = time.perf_counter()
    written = write_report(study, path, features)
    result: dict[str, Any] = {
        "report_features": written.features,
        "report_s": time.perf_counter() - started,
        "report_mb": path.stat().st_size / 1e6,
        "open_ms": None,
    }
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium:
        result["open_ms"] = round(_open_ms(path, chromium))
    return result


def _open_ms(path: Path, chromium: str) -> float:
    from playwright.sync_api import sync_playwright

    ready = """() => new Promise((resolve) => {
      const look = () => {
        const paint = performance.getEntriesByName("first-contentful-paint")[0];
        const opened = performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd;
        if (paint && opened) resolve(Math.max(opened, paint.startTime));
        else setTimeout(look, 20);
      };
      look();
    })"""
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        for _ in range(5):
            page = browser.new_page()
            page.goto(path.as_uri(), wait_until="commit")
            times.append(float(page.evaluate(ready)))
            page.close()
        browser.close()
    return statistics.median(times)


if __name__ == "__main__":
    main()
