"""The server: pages, style and scripts behind one guard."""

from __future__ import annotations

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safesail.errors import SafesailError
from safesail.explorer._diagnose_page import DiagnosePage, OpenDiagnoser
from safesail.explorer._explorer import Explorer
from safesail.explorer._guard import Guard
from safesail.explorer._landscape_page import LandscapePage, MapFeatures
from safesail.explorer._pages import Pages
from safesail.explorer._templates import STATIC

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def make_app(
    explorer: Explorer,
    port: int,
    *,
    map_features: MapFeatures | None = None,
    open_diagnoser: OpenDiagnoser | None = None,
    author: str = "",
) -> Starlette:
    """The pages over a study, as an ASGI application.

    Args:
        explorer: reads the study.
        port: the port that the server listens on; requests for others are refused.
        map_features: places an SAE's features in two dimensions; None without a landscape.
        open_diagnoser: loads the model, once a text is to be diagnosed; None without.
        author: whom a correction is by, until its author says otherwise.
    """
    pages = Pages(explorer, author)
    landscape = LandscapePage(pages, map_features)
    diagnose = DiagnosePage(pages, open_diagnoser)
    # Read once: no name of a request becomes a path.
    files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in _TYPES}

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise HTTPException(404, f"There is no {name!r}.")
        return Response(files[name], media_type=_TYPES[name[name.rindex(".") :]])

    def fault(request: Request, error: Exception) -> Response:
        return pages.fault(request, error)

    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/features", pages.features),
            Route("/feature/{sae}/{feature}", pages.feature, methods=["GET"]),
            Route("/feature/{sae}/{feature}", pages.correct, methods=["POST"]),
            Route("/concept", pages.concept),
            Route("/sae/{sae}", pages.sae),
            Route("/landscape", landscape.page),
            Route("/landscape/points", landscape.points),
            Route("/diagnose", diagnose.empty, methods=["GET"]),
            Route("/diagnose", diagnose.diagnose, methods=["POST"]),
            Route("/static/{name}", static),
        ],
        middleware=[Middleware(Guard, port=port)],
        exception_handlers={HTTPException: fault, SafesailError: fault},
    )


def make_server(app: Starlette) -> uvicorn.Server:
    """What answers requests with the application; it says nothing of itself."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody stands in front of it
            timeout_graceful_shutdown=2,
        )
    )
