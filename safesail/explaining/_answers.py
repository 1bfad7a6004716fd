"""Types of a judge's answers; their JSON schemas go to the endpoint."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

# Sent as additionalProperties: strict JSON schemas demand it. A surplus key does no harm in an
# answer of an endpoint without schemas, so it is ignored there.
_CLOSED = ConfigDict(json_schema_extra={"additionalProperties": False})

_ENTRY = re.compile(r"(\d+)\s*:\s*(\d+)")


class ExplanationAnswer(BaseModel):
    """Answer to `explain.j2`; validation context: `concepts`, all names that may be given."""

    model_config = _CLOSED

    explanation: Annotated[str, Field(min_length=1)]
    concepts: list[str]
    confidence: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _concepts_are_listed(self, info: ValidationInfo) -> Self:
        unknown = set(self.concepts) - set((info.context or {})["concepts"])
        if unknown:
            raise ValueError(f"not in the concept list: {', '.join(sorted(unknown))}")
        if not self.explanation.strip():
            raise ValueError("the explanation is empty")
        return self


class SimulatedWindow(BaseModel):
    """Predictions for one window."""

    model_config = _CLOSED

    window: int
    activations: list[Annotated[int, Field(ge=0, le=10)]]


class SimulationAnswer(BaseModel):
    """Answer to `simulate.j2`; validation context: `counts`, tokens of each window in order."""

    model_config = _CLOSED

    windows: list[SimulatedWindow]

    @model_validator(mode="after")
    def _lengths_fit(self, info: ValidationInfo) -> Self:
        counts: list[int] = (info.context or {})["counts"]
        numbers = [one.window for one in self.windows]
        if numbers != list(range(1, len(counts) + 1)):
            raise ValueError(f"windows 1 to {len(counts)} are wanted in order, found {numbers}")
        for one, count in zip(self.windows, counts, strict=True):
            if len(one.activations) != count:
                raise ValueError(
                    f"window {one.window} has {len(one.activations)} activations, "
                    f"{count} are wanted"
                )
        return self


class GradesAnswer(BaseModel):
    """Answer to `items.j2`, `segments.j2`, `detection.j2` and `fuzzing.j2`.

    Each entry is its number, a colon and one digit for each of its parts, so that an entry that
    was left out or counted twice is noticed.

    Validation context: `counts`, parts of each entry in order; `largest`, the largest grade.
    """

    model_config = _CLOSED

    grades: str

    @cached_property
    def digits(self) -> list[list[int]]:
        """Grades of every entry's parts, in order."""
        return [[int(d) for d in parts] for _, parts in _ENTRY.findall(self.grades)]

    @model_validator(mode="after")
    def _entries_fit(self, info: ValidationInfo) -> Self:
        context = info.context or {}
        counts: list[int] = context["counts"]
        rest = _ENTRY.sub("", self.grades).strip(" ,;\n")
        if rest.replace(",", "").replace(";", "").strip():
            raise ValueError(f"entries like 1:0 are wanted, found {rest[:40]!r}")
        numbers = [int(number) for number, _ in _ENTRY.findall(self.grades)]
        if numbers != list(range(1, len(counts) + 1)):
            raise ValueError(f"entries 1 to {len(counts)} are wanted in order, found {numbers}")
        for number, (digits, count) in enumerate(zip(self.digits, counts, strict=True), start=1):
            if len(digits) != count:
                raise ValueError(f"entry {number} has {len(digits)} grades, {count} are wanted")
            if max(digits) > context["largest"]:
                raise ValueError(f"entry {number}: grades go from 0 to {context['largest']}")
        return self
