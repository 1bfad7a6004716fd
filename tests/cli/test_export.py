"""`safesail export` of folders: what is in them, what loads them, what is uploaded."""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign_rows import row
from hub import run_with_hub

from safesail.pipeline import load_results
from safesail.study import Study
from safesail.tables import (
    EXPLANATIONS,
    RANKINGS,
    read_configuration,
    read_table,
    table_from_rows,
    write_table,
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(explained: Path) -> list[dict[str, Any]]:
    """Rows of the study that have an explanation."""
    rows = load_results(Study.open(explained), "explanations").to_pylist()
    return [r for r in rows if r["explanation"] is not None]


@pytest.mark.parametrize("format", ["neuronpedia", "delphi", "safe-sail", "dataset"])
def test_folders_are_written_where_other_exports_are(
    explained: Path, copy: Callable[[Path], Path], run: Run, format: str
) -> None:
    folder = copy(explained)
    for _ in range(2):  # the second takes the first's place
        code, out, err = run("export", "--study", folder, "--format", format)
        assert (code, out) == (0, ""), err
        assert err.startswith(f"written: {folder}/exports/{format} (")
    assert [path.name for path in (folder / "exports").iterdir()] == [format]


def test_neuronpedia_holds_the_studys_features(
    explained: Path, told: list[dict[str, Any]], tmp_path: Path, run: Run
) -> None:
    where = ("--study", explained, "--output", tmp_path / "out", "--format", "neuronpedia")
    assert run("export", *where, "--model-id", "tiny", "--set-name", "mine")[0] == 0
    (source,) = (tmp_path / "out/v1/tiny").iterdir()
    assert source.name == f"{told[0]['layer']}-mine"

    def lines(kind: str) -> list[dict[str, Any]]:
        text = gzip.decompress((source / kind / "batch-0.jsonl.gz").read_bytes()).decode()
        return [json.loads(line) for line in text.splitlines()]

    features = load_results(Study.open(explained), "features", told[0]["sae"]).to_pylist()
    assert {r["index"] for r in lines("features")} == {str(r["feature"]) for r in features}
    assert {r["hookName"] for r in lines("features")} == {
        f"blocks.{told[0]['layer']}.hook_resid_post"
    }
    by_index = {r["index"]: r["description"] for r in lines("explanations")}
    assert by_index == {str(r["feature"]): r["explanation"] for r in told}
    strongest = {r["feature"]: r["max_activation"] for r in features}
    for record in lines("activations"):
        assert record["maxValue"] == record["values"][record["maxValueTokenIndex"]]
        assert record["maxValue"] <= strongest[int(record["index"])] * 1.0001
    assert {r["explanationScoreTypeName"] for r in lines("explanation_scores")} == {
        "safesail_correlation",
        "safesail_discrimination",
    }


def test_only_options_with_a_meaning_are_taken(explained: Path, run: Run) -> None:
    for options in (
        ("--format", "delphi", "--table", "contexts"),
        ("--format", "csv", "--language", "en"),
        ("--format", "dataset", "--language", "en"),
        ("--format", "safe-sail", "--model-id", "x"),
        ("--format", "parquet", "--push-to-hub", "me/x"),
    ):
        code, _, err = run("export", "--study", explained, *options)
        assert code == 2
        assert options[2] in err
        assert "only for" in err


def test_faults_are_one_line(explained: Path, tmp_path: Path, run: Run) -> None:
    where = ("export", "--study", explained, "--output", tmp_path)
    code, _, err = run(*where, "--format", "delphi", "--language", "zh")
    assert (code, err.count("\n")) == (1, 1)
    assert "no explanations in language 'zh'" in err
    code, _, err = run(*where, "--format", "safe-sail", "--sae", "none")
    assert (code, err.count("\n")) == (1, 1)
    assert "no explanations of SAE 'none'" in err
    (tmp_path / "mine.txt").write_text("")
    code, _, err = run(*where, "--format", "dataset")
    assert (code, err.count("\n")) == (1, 1)
    assert "holds other things" in err


def front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_a_dataset_loads_with_the_datasets_library(
    explained: Path, told: list[dict[str, Any]], tmp_path: Path, run: Run
) -> None:
    from datasets import load_dataset

    where = ("--study", explained, "--output", tmp_path / "out", "--format", "dataset")
    assert run("export", *where, "--license", "cc-by-4.0")[0] == 0
    study, sae = Study.open(explained), told[0]["sae"]
    for table in ("explanations", "features", "contexts", "rankings"):
        of = None if table == "rankings" else sae
        wanted = load_results(study, table, of)  # type: ignore[arg-type]
        found = load_dataset(
            str(tmp_path / "out"), table, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert found.num_rows == wanted.num_rows
        assert found.column_names == wanted.column_names
        assert found["sae"][:] == wanted["sae"].to_pylist()
    assert load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    matter = front_matter((tmp_path / "out/README.md").read_text())
    assert matter["license"] == "cc-by-4.0"
    assert matter["language"] == ["en"]
    assert [one["config_name"] for one in matter["configs"] if one.get("default")] == [
        "explanations"
    ]


def test_the_card_says_what_the_tables_hold(
    explained: Path, told: list[dict[str, Any]], tmp_path: Path, run: Run
) -> None:
    assert run("export", "--study", explained, "-o", tmp_path / "out", "-f", "dataset")[0] == 0
    card = (tmp_path / "out/README.md").read_text()
    scored = sorted(r["correlation"] for r in told if r["status"] == "scored")
    assert f"| correlation | {len(scored)} |" in card
    assert f"| {scored[0]:.2f} to {scored[-1]:.2f} |" in card
    assert f"0.3: {sum(value >= 0.3 for value in scored)}, 0.5:" in card
    assert "**lexical**, language en" in card
    features = load_results(Study.open(explained), "features", told[0]["sae"]).to_pylist()
    of_fraud = [row for row in features if row["concept"] == "fraud"]
    called = sum(row["called"] for row in of_fraud)
    assert f"| fraud | {len(of_fraud)} | {called} |" in card
    (tokens,) = {row["tokens_seen"] for row in features}
    assert f"observed on {tokens:,} tokens of" in card
    assert "Licence: none was given" in card
    assert "license" not in front_matter(card)
    for line in ("corpus.jsonl", "asked no language model", "2509.18127", "2512.23260"):
        assert line in card


def test_nothing_of_this_machine_is_in_a_dataset(
    explained: Path, copy: Callable[[Path], Path], tmp_path: Path, run: Run
) -> None:
    folder = copy(explained)
    toml = folder / "safesail.toml"
    toml.write_text(toml.read_text().replace('name = "model"', f'name = "{folder}/model"'))
    rankings = read_table(folder / "rankings.parquet", RANKINGS)
    settings = {**(read_configuration(folder / "rankings.parquet") or {}), "x": f"{folder}/model"}
    write_table(folder / "rankings.parquet", rankings, RANKINGS, settings)
    assert run("export", "--study", folder, "-o", tmp_path / "out", "-f", "dataset")[0] == 0
    copied = tmp_path / "out/data/rankings.parquet"
    assert (read_configuration(copied) or {})["x"] == "model"
    assert "first" in read_table(copied, RANKINGS)["source"].to_pylist()
    for path in (tmp_path / "out").rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path


HOSTILE = "| [x](javascript:x) <script>\n---\n# `top`\x1b[2J"


def test_hostile_text_cannot_break_the_card(
    explained: Path, copy: Callable[[Path], Path], tmp_path: Path, run: Run
) -> None:
    folder = copy(explained)
    made = [
        row(sae="x", judge_model=HOSTILE, mixture=HOSTILE, correlation=0.5, language="en"),
        row(sae="x", explainer="imported", status="imported", source=HOSTILE, feature=8),
    ]
    table = table_from_rows(made, EXPLANATIONS)
    write_table(folder / "explanations/x.parquet", table, EXPLANATIONS, {})
    where = ("--study", folder, "--output", tmp_path / "out", "--format", "dataset")
    assert run("export", *where, "--sae", "x", "--license", HOSTILE)[0] == 0
    card = (tmp_path / "out/README.md").read_text()
    assert front_matter(card)["license"] == HOSTILE
    body = card.split("\n---\n", 1)[1]
    assert "<script>" not in body
    assert "\x1b" not in card
    assert "[x](javascript" not in body
    assert "\n---\n" not in body
    assert sum(line.startswith("# ") for line in body.splitlines()) == 1


class _Hub:
    """What the hub was asked, and what was committed to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.files: dict[str, bytes] = {}


@pytest.fixture
def uploads() -> Iterator[_Hub]:
    """A hub on loopback that takes datasets."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send({"sha": "0" * 40, "id": "me/features", "siblings": []})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.tokens.add(self.headers.get("Authorization"))
            answer: dict[str, Any] = {}
            if self.path.endswith("/repos/create"):
                found.created.append(json.loads(body))
                answer = {"url": f"{found.url}/datasets/me/features"}
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                answer = {"files": [{"path": one["path"], **modes} for one in asked]}
            elif "/commit/" in self.path:
                for line in body.decode().splitlines():
                    value = json.loads(line)["value"]
                    if "content" in value:
                        found.files[value["path"]] = base64.b64decode(value["content"])
                answer = {
                    "commitUrl": f"{found.url}/datasets/me/features/commit/1",
                    "commitOid": "1" * 40,
                }
            self._send(answer)

        def _send(self, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = _Hub(f"http://127.0.0.1:{server.server_port}")
    yield found
    server.shutdown()
    server.server_close()


def exporting(study: Path, output: Path) -> str:
    arguments = ["safesail", "export", "--study", str(study), "--output", str(output)]
    arguments += ["--format", "dataset", "--push-to-hub", "me/features"]
    return f"import sys; sys.argv = {arguments}; from safesail.cli import main; main()"


def test_a_dataset_is_uploaded_when_asked(
    explained: Path, tmp_path: Path, uploads: _Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    run_with_hub(uploads.url, tmp_path / "cache", exporting(explained, tmp_path / "out"))
    (created,) = uploads.created
    assert (created["type"], created["visibility"]) == ("dataset", "private")
    assert uploads.tokens == {"Bearer hf_of_a_test"}
    written = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*.*")
    }
    assert uploads.files == written


def test_a_hub_that_cannot_be_reached_is_one_line(
    explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    code = exporting(explained, tmp_path / "out")
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{port}"}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert found.returncode == 1
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert "could not upload" in line
    assert "Traceback" not in found.stderr


def test_what_the_hub_refuses_is_one_line(explained: Path, tmp_path: Path, run: Run) -> None:
    # Offline, as the tests are.
    where = ("--study", explained, "--output", tmp_path / "out", "--format", "dataset")
    for name in ("me/features", "no/such/name"):
        code, _, err = run("export", *where, "--push-to-hub", name)
        assert code == 1
        assert f"could not upload {tmp_path}/out to '{name}'" in err
        assert "HF_TOKEN" in err
        assert "Traceback" not in err
