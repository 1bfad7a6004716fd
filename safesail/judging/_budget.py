"""What a run may spend, in dollars or tokens, and who may still spend it."""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable
from typing import Literal, Self

from safesail.errors import ConfigurationError

Unit = Literal["usd", "tokens"]
# What a question will cost: at most, as far as can be told, and probably; 0 where nothing is known.
Estimate = Callable[[], tuple[float, float]]

# A comma is read between thousands only: 0,50 is half a dollar to some, and no number here.
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)"
_NUMBER = rf"(?:{_WHOLE}(?:\.\d+)?|\.\d+)(?:e\+?\d+)?"
_FORM = re.compile(rf"\$\s*({_NUMBER})|({_NUMBER})\s*(usd|tokens?)")


class Budget:
    """A sum that the answers of one run may cost; cached ones cost nothing.

    Requests under way are reckoned with: a question sets its estimate aside before it is sent and
    pays afterwards. Who finds no room waits for those under way, and is turned away when none of
    them is left. After that nobody is let through.

    Args:
        amount: above zero.
        unit: `usd` or `tokens` (of prompts and completions together).

    Attributes:
        amount: see there.
        unit: see there.
        spent: what the answers of this run have cost so far.

    Raises:
        ConfigurationError: the amount is not a finite number above zero.
    """

    def __init__(self, amount: float, unit: Unit) -> None:
        if not (math.isfinite(amount) and amount > 0):
            raise ConfigurationError(f"a budget must be above zero, found {amount:g}")
        self.amount = amount
        self.unit = unit
        self.spent = 0.0
        self._set_aside = 0.0
        self._under_way = 0
        self._turned_away = False
        self._waiting: deque[tuple[Estimate, asyncio.Future[float | None]]] = deque()

    @classmethod
    def parse(cls, text: str) -> Self:
        """A budget as users write it: `5usd`, `0.50 usd`, `$5`, `2e6tokens`, `500000 tokens`.

        Raises:
            ConfigurationError: no such text, or no amount above zero.
        """
        found = _FORM.fullmatch(text.strip().lower())
        if found is not None:
            amount = float((found[1] or found[2]).replace(",", ""))
            return cls(amount, "tokens" if "token" in (found[3] or "") else "usd")
        raise ConfigurationError(
            f"{text!r} is no budget: write dollars as 5usd, or tokens as 2e6tokens"
        )

    @property
    def exhausted(self) -> bool:
        """Nothing more is sent: it is spent, or a question found no room."""
        return self._turned_away or self.spent >= self.amount

    async def reserve(self, estimate: Estimate) -> float | None:
        """Set aside what a question will cost; None where it may not be sent.

        Args:
            estimate: called whenever there may be room, as it changes with every answer.

        Returns:
            What is set aside, to be settled.
        """
        if not self._waiting:
            found = self._admit(estimate)
            if found is not None:
                return found
        if self._hopeless():
            return None
        place = asyncio.get_running_loop().create_future()
        self._waiting.append((estimate, place))
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (admitted := place.result()) is not None:
                self.settle(admitted, 0.0)
            raise

    def settle(self, set_aside: float, cost: float) -> None:
        """Pay what a question cost, in the place of what was set aside for it."""
        self._under_way -= 1
        # Sums of fractions drift; without requests under way nothing is set aside.
        self._set_aside = self._set_aside - set_aside if self._under_way else 0.0
        self.spent += cost
        while self._waiting:
            estimate, place = self._waiting[0]
            if not place.done():
                found = self._admit(estimate)
                if found is None and not self._hopeless():
                    break
                place.set_result(found)
            self._waiting.popleft()

    def _admit(self, estimate: Estimate) -> float | None:
        if self.exhausted:
            return None
        cost, likely = estimate()
        spoken_for = self.spent + self._set_aside
        # By itself a question goes on what is likely, or to find out: it overruns by one at most.
        alone = not self._under_way and spoken_for + likely <= self.amount
        if spoken_for + cost > self.amount and not alone:
            return None
        self._set_aside += cost
        self._under_way += 1
        return cost

    def _hopeless(self) -> bool:
        """Whether who was not admitted never will be."""
        if not self._under_way:
            self._turned_away = True
        return self.exhausted
