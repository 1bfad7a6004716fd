"""The templates, with what they need to write numbers, links and drawings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from safesail.explorer._contexts import marked_snippet, marked_tokens
from safesail.explorer._drawing import histogram, whisker
from safesail.explorer._listing import Query
from safesail.explorer._search import CLOSING, OPENING
from safesail.explorer._text import cut, shown

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"
"""Style and scripts, as they are served and as reports hold them."""

LONG_EXPLANATION = 600
"""Characters of an explanation shown at once; the rest opens."""


def environment(links: Mapping[str, Callable[..., str]]) -> Environment:
    """Templates that escape every value and make its control characters visible.

    Args:
        links: `to_feature(sae, feature, query)`, `to_concept(name)`, `to_sae(name)` and
            `to_list(query)`; an empty address means that there is no such page.
    """
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        auto_reload=False,
    )
    made.globals |= dict(links) | {
        "whisker": whisker,
        "histogram": histogram,
        "marked": marked_tokens,
        "long_explanation": LONG_EXPLANATION,
    }
    made.filters |= {
        "cut": cut,
        "number": number,
        "percent": percent,
        "snippet": lambda text: marked_snippet(text, OPENING, CLOSING),
    }
    return made


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    """A share as per cent; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.{digits}f} %"


def _address(*parts: object, query: Query | None = None) -> str:
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    parameters = query.to_parameters() if query else ""
    return f"{path}?{parameters}" if parameters else path


@cache
def server_environment() -> Environment:
    """Templates whose links lead to the server's pages."""
    return environment(
        {
            "to_feature": lambda sae, feature, query=None: _address(
                "feature", sae, feature, query=query
            ),
            "to_concept": lambda name: f"/concept?{_parameter('name', name)}",
            "to_sae": lambda name: _address("sae", name),
            "to_list": lambda query: _address("features", query=query),
        }
    )


def _parameter(name: str, value: str) -> str:
    return f"{name}={quote(value, safe='')}"
