"""What people corrected: kept beside the tables, never over them."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safesail.errors import StorageError
from safesail.study import Study

LONGEST = 4_000
"""Characters of a corrected explanation at most."""


class Correction(BaseModel):
    """One correction by a person; the latest of a feature, field and language holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    time: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    """When it was made, in UTC."""

    author: str = Field(min_length=1, max_length=100)
    """Who made it, as they name themselves."""

    sae: str
    """Name of the SAE."""

    feature: int = Field(ge=0)
    """Index of the latent."""

    language: str
    """Language of the explanation, as a tag such as `en`; empty for concepts, which have none."""

    field: Literal["explanation", "concepts"]
    """What was corrected."""

    value: str | list[str]
    """What it should be: a text for `explanation`, names for `concepts`."""

    corrected: str | list[str] | None
    """What stood there before."""

    explained_by: str
    """Who had written that: a judge's model, `lexical`, or the author of an earlier correction."""


def corrections_file(study: Study) -> Path:
    """Where a study's corrections lie: JSON lines, oldest first."""
    return study.folder / "corrections.jsonl"


def read_corrections(study: Study) -> list[Correction]:
    """Every correction that people made in a study, oldest first.

    A line that a killed process left unfinished was never confirmed, and is not read.

    Raises:
        StorageError: the file cannot be read, or a line of it is no correction.
    """
    path = corrections_file(study)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    found = []
    # What follows the last line feed is no whole line.
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            found.append(Correction.model_validate_json(line))
        except ValidationError as error:
            fault = error.errors()[0]
            raise StorageError(
                f"{path}, line {number}: {'.'.join(map(str, fault['loc']))} {fault['msg']}; "
                "mend the line or delete it"
            ) from error
    return found


def write_correction(study: Study, correction: Correction) -> None:
    """Add a correction; it is on the disk when this returns.

    Raises:
        StorageError: the disk is full or the folder not writable; earlier ones are intact.
    """
    path = corrections_file(study)
    line = correction.model_dump_json().encode() + b"\n"
    try:
        with path.open("ab+") as file:
            _lock(file)
            _drop_unfinished(file)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}; free space or mend permissions, "
            "then correct again"
        ) from error


def _lock(file: BinaryIO) -> None:
    """Wait until no other process writes, where the system knows locks."""
    if sys.platform == "win32":
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)


def _drop_unfinished(file: BinaryIO) -> None:
    """Cut off what a killed process left of a line."""
    file.seek(0)
    end = file.read().rfind(b"\n") + 1
    file.truncate(end)
    file.seek(end)
