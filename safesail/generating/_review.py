"""The file in which a person looks at written pairs and says which to keep.

JSON lines. The first says what was asked of whom; concept files have no such line, so a review
that nobody has accepted is refused where concepts are read. Then one line a pair, with `keep`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StrictBool, ValidationError

from safesail.errors import InputError
from safesail.generating._generate import GeneratedPairs
from safesail.generating._naming import require_name
from safesail.tables import write_bytes

REVIEW_ENDING = ".review.jsonl"
_VERSION: Literal["contrast pairs/1"] = "contrast pairs/1"

Line = TypeVar("Line", bound=BaseModel)


class ReviewHeader(BaseModel):
    """The first line of a review."""

    model_config = ConfigDict(frozen=True)

    review: Literal["contrast pairs/1"]
    concept: Annotated[str, AfterValidator(require_name)]
    description: str
    language: str
    seed: int
    judge_url: str
    judge_model: str
    prompt_version: str


class ReviewedPair(BaseModel):
    """One pair of a review, with what a person decided; further keys are theirs."""

    model_config = ConfigDict(frozen=True)

    keep: StrictBool
    positive: str
    negative: str
    faults: list[str] = []
    flags: list[str] = []


@dataclass(frozen=True)
class Review:
    """A review as it stands in its file.

    Attributes:
        path: the file.
        header: what was asked of whom.
        pairs: line number in the file and pair, in order.
    """

    path: Path
    header: ReviewHeader
    pairs: list[tuple[int, ReviewedPair]]

    @property
    def kept(self) -> list[tuple[int, ReviewedPair]]:
        """The pairs that are kept."""
        return [(line, pair) for line, pair in self.pairs if pair.keep]


def write_review(path: Path, generated: GeneratedPairs) -> None:
    """Write pairs for review, whole or not at all; those that passed are kept until said otherwise.

    Raises:
        StorageError: it cannot be written; an earlier file is intact.
    """
    header = ReviewHeader(
        review=_VERSION,
        concept=generated.concept,
        description=generated.description,
        language=generated.language,
        seed=generated.seed,
        judge_url=generated.judge_url,
        judge_model=generated.judge_model,
        prompt_version=generated.prompt_version,
    )
    pairs = [
        ReviewedPair(
            keep=pair.passed,
            positive=pair.positive,
            negative=pair.negative,
            faults=[str(fault) for fault in pair.faults],
            flags=[str(flag) for flag in pair.flags],
        )
        for pair in generated.pairs
    ]
    write_lines(path, [one.model_dump() for one in (header, *pairs)])


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all.

    Raises:
        StorageError: they cannot be written; an earlier file is intact.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(path, lines.encode())


def read_review(path: Path) -> Review:
    """Read a review, as a person left it.

    Raises:
        InputError: no such file, not a review, or a line that does not hold what a pair needs;
            the line is named.
    """
    if not path.name.endswith(REVIEW_ENDING):
        raise InputError(f"{path} is no review: its name must end in {REVIEW_ENDING}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"no review {path}: `safesail concepts generate` writes one, and names it"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty: generate it again")
    header = _parse(ReviewHeader, path, *lines[0])
    return Review(path, header, [(n, _parse(ReviewedPair, path, n, line)) for n, line in lines[1:]])


def _parse(kind: type[Line], path: Path, number: int, text: str) -> Line:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'line'}: {fault['msg']}"
            for fault in error.errors()[:3]
        )
        raise InputError(f"{path}, line {number}: {faults}") from error
