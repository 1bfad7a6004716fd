"""Whom the server answers, what it lets through, and that no parameter does harm."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from browsing import Served, served
from made_up_study import BEST_FRAUD, HOSTILE, LONG

from safesail.errors import InputError
from safesail.explorer import read_corrections, serve
from safesail.explorer._corrections import corrections_file
from safesail.study import Study

PAGES = [
    "/",
    "/features?q=savings&concept=fraud",
    "/feature/first/7",
    "/feature/first/7?contexts=all",
    "/concept?name=violence",
    "/sae/first",
    "/landscape?sae=first",
    "/landscape/points?sae=first",
    "/diagnose",
    "/static/explorer.js",
    "/nowhere",
]


@pytest.fixture
def client(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, timeout=30) as client:
        yield client


@contextmanager
def killed(process: subprocess.Popen) -> Iterator[None]:
    """See to it that a process does not outlive a test."""
    try:
        yield
    finally:
        process.kill()


def token_of(page: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found
    return found[1]


@pytest.mark.parametrize("page", PAGES)
def test_every_answer_is_strict(client: httpx.Client, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == (404 if page == "/nowhere" else 200)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    if "html" in answer.headers["content-type"]:
        # Nothing inline that a policy would have to allow, nothing from elsewhere.
        assert not re.search(r"<[^>]+\s(style|on\w+)\s*=", answer.text)
        assert not re.search(r"<script(?![^>]*(src=|application/json))", answer.text)
        assert not re.search(r"""(src|href|action)=["']?(https?:|//|javascript:)""", answer.text)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "", "[::1]"],
)
def test_other_hosts_are_refused(server: Served, host: str) -> None:
    port = server.address.rpartition(":")[2]
    answer = httpx.get(server.address, headers={"host": host.format(port=port)})
    assert answer.status_code == 421
    assert "savings" not in answer.text


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "[::1]"])
def test_names_of_this_machine_are_answered(server: Served, name: str) -> None:
    port = server.address.rpartition(":")[2]
    assert httpx.get(server.address, headers={"host": f"{name}:{port}"}).status_code == 200


def test_two_hosts_are_refused(server: Served) -> None:
    host, port = "127.0.0.1", int(server.address.rpartition(":")[2])
    with socket.create_connection((host, port)) as connection:
        connection.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nHost: evil.example\r\n\r\n".encode()
        )
        assert connection.recv(100).split()[1] in (b"400", b"421")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/feature/first/7").status_code == 405


@pytest.mark.parametrize(
    ("headers", "with_token", "status"),
    [
        ({}, True, 303),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True, 303),
        ({"sec-fetch-site": "cross-site", "origin": "null"}, True, 403),
        ({"sec-fetch-site": "same-site"}, True, 403),
        ({"sec-fetch-site": "none"}, True, 403),
        ({"origin": "null"}, True, 403),
        ({"origin": "http://evil.example"}, True, 403),
        ({"origin": "http://localhost:1"}, True, 403),
        ({}, False, 400),
    ],
)
def test_changes_come_from_own_pages_alone(
    server: Served, client: httpx.Client, headers: dict[str, str], with_token: bool, status: int
) -> None:
    page = client.get("/feature/second/1").text
    kept = len(read_corrections(server.study))
    fields = {"explanation": f"by {headers} {kept}", "author": "Eve", "concept": "fraud"}
    fields["token"] = token_of(page) if with_token else "guessed"
    answer = client.post("/feature/second/1", data=fields, headers=headers)
    assert answer.status_code == status
    assert (len(read_corrections(server.study)) > kept) == (status == 303)


def test_a_correction_is_kept_with_what_it_corrects(server: Served, client: httpx.Client) -> None:
    page = client.get("/feature/second/2?concept=fraud&sort=feature").text
    fields = {
        "token": token_of(page),
        "author": " Ada  L ",
        "concept": ["fraud", "no such concept"],
    }
    fields |= {"explanation": "a better\r\ntext", "list": "concept=fraud&sort=feature"}
    answer = client.post("/feature/second/2", data=fields)
    assert answer.headers["location"].endswith("?saved=1&concept=fraud&sort=feature")
    text = next(c for c in read_corrections(server.study) if (c.sae, c.feature) == ("second", 2))
    assert (text.field, text.value, text.author) == ("explanation", "a better text", "Ada L")
    assert text.corrected == "mentions of savings that were stolen, number 2"
    assert text.explained_by == "made-up-judge"
    shown = client.get("/feature/second/2").text
    assert "corrected by <bdi>Ada L</bdi>" in shown
    assert "mentions of savings that were stolen, number 2" in shown  # the original too


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"author": "  ", "explanation": "x"}, "Say who you are"),
        ({"author": "Ada", "explanation": ""}, "Nothing differs"),
    ],
)
def test_what_corrects_nothing_is_not_kept(
    client: httpx.Client, server: Served, fields: dict[str, str], line: str
) -> None:
    kept = len(read_corrections(server.study))
    page = client.get("/feature/first/20").text
    concept = re.findall(r'value="([^"]+)" checked', page)
    data = fields | {"token": token_of(page), "concept": concept}
    answer = client.post("/feature/first/20", data=data)
    assert answer.status_code == 422
    assert line in answer.text
    assert len(read_corrections(server.study)) == kept


