"""What fires on a text: the result, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safesail.diagnosis._features import ExplainedFeature

Part = Literal["prompt", "answer"]


class DiagnosedToken(NamedTuple):
    """A token of the text, BOS left out.

    Attributes:
        text: what it adds to the text; joined, the tokens are the text.
        token_id: of the language model.
        part: `prompt` or `answer`.
        counted: False for a chat template's own words and special tokens, on which nothing fires.
    """

    text: str
    token_id: int
    part: Part
    counted: bool


class Firing(NamedTuple):
    """One feature on one token.

    Attributes:
        token: place of the token.
        feature: what is known of the feature.
        activation: the SAE's, above 0.
        strength: activation over q999; above 1 it is stronger than 999 of 1,000 activations.
    """

    token: int
    feature: ExplainedFeature
    activation: float
    strength: float


@dataclass(frozen=True, eq=False)
class LayerDiagnosis:
    """What the explained features of one SAE do on the text.

    Attributes:
        sae: its name.
        layer: its layer.
        hook_point: what it reads.
        features: its explained features, by index ascending.
        left_out: explained features without q999, which are not looked at.
        content: bool [tokens]: where features are read; False also at attention sinks.
        tokens: int64 [firings]: place of the token, ascending.
        columns: int64 [firings]: number of the feature in `features`.
        activations: float32 [firings], above 0.
        strengths: float32 [firings]: activation over q999.
    """

    sae: str
    layer: int
    hook_point: str
    features: tuple[ExplainedFeature, ...]
    left_out: tuple[int, ...]
    content: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    columns: NDArray[np.int64]
    activations: NDArray[np.float32]
    strengths: NDArray[np.float32]

    def firings(self, token: int) -> list[Firing]:
        """What fires on a token, in no order."""
        begin, end = np.searchsorted(self.tokens, [token, token + 1])
        return [self._firing(number) for number in range(begin, end)]

    def peaks(self) -> list[Firing]:
        """Of each feature that fires, where it is strongest; the first place of several."""
        order = np.lexsort((self.tokens, -self.strengths, self.columns))
        _, first = np.unique(self.columns[order], return_index=True)
        return [self._firing(number) for number in order[first]]

    def trajectory(self, concept: str) -> NDArray[np.float32]:
        """Largest strength among a concept's features, float32 [tokens]; NaN where none is read."""
        belongs = np.array([concept in feature.concepts for feature in self.features], dtype=bool)
        row = np.where(self.content & belongs.any(), np.float32(0), np.float32(np.nan))
        if belongs.any():
            mine = belongs[self.columns]
            np.maximum.at(row, self.tokens[mine], self.strengths[mine])
        return row

    def _firing(self, number: int) -> Firing:
        return Firing(
            int(self.tokens[number]),
            self.features[self.columns[number]],
            float(self.activations[number]),
            float(self.strengths[number]),
        )


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A concept over layers and tokens.

    Attributes:
        concept: its name.
        strengths: float32 [layers, tokens]: largest strength among the concept's features at that
            layer; NaN where none is read: the layer has no feature of the concept, or the token is
            no content there.
        features: per layer, how many of its features belong to the concept.
    """

    concept: str
    strengths: NDArray[np.float32]
    features: tuple[int, ...]

    @property
    def peak(self) -> float:
        """Largest strength anywhere; 0 where nothing fires or none is read."""
        return float(np.nan_to_num(self.strengths).max(initial=0.0))

    @property
    def peak_at(self) -> tuple[int, int]:
        """Row (of the layers) and token of the largest strength; (0, 0) where nothing fires."""
        if not self.strengths.size:
            return 0, 0
        place = int(np.nan_to_num(self.strengths).argmax())
        row, token = divmod(place, self.strengths.shape[1])
        return row, token


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Which explained features fire on each token of a text.

    Attributes:
        model: name of the language model.
        tokens: of the text and, where one was asked for, the answer.
        layers: by layer, then in the order of the study's candidates.
        concepts: those of the study that are asked about, parents before children.
        chat: whether the text was put into the model's chat template.
        answer_ended: whether the model ended its answer; None where none was asked for.
    """

    model: str
    tokens: tuple[DiagnosedToken, ...]
    layers: tuple[LayerDiagnosis, ...]
    concepts: tuple[str, ...]
    chat: bool
    answer_ended: bool | None

    @property
    def text(self) -> str:
        """What was read, a chat template's words included."""
        return "".join(token.text for token in self.tokens)

    def firings(
        self, token: int, *, top: int | None = None, threshold: float = 0.0
    ) -> list[Firing]:
        """What fires on a token over all layers, strongest first.

        Args:
            token: its place.
            top: at most so many; None for all.
            threshold: smallest strength.
        """
        found = [
            firing
            for layer in self.layers
            for firing in layer.firings(token)
            if firing.strength >= threshold
        ]
        return sorted(found, key=_strongest_first)[:top]

    def peaks(self, *, threshold: float = 0.0) -> list[Firing]:
        """Of each feature that fires somewhere, its strongest token, strongest first."""
        found = [firing for layer in self.layers for firing in layer.peaks()]
        return sorted((one for one in found if one.strength >= threshold), key=_strongest_first)

    @cached_property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """One per concept that some feature belongs to, in the order of `concepts`."""
        found = []
        for concept in self.concepts:
            counts = tuple(
                sum(concept in feature.concepts for feature in layer.features)
                for layer in self.layers
            )
            if any(counts):
                rows = np.stack([layer.trajectory(concept) for layer in self.layers])
                found.append(Trajectory(concept, rows, counts))
        return tuple(found)

    def to_json(self, *, top: int | None = 5, threshold: float = 0.1) -> dict[str, Any]:
        """The shape that docs/diagnosis.md describes.

        Args:
            top: at most so many firings of a token; None for all.
            threshold: smallest strength of a firing.
        """
        from safesail.diagnosis._json import diagnosis_json

        return diagnosis_json(self, top=top, threshold=threshold)


def _strongest_first(firing: Firing) -> tuple[float, int, str, int]:
    feature = firing.feature
    return -firing.strength, feature.layer, feature.sae, feature.feature


def largest_strengths(diagnosis: Diagnosis) -> dict[tuple[str, int], Firing]:
    """Of each feature that fires, its strongest firing, by SAE and index."""
    return {(one.feature.sae, one.feature.feature): one for one in diagnosis.peaks()}
