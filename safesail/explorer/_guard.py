"""What every request passes: whom the server answers, and what browsers may do with an answer."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from safesail.errors import InputError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_LARGEST_BODY = 4_500_000


class Guard:
    """Answers this machine's browsers only, and changes nothing for other sites' pages.

    A page of another site can send requests to loopback, also under a name of its own that it
    points there: the Host that the browser names tells the second, its Origin the first.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        names = ("127.0.0.1", "localhost", "[::1]")
        self._hosts = {f"{name}:{port}".encode() for name in names}
        if port == 80:
            self._hosts |= {name.encode() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, line = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": f"{line}\n".encode()})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "This server answers on the address that it printed, and no other."
        if scope["method"] in ("GET", "HEAD"):
            return None
        if scope["method"] != "POST":
            return 405, "GET and POST alone."
        own = b"http://" + hosts[0]
        sites, origins = headers.get(b"sec-fetch-site", []), headers.get(b"origin", [])
        # Pages that name no referrer name no origin either: then the browser's word counts.
        from_own_page = origins in ([own], []) or (origins == [b"null"] and bool(sites))
        if sites not in ([], [b"same-origin"]) or not from_own_page:
            return 403, "Changes come from this server's own pages alone."
        return None


class Token:
    """A secret that this server's pages know: without it, nothing is changed."""

    def __init__(self) -> None:
        self.value = secrets.token_urlsafe(32)

    async def form(self, request: Request) -> dict[str, list[str]]:
        """The fields of a form that one of this server's pages sent.

        Raises:
            InputError: too large, or without the token.
        """
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_BODY:
                raise InputError("the form is too large")
        try:
            fields: dict[str, list[str]] = parse_qs(
                bytes(body).decode("utf-8", "replace"),
                keep_blank_values=True,
                errors="replace",
                max_num_fields=1_000,
            )
        except ValueError as error:
            raise InputError("the form has too many fields") from error
        given: Any = fields.pop("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self.value.encode()):
            raise InputError(
                "the page is older than this run of the server: go back, reload it and try again"
            )
        return fields