def test_large_and_odd_forms_are_refused(client: httpx.Client) -> None:
    token = token_of(client.get("/diagnose").text)
    large = client.post("/diagnose", data={"token": token, "text": "x" * 5_000_000})
    assert (large.status_code, "too large" in large.text) == (400, True)
    many = client.post("/diagnose", content="a=1&" * 2_000)
    assert (many.status_code, "too many fields" in many.text) == (400, True)
    binary = client.post("/diagnose", content=bytes(range(256)))
    assert binary.status_code == 400


@pytest.mark.parametrize("path", ["%2e%2e/safesail.toml", "..%2f..%2fetc%2fpasswd", "first/%00"])
@pytest.mark.parametrize("place", ["/feature/", "/sae/", "/static/", "/"])
def test_no_path_leads_out(client: httpx.Client, place: str, path: str) -> None:
    answer = client.get(place + path)
    assert answer.status_code == 404
    assert "[model]" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "text", [*HOSTILE, LONG[:5_000], "../first", "NaN", "1e999", "-1", "9" * 30]
)
def test_no_parameter_does_harm(client: httpx.Client, text: str) -> None:
    written = quote(text.encode("utf-8", "replace"), safe="")
    names = ("q", "concept", "sae", "layer", "status", "low", "high", "features", "sort", "order")
    everything = "&".join(f"{name}={written}" for name in (*names, "page", "contexts", "saved"))
    for name in ("q", "concept", "features", "low"):
        assert client.get(f"/features?{name}={written}").status_code == 200
    assert client.get(f"/feature/first/7?{everything}").status_code == 200
    for place in ("/concept?name=", "/landscape?sae=", "/landscape/points?sae=", "/sae/"):
        assert client.get(place + written).status_code == 404
    assert client.get(f"/feature/first/{written}").status_code == 404
    # Nothing was changed by any of it.
    assert client.get("/features?sae=first").text.count("<tr>") > 50


def test_text_is_escaped_wherever_it_stands(hostile_server: Served) -> None:
    with httpx.Client(base_url=hostile_server.address, timeout=60) as client:
        for page in ("/", "/features?concept=fraud", "/features?q=script", "/sae/first"):
            _assert_tame(client.get(page).text)
        for number in range(60, 60 + len(HOSTILE)):
            page = client.get(f"/feature/first/{number}?contexts=all").text
            _assert_tame(page)
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028]", page)
        columns = client.get("/landscape/points?sae=first")
        assert set(json.loads(columns.text)) >= {"feature", "text", "concepts"}


def _assert_tame(page: str) -> None:
    assert "alert(1)</script>" not in page
    assert "<img" not in page
    assert ' onmouseover="' not in page


def test_a_text_without_end_is_cut(hostile_server: Served) -> None:
    with httpx.Client(base_url=hostile_server.address, timeout=60) as client:
        number = 60 + len(HOSTILE)
        listed = client.get("/features?sort=feature&order=ascending&page=2").text
        assert f"/feature/first/{number}" in listed
        assert len(listed) < 200_000
        page = client.get(f"/feature/first/{number}").text
        assert "Show all 1,000,000 characters" in page
        assert len(page) < 1_200_000


def test_a_table_that_cannot_be_read_is_named(own: Study) -> None:
    for running in served(own):
        shutil.copyfile(own.rankings, own.explanations("second"))
        running.explorer._looked = 0.0
        answer = httpx.get(running.address + "/features")
        assert answer.status_code == 500
        assert "explanations/second.parquet holds schema rankings/1" in answer.text


def test_damaged_corrections_are_named(own: Study) -> None:
    for running in served(own):
        corrections_file(own).write_text("no JSON\n")
        running.explorer._looked = 0.0
        answer = httpx.get(running.address + "/feature/first/7")
        assert answer.status_code == 500
        assert "corrections.jsonl, line 1" in answer.text


def test_only_loopback_is_listened_on(made_up: Study) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on port {port}: .*--port"):
            serve(made_up, port)


def test_the_command_serves_until_it_is_interrupted(own: Study) -> None:
    safesail = Path(sys.executable).with_name("safesail")
    command = [safesail, "serve", "--study", str(own.folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running, killed(running):
        assert running.stderr is not None
        lines = iter(running.stderr.readline, "")
        address = next(m[1] for m in (re.search(r"(http://\S+)", line) for line in lines) if m)
        port = int(address.rstrip("/").rpartition(":")[2])
        assert f"/feature/first/{BEST_FRAUD}" in httpx.get(address, timeout=100).text
        # It listens on 127.0.0.1 alone: another address of this machine's is not answered.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=2)
        running.send_signal(2)
        assert running.wait(timeout=20) in (0, 130)
