"""Names of models: several spellings of one model are in use. Needs no torch."""

from __future__ import annotations

import runpy
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def official_name(name: str) -> str:
    """Hub name of a model that TransformerLens knows by an older one (`gpt2-small`: `gpt2`)."""
    return _aliases().get(name, name)


def same_model(one: str, other: str) -> bool:
    """Whether two names may mean one model: organisation, case and older names set aside."""
    return _short(one) == _short(other)


def _short(name: str) -> str:
    return official_name(name).rsplit("/", 1)[-1].lower()


@cache
def _aliases() -> dict[str, str]:
    """Older name -> hub name; read off TransformerLens' table, whose import would cost seconds."""
    package = find_spec("transformer_lens")
    assert package is not None  # a dependency
    assert package.origin is not None
    table = runpy.run_path(str(Path(package.origin).with_name("supported_models.py")))
    return {alias: name for name, aliases in table["MODEL_ALIASES"].items() for alias in aliases}
