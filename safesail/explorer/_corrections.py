"""What people corrected: kept beside the tables, never over them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
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


def latest_corrections(
    corrections: Iterable[Correction],
) -> list[tuple[Correction, str | list[str] | None]]:
    """The last correction of each feature, field and language, with what it stands for.

    What it stands for is what stood there before anybody corrected it: of a correction of a
    correction the first one's. A text that was corrected back to that is corrected no more. A text
    that was explained anew since is another one, which the correction says nothing of.

    Args:
        corrections: oldest first.
    """
    found: dict[tuple[str, int, str, str], tuple[Correction, str | list[str] | None]] = {}
    for one in corrections:
        key = (one.sae, one.feature, one.field, one.language)
        before = found.get(key)
        again = before is not None and one.corrected == before[0].value
        found[key] = one, before[1] if before is not None and again else one.corrected
    return [(one, original) for one, original in found.values() if not _same(one.value, original)]


def _same(value: str | list[str], original: str | list[str] | None) -> bool:
    """Whether two texts differ in white space at most, or two lists in order."""
    if isinstance(value, str) and isinstance(original, str):
        return value.split() == original.split()
    return isinstance(original, list) and sorted(value) == sorted(original)


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
