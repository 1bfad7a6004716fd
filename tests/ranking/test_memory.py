"""What the scoring of a wide SAE takes of memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# 12 concepts, 2,000 pairs, 65,536 features: a twentieth fire on a text, twenty for each concept.
_SCORE = """
import json, resource
import numpy as np
from safesail.concepts import ConceptSet, ContrastPair
from safesail.ranking._design import PairDesign
from safesail.ranking._score import score_candidate
from safesail.study import RankingSettings

pairs = [ContrastPair(f"c{n % 12}", f"yes {n}", f"no {n}") for n in range(2_000)]
design = PairDesign.of(ConceptSet(pairs), seed=0)
generator = np.random.default_rng(0)
pooled = np.zeros((len(design.texts), 65_536), dtype=np.float32)
for text in range(len(pooled)):
    fire = generator.integers(0, pooled.shape[1], pooled.shape[1] // 20)
    pooled[text, fire] = generator.exponential(size=len(fire))
for concept, role in enumerate(design.roles.values()):
    planted = slice(100 * concept, 100 * concept + 20)
    pooled[role.positive, planted] += 3
q999 = np.full(pooled.shape[1], 4, dtype=np.float32)
scores = score_candidate(pooled, q999, design, RankingSettings())
print(json.dumps({
    "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    "separating": [score.separating.count for score in scores],
}))
"""


@pytest.mark.proof
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_a_wide_sae_is_scored_within_four_gigabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCORE], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["separating"] == [20] * 12
    assert found["gigabytes"] < 4
