"""The toy benchmark on a tiny chat model: what it prints, not who wins."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safesail.lab.chat_model import ChatSizes, train_chat_model, write_data
from safesail.lab.chat_world import ChatWorld
from safesail.lab.language_model import save_language_model

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "sails_toy.py"
BOTH = ("balanced", "refused")
METHODS = ("lora", "sails", "sails_prompt", "cov_diff", "mean_diff", "random_features", "full")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmark's quick form prints for a model that has hardly learnt to speak."""
    folder = tmp_path_factory.mktemp("toy")
    recipe = replace(ChatSizes().recipe, layers=2, d_model=32, heads=2, d_mlp=64, epochs=1.0)
    sizes = ChatSizes(harmful=300, look_alikes=300, benign=200, stories=400, recipe=recipe)
    torch.set_num_threads(1)
    write_data(ChatWorld(), sizes, folder)
    save_language_model(*train_chat_model(ChatWorld(), sizes), folder / "model")
    command = [sys.executable, str(BENCHMARK), "--chat", str(folder), "--json", "--quick"]
    options = ["--seeds", "2", "--steps", "20", "--rank", "4", "--methods", *METHODS]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.proof
def test_adapters_are_trained_at_equal_parameters(printed: dict[str, Any]) -> None:
    sizes = printed["parameters"]
    assert len({sizes[method] for method in METHODS if method != "full"}) == 1
    assert sizes["full"] > 2 * sizes["lora"]


@pytest.mark.proof
def test_every_method_has_figures_and_paired_differences(printed: dict[str, Any]) -> None:
    systems = [row["system"] for row in printed["figures"]]
    assert systems == ["base", *METHODS]
    for against in ("lora", "sails"):
        rows = printed["differences"][against]
        assert {row["system"] for row in rows} == {"base", *METHODS} - {against}
        for row in rows:
            balanced = row["safety"]["balanced"]
            assert balanced["low"] <= balanced["value"] <= balanced["high"]
            assert balanced["seeds"] == 2
    assert all({"safety_rate", "over_refusal"} <= set(row["safety"]) for row in printed["figures"])


@pytest.mark.proof
def test_curves_are_watched_and_read(printed: dict[str, Any]) -> None:
    for method in METHODS:
        curves = printed["curves"][method]
        assert [len(curve[name]) for curve in curves for name in sorted(curve)] == [2] * 4
        for name in ("refused", "balanced"):
            for level, one in printed[f"steps_to_{name}"][method].items():
                firsts = [
                    next((10 * n for n, x in enumerate(c[name], 1) if x >= float(level)), None)
                    for c in curves
                ]
                assert one["each"] == firsts
        # A model that refuses all it is asked is not balanced.
        assert all(x <= (1 + r) / 2 for c in curves for x, r in zip(*map(c.get, BOTH), strict=True))
