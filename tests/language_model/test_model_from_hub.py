"""Models from a hub, served on loopback in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import models
from hub import COMMIT, hub, run_with_hub

from safesail.language_model import LanguageModel

DESCRIBE = """
import json
from safesail.errors import SafesailError
from safesail.language_model import LanguageModel
try:
    model = LanguageModel.load("someone/tiny", device="cpu")
    (text,) = model.tokenize("the cat", document="d", prepend_bos=True)
    (batch,) = model.batches([text], prepend_bos=True)
    values = model.activations(batch, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    print(json.dumps([model.name, model.fingerprint, str(model.folder), values.sum().item()]))
except SafesailError as error:
    print(error)
"""


def test_a_hub_model_is_the_model_that_lies_there(tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "hub" / "someone" / "tiny")
    with hub(tmp_path / "hub") as endpoint:
        answer = run_with_hub(endpoint, tmp_path / "cache", DESCRIBE)
    name, fingerprint, place, total = json.loads(answer)
    assert (name, fingerprint, place) == ("someone/tiny", f"someone/tiny@{COMMIT}", "None")
    local = LanguageModel.load(str(folder), device="cpu")
    (text,) = local.tokenize("the cat", document="d", prepend_bos=True)
    (batch,) = local.batches([text], prepend_bos=True)
    values = local.activations(batch, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    assert abs(total - values.sum().item()) < 1e-4


def test_an_unknown_name_and_a_gated_model(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    for gated in (False, True):
        with hub(tmp_path / "hub", gated=gated) as endpoint:
            answer = run_with_hub(endpoint, tmp_path / "cache", DESCRIBE)
        assert answer.count("\n") == 1
        assert answer.startswith("cannot load model 'someone/tiny' from the Hugging Face hub: ")
        assert "accept its licence and `hf auth login`" in answer
