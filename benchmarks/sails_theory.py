"""How well does each route recover a subspace that is known, and does the advice name the best?

    python benchmarks/sails_theory.py [--json] [--quick] [--figure PATH] [--workers 2]

The error of a route is ‖P̂ - P‖_F, the Frobenius norm of the difference of projections, on the
worlds of `sails_worlds.py`. All figures are means over seeds with 95 % intervals (Student's t).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sails_advice import WITHIN, advised, judge, routes_of, texts_of
from sails_worlds import (
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    Parameters,
    Sides,
    World,
    learn,
    noisy,
)
from scipy.stats import t

from safesail.alignment import (
    contrast_features,
    mean_difference,
    projection_distance,
    random_basis,
    reduce_pca80,
    reduce_weighted,
)

SEEDS = (1, 2, 3, 4, 5)
NOISES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001, 0.0)
RANKS = (2, 4, 8, 16, 32)
BASE = Parameters()
SWEEPS: dict[str, tuple[float, ...]] = {
    "pairing": (0.5, 0.8, 1.0),
    "texts": (300, 10_000),
    "shift": (0.05, 0.1, 0.6),
    "active": (2, 16, 32),
    "noise": (0.03, 0.3, 1.0),
    "rank": (2, 4, 16),
    "cofiring": (0.5, 1.0),
    "dimensions": (64, 256),
    "sae_steps": (300,),
}
"""What is varied from the base world, one at a time."""
COLUMNS = ("learned_sae", "raw_pca", "cov_diff", "mean_difference", "random")


def with_dictionary(
    sides: Sides, directions: NDArray[np.float32], truth: NDArray[np.float32]
) -> dict[str, float]:
    """Errors of the SAE route with true activations and these directions, by reducer."""
    rank = truth.shape[1]
    contrast = contrast_features(sides.aligned_codes, sides.unaligned_codes)
    size = np.abs(contrast.difference)
    found = {}
    for name, count in (("weighted", 4 * rank), ("rank_features", rank)):
        chosen = contrast.order()[:count]
        basis = reduce_weighted(directions[chosen], size[chosen], rank).basis
        found[name] = projection_distance(basis, truth)
    basis = reduce_pca80(directions[contrast.order()[:rank]]).basis
    return {**found, "pca80": projection_distance(basis, truth), "pca80_rank": basis.shape[1]}


def by_rank(seed: int, rank: int, noises: Sequence[float]) -> dict[str, Any]:
    """One seed of the theory's own claims: dictionaries from exact to useless, and rank one."""
    world = World(replace(BASE, rank=rank), seed)
    sides, truth = world.sides(), world.truth()
    mean = mean_difference(sides.aligned, sides.unaligned).basis
    return {
        "noise": [
            with_dictionary(sides, noisy(world.directions, noise, seed), truth) for noise in noises
        ],
        "rank1": projection_distance(mean, truth),
    }


def errors(seed: int, worlds: Sequence[Parameters]) -> list[dict[str, float]]:
    """Errors of all routes in worlds that share one learned SAE."""
    sae = learn(World(worlds[0], seed), seed)
    found = []
    for parameters in worlds:
        world = World(parameters, seed)
        sides, truth = world.sides(), world.truth()
        texts = texts_of(sides, sae, parameters)
        rank, width = parameters.rank, parameters.dimensions
        bases = {
            **routes_of(texts, sae, rank),
            "mean_difference": mean_difference(sides.aligned, sides.unaligned).basis,
            "random": random_basis(width, rank, seed=seed).basis,
        }
        found.append(
            {
                **{name: projection_distance(basis, truth) for name, basis in bases.items()},
                "fvu": sae.fvu,
            }
        )
    return found


def interval(values: Sequence[float]) -> list[float]:
    """Mean over seeds with its 95 % interval; without one where there is a single seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return [mean, mean, mean]
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return [mean, mean - half, mean + half]


def theory(pool: ProcessPoolExecutor, seeds: Sequence[int], ranks: Sequence[int]) -> dict[str, Any]:
    """The claims of the paper's theory."""
    jobs = [(seed, rank) for rank in ranks for seed in seeds]
    done = pool.map(by_rank, *zip(*jobs, strict=True), [NOISES] * len(jobs))
    found = dict(zip(jobs, done, strict=True))

    def noise(rank: int, place: int, reducer: str) -> list[float]:
        return interval([found[seed, rank]["noise"][place][reducer] for seed in seeds])

    exact, base = NOISES.index(0.0), BASE.rank
    return {
        "sae_error_exact": noise(base, exact, "weighted")[0],
        "sae_error_exact_of_rank_features": noise(base, exact, "rank_features")[0],
        "sae_error_vs_noise": [
            {"noise": value, "error": mean, "low": low, "high": high}
            for place, value in enumerate(NOISES)
            for mean, low, high in [noise(base, place, "weighted")]
        ],
        "rank1_error": interval([found[seed, base]["rank1"] for seed in seeds])[0],
        "rank1_floor": (base - 1) ** 0.5,
        "by_rank": [
            {
                "rank": rank,
                "rank1_error": interval([found[seed, rank]["rank1"] for seed in seeds]),
                "rank1_floor": (rank - 1) ** 0.5,
                "sae_error_at_0.01": noise(rank, NOISES.index(0.01), "weighted"),
                "pca80_kept": noise(rank, exact, "pca80_rank"),
                "pca80_error": noise(rank, exact, "pca80"),
            }
            for rank in ranks
        ],
    }


