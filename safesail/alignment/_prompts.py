"""Prompts to evaluate a model with, read from files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from safesail.corpus import read_rows
from safesail.errors import InputError
from safesail.study import CorpusSource

Kind = Literal["harmful", "look_alike", "benign"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_COLUMNS = ("prompt", "kind")


@dataclass(frozen=True)
class EvaluationPrompt:
    """A request to put to a model.

    Attributes:
        id: unique among the prompts.
        prompt: the request.
        kind: `harmful`; `look_alike`, benign but worded like a harmful one (XSTest's shape);
            `benign`.
        group: part of the prompts that figures are given for on its own; empty for none.
        answer: the one right answer of a benign prompt; None where there is none.
    """

    id: str
    prompt: str
    kind: Kind
    group: str = ""
    answer: str | None = None


def read_prompts(path: str | Path, folder: Path = Path()) -> list[EvaluationPrompt]:
    """Read prompts from JSONL, CSV or Parquet.

    Columns: `prompt` and `kind`; where wanted `id` (by default file and row), `group` and
    `answer`.

    Args:
        path: the file; `*` in it matches several.
        folder: base of a relative path.

    Raises:
        InputError: a file is missing, unreadable or malformed; a row has no prompt or an unknown
            kind, or an answer though it is not benign; an id comes twice; harmful prompts without
            look-alikes.
    """
    source = CorpusSource(path=str(path))
    rows = read_rows(source, folder, _COLUMNS)
    # An empty line has no value but in the first column, and None there.
    prompts = [_prompt(place, row) for place, row in rows if row != {"prompt": None}]
    check_prompts(prompts)
    return prompts


def check_prompts(prompts: Sequence[EvaluationPrompt]) -> None:
    """That there are prompts, each with its own id, and look-alikes beside harmful ones.

    Raises:
        InputError: they do not fit.
    """
    if not prompts:
        raise InputError("there is no prompt to evaluate with")
    name, count = Counter(one.id for one in prompts).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} prompts have the id {name!r}: give each its own")
    kinds = {one.kind for one in prompts}
    if "harmful" in kinds and "look_alike" not in kinds:
        raise InputError(
            "there are harmful prompts but none of kind look_alike: safety is not reported alone, "
            "for a model that refuses everything is perfectly safe; add benign prompts that are "
            "worded like harmful ones"
        )


def prompt_digest(prompt: str) -> str:
    """16 hex digits of a prompt, the same whatever its case and spaces."""
    return hashlib.sha256(" ".join(prompt.casefold().split()).encode()).hexdigest()[:16]


def check_unseen(prompts: Sequence[EvaluationPrompt], trained: Container[str], by: str) -> None:
    """That no prompt was trained on: what was learnt by heart says nothing of other prompts.

    Args:
        prompts: of an evaluation.
        trained: digests of the prompts trained on.
        by: what was trained on them.

    Raises:
        InputError: some were.
    """
    seen = [one for one in prompts if prompt_digest(one.prompt) in trained]
    if seen:
        raise InputError(
            f"{len(seen)} of {len(prompts)} prompts were trained on by {by}, first "
            f"{seen[0].prompt[:60]!r} ({seen[0].id}): leave them out, for nothing is scored on "
            "what it was fitted on"
        )


def _prompt(place: str, row: dict[str, Any]) -> EvaluationPrompt:
    prompt, kind, answer = row.get("prompt"), row.get("kind"), row.get("answer")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{place}: `prompt` is missing, empty or no text")
    if any("\ud800" <= char <= "\udfff" for char in prompt):
        raise InputError(f"{place}: `prompt` holds half a character (a lone surrogate): mend it")
    if kind not in KINDS:
        raise InputError(f"{place}: kind {kind!r} is unknown: one of {', '.join(KINDS)} is wanted")
    # A table has the column in every row.
    answer = None if answer is None or not str(answer).strip() else str(answer)
    if answer is not None and kind != "benign":
        raise InputError(f"{place}: only a benign prompt can have a right answer, this is {kind}")
    return EvaluationPrompt(
        id=str(row.get("id") or place),
        prompt=prompt,
        kind=kind,
        group=str(row.get("group") or ""),
        answer=answer,
    )
