"""The worlds of `benchmarks/sails_theory.py`: concepts in superposition, of which some shift.

A hidden state is Σ a_i d_i + noise: concepts with unit directions d_i at random, more of them than
dimensions, each firing with a small probability. Of r concepts the firing probability differs
between aligned and unaligned texts; the truth is the span of their directions. A world is made
from its seed and its parameters alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

STRENGTHS = (0.5, 1.5)
"""A firing concept's strength is uniform between these."""


@dataclass(frozen=True)
class Parameters:
    """What a world is like.

    Attributes:
        dimensions: of hidden states.
        concepts: in them.
        rank: concepts that shift, r.
        active: mean number of concepts that fire at once.
        noise: norm of the hidden state's noise, in mean strengths of a concept.
        texts: of each side.
        pairing: probability that a concept that does not shift is the same in both texts of a pair;
            0 says that texts are no pairs.
        shift: mean difference in firing probability of a concept that shifts.
        cofiring: probability that all that shift fire, or not, as one.
        sae_width: features of the learned SAE over concepts.
        sae_k: features that it may use at once over `active`.
        sae_steps: of its training, each on 256 states.
    """

    dimensions: int = 128
    concepts: int = 512
    rank: int = 8
    active: float = 8.0
    noise: float = 0.1
    texts: int = 2000
    pairing: float = 0.0
    shift: float = 0.3
    cofiring: float = 0.0
    sae_width: float = 1.0
    sae_k: float = 1.0
    sae_steps: int = 1500


@dataclass(frozen=True)
class Sides:
    """Texts of both sides: hidden states [texts, d] and true activations [texts, concepts]."""

    aligned: NDArray[np.float32]
    unaligned: NDArray[np.float32]
    aligned_codes: NDArray[np.float32]
    unaligned_codes: NDArray[np.float32]


