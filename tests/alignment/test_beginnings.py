"""Every method of a comparison begins alike: only the directions differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import tiny_alignment as tiny

from safesail.alignment import (
    Beginning,
    ComparisonSettings,
    ContrastTexts,
    EvaluationPrompt,
    Example,
    Subspace,
    TrainingOptions,
    compare,
    layer_by_route,
)
from safesail.alignment import _training as training
from safesail.alignment._names import ROUTES, Route
from safesail.alignment._sites import find_sites, roles_of

RANK, FEATURES = 4, 48
PROMPTS = [EvaluationPrompt("h", "sink it", "harmful"), EvaluationPrompt("l", "?", "look_alike")]


def subspace_by(route: Route) -> Callable[[int], Subspace]:
    """Found at two of the model's four streams."""

    def find(seed: int) -> Subspace:
        layers = []
        for stream in (1, 2):
            generator = np.random.default_rng(stream)
            decoder = generator.standard_normal((FEATURES, models.D_MODEL))
            codes = generator.exponential(size=(2, 30, FEATURES))
            codes *= generator.random(codes.shape) < 0.2
            codes[0, :, :6] += 1
            texts = ContrastTexts(*(codes @ decoder), *codes, paired=True)
            point = f"blocks.{stream - 1}.hook_resid_post"
            layer, _ = layer_by_route(
                route, texts, decoder, RANK, stream=stream, hook_point=point, sae="a", seed=seed
            )
            layers.append(layer)
        return Subspace("tiny", tuple(layers), "abs", "weighted", route)

    return find


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_every_first_factor_is_as_long_as_any_other_and_the_rest_is_zero(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.MAKERS[kind](tmp_path / "base")
    modules = roles_of(tiny.load(base))
    sites = {site.module: site for site in find_sites(tiny.load(base), modules)}
    begun: list[Any] = []
    monkeypatch.setattr(training, "fit", lambda model, *rest, **options: begun.append(model))
    methods = {route: Beginning(subspace_by(route)) for route in ROUTES}
    compare(
        lambda: tiny.load(base),
        models.byte_tokenizer(),
        {**methods, "lora": Beginning()},
        [Example("what?", "that")],
        PROMPTS,
        tmp_path / "compared",
        ComparisonSettings(RANK, modules, TrainingOptions(), (1e-3,), (0, 1), max_new_tokens=1),
        model={"model": "tiny"},
    )
    assert len(begun) == 2 * (len(methods) + 1)
    writers = set()
    for model in begun:
        layers = {
            name: layer
            for name, layer in model.base_model.model.named_modules()
            if hasattr(layer, "lora_A")
        }
        assert set(layers) == set(sites)
        for layer in layers.values():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            assert (len(a), layer.scaling["default"]) == (RANK, 1)
            # Plain LoRA begins with A everywhere; a basis with the factor at the stream.
            first, other = (b, a) if b.any() else (a, b)
            assert float(first.detach().double().norm()) == pytest.approx(RANK**0.5, abs=1e-5)
            assert not other.any()
            assert first.requires_grad
            assert other.requires_grad
        writers.add(first.detach().numpy().tobytes())
    # The last module's differ between methods, and here and there between seeds.
    assert len(writers) > len(methods)
