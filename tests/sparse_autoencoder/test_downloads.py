"""What must be downloaded is known before it is, and a broken download goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

from hub import hub, run_with_hub
from models import random_sae

SIZES = """
import json
from pathlib import Path
from safesail.errors import SafesailError
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates, pending_downloads
names = ["someone/saes:layer1/k8", "someone/saes:layer1/k4", "other/saes:s", "none/at-all:s"]
candidates = find_candidates(names, Path())
def ask():
    found = pending_downloads(candidates)
    print(json.dumps(found and [list(found.candidates), found.size, str(found.cache), str(found)]))
ask()
SparseAutoencoder.load(candidates[0], device="cpu")
ask()
for candidate in candidates[1:3]:
    SparseAutoencoder.load(candidate, device="cpu")
ask()
(candidate,) = find_candidates(["large/saes:broken-off"], Path())
print(SparseAutoencoder.load(candidate, device="cpu").width)
"""


def size_of(*folders: Path) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir())


def test_sizes_before_and_after_and_a_download_that_breaks_off(tmp_path: Path) -> None:
    """In one process, as each costs seconds to start.

    The hub's client writes pieces of 10 MB: the file that breaks off half-way holds two of them.
    """
    root = tmp_path / "hub"
    folders = [
        random_sae(root / "someone" / "saes" / "layer1" / "k8", "topk"),
        random_sae(root / "someone" / "saes" / "layer1" / "k4", "standard", width=200),
        random_sae(root / "other" / "saes" / "s", "gated"),
    ]
    large = random_sae(root / "large" / "saes" / "broken-off", "standard", width=100_000)
    assert (large / "sae_weights.safetensors").stat().st_size > 22e6
    with hub(root, cut="broken-off/sae_weights.safetensors") as endpoint:
        answer = run_with_hub(endpoint, tmp_path / "cache", SIZES)
        described = endpoint.asked("/api/models/someone/saes")
        none = endpoint.asked("/api/models/none/at-all")
        ranges = endpoint.asked("broken-off/sae_weights.safetensors")
    first, second, third, width = (json.loads(line) for line in answer.splitlines())
    assert first[:2] == [
        ["someone-saes-layer1-k8", "someone-saes-layer1-k4", "other-saes-s"],
        size_of(*folders),
    ]
    assert first[2] == str(tmp_path / "cache" / "hub")
    megabytes = f"{size_of(*folders) / 1e6:.1f} MB"
    assert first[3] == f"3 SAEs to download: {megabytes}, into {first[2]}"
    assert second[:2] == [["someone-saes-layer1-k4", "other-saes-s"], size_of(*folders[1:])]
    assert third is None
    # Each time one question for each repository of which something is missing, however many SAEs;
    # the hub's silence about one hides nothing of the others.
    assert (len(described), len(none)) == (2, 3)
    assert width == 100_000
    starts = [int(asked.removeprefix("bytes=").split("-")[0] or 0) for asked in ranges]
    assert starts[0] == 0
    assert max(starts) >= 10_000_000
