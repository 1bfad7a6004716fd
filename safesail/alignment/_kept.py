"""Answers that outlive the process: what a system has said once, it is not asked again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.alignment._generation import Likelihood, Reply
from safesail.errors import StorageError

if TYPE_CHECKING:
    from safesail.alignment._evaluation import Generator

KEPT = "kept"
"""Folder of kept answers beside what is made of them."""
_AT_ONCE = 128
"""Prompts after which answers are written; so many are lost by a kill at most."""


def digest(value: Any) -> str:
    """16 hex digits that change with a value of JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class KeptAnswers:
    """A system's answers in a file of their own, asked for only where they are missing.

    A line a prompt or text, by its digest; what a kill left half written is asked for again. Other
    prompts go into the same file, another system into another one.

    Args:
        folder: of the files.
        key: what decides the answers, as JSON: the model, its adapter, the length of answers ...
        make: makes what answers; called where something is missing, and again after `release`.

    Attributes:
        facts: that `note` kept, by name.

    Raises:
        StorageError: the file cannot be read.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], make: Callable[[], Generator]) -> None:
        self._path = folder / f"{digest(key)}.jsonl"
        self._key, self._make = dict(key), make
        self._generator: Generator | None = None
        self._replies: dict[str, Reply] = {}
        self._likelihoods: dict[str, Likelihood] = {}
        self.facts: dict[str, Any] = {}
        self._read()

    def answer(self, prompts: Sequence[str]) -> list[Reply]:
        """Answers to prompts, in their order, kept as they come.

        Raises:
            SafesailError: of what answers.
            StorageError: they could not be written.
        """
        missing = [one for one in dict.fromkeys(prompts) if digest(one) not in self._replies]
        for first in range(0, len(missing), _AT_ONCE):
            part = missing[first : first + _AT_ONCE]
            for prompt, reply in zip(part, self._made().answer(part), strict=True):
                self._replies[digest(prompt)] = reply
            self._append("reply", part, self._replies)
        return [self._replies[digest(one)] for one in prompts]

    def likelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        """How likely texts are, in their order, kept as they come.

        Raises:
            SafesailError: of what answers.
            StorageError: they could not be written.
        """
        missing = [one for one in dict.fromkeys(texts) if digest(one) not in self._likelihoods]
        for first in range(0, len(missing), _AT_ONCE):
            part = missing[first : first + _AT_ONCE]
            for text, found in zip(part, self._made().likelihood(part), strict=True):
                self._likelihoods[digest(text)] = found
            self._append("likelihood", part, self._likelihoods)
        return [self._likelihoods[digest(one)] for one in texts]

    def complete(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Ask for all that is missing, then let go of what answers, so that memory is free."""
        try:
            self.answer(prompts)
            self.likelihood(texts)
        finally:
            self._generator = None

    def note(self, **facts: Any) -> None:
        """Keep facts about the system beside its answers.

        Raises:
            StorageError: they could not be written.
        """
        self.facts |= facts
        self._write([{"facts": facts}])

    def _made(self) -> Generator:
        if self._generator is None:
            self._generator = self._make()
        return self._generator

    def _read(self) -> None:
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as error:
            raise StorageError(f"could not read {self._path}: {error.strerror}") from error
        for line in lines:
            try:
                row = json.loads(line)
                if "reply" in row:
                    self._replies[row["of"]] = Reply(**row["reply"])
                elif "likelihood" in row:
                    self._likelihoods[row["of"]] = Likelihood(**row["likelihood"])
                elif "facts" in row:
                    self.facts |= row["facts"]
            except (ValueError, TypeError, KeyError):
                continue  # a line that a kill cut off

    def _append(self, name: str, part: Sequence[str], found: Mapping[str, Any]) -> None:
        self._write([{"of": digest(one), name: vars(found[digest(one)])} for one in part])

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                head = [{"key": self._key}] if file.tell() == 0 else []
                # An empty line ends one that was cut off.
                lines = b"\n".join(json.dumps(row).encode() for row in (*head, *rows))
                file.write((b"" if head else b"\n") + lines + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"could not write {self._path}: {error.strerror or error}; free space or mend "
                "permissions, then run again: answers that are there are not asked for again"
            ) from error
