"""safesail: rank sparse autoencoders by safety concepts, explain their features, export tables.

The names below load on first use, so that `import safesail` stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.errors import SafesailError
    from safesail.pipeline import collect, explain, rank
    from safesail.study import Study

__all__ = ["SafesailError", "Study", "collect", "explain", "rank"]

_HOMES = {
    "SafesailError": "safesail.errors",
    "Study": "safesail.study",
    "collect": "safesail.pipeline",
    "explain": "safesail.pipeline",
    "rank": "safesail.pipeline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("safesail")
    if name not in _HOMES:
        raise AttributeError(f"module 'safesail' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
