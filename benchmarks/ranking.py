"""Does what `rank-saes` puts first turn out best after explanation?

    python benchmarks/ranking.py [--json] [--folder build/ranking] [--workers 2]

The target, the seeds and the aims are in docs/ranking.md. Worlds are built on the first run (about
a quarter of an hour each on one core) and kept in the folder; the metrics take some 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, t

CHOOSE = (101, 102, 103)
JUDGE = (201, 202, 203, 204, 205, 206)
PAIRS = (10, 20, 40, 80)
REPEATS = 3
DEFAULT = "separating_features"
FIXED_L0 = (4, 8, 16, 32, 64)
BASELINES = ("fvu", "raw_l0", "fixed_l0", "random", "probe5")


@dataclass(frozen=True)
class Agreement:
    """How a metric agrees with the target in one world.

    Attributes:
        tau: Kendall's tau-b with the yield.
        tau_best: the same with the mean average precision of the best features.
        regret: of the first place, as a share of the yield's range.
    """

    tau: float
    tau_best: float
    regret: float


def agreement(says: dict[str, float], truth: dict[str, Any]) -> Agreement:
    """Hold what a metric says of each candidate against what is true of it."""
    names = sorted(truth)
    value = np.array([says[name] for name in names])
    target = np.array([float(truth[name].total) for name in names])
    best = np.array([np.mean(list(truth[name].best.values())) for name in names])
    first = target[value >= value.max() - 1e-12].mean()
    return Agreement(
        tau=_tau(value, target),
        tau_best=_tau(value, best),
        regret=float((target.max() - first) / (target.max() - target.min())),
    )


def _tau(value: np.ndarray, target: np.ndarray) -> float:
    tau = float(kendalltau(value, target).statistic)
    return tau if np.isfinite(tau) else 0.0  # a metric that says the same of all orders nothing


def world_agreements(seed: int, folder: Path) -> dict[int, dict[str, list[Agreement]]]:
    """By pairs a concept (0: all) and metric, one agreement a draw of pairs."""
    import torch
    from ranking_metrics import metrics, open_world, some_pairs

    torch.set_num_threads(1)
    world = open_world(seed, folder)
    found: dict[int, dict[str, list[Agreement]]] = {}
    draws = [(0, 0)]
    if seed in JUDGE:
        draws += [(count, repeat) for count in PAIRS for repeat in range(REPEATS)]
    for count, repeat in draws:
        pairs = some_pairs(world.pairs, count, repeat) if count else world.pairs
        says = metrics(world, pairs)
        l0 = says["raw_l0"]
        for level in FIXED_L0:
            says[f"fixed_l0_{level}"] = {
                name: -abs(float(np.log2(max(value, 0.1) / level))) for name, value in l0.items()
            }
        says["raw_l0_low"] = {name: -value for name, value in l0.items()}
        generator = np.random.default_rng([seed, repeat])
        says["random"] = {name: float(generator.random()) for name in l0}
        for metric, values in says.items():
            found.setdefault(count, {}).setdefault(metric, []).append(
                agreement(values, world.truth)
            )
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over worlds with its 95 % interval (Student's t; each world has pairs of its own)."""
    mean = float(np.mean(values))
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, mean - float(half), mean + float(half)


