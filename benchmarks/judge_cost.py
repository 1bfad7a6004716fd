"""What explaining and scoring a feature costs, and whether the scores mean what they say.

python benchmarks/judge_cost.py [--json] [--features N] [--folder F] [--quality good ...]

Every figure goes through the real client against the lab's known-truth judge in a process of its
own, at three qualities: misses .05 / .15 / .30, false alarms a token .003 / .01 / .03, an error
shared by each prompt. Tokens are characters / 4 on both sides, instructions included; windows have
at most 32 tokens. Features are those that the ranking of five of the lab's SAEs chose
(`judge_pool.py`), N of them drawn at random.

For each quality:

- `median_tokens_per_feature`: explain and score at precision 0.10, adaptive short items, on the
  windows that a study keeps by default; pilot features included.
- `reference_tokens_per_feature`: the fixed protocol: 40 windows to explain, detection and fuzzing
  on 100 windows each, 5 a prompt, on some of the features.
- `cost_ratio`: the second over the first. `cost_ratio_at_equal_precision`: the same with the
  adaptive scores as precise as detection is (its median half-width).
- `segment_cost_reduction`: 1 less the tokens of segment simulation (every segment graded 0 to 3, 20
  windows a prompt) over those of token simulation (every token 0 to 10 as a JSON list, 10 windows a
  prompt), on the same windows. `items_cost_reduction`: of short items against token simulation,
  both scaled to a half-width of 0.10 (a variance falls as one over the windows).
- `segment_spearman`: rank agreement of the correlations of segment and of token simulation over all
  windows. `discrimination_spearman`: of the adaptive discrimination with that of token simulation
  over all windows; `reference_correlation_spearman` and `reference_spearman`: of token simulation
  with itself on two halves of its windows, the noise of those references.
  `reference_truth_spearman`, `adaptive_truth_spearman`: of token simulation over all windows, and
  of the adaptive scores, with the true discrimination of short items.
- `coverage_95`: share of runs whose final interval holds the true discrimination, that of the
  judge's exact grade distribution over all windows; `coverage_95_adversarial`: the same where the
  run ends at whichever look is wrong, if any is.
- `dry_run_error`: tokens that a dry run foretold after the pilot, over those used, less 1;
  `dry_run_error_unknown_judge`: the same by a dry run that knows nothing of the judge.

And over the run, with one quality (`choice_quality`), on a pool of which about a fifth are findable
(`judge_choice.py`): `active_tokens_to_80_percent`, `random_tokens_to_80_percent` and
`oracle_tokens_to_80_percent`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import judge_pool
from judge_bench import Bench
from judge_choice import active_choice
from judge_reference import agreement, fixed_protocol

from safesail.explaining import Scoring
from safesail.lab.judge import KnownTruthJudge

QUALITIES = ("good", "medium", "poor")
# With a medium judge too few of the lab's features discriminate above 0.75.
CHOICE_QUALITY = "good"
PROTOCOL_FEATURES, AGREEMENT_FEATURES = 60, 120


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--features", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="keeps the pool and the answers for a next run")
    parser.add_argument("--quality", action="append", choices=QUALITIES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        pool = judge_pool.build(folder / "study")
        result: dict[str, Any] = {}
        for quality in options.quality or QUALITIES:
            cache = folder / f"{quality}.sqlite"
            with KnownTruthJudge.in_a_process("--quality", quality) as server:
                began = time.monotonic()
                bench = Bench(pool, options.features, quality, server.url, cache)
                result[quality] = measured(bench)
                result[quality]["seconds"] = round(time.monotonic() - began)
                if quality == CHOICE_QUALITY:
                    everything = Bench(pool, len(pool.evidence), quality, server.url, cache)
                    result["choice_quality"] = quality
                    result |= active_choice(everything)
    print(json.dumps(result, indent=2) if options.json else table(result))


def measured(bench: Bench) -> dict[str, Any]:
    """Every figure of a quality."""
    rows = bench.run(bench.usual, Scoring())
    found = bench.cost(rows)
    found |= fixed_protocol(bench, rows, PROTOCOL_FEATURES)
    found["cost_ratio"] = found["reference_tokens_per_feature"] / found["median_tokens_per_feature"]
    found |= agreement(bench, rows, AGREEMENT_FEATURES)
    found |= bench.coverage()
    found |= bench.dry_run(rows)
    return found


def table(result: dict[str, Any]) -> str:
    """The figures, a column for each quality, then those over the run."""
    qualities = {name: one for name, one in result.items() if isinstance(one, dict)}
    lines = [f"{'':32}" + "".join(f"{name:>12}" for name in qualities)]
    for figure, value in next(iter(qualities.values())).items():
        if not isinstance(value, list):
            cells = "".join(f"{_said(one[figure]):>12}" for one in qualities.values())
            lines.append(f"{figure:32}{cells}")
    rest = {k: v for k, v in result.items() if k not in qualities and not isinstance(v, list)}
    lines += ["", *(f"{name:32}{_said(value):>12}" for name, value in rest.items())]
    return "\n".join(lines)


def _said(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3f}"


if __name__ == "__main__":
    main()
