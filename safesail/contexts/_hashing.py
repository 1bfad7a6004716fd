"""Random numbers by hash: the same for a window in every run, whatever was seen before it."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

LARGEST = torch.iinfo(torch.int64).max


def digest(text: str) -> int:
    """A 64-bit hash as a signed number, as tensors hold it."""
    raw = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(raw, "little", signed=True)


def mix(values: Tensor) -> Tensor:
    """The output function of the SplitMix64 generator (Steele, Lea, Flood 2014), int64 to int64.

    Products and sums wrap, so that signed numbers have the bits that unsigned ones would have.
    """
    values = values + _signed(0x9E3779B97F4A7C15)
    values = (values ^ _shifted(values, 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shifted(values, 27)) * _signed(0x94D049BB133111EB)
    return values ^ _shifted(values, 31)


def priorities(keys: Tensor, salts: Tensor | int) -> Tensor:
    """Uniform random numbers from 0 to 2^63 - 1, fixed by window and salt.

    Taking the smallest of any set of windows draws from it uniformly without replacement, in
    whatever order and in how many parts they were seen.

    Args:
        keys: int64, of windows.
        salts: int64 of a shape that goes with `keys`, or one number.
    """
    return _shifted(mix(keys ^ salts), 1)


def salt(name: str | int, seed: int) -> int:
    """What tells the draws of one feature, or of one purpose, from those of others."""
    return digest(f"{name}\0{seed}")


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted to the right with zeros coming in, as unsigned numbers are."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