class World:
    """A world of some parameters."""

    def __init__(self, parameters: Parameters, seed: int) -> None:
        self.parameters = parameters
        self._seed = seed
        generator = np.random.default_rng([seed, 0])
        rows = generator.standard_normal((parameters.concepts, parameters.dimensions))
        self.directions = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self._generator = generator
        self._shifted = np.arange(parameters.rank)
        self._base = parameters.active / parameters.concepts
        size = parameters.shift * generator.uniform(0.5, 1.5, parameters.rank)
        side = generator.integers(0, 2, parameters.rank)
        # Some concepts fire more on aligned texts, the others on unaligned ones.
        self._rates = np.minimum(self._base + size * np.stack([side, 1 - side]), 1.0)

    def truth(self) -> NDArray[np.float32]:
        """Orthonormal basis of the shifted concepts' span, [d, r]."""
        return np.linalg.qr(self.directions[self._shifted].T)[0]

    def sides(self) -> Sides:
        """Texts of both sides, row i of both a pair where the world has pairs."""
        self._generator = np.random.default_rng([self._seed, 1])
        count = self.parameters.texts
        aligned, unaligned = self._codes(count), self._codes(count)
        same = self._generator.random(aligned.shape, dtype=np.float32) < self.parameters.pairing
        unaligned = np.where(same, aligned, unaligned)
        for codes, rates in zip((aligned, unaligned), self._rates, strict=True):
            codes[:, self._shifted] = self._shifting(count, rates)
        return Sides(self._hidden(aligned), self._hidden(unaligned), aligned, unaligned)

    def general(self, count: int, part: int) -> NDArray[np.float32]:
        """Hidden states of general text; each part (2 and up) is of its own.

        The concepts that shift fire as in aligned texts in a quarter of the states, as in unaligned
        ones in another, and as rarely as all others in the rest.
        """
        self._generator = np.random.default_rng([self._seed, part])
        codes = self._codes(count)
        for place, rates in enumerate(self._rates):
            rows = slice(place, None, 4)
            codes[rows, self._shifted] = self._shifting(len(codes[rows]), rates)
        rest = np.arange(count) % 4 >= 2
        still = np.full(self.parameters.rank, self._base)
        codes[np.ix_(rest, self._shifted)] = self._shifting(int(rest.sum()), still)
        return self._hidden(codes)

    def _codes(self, count: int) -> NDArray[np.float32]:
        shape = (count, self.parameters.concepts)
        fires = self._generator.random(shape, dtype=np.float32) < self._base
        return np.where(fires, self._strengths(shape), np.float32(0))

    def _shifting(self, count: int, rates: NDArray[np.float64]) -> NDArray[np.float32]:
        shape = (count, len(rates))
        together = self._generator.random((count, 1)) < self.parameters.cofiring
        chance = np.where(
            together, self._generator.random((count, 1)), self._generator.random(shape)
        )
        strength = np.where(together, self._strengths((count, 1)), self._strengths(shape))
        return np.where(chance < rates, strength, np.float32(0)).astype(np.float32)

    def _strengths(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        low, high = STRENGTHS
        return low + (high - low) * self._generator.random(shape, dtype=np.float32)

    def _hidden(self, codes: NDArray[np.float32]) -> NDArray[np.float32]:
        noise = self._generator.standard_normal(
            (len(codes), self.parameters.dimensions), dtype=np.float32
        )
        return (
            codes @ self.directions
            + self.parameters.noise / np.sqrt(self.parameters.dimensions, dtype=np.float32) * noise
        )


def noisy(directions: NDArray[np.float32], noise: float, seed: int) -> NDArray[np.float32]:
    """A dictionary as wrong as `noise`: to each unit direction a random one of that norm."""
    # Not the stream that the directions came from: [seed, 0] is the same as seed alone.
    rows = np.random.default_rng([seed, 4]).standard_normal(directions.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = directions + noise * rows
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class LearnedSae:
    """A TopK SAE: decoder rows of norm 1, and how it does on general data."""

    encoder: NDArray[np.float32]
    bias: NDArray[np.float32]
    decoder: NDArray[np.float32]
    centre: NDArray[np.float32]
    k: int
    fvu: float
    l0: float

    def encode(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Activations, [texts, features]."""
        pre = torch.from_numpy((hidden - self.centre) @ self.encoder + self.bias)
        return _top(pre, self.k).numpy()


def learn(world: World, seed: int) -> LearnedSae:
    """Train a TopK SAE on the world's general data."""
    wanted = world.parameters
    width = round(wanted.sae_width * wanted.concepts)
    k = max(1, min(round(wanted.sae_k * wanted.active), width // 2))
    generator = torch.Generator().manual_seed(seed)
    data = torch.from_numpy(world.general(256 * 64, part=2))
    decoder = torch.randn(width, wanted.dimensions, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    parts = {
        "encoder": decoder.T.clone(), "bias": torch.zeros(width),
        "decoder": decoder, "centre": data.mean(dim=0),
    }  # fmt: skip
    for part in parts.values():
        part.requires_grad_()
    optimizer = torch.optim.Adam(parts.values(), lr=4e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=wanted.sae_steps, pct_start=0.1
    )
    for _ in range(wanted.sae_steps):
        batch = data[torch.randint(len(data), (256,), generator=generator)]
        pre = (batch - parts["centre"]) @ parts["encoder"] + parts["bias"]
        rebuilt = _top(pre, k) @ parts["decoder"] + parts["centre"]
        loss = (batch - rebuilt).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            parts["decoder"] /= parts["decoder"].norm(dim=1, keepdim=True)
    arrays = {name: part.detach().numpy() for name, part in parts.items()}
    sae = LearnedSae(**arrays, k=k, fvu=0.0, l0=0.0)
    held = world.general(2048, part=3)
    codes = sae.encode(held)
    missed = held - codes @ sae.decoder - sae.centre
    fvu = float((missed**2).sum() / ((held - held.mean(axis=0)) ** 2).sum())
    return LearnedSae(**arrays, k=k, fvu=fvu, l0=float((codes != 0).sum(axis=1).mean()))


def _top(values: torch.Tensor, k: int) -> torch.Tensor:
    kept, places = values.topk(k, dim=1, sorted=False)
    return torch.zeros_like(values).scatter(1, places, kept.relu())


TRAINING_SEEDS = range(10_000, 10_240)
"""Configurations on which the advice's rules were chosen."""
HELD_OUT_SEEDS = range(20_006, 20_160)
"""Configurations that judge the advice, set down before its rules were written.

Seeds 20,000 to 20,005 were seen when this code was first tried, and judge nothing.
"""


def draw(seed: int) -> Parameters:
    """Parameters at random: a configuration for the advice."""
    generator = np.random.default_rng([seed, 7])

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(generator.uniform(np.log(low), np.log(high))))

    dimensions = int(generator.choice([32, 64, 96, 128]))
    concepts = min(dimensions * int(generator.choice([2, 4, 6])), 512)
    rank = int(generator.choice([r for r in (2, 4, 8, 16) if 8 * r <= dimensions]))
    pairing = float(generator.choice([0.0, 1.0, generator.uniform(0.3, 1.0)], p=[0.5, 0.2, 0.3]))
    together = float(generator.choice([0.0, generator.uniform()], p=[0.7, 0.3]))
    return Parameters(
        dimensions=dimensions,
        concepts=concepts,
        rank=rank,
        active=min(log_uniform(2, 30), concepts / 8),
        noise=log_uniform(0.03, 1),
        texts=round(log_uniform(100, 8000)),
        pairing=pairing,
        shift=log_uniform(0.05, 0.6),
        cofiring=together,
        sae_width=float(generator.choice([0.5, 1.0, 2.0])) if concepts <= 256 else 1.0,
        sae_k=log_uniform(0.5, 2),
        sae_steps=round(log_uniform(200, 1500)),
    )
