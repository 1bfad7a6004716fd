"""Read contrast pairs from JSONL, CSV or TOML, with a clear line for every fault."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from safesail.concepts._concepts import ConceptSet, ContrastPair
from safesail.errors import InputError
from safesail.unicode import is_unicode

_FAULTS_SHOWN = 5
_NAME = re.compile(r"[\w-]+(/[\w-]+)*")


def load_concepts(references: Sequence[str], folder: Path) -> ConceptSet:
    """Load concepts from files and from the sets that ship with safesail.

    JSONL and CSV have the columns `concept`, `positive`, `negative` and, if pairs were filled in
    from templates, `template` (others are ignored); TOML has `[[concept]]` tables with `name` and
    `pairs = [{positive = "...", negative = "..."}]`. A name with slashes, `violence/insult`, is a
    child. Pairs that repeat are kept once.

    Args:
        references: paths relative to `folder`, or `builtin:starter`, `builtin:lab`.
        folder: base of relative paths.

    Raises:
        InputError: a file is missing, not UTF-8, malformed, or holds a concept without pairs, an
            empty text or a pair of identical twins; each such row is named.
    """
    pairs: list[ContrastPair] = []
    for reference in references:
        found, faults = [], []
        for where, row in _read(reference, folder):
            try:
                found.append(_pair(row, where))
            except InputError as error:
                faults.append(str(error))
        if faults:
            more = len(faults) - _FAULTS_SHOWN
            raise InputError(
                "; ".join(faults[:_FAULTS_SHOWN]) + (f"; and {more} rows more" if more > 0 else "")
            )
        if not found:
            raise InputError(f"no contrast pairs in {reference}: add some")
        pairs += found
    return ConceptSet(pairs)


def _read(reference: str, folder: Path) -> Iterator[tuple[str, Any]]:
    if reference.startswith("builtin:"):
        name = reference.removeprefix("builtin:")
        resource = files("safesail.data") / "concepts" / f"{name}.jsonl"
        if not resource.is_file():
            raise InputError(
                f"no built-in concepts {name!r}; there are builtin:starter and builtin:lab"
            )
        rows = _jsonl_rows(resource.read_text(encoding="utf-8"), reference)
    else:
        path = folder / Path(reference).expanduser()
        readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".toml": _toml_rows}
        if path.suffix not in readers:
            raise InputError(f"{path}: concepts are read from .jsonl, .csv or .toml")
        rows = readers[path.suffix](_text(path), str(path))
    yield from rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"concept file {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _jsonl_rows(text: str, where: str) -> Iterator[tuple[str, Any]]:
    # Only a line feed ends a JSON line: splitlines() would also cut at U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits too
            raise InputError(f"{where}, line {number}: not JSON ({error})") from error
        yield f"{where}, line {number}", row


def _csv_rows(text: str, where: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield f"{where}, line {reader.line_num}", row
    except csv.Error as error:
        # The number is that of the last good row, and the next one begins below it.
        raise InputError(f"{where}, line {reader.line_num + 1}: not CSV ({error})") from error


def _toml_rows(text: str, where: str) -> Iterator[tuple[str, Any]]:
    try:
        concepts = tomllib.loads(text).get("concept", [])
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not valid TOML: {error}") from error
    if not isinstance(concepts, list) or not all(isinstance(c, dict) for c in concepts):
        raise InputError(f"{where}: write each concept as a [[concept]] table with name and pairs")
    for concept in concepts:
        name = concept.get("name")
        pairs = concept.get("pairs")
        if not pairs or not isinstance(pairs, list):
            raise InputError(f"{where}: concept {name!r} has no pairs")
        for number, pair in enumerate(pairs, start=1):
            row = pair if isinstance(pair, dict) else {}
            yield f"{where}, concept {name!r}, pair {number}", {"concept": name, **row}


def _pair(row: Any, where: str) -> ContrastPair:
    keys = ("concept", "positive", "negative")
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with {', '.join(keys)}")
    absent = _absent(row, keys)
    if absent:
        raise InputError(f"{where}: {absent[0]!r} is missing, empty or not text")
    concept, positive, negative = (row[key].strip() for key in keys)
    if not _NAME.fullmatch(concept):
        raise InputError(
            f"{where}: concept {concept!r}: use letters, digits, _ and -, with / before a child"
        )
    if positive == negative:
        raise InputError(f"{where}: positive and negative are identical twins; one must differ")
    template = row.get("template") or None
    if template is not None and not (isinstance(template, str) and is_unicode(template)):
        raise InputError(f"{where}: 'template' is not text")
    return ContrastPair(concept, positive, negative, where, template)


def _absent(row: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [
        key
        for key in keys
        if not isinstance(row.get(key), str) or not row[key].strip() or not is_unicode(row[key])
    ]
