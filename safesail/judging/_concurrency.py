"""How many requests are under way at once, and when none may leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import anyio

# As TCP's congestion avoidance (additive increase, multiplicative decrease): a rate limit halves
# the number, every round of as many good responses adds one.
_DECREASE = 0.5


class AdaptiveLimiter:
    """Lets requests pass, fewer at once while the endpoint says that there are too many.

    Args:
        most: requests at once where the endpoint takes them all; at least 1.

    Attributes:
        most: see there.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._allowed = float(most)
        self._slots = anyio.CapacityLimiter(most)
        self._rounds = 0  # how often the number was decreased
        self._resume_at = 0.0

    @property
    def allowed(self) -> int:
        """Requests that may be under way at once now."""
        return int(self._allowed)

    @property
    def under_way(self) -> int:
        """Requests that are."""
        return self._slots.borrowed_tokens

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Wait until a request may leave; gives the round that it belongs to."""
        borrower = object()
        await self._slots.acquire_on_behalf_of(borrower)
        try:
            while (left := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            yield self._rounds
        finally:
            self._slots.release_on_behalf_of(borrower)

    def succeeded(self) -> None:
        """The endpoint answered: a little more may be tried."""
        if self._allowed < self.most:
            self._allow(self._allowed + 1 / self._allowed)

    def crowded(self, round: int, pause: float | None = None) -> None:
        """The endpoint says that there are too many requests.

        Args:
            round: of the request; those that left together decrease the number once.
            pause: seconds in which no request shall leave.
        """
        if round == self._rounds:
            self._rounds += 1
            self._allow(self._allowed * _DECREASE)
        if pause is not None:
            self._resume_at = max(self._resume_at, time.monotonic() + pause)

    def _allow(self, allowed: float) -> None:
        self._allowed = min(max(allowed, 1.0), float(self.most))
        self._slots.total_tokens = self.allowed
