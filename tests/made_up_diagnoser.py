"""Diagnoses without a model: each word is a token, and words decide what fires."""

from __future__ import annotations

import re

import numpy as np

from safesail.diagnosis import DiagnosedToken, Diagnosis, ExplainedFeature, LayerDiagnosis
from safesail.errors import InputError
from safesail.study import Study
from safesail.tables import EXPLANATIONS, read_table

_STRENGTHS = {"savings": 1.2, "stolen": 0.6, "nurse": 0.3}


class MadeUpDiagnoser:
    """Stands in for the model: on some words the first two features of each SAE fire."""

    def __init__(self, study: Study) -> None:
        self._features = {sae: self._explained(study, sae) for sae in ("first", "second")}

    def diagnose(self, text: str) -> Diagnosis:
        """What fires, by the words."""
        words = re.findall(r"\s*\S+", text)
        if not words:
            raise InputError("the text has no words")
        tokens = tuple(DiagnosedToken(word, n, "prompt", True) for n, word in enumerate(words))
        layers = tuple(
            self._layer(sae, features, words) for sae, features in self._features.items()
        )
        return Diagnosis("made up", tokens, layers, ("violence", "fraud"), False, None)

    def _layer(
        self, sae: str, features: tuple[ExplainedFeature, ...], words: list[str]
    ) -> LayerDiagnosis:
        hits = [
            (place, column, _STRENGTHS[word.strip(" .,")] / (column + 1))
            for place, word in enumerate(words)
            if word.strip(" .,") in _STRENGTHS
            for column in range(2)
        ]
        places, columns, strengths = np.array(hits or np.empty((0, 3))).T
        return LayerDiagnosis(
            sae=sae,
            layer=features[0].layer,
            hook_point=f"blocks.{features[0].layer}.hook_resid_post",
            features=features,
            left_out=(),
            content=np.ones(len(words), dtype=bool),
            tokens=places.astype(np.int64),
            columns=columns.astype(np.int64),
            activations=(4 * strengths).astype(np.float32),
            strengths=strengths.astype(np.float32),
        )

    @staticmethod
    def _explained(study: Study, sae: str) -> tuple[ExplainedFeature, ...]:
        rows = read_table(study.explanations(sae), EXPLANATIONS).to_pylist()
        judged = [row for row in rows if row["explainer"] == "judge" and row["language"] == "en"]
        return tuple(
            ExplainedFeature(
                sae=sae,
                layer=row["layer"],
                feature=row["feature"],
                q999=4.0,
                explanation=row["explanation"],
                explained_by="made-up-judge",
                status=row["status"],
                concepts=("fraud",) if row["feature"] % 2 else ("violence",),
                labelled_by="judge",
                discrimination=row["discrimination"],
                discrimination_low=row["discrimination_low"],
                discrimination_high=row["discrimination_high"],
            )
            for row in judged[:2]
        )
