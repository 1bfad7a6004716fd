"""A Hugging Face hub on loopback: folders served in the hub's layout, for a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34


class Endpoint(str):
    """Address of a hub, with what it was asked.

    Attributes:
        requests: method, path and query, and range asked (or ""), in order.
    """

    requests: list[tuple[str, str, str]]

    def asked(self, part: str, method: str = "GET") -> list[str]:
        """Ranges of the requests whose path holds a text."""
        return [asked for verb, path, asked in self.requests if verb == method and part in path]


@contextmanager
def hub(root: Path, *, gated: bool = False, cut: str = "") -> Iterator[Endpoint]:
    """Serve `root/<owner>/<repository>/...`; yields the endpoint.

    Args:
        root: folders of repositories.
        gated: answer as for a repository whose licence was not accepted.
        cut: end of a file's name whose first download breaks off half-way.
    """
    requests: list[tuple[str, str, str]] = []
    to_cut = [cut] if cut else []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            requests.append((self.command, self.path, self.headers.get("Range") or ""))
            parts = unquote(self.path.split("?")[0]).strip("/").split("/")
            if gated:
                self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            elif parts[:2] == ["api", "models"]:
                self._describe(root / parts[2] / parts[3], parts)
            elif len(parts) > 4 and parts[2] == "resolve":
                self._file(root / parts[0] / parts[1] / "/".join(parts[4:]))
            else:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

        def _describe(self, repository: Path, parts: list[str]) -> None:
            if not repository.is_dir():
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
                return
            files = sorted(p for p in repository.rglob("*") if p.is_file())
            names = [str(path.relative_to(repository)) for path in files]
            described = (
                [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]
                if "tree" in parts
                else {"id": "/".join(parts[2:4]), "sha": COMMIT,
                      "siblings": [{"rfilename": name, "size": path.stat().st_size}
                                   for name, path in zip(names, files, strict=True)]}
            )  # fmt: skip
            self._send(200, json.dumps(described).encode(), {})

        def _file(self, path: Path) -> None:
            if not path.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            content = path.read_bytes()
            tag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked is None:
                self._send(200, content, headers)
                return
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], headers)

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "GET":
                return
            if to_cut and self.path.split("?")[0].endswith(to_cut[0]):
                to_cut.clear()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}")
        endpoint.requests = requests
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def run_with_hub(endpoint: str, cache: Path, code: str) -> str:
    """Output of Python code run in a process that knows no other hub than this one."""
    variables = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.check_output(
        [sys.executable, "-c", code], text=True, env={**os.environ, **variables}
    )
