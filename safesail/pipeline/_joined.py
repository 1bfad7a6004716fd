"""The files of a collection's shards, and what they are together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safesail.errors import InputError, StorageError, StudyConflictError
from safesail.pipeline._plan import Plan

if TYPE_CHECKING:
    from safesail.contexts import Work

_NAME = re.compile(r"shard-(\d+)-of-(\d+)\.(work|checkpoint-\d)")
# At most so many missing shards are named.
_NAMED = 20


def shard_files(folder: Path) -> list[Path]:
    """Finished shards of a plan."""
    return sorted(folder.glob("shard-*.work"))


def finished_by_shards(folder: Path, plan: Plan) -> Work | None:
    """What the shards of a plan are together, where all are done; None where none was begun.

    Raises:
        StudyConflictError: some are not done: whoever goes on without them would lose them.
        InputError, StorageError: as in `joined`.
    """
    found = [match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    done = {(int(of[1]), int(of[2])) for of in found if of[3] == "work"}
    begun = {(int(of[1]), int(of[2])) for of in found} - {(1, 1)} | done
    if not begun:
        return None
    for count in {count for _, count in done}:
        if all((number, count) in done for number in range(1, count + 1)):
            return joined(shard_files(folder), plan)
    count = max(count for _, count in begun)
    left = [number for number in range(1, count + 1) if (number, count) not in done]
    raise StudyConflictError(
        f"{folder} holds shards of the same collection, {count - len(left)} of {count} done: do "
        f"the others (`safesail collect --shard {left[0]}/{count}` ...) and run `safesail merge`, "
        "or delete the folder to collect all of it anew"
    )


def joined(files: Sequence[Path], plan: Plan) -> Work:
    """The shards as one; each is read, and held, only while it is taken in.

    Raises:
        InputError: one is missing, there twice, or of another corpus or collection.
        StorageError: one is damaged.
    """
    from safesail.contexts import Work

    whole: Work | None = None
    names: dict[tuple[int, int], Path] = {}
    for path in files:
        try:
            work = Work.read(path)
        except StorageError as error:
            raise StorageError(f"{error}: delete it and do that shard again") from error
        if work.plan != plan.digest:
            raise InputError(f"{path} belongs to another collection: move it away")
        if work.shard in names:
            number, count = work.shard
            raise InputError(
                f"{path} and {names[work.shard].name} are both shard {number} of {count}: "
                "remove one"
            )
        names[work.shard] = path
        if whole is None:
            whole = work
        elif (work.chunks, work.shard[1]) != (whole.chunks, whole.shard[1]):
            raise InputError(
                f"{path} was made of another corpus, or for another number of shards, than "
                f"{files[0].name}: {work.chunks} chunks in {work.shard[1]} shards against "
                f"{whole.chunks} in {whole.shard[1]}; remove what is old"
            )
        else:
            whole.merge(work)
    assert whole is not None  # there are files
    count = whole.shard[1]
    missing = [number for number in range(1, count + 1) if (number, count) not in names]
    if missing:
        listed = ", ".join(map(str, missing[:_NAMED])) + " ..." * (len(missing) > _NAMED)
        raise InputError(
            f"{files[0].parent} lacks shard {listed} of {count}: run "
            f"`safesail collect --shard {missing[0]}/{count}` with the options of the others, or "
            "copy its *.work file there"
        )
    whole.shard = (1, 1)
    return whole
