"""Names that the commands need before anything is loaded: of routes, and of models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

Route = Literal[
    "sae",
    "raw_difference_pca",
    "covariance_difference",
    "mean_difference",
    "random",
    "random_features",
    "shuffled_labels",
]
ROUTES: tuple[Route, ...] = get_args(Route)
"""Every route to a subspace: the SAE's, the direct ones, then the controls."""

_HUB_NAME = re.compile(r"[\w-][\w.-]*(?:/[\w.-]+)?")


def is_hub_name(name: str) -> bool:
    """Whether a model's name is one of the Hugging Face hub, with or without organisation.

    What is the path of a folder here is none.
    """
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()
