"""Ray itself: brought in where it is used, started or reached, its machines shared out."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from math import ceil, floor
from typing import Any

from safesail.errors import ConfigurationError

# A cluster of our own reports nothing, and listens on this machine only, to who has the token.
# Ray names its switch for loopback after the systems on which that is the default.
_PRIVATE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    # Ray's own next default; without, it warns.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def import_ray(address: str | None) -> Any:
    """Ray, told to keep to itself unless a cluster is to be joined.

    Raises:
        ConfigurationError: it is not installed.
    """
    if address is None:
        # It reads them as it is imported.
        os.environ.update(_PRIVATE)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "the engine `ray` needs Ray, which is not installed: pip install 'safesail[ray]'"
        ) from error


@contextmanager
def cluster(ray: Any, address: str | None) -> Iterator[None]:
    """A connection: the one that there is, to an address, or to a cluster started for the while.

    Raises:
        ConfigurationError: nothing can be started, or reached at the address.
    """
    # A thread of Ray's prints what befalls workers; that is no part of a command's result.
    with redirect_stdout(sys.stderr):
        if ray.is_initialized():
            yield
        else:
            yield from _connected(ray, address)


def _connected(ray: Any, address: str | None) -> Iterator[None]:
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        context = ray.init(
            address or "local", log_to_driver=False, logging_level=logging.ERROR, **own
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"reach Ray at {address}" if address else "start Ray on this machine"
        raise ConfigurationError(f"cannot {where}: {first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()
        if not address:
            shutil.rmtree(context.address_info["session_dir"], ignore_errors=True)


def share(units: Sequence[int], workers: int) -> float:
    """Of what each machine has, how much each worker gets, so that all find room.

    Args:
        units: CPU cores or GPUs of each machine.
        workers: how many.

    Returns:
        As many whole ones as can be; a part of one where workers are more than units; 0 where
        there are none.
    """
    for each in range(max(units, default=0), 0, -1):
        if sum(of // each for of in units) >= workers:
            return each
    total = sum(units)
    # Ray counts in parts of ten thousand, and rounds.
    return floor(10_000 / ceil(workers / total)) / 10_000 if total else 0.0


def first_line(error: BaseException) -> str:
    """What an error says, without its traces."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def last_line(error: BaseException) -> str:
    """The error at the bottom of the traces that an error says."""
    return str(error).strip().splitlines()[-1].strip()
