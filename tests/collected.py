"""What collecting leaves in a study, told apart to the last bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from study_folder import change_setting, copy_study

from safesail.contexts import Checkpoints, Pass, Work
from safesail.pipeline import rank
from safesail.study import Study
from safesail.tables import CONTEXTS, FEATURES, read_table

# Several chunks, several batches in each, a checkpoint after every batch.
SETTINGS = """chunk_characters = 3000
tokens_per_batch = 200
checkpoint_seconds = 0
"""


def make_ranked(fresh: Path, folder: Path) -> Path:
    """A ranked study whose collections have several chunks and several batches in each."""
    copy_study(fresh, folder)
    change_setting(folder, "hard_silent = 8\n", f"hard_silent = 8\n{SETTINGS}")
    rank(Study.open(folder))
    return folder


def tables(study: Path) -> dict[str, list[str]]:
    """Rows of all contexts and features tables; a float is written so that no two look alike."""
    found = {}
    for name, schema in (("contexts/*/part-*", CONTEXTS), ("features/*", FEATURES)):
        for path in sorted(study.glob(f"{name}.parquet")):
            table = str(path.relative_to(study))
            found[table] = [repr(row) for row in read_table(path, schema).to_pylist()]
    return found


def left_over(study: Path) -> list[str]:
    """Files and folders that no finished collection leaves."""
    work = list((study / "collection").rglob("*"))
    parts = [p for name in ("contexts", "features") for p in (study / name).rglob(".*")]
    return [str(path.relative_to(study)) for path in [*work, *parts]]


class Stop(BaseException):
    """A run that ends in the middle."""


@contextlib.contextmanager
def stopped_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> Iterator[None]:
    """The run within ends after so many checkpoints."""
    save = Checkpoints.save
    left = [saves]

    def limited(self: Checkpoints, work: Work) -> None:
        save(self, work)
        left[0] -= 1
        if not left[0]:
            raise Stop

    stopped = False
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", limited)
        try:
            yield
        except Stop:
            stopped = True
    assert stopped


def count_batches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by one with every batch that a pass sees."""
    seen: list[str] = []
    see = Pass.see

    def counted(self: Pass, batch: Any, sketches: Any, where: str) -> None:
        seen.append(where)
        see(self, batch, sketches, where)

    monkeypatch.setattr(Pass, "see", counted)
    return seen
