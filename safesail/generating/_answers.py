"""Type of a judge's answer to `contrast_pairs.j2`; its JSON schema goes to the endpoint."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

# Sent as additionalProperties: strict JSON schemas demand it.
_CLOSED = ConfigDict(json_schema_extra={"additionalProperties": False})


class WrittenPair(BaseModel):
    """Two texts, unchecked."""

    model_config = _CLOSED

    positive: str
    negative: str


class ContrastPairsAnswer(BaseModel):
    """The pairs of one answer."""

    model_config = _CLOSED

    pairs: list[WrittenPair]
