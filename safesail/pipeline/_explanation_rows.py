"""Rows of the explanations table: which a run asks for, which are done, and how they are saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safesail.pipeline._imported import IMPORTED
from safesail.study import Study
from safesail.tables import EXPLANATIONS, table_from_rows, write_table

LEXICAL_LANGUAGE = "en"

_SAVE_EVERY_SECONDS = 5.0
# A row with such a status is asked for again by the next run.
_UNFINISHED = ("failed", "budget")


class GrowingTable:
    """Rows of an explanations table, saved every few seconds while more come."""

    def __init__(self, path: Path, settings: dict[str, Any], kept: list[dict[str, Any]]) -> None:
        self.added: list[dict[str, Any]] = []
        self._path, self._settings, self._kept = path, settings, kept
        self._saved_at = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        # Before the row: those that come together, as the pilot's, are saved together.
        if time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
            self.save()
        self.added.append(row)

    def save(self) -> None:
        table = table_from_rows([*self._kept, *self.added], EXPLANATIONS)
        write_table(self._path, table, EXPLANATIONS, self._settings)
        self._saved_at = time.monotonic()


def identity(row: Mapping[str, Any]) -> tuple[str | None, ...]:
    """What tells the rows of one feature apart."""
    names = ("explainer", "judge_url", "judge_model", "language", "scorer", "source")
    return tuple(row[name] for name in names)


def configured_identity(study: Study, imported: str | None) -> tuple[str | None, ...]:
    """The identity of the rows that the study's settings ask for."""
    settings = study.configuration.judge
    if settings.model is None:
        return "lexical", None, None, LEXICAL_LANGUAGE, None, None
    explainer = "judge" if imported is None else IMPORTED
    url = settings.url.rstrip("/")
    return explainer, url, settings.model, settings.language, settings.scorer, imported


def is_by_judge(row: Mapping[str, Any], study: Study) -> bool:
    """Whether the study's judge scored a row as the settings say, whoever explained."""
    settings = study.configuration.judge
    wanted = (settings.url.rstrip("/"), settings.model, settings.language, settings.scorer)
    return wanted == tuple(row[name] for name in ("judge_url", "judge_model", "language", "scorer"))


def is_done(row: Mapping[str, Any], study: Study) -> bool:
    """Whether a row need not be made again; one that is more precise than asked is done too."""
    if row["status"] in _UNFINISHED or row["missing_failed"]:
        return False
    if row["precision"] is None:  # nothing stopped early
        return True
    # Where the budget stopped the pilot, its scores know too little of errors shared in prompts.
    unsure = row["design_effect"] is not None and row["shared_discrimination"] is None
    return not unsure and row["precision"] <= study.configuration.judge.precision