def judge(worlds: dict[int, dict[int, dict[str, list[Agreement]]]]) -> dict[str, Any]:
    """Choose what is to be chosen on the first worlds, and judge on the others."""

    def tau(metric: str, seeds: Sequence[int]) -> list[float]:
        return [worlds[seed][0][metric][0].tau for seed in seeds]

    def chosen(metrics: Sequence[str]) -> str:
        return max(metrics, key=lambda metric: float(np.mean(tau(metric, CHOOSE))))

    settled = {
        "fixed_l0": chosen([f"fixed_l0_{level}" for level in FIXED_L0]),
        "raw_l0": chosen(["raw_l0", "raw_l0_low"]),
    }
    aliases = {name for name in worlds[CHOOSE[0]][0] if name.startswith(("fixed_l0", "raw_l0"))}
    measured = [name for name in worlds[CHOOSE[0]][0] if name not in aliases]
    source = {name: settled.get(name, name) for name in [*measured, *settled]}
    best = max(BASELINES, key=lambda name: float(np.mean(tau(source[name], CHOOSE))))
    lead = np.subtract(tau(DEFAULT, JUDGE), tau(source[best], JUDGE))
    return {
        "default": DEFAULT,
        "best_baseline": best,
        "settled_on_choosing_worlds": settled,
        "tau_lead_over_best_baseline": interval(lead),
        "tau_choosing": {n: float(np.mean(tau(s, CHOOSE))) for n, s in source.items()},
        "tau": {n: interval(tau(s, JUDGE))[0] for n, s in source.items()},
        "tau_interval": {n: interval(tau(s, JUDGE))[1:] for n, s in source.items()},
        "tau_by_world": {
            n: dict(zip(JUDGE, tau(s, JUDGE), strict=True)) for n, s in source.items()
        },
        "tau_best_feature": {
            n: float(np.mean([worlds[w][0][s][0].tau_best for w in JUDGE]))
            for n, s in source.items()
        },
        "regret_at_1": {
            n: interval([worlds[w][0][s][0].regret for w in JUDGE])[0] for n, s in source.items()
        },
        "regret_interval": {
            n: interval([worlds[w][0][s][0].regret for w in JUDGE])[1:] for n, s in source.items()
        },
        "pairs_curve": [
            {
                "pairs": count or 160,
                "tau": {
                    n: interval(_over_draws(worlds, count, s, "tau"))[0] for n, s in source.items()
                },
                "regret_at_1": {
                    n: interval(_over_draws(worlds, count, s, "regret"))[0]
                    for n, s in source.items()
                },
            }
            for count in (*PAIRS, 0)
        ],
    }


def _over_draws(worlds: dict[int, Any], count: int, metric: str, what: str) -> list[float]:
    """Mean over draws of pairs, by judging world."""
    return [
        float(np.mean([getattr(one, what) for one in worlds[seed][count][metric]]))
        for seed in JUDGE
    ]


def show(result: dict[str, Any]) -> None:
    """Print the result as a table, best metric first."""
    print(f"{'metric':22}{'tau [95 %]':>24}{'choosing':>10}{'best AP':>9}{'regret [95 %]':>24}")
    for name in sorted(result["tau"], key=lambda name: -result["tau"][name]):
        low, high = result["tau_interval"][name]
        least, most = result["regret_interval"][name]
        print(
            f"{name:22}{result['tau'][name]:10.2f} [{low:5.2f}, {high:5.2f}]"
            f"{result['tau_choosing'][name]:10.2f}{result['tau_best_feature'][name]:9.2f}"
            f"{result['regret_at_1'][name]:10.2f} [{least:5.2f}, {most:5.2f}]"
        )
    mean, low, high = result["tau_lead_over_best_baseline"]
    print(f"\nlead in tau over {result['best_baseline']}: {mean:.2f} [{low:.2f}, {high:.2f}]")
    print("\npairs a concept: tau and regret of the default order, tau of the best baseline")
    for point in result["pairs_curve"]:
        print(
            f"{point['pairs']:6}{point['tau'][DEFAULT]:8.2f}{point['regret_at_1'][DEFAULT]:8.2f}"
            f"{point['tau'][result['best_baseline']]:8.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("build/ranking"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    # One thread each: a world's arithmetic is then the same however many are built at once.
    os.environ["OMP_NUM_THREADS"] = "1"
    seeds = (*CHOOSE, *JUDGE)
    with ProcessPoolExecutor(arguments.workers) as pool:
        found = pool.map(world_agreements, seeds, [arguments.folder] * len(seeds))
        worlds = dict(zip(seeds, found, strict=True))
    result = judge(worlds)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)


if __name__ == "__main__":
    main()
