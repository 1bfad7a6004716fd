"""Features in two dimensions, by the direction that their decoder writes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safesail.tables import Column, TableSchema

Method = Literal["t-sne", "pca"]

_DIMENSIONS = 50
_FEWEST, _MOST = 10, 5_000
"""With fewer features neighbours mean nothing; with more t-SNE takes minutes."""

FEATURE_MAP = TableSchema(
    "feature_map",
    1,
    "one row per chosen feature of an SAE, in two dimensions by decoder direction",
    (
        Column("sae", pa.string(), "name of the SAE", nullable=False),
        Column("layer", pa.int64(), "its layer", nullable=False),
        Column("feature", pa.int64(), "index of the latent in the SAE", nullable=False),
        Column("x", pa.float64(), "first coordinate, without unit", nullable=False),
        Column("y", pa.float64(), "second coordinate, without unit", nullable=False),
        Column("method", pa.string(), "`t-sne` or `pca`", nullable=False),
        Column("concept", pa.string(), "the first concept it belongs to; null where it has none"),
        Column("concepts", pa.list_(pa.string()), "all of them, with their ancestors"),
        Column("explanation", pa.string(), "its best explanation; null where it has none"),
        Column("discrimination", pa.float64(), "AUROC of that explanation on held-out text"),
        Column("discrimination_low", pa.float64(), "lower end of its 95 % interval"),
        Column("discrimination_high", pa.float64(), "upper end of its 95 % interval"),
    ),
)
"""Table `landscape/<sae>.parquet`."""


def method_for(features: int) -> Method:
    """t-SNE where there are enough features, and not too many."""
    return "t-sne" if _FEWEST <= features <= _MOST else "pca"


def place_features(directions: NDArray[np.float32], seed: int = 0) -> NDArray[np.float64]:
    """Coordinates of features, the same in every run.

    Principal components first (50 at most), then t-SNE by cosine distance; with very few or many
    features the first two principal components.

    Args:
        directions: [features, d], rows of length 1.
        seed: of t-SNE.

    Returns:
        float64 [features, 2].
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = directions.shape
    if method_for(count) == "pca":
        found = np.zeros((count, 2))
        kept = min(2, count - 1, width)
        if kept > 0:
            parts = PCA(kept, svd_solver="full").fit_transform(directions.astype(np.float64))
            found[:, :kept] = parts
        return found
    kept = min(_DIMENSIONS, count - 1, width)
    parts = PCA(kept, svd_solver="full").fit_transform(directions.astype(np.float64))
    neighbours = min(30.0, (count - 1) / 3)
    embedding = TSNE(
        perplexity=neighbours, metric="cosine", init="pca", random_state=seed, n_jobs=1
    )
    placed: NDArray[np.float64] = embedding.fit_transform(parts).astype(np.float64)
    return placed
