"""Published SAEs, served on loopback in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from hub import hub, run_with_hub
from models import random_sae

from safesail.sparse_autoencoder import Candidate, SparseAutoencoder

DESCRIBE = """
import json
from pathlib import Path
import torch
from safesail.errors import SafesailError
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
for name in ("someone/saes:layer1/k8", "someone/saes:layer1/k9", "someone/nothing:layer1/k8"):
    try:
        (candidate,) = find_candidates([name], Path())
        sae = SparseAutoencoder.load(candidate, device="cpu")
        z = sae.encode(torch.linspace(-2, 2, 64).view(2, 32))
        print(json.dumps([sae.hook_point, sae.width, sae.fingerprint, z.sum().item()]))
    except SafesailError as error:
        print(error)
"""


def test_a_repository_of_saes(tmp_path: Path) -> None:
    folder = random_sae(tmp_path / "hub" / "someone" / "saes" / "layer1" / "k8", "topk")
    with hub(tmp_path / "hub") as endpoint:
        answer = run_with_hub(endpoint, tmp_path / "cache", DESCRIBE)
    found, absent_id, absent_repository = answer.splitlines()
    hook_point, width, fingerprint, total = json.loads(found)
    assert (hook_point, width) == ("blocks.1.hook_resid_post", 96)
    assert fingerprint == "someone/saes:layer1/k8"
    local = SparseAutoencoder.load(Candidate("s", str(folder), folder=folder), device="cpu")
    z = local.encode(torch.linspace(-2, 2, 64).view(2, 32))
    assert z.sum() > 0
    assert abs(total - z.sum().item()) < 1e-4
    for name, message in [("saes:layer1/k9", absent_id), ("nothing:layer1", absent_repository)]:
        assert f"SAE someone/{name}" in message
        assert "cannot be fetched from the Hugging Face hub" in message
