"""What an endpoint sent back for one request body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Response:
    """The last response to a body, from the endpoint or from the cache.

    Attributes:
        status_code: of HTTP; 0 where no response came.
        text: the body as received, or what went wrong where none came.
        calls: requests sent, retries included; 0 from the cache.
        seconds: from the first request to the last response.
    """

    status_code: int
    text: str
    calls: int
    seconds: float

    @property
    def error(self) -> dict[str, Any]:
        """The OpenAI error object (`message`, `code`, `param`) as far as the body holds one."""
        try:
            document = json.loads(self.text)
        except ValueError:
            return {"message": self.text}
        found = document.get("error", document) if isinstance(document, dict) else document
        return found if isinstance(found, dict) else {"message": str(found)}

    @property
    def filtered(self) -> bool:
        """The endpoint refused the request for its content, by status instead of words."""
        return self.status_code == 400 and self.error.get("code") == "content_filter"

    @property
    def summary(self) -> str:
        """Status and message in one short line."""
        message = " ".join(str(self.error.get("message") or self.text).split())[:200]
        return message if self.status_code == 0 else f"HTTP {self.status_code}: {message}"
