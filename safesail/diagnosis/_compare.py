"""Two texts side by side: what fires in one and not in the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safesail.diagnosis._diagnosis import Diagnosis, Firing, largest_strengths
from safesail.diagnosis._features import ExplainedFeature


@dataclass(frozen=True)
class FeatureDifference:
    """Largest strengths of a feature in two texts.

    Attributes:
        feature: what is known of it.
        first: its strongest firing in the first text; None where it is silent there.
        second: the same in the second.
    """

    feature: ExplainedFeature
    first: Firing | None
    second: Firing | None

    @property
    def difference(self) -> float:
        """Largest strength in the second text less that in the first."""
        return _strength(self.second) - _strength(self.first)


@dataclass(frozen=True)
class ConceptDifference:
    """Largest strengths among a concept's features in two texts.

    Attributes:
        concept: its name.
        first: in the first text, over all layers; 0 where nothing fires.
        second: in the second.
    """

    concept: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """The second less the first."""
        return self.second - self.first


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two texts side by side.

    Two texts are no sample: a difference says what differs between these two, not that it would
    between others like them. Whoever has many pairs ranks with them.

    Attributes:
        first: diagnosis of the first text.
        second: of the second.
        features: those that fire in either, largest difference first, whatever its sign.
        concepts: those that some feature belongs to, largest difference first.
    """

    first: Diagnosis
    second: Diagnosis
    features: tuple[FeatureDifference, ...]
    concepts: tuple[ConceptDifference, ...]

    def to_json(self, *, top: int | None = 5, threshold: float = 0.1) -> dict[str, Any]:
        """The shape that docs/diagnosis.md describes; arguments as in `Diagnosis.to_json`."""
        from safesail.diagnosis._json import comparison_json

        return comparison_json(self, top=top, threshold=threshold)


def compare(first: Diagnosis, second: Diagnosis) -> Comparison:
    """Lay two diagnoses of the same study side by side."""
    ones, others = largest_strengths(first), largest_strengths(second)
    features = []
    for key in ones.keys() | others.keys():
        found = ones.get(key) or others[key]
        features.append(FeatureDifference(found.feature, ones.get(key), others.get(key)))
    peaks = {trajectory.concept: trajectory.peak for trajectory in second.trajectories}
    concepts = [
        ConceptDifference(trajectory.concept, trajectory.peak, peaks.get(trajectory.concept, 0.0))
        for trajectory in first.trajectories
    ]
    return Comparison(
        first,
        second,
        tuple(sorted(features, key=_largest_first)),
        tuple(sorted(concepts, key=lambda one: -abs(one.difference))),
    )


def _largest_first(one: FeatureDifference) -> tuple[float, int, str, int]:
    feature = one.feature
    return -abs(one.difference), feature.layer, feature.sae, feature.feature


def _strength(firing: Firing | None) -> float:
    return 0.0 if firing is None else firing.strength
