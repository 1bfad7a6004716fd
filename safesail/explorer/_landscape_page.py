"""The landscape: an SAE's features in two dimensions by decoder direction."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from safesail.explorer._text import cut, visible

if TYPE_CHECKING:
    from safesail.explorer._pages import Pages

MapFeatures = Callable[[str], Iterable[tuple[int, float, float]]]
"""Features of an SAE, each with its two coordinates."""

_LONGEST = 160


class LandscapePage:
    """The page and the points that its script draws."""

    def __init__(self, pages: Pages, map_features: MapFeatures | None) -> None:
        self._pages = pages
        self._map = map_features
        # Placing features takes all cores: one request at a time.
        self._placing = threading.Lock()

    def page(self, request: Request) -> Response:
        """The page around the drawing."""
        overview = self._pages.explorer.overview
        given = request.query_params.get("sae", "")
        names = [each["sae"] for each in overview.saes]
        if given and given not in names:
            raise HTTPException(404, f"There is no SAE {given!r} with features in this study.")
        best = max(overview.saes, key=lambda each: each["scored"], default=None)
        sae = given or (best["sae"] if best else "")
        return self._pages.render(
            "landscape.html", "/landscape", sae=sae, names=names, can_map=self._map is not None
        )

    def points(self, request: Request) -> Response:
        """Columns of the points: places, concepts, what is known of each."""
        sae = request.query_params.get("sae", "")
        overview = self._pages.explorer.overview
        if self._map is None or sae not in {each["sae"] for each in overview.saes}:
            raise HTTPException(404, f"There is no landscape of {sae!r}.")
        with self._placing:
            places = {feature: (x, y) for feature, x, y in self._map(sae)}
        rows = self._pages.explorer.catalog.rows(
            "SELECT feature, concepts, explanation, status, discrimination "
            "FROM catalog WHERE sae = $sae ORDER BY feature",
            {"sae": sae},
        )
        rows = [row for row in rows if row["feature"] in places]
        names = list(dict.fromkeys(row["concepts"][0] for row in rows if row["concepts"]))
        number = {name: place for place, name in enumerate(names)}
        columns: dict[str, Any] = {
            "sae": sae,
            "concepts": [
                {"name": visible(name), "colour": overview.colour(name)} for name in names
            ],
            "feature": [row["feature"] for row in rows],
            "x": [round(float(places[row["feature"]][0]), 4) for row in rows],
            "y": [round(float(places[row["feature"]][1]), 4) for row in rows],
            "concept": [number[row["concepts"][0]] if row["concepts"] else -1 for row in rows],
            "text": [visible(cut(row["explanation"] or row["status"], _LONGEST)) for row in rows],
            "score": [_finite(row["discrimination"]) for row in rows],
        }
        return JSONResponse(columns)


def _finite(value: float | None) -> float | None:
    return round(value, 3) if value is not None and math.isfinite(value) else None