def regimes(
    pool: ProcessPoolExecutor, seeds: Sequence[int], sweeps: dict[str, tuple[float, ...]]
) -> list[dict[str, Any]]:
    """Errors of all routes in the base world and with one parameter changed at a time."""
    kind = type(BASE)
    settings = [("base", 0.0, BASE)]
    for name, values in sweeps.items():
        whole = isinstance(getattr(BASE, name), int)
        for value in values:
            changed = kind(**{**asdict(BASE), name: int(value) if whole else float(value)})
            settings.append((name, value, changed))
    # Texts and pairing are no matter of general data: these worlds share the base's SAE.
    shared = [one for one in settings if one[0] in ("base", "texts", "pairing")]
    groups = [shared, *([one] for one in settings if one not in shared)]
    jobs = [(seed, [one[2] for one in group]) for group in groups for seed in seeds]
    done = list(pool.map(errors, *zip(*jobs, strict=True)))
    by_setting: dict[tuple[str, float], list[dict[str, float]]] = {}
    for place, found in enumerate(done):
        for (name, value, _), one in zip(groups[place // len(seeds)], found, strict=True):
            by_setting.setdefault((name, value), []).append(one)
    return [
        {
            "varied": name,
            "value": value,
            "rank": parameters.rank,
            **{
                column: interval([one[column] for one in by_setting[name, value]])
                for column in (*COLUMNS, "fvu")
            },
        }
        for name, value, parameters in settings
    ]


def draw_figure(found: Sequence[dict[str, Any]], path: Path) -> None:
    """The map of regimes: a row for each world, a column for each route."""
    from matplotlib.figure import Figure

    heads = ("learned SAE", "raw-difference\nPCA", "covariance\ndifference",
             "difference\nof means", "random")  # fmt: skip
    errors = np.array([[one[column][0] for column in COLUMNS] for one in found])
    most = np.sqrt(2 * np.array([one["rank"] for one in found]))[:, None]
    figure = Figure(figsize=(7, 0.32 * len(found) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(errors / most, cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
    for row, values in enumerate(errors):
        best = values[:3].min()
        for column, value in enumerate(values):
            dark = value / most[row, 0] > 0.55
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                color="white" if dark else "black",
                fontweight="bold" if column < 3 and value <= WITHIN * best else "normal",
            )  # fmt: skip
    labels = [
        "base world" if one["varied"] == "base"
        else f"{one['varied'].replace('_', ' ')} {one['value']:g}"
        for one in found
    ]  # fmt: skip
    axes.set_yticks(range(len(found)), labels, fontsize=8)
    axes.set_xticks(range(len(COLUMNS)), heads, fontsize=8)
    axes.xaxis.tick_top()
    figure.colorbar(image, label="error over its largest value, √(2r)", shrink=0.6)
    figure.savefig(path, dpi=150)


def run(*, quick: bool, workers: int, training: bool = False) -> dict[str, Any]:
    """All figures; in the quick form of fewer seeds, worlds and configurations."""
    # One thread each: a world's arithmetic is then the same however many are at work.
    os.environ["OMP_NUM_THREADS"] = "1"
    seeds = SEEDS[:2] if quick else SEEDS
    sweeps = {"pairing": (1.0,)} if quick else SWEEPS
    # A trial must not look at what judges.
    judging = TRAINING_SEEDS[:6] if quick else HELD_OUT_SEEDS
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        result = theory(pool, seeds, (4, BASE.rank) if quick else RANKS)
        found = regimes(pool, seeds, sweeps)
        result |= {
            f"{name}_error": found[0][name][0] for name in COLUMNS if name != "mean_difference"
        }
        result["regimes"] = found
        result |= judge(list(pool.map(advised, judging)))
        if training:
            result |= judge(list(pool.map(advised, TRAINING_SEEDS)), "training_advice")
    return {**result, "seeds": len(seeds)}


def show(result: dict[str, Any]) -> None:
    """Print the result as tables."""
    for point in result["sae_error_vs_noise"]:
        print(
            f"dictionary noise {point['noise']:<6g} error of the SAE route {point['error']:.3f} "
            f"[{point['low']:.3f}, {point['high']:.3f}]"
        )
    for one in result["by_rank"]:
        print(
            f"rank {one['rank']:2}: difference of means {one['rank1_error'][0]:.3f}, floor "
            f"{one['rank1_floor']:.3f}; pca80 keeps {one['pca80_kept'][0]:.1f}, error "
            f"{one['pca80_error'][0]:.2f}"
        )
    print(f"\n{'':24}" + "".join(f"{name:>24}" for name in COLUMNS))
    for one in result["regimes"]:
        cells = [f"{one[c][0]:.2f} [{one[c][1]:.2f}, {one[c][2]:.2f}]" for c in COLUMNS]
        label = f"{one['varied']} {one['value']:g}"
        print(f"{label:24}" + "".join(f"{cell:>24}" for cell in cells))
    print(f"\nlearned SAE's FVU in the base world: {result['regimes'][0]['fvu'][0]:.3f}")
    for name, value in result.items():
        if "advice" in name:
            print(f"{name}: {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a minute: says little")
    parser.add_argument("--training", action="store_true", help="also judge the rules' own worlds")
    parser.add_argument("--figure", type=Path, help="PNG of the map of regimes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    result = run(quick=arguments.quick, workers=arguments.workers, training=arguments.training)
    if arguments.figure:
        draw_figure(result["regimes"], arguments.figure)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)


if __name__ == "__main__":
    main()
