"""The page that shows what fires on a text."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from safesail.errors import SafesailError
from safesail.explorer._text import cut, visible

if TYPE_CHECKING:
    from safesail.diagnosis import Diagnosis, Firing
    from safesail.explorer._pages import Pages

LONGEST_TEXT = 20_000
"""Characters of a text that the page diagnoses; the command takes more."""

_TOP = 8
_LEAST_STRENGTH = 0.05
_PEAKS = 25
_LONGEST = 200


class CanDiagnose(Protocol):
    """A loaded model with its explained SAEs."""

    def diagnose(self, text: str) -> Diagnosis:
        """What fires on each token of a text."""


OpenDiagnoser = Callable[[], CanDiagnose]


class DiagnosePage:
    """The form and its results; the model is loaded with the first text."""

    def __init__(self, pages: Pages, open_diagnoser: OpenDiagnoser | None) -> None:
        self._pages = pages
        self._open = open_diagnoser
        self._diagnoser: CanDiagnose | None = None
        # One model, and one text at a time.
        self._working = threading.Lock()

    def empty(self, request: Request) -> Response:
        """The form."""
        return self._render("", "", [])

    async def diagnose(self, request: Request) -> Response:
        """The form with what fires."""
        fields = await self._pages.token.form(request)
        texts = [_unbroken(fields.get(name, [""])[0]) for name in ("text", "other")]
        return await run_in_threadpool(self._diagnose, *texts)

    def _diagnose(self, text: str, other: str) -> Response:
        wanted = [each for each in (text, other) if each.strip()]
        if not wanted:
            return self._render(text, other, [], "Write a text first.")
        longest = max(map(len, wanted))
        if longest > LONGEST_TEXT:
            line = (
                f"The text has {longest:,} characters; this page takes {LONGEST_TEXT:,}, "
                "`safesail diagnose -` more."
            )
            return self._render(text[:LONGEST_TEXT], other[:LONGEST_TEXT], [], line)
        if self._open is None:
            return self._render(text, other, [], "This server was started without a model.")
        try:
            with self._working:
                self._diagnoser = self._diagnoser or self._open()
                found = [self._diagnoser.diagnose(each) for each in wanted]
        except SafesailError as error:
            return self._render(text, other, [], str(error))
        return self._render(text, other, found)

    def _render(self, text: str, other: str, found: list[Diagnosis], fault: str = "") -> Response:
        return self._pages.render(
            "diagnose.html",
            "/diagnose",
            status=422 if fault else 200,
            text=text,
            other=other,
            fault=fault,
            token=self._pages.token.value,
            can_diagnose=self._open is not None,
            results=[_result(each) for each in found],
            differences=_differences(*found) if len(found) == 2 else [],
        )


def _result(diagnosis: Diagnosis) -> dict[str, Any]:
    """What the page draws of a text, and as `data` what its script reads."""
    known: dict[tuple[str, int], int] = {}
    features: list[dict[str, Any]] = []
    firings = []
    strongest = []
    for place in range(len(diagnosis.tokens)):
        found = diagnosis.firings(place, top=_TOP, threshold=_LEAST_STRENGTH)
        entries = []
        for firing in found:
            key = (firing.feature.sae, firing.feature.feature)
            if key not in known:
                known[key] = len(features)
                features.append(_feature(firing))
            entries.append([known[key], round(firing.strength, 3), round(firing.activation, 3)])
        firings.append(entries)
        strongest.append(found[0].strength if found else 0.0)
    tokens = [
        {
            "text": visible(token.text),
            "part": token.part,
            "counted": token.counted,
            "level": _level(strength),
        }
        for token, strength in zip(diagnosis.tokens, strongest, strict=True)
    ]
    return {
        "tokens": tokens,
        "peaks": diagnosis.peaks(threshold=_LEAST_STRENGTH)[:_PEAKS],
        "data": {
            "tokens": [token["text"] for token in tokens],
            "features": features,
            "firings": firings,
            "layers": [{"sae": layer.sae, "layer": layer.layer} for layer in diagnosis.layers],
            "trajectories": [
                {
                    "concept": visible(each.concept),
                    "peak": round(each.peak, 3),
                    # NaN: nothing is read there.
                    "strengths": [[_finite(value) for value in row] for row in each.strengths],
                }
                for each in sorted(diagnosis.trajectories, key=lambda each: -each.peak)
            ],
        },
    }


def _feature(firing: Firing) -> dict[str, Any]:
    feature = firing.feature
    return {
        "sae": feature.sae,
        "layer": feature.layer,
        "feature": feature.feature,
        "text": visible(cut(feature.explanation or feature.status, _LONGEST)),
        "concepts": [visible(concept) for concept in feature.concepts],
        "score": _finite(feature.discrimination),
        "low": _finite(feature.discrimination_low),
        "high": _finite(feature.discrimination_high),
    }


def _differences(first: Diagnosis, second: Diagnosis) -> list[dict[str, Any]]:
    """Features by how much stronger they get in one of two texts than in the other."""
    strongest: dict[tuple[str, int], list[float]] = {}
    features = {}
    for place, diagnosis in enumerate((first, second)):
        for peak in diagnosis.peaks():
            key = (peak.feature.sae, peak.feature.feature)
            features[key] = peak.feature
            strongest.setdefault(key, [0.0, 0.0])[place] = peak.strength
    most = sorted(strongest.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
    return [
        {"feature": features[key], "first": a, "second": b, "difference": b - a}
        for key, (a, b) in most[:_PEAKS]
    ]


def _level(strength: float) -> int:
    """Tenths of q999, at most 10; 0 where nothing fires."""
    return min(10, max(1, round(10 * strength))) if strength > 0 else 0


def _finite(value: float | None) -> float | None:
    return round(float(value), 3) if value is not None and math.isfinite(value) else None


def _unbroken(text: str) -> str:
    """Text with line feeds as people write them, and no half of a surrogate pair."""
    return text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
