"""Listen on loopback and answer with pages."""

from __future__ import annotations

import getpass
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from safesail.errors import ConfigurationError, InputError
from safesail.explorer._explorer import Explorer
from safesail.study import Study

if TYPE_CHECKING:
    from safesail.explorer._diagnose_page import OpenDiagnoser
    from safesail.explorer._landscape_page import MapFeatures

_LOOPBACK = "127.0.0.1"


def serve(
    study: Study,
    port: int = 8765,
    *,
    ready: Callable[[str], None] = lambda address: None,
    report: Callable[[str], None] = lambda line: None,
    map_features: MapFeatures | None = None,
    open_diagnoser: OpenDiagnoser | None = None,
) -> None:
    """Serve pages over a study on this machine's loopback address, until it is interrupted.

    Args:
        study: the study.
        port: where to listen; 0 takes a free one.
        ready: told the address once pages can be opened.
        report: told what takes a while.
        map_features: as in `make_app`.
        open_diagnoser: as in `make_app`.

    Raises:
        ConfigurationError: the server's libraries are not installed.
        InputError: the port is taken.
        StorageError: a result cannot be read.
    """
    try:
        from safesail.explorer._app import make_app, make_server
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: run `pip install 'safesail[explorer]'`"
        ) from error
    listening = _listen(port)
    with listening:
        port = listening.getsockname()[1]
        explorer = Explorer(study, report)
        explorer.search.refresh(explorer.catalog)
        app = make_app(
            explorer,
            port,
            map_features=map_features,
            open_diagnoser=open_diagnoser,
            author=_user(),
        )
        # What the front page needs of other libraries takes seconds to load: not while one waits.
        threading.Thread(target=lambda: explorer.overview.lines, daemon=True).start()
        ready(f"http://{_LOOPBACK}:{port}/")
        make_server(app).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_LOOPBACK, port))
    except OSError as error:
        raise InputError(
            f"cannot listen on port {port}: {error.strerror}; name another with --port"
        ) from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return ""
