"""What tokens cost: the public list in `safesail/data/prices.toml`, a user's own over it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safesail.errors import ConfigurationError
from safesail.judging._credentials import is_local

# What may follow a listed name: the date of a snapshot (`-2025-08-07`, `-20250929`, `-0613`) or
# `-latest`. Other endings name other models, at other prices (`gpt-5-pro`).
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|latest)")


_MOST = 1e6  # a dollar a token: beyond it, somebody mistook the unit


class Price(BaseModel):
    """US dollars per million tokens.

    Attributes:
        input: of prompts.
        output: of completions, hidden reasoning included.
        batch: share of these prices that the Batch API costs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    input: float = Field(ge=0, le=_MOST)
    output: float = Field(ge=0, le=_MOST)
    batch: float = Field(default=1.0, ge=0, le=1)

    def cost(self, prompt_tokens: int, completion_tokens: int, *, batch: bool = False) -> float:
        """US dollars of an answer, discounts for cached prompts left aside.

        Args:
            prompt_tokens: of the request.
            completion_tokens: of the response, hidden ones included.
            batch: whether it comes through the Batch API.
        """
        dollars = (self.input * prompt_tokens + self.output * completion_tokens) / 1e6
        return dollars * self.batch if batch else dollars


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: dict[str, _Listed]


class _Listed(Price):
    as_of: str | date | None = None


class Prices:
    """Prices by the name of the model.

    A name stands for its snapshots too: `gpt-5-mini` for `gpt-5-mini-2025-08-07`. The longest
    listed name counts.

    Args:
        own: prices that hold wherever the model is asked.
        public: prices that do not hold for an endpoint on this machine; `own` goes first.
    """

    def __init__(self, own: Mapping[str, Price], public: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own)
        self._all = {**(public or {}), **own}

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The public list, and a user's own.

        Args:
            path: TOML file of the same form as `safesail/data/prices.toml`.

        Raises:
            ConfigurationError: the user's file cannot be read or is malformed.
        """
        listed = resources.files("safesail.data").joinpath("prices.toml")
        public = _parse(listed.read_text(encoding="utf-8"), "prices.toml")
        if path is None:
            return cls({}, public)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the price list {path}: {error}") from error
        return cls(_parse(text, str(path)), public)

    def at(self, url: str) -> Prices:
        """Those that hold for an endpoint: on this machine only a user's own."""
        return Prices(self._own) if is_local(url) else self

    def find(self, model: str) -> Price | None:
        """Price of a model; None where the list has none."""
        names = [name for name in self._all if _stands_for(name, model)]
        return self._all[max(names, key=len)] if names else None

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """US dollars of a model's answer (see `Price.cost`); None without a price."""
        price = self.find(model)
        return None if price is None else price.cost(prompt_tokens, completion_tokens)


def _stands_for(name: str, model: str) -> bool:
    ending = model.removeprefix(name)
    return model == name or (ending != model and _SNAPSHOT.fullmatch(ending) is not None)


def _parse(text: str, where: str) -> dict[str, Price]:
    try:
        listed = _List.model_validate(tomllib.loads(text)).models
        return {name: Price(**one.model_dump(exclude={"as_of"})) for name, one in listed.items()}
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not valid TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"`{'.'.join(map(str, fault['loc']))}`: {fault['msg']}" for fault in error.errors()[:3]
        )
        raise ConfigurationError(f"{where}: {faults}") from error
