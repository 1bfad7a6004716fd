"""How long safesail's encode takes over SAELens' encode and over one bare fused product.

python benchmarks/encoding.py [--json] [--runs N] [--tokens N] [--threads N]

SAEs of 768 x 24,576 with random weights and about 50 active features per token; the three are run
in turn, and each ratio is the median over runs of the ratio within a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_class
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

D_IN, WIDTH, ACTIVE = 768, 24_576, 50
ARCHITECTURES = ("standard", "jumprelu", "gated", "topk")


def main() -> None:
    """Measure every architecture and print its two ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {name: measure(name, options.runs, options.tokens) for name in ARCHITECTURES}
    if options.json:
        print(json.dumps({"runs": options.runs, "tokens": options.tokens, **results}, indent=2))
        return
    print(f"{'architecture':<14}{'over SAELens':>14}{'over one product':>18}{'L0':>6}")
    for name, found in results.items():
        over, bare = found["over_saelens"], found["over_product"]
        print(f"{name:<14}{over:>14.2f}{bare:>18.2f}{found['l0']:>6.0f}")


def measure(architecture: str, runs: int, tokens: int) -> dict[str, float]:
    """Medians of our seconds over SAELens' and over a bare product's, and the mean L0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, D_IN, generator=generator)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / architecture
        build(architecture, generator).save_model(folder)
        (candidate,) = find_candidates([str(folder)], folder)
        ours = SparseAutoencoder.load(candidate, device="cpu")
        theirs = SAE.load_from_disk(folder, device="cpu")
    weights, bias = theirs.W_enc.detach(), torch.zeros(WIDTH)
    seconds: list[tuple[float, float, float]] = []
    with torch.inference_mode():
        l0 = (ours.encode(x) != 0).sum(1).float().mean().item()
        for _ in range(runs + 1):
            seconds.append(
                (
                    timed(lambda: ours.encode(x)),
                    timed(lambda: theirs.encode(x)),
                    timed(lambda: torch.addmm(bias, x, weights)),
                )
            )
    # The first run warms caches and does not count.
    return {
        "over_saelens": statistics.median(own / saelens for own, saelens, _ in seconds[1:]),
        "over_product": statistics.median(own / product for own, _, product in seconds[1:]),
        "l0": l0,
    }


def build(architecture: str, generator: torch.Generator) -> Any:
    """An SAE with random weights whose biases let about 50 features through."""
    sae_class, config_class = get_sae_class(architecture)
    more = {"k": ACTIVE} if architecture == "topk" else {}
    metadata = SAEMetadata(hook_name="blocks.6.hook_resid_post", prepend_bos=True)
    sae = sae_class(config_class(d_in=D_IN, d_sae=WIDTH, metadata=metadata, **more))
    # Standard normal pre-activations: this share of them lies above the offset.
    offset = torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - ACTIVE / WIDTH)).item()
    for name, value in sae.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name == "W_enc":
            value.copy_(noise / D_IN**0.5)
        elif name == "threshold":
            value.copy_(offset + 0.01 * noise)
        elif name == "b_gate" or (name == "b_enc" and architecture == "standard"):
            value.fill_(-offset)
        elif name != "W_dec":
            value.copy_(0.01 * noise)
    return sae


def timed(run: Callable[[], Tensor]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
