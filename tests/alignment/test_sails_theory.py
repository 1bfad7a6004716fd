"""The theory benchmark in its quick form: what holds of exact and of noisy dictionaries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.proof
def test_the_error_falls_linearly_and_rank_one_keeps_its_floor(tmp_path: Path) -> None:
    figure = tmp_path / "regimes.png"
    command = [
        sys.executable, "benchmarks/sails_theory.py",
        "--json", "--quick", "--figure", str(figure), "--workers", "2",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
    )
    found = json.loads(done.stdout)
    errors = {point["noise"]: point["error"] for point in found["sae_error_vs_noise"]}
    noises = np.array([0.3, 0.1, 0.03, 0.01])
    slope = np.polyfit(np.log(noises), np.log([errors[noise] for noise in noises]), 1)[0]
    assert 0.8 <= slope <= 1.2
    assert errors[0.01] < 0.05
    assert found["sae_error_exact"] < 0.02
    assert found["sae_error_exact_of_rank_features"] < 1e-3
    assert found["rank1_error"] == pytest.approx(found["rank1_floor"], rel=0.05)
    for one in found["by_rank"]:
        assert one["rank1_error"][0] == pytest.approx(one["rank1_floor"], rel=0.05)
        assert one["pca80_kept"][0] < one["rank"]  # a flat spectrum loses true directions
    assert found["learned_sae_error"] < found["raw_pca_error"] < found["random_error"]
    pairs = next(one for one in found["regimes"] if one["varied"] == "pairing")
    assert pairs["raw_pca"][0] < 0.1 < pairs["learned_sae"][0]
    assert figure.stat().st_size > 10_000
