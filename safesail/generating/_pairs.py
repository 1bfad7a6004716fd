"""A contrast pair as a judge wrote it, with what the checks found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Reason = Literal[
    "empty",
    "control_characters",
    "wrong_script",
    "placeholder",
    "refusal",
    "too_long",
    "uneven",
    "equal_twins",
    "duplicate",
    "near_duplicate",
    "names_concept",
    "giveaway",
]


@dataclass(frozen=True)
class Remark:
    """What a check found in a pair.

    Attributes:
        reason: `empty`: a text without a letter or digit. `control_characters`: characters that
            show as nothing or turn the text around. `wrong_script`: fewer than half of the
            letters are of the language's script. `placeholder`: a gap to fill in, such as [NAME].
            `refusal`: the judge's words about itself. `too_long`: over 60 words or 600 characters.
            `uneven`: one twin is over 1.5 times as long as the other, and over two words longer.
            `equal_twins`: alike but for case, spaces and punctuation. `duplicate`,
            `near_duplicate`: of another pair's text.
            `names_concept`: the positive, but not its twin, holds a word of the concept's name.
            `giveaway`: a word that tells the sides apart over the whole set.
        detail: where and what.
    """

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class CheckedPair:
    """Two texts with what speaks against them.

    Attributes:
        positive: the text that carries the concept, single-spaced.
        negative: its twin.
        faults: why it is dropped; none for a pair that passed.
        flags: what a person should look at.
    """

    positive: str
    negative: str
    faults: tuple[Remark, ...] = ()
    flags: tuple[Remark, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing was found for which it is dropped."""
        return not self.faults

    def flagged(self, *remarks: Remark) -> CheckedPair:
        """The same pair with more flags."""
        return replace(self, flags=(*self.flags, *remarks))
