"""Where a judge is and with which key it is asked; the key comes from the environment alone."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from safesail.errors import JudgeError

_PLACEHOLDER_KEY = "safesail-has-no-key-for-this-endpoint"
# A shorter key is no secret (local servers take any), but may well be part of an answer.
_SECRET_LENGTH = 16
# JSON in JSON escapes the escapes: one backslash, two, then four before the same letter.
_BACKSLASHES = r"\\{1,4}"


def checked_url(url: str, key_variable: str) -> str:
    """A base URL without its last slash.

    Raises:
        JudgeError: it is not one of HTTP, or holds a name, a password or a query.
    """
    if "@" in url:
        raise JudgeError(
            f"the judge's URL must hold no name or password: put the key into {key_variable}"
        )
    if "?" in url or "#" in url:
        # Not shown: what stands there is often a key.
        raise JudgeError(
            "the judge's URL must end before `?`: a key belongs into the environment variable "
            f"{key_variable}, and paths of requests are put after the URL"
        )
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port out of range, a bracket that does not close
        sound = False
    if not sound:
        raise JudgeError(f"the judge's URL must look like http://localhost:8000/v1, found {url!r}")
    return url.rstrip("/")


def key_for(url: str, key_variable: str) -> str:
    """The key for a URL; an endpoint on this machine needs none.

    Raises:
        JudgeError: there is no key, or it holds what no key does.
    """
    key = os.environ.get(key_variable, "").strip()
    # A client that cannot put a key into a header would show it in its complaint.
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise JudgeError(f"the key in {key_variable} holds letters that no key has: set it anew")
    if key:
        return key
    if is_local(url):
        return _PLACEHOLDER_KEY
    raise JudgeError(f"no key for the judge at {url}: set the environment variable {key_variable}")


def without_key(text: object, key: str) -> str:
    """A text of an endpoint without the key, should it echo it, as it is or escaped as in JSON."""
    if len(key) < _SECRET_LENGTH:
        return str(text)
    return re.sub("".join(_forms(letter) for letter in key), "[key]", str(text))


def _forms(letter: str) -> str:
    """A pattern of what JSON may write for a letter: itself, \\/ and the like, or \\uXXXX."""
    plain = rf"\\{{0,4}}{re.escape(letter)}" if letter in '/"\\' else re.escape(letter)
    return rf"(?:{plain}|{_BACKSLASHES}u(?i:{ord(letter):04x}))"


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
