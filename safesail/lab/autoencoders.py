"""The lab's candidate autoencoders: which there are, and `safesail train-saes` that makes them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from safesail.sparse_autoencoder import (
    Recipe,
    site_hook_point,
    untrained_sae,
    usual_learning_rate,
)
from safesail.study import (
    CONFIGURATION_FILE,
    CandidateSettings,
    ConceptSettings,
    Configuration,
    CorpusSettings,
    CorpusSource,
    ModelSettings,
)

if TYPE_CHECKING:
    from sae_lens import SAE

MODEL_NAME = "safesail-lab"
D_MODEL = 128
WIDTH = 1024
CONTEXT = 128
BATCH = 512
WEIGHTS_FILE = "sae_weights.safetensors"
CONFIGURATION = "cfg.json"


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run of `safesail train-saes`: every layer at one site with every sparsity."""

    layers: tuple[int, ...]
    site: str
    architecture: str
    sparsities: tuple[int, ...]

    def options(self, steps: int, seed: int) -> list[str]:
        """The command's options."""
        return [
            *("--layers", ",".join(map(str, self.layers))),
            *("--sites", self.site),
            *("--architectures", self.architecture),
            *("--sparsities", ",".join(map(str, self.sparsities))),
            *("--steps", str(steps)),
            *("--batch", str(BATCH)),
            *("--seed", str(seed)),
        ]

    def recipes(self, steps: int, seed: int, width: int = WIDTH) -> list[Recipe]:
        """What the run trains."""
        return [
            Recipe(
                hook_point=site_hook_point(layer, self.site),
                architecture=self.architecture,
                sparsity=sparsity,
                width=width,
                steps=steps,
                batch=BATCH,
                learning_rate=usual_learning_rate(width),
                seed=seed,
            )
            for layer in self.layers
            for sparsity in self.sparsities
        ]


SWEEPS: tuple[Sweep, ...] = (
    Sweep((0, 1, 2, 3), "resid_post", "topk", (16,)),
    Sweep((1, 2), "mlp_out", "topk", (16,)),
    Sweep((1,), "resid_post", "topk", (8,)),
    Sweep((2,), "resid_post", "topk", (4, 8, 32, 64)),
    Sweep((2,), "resid_post", "batchtopk", (16,)),
    Sweep((1, 2), "resid_post", "standard", (1,)),
)
STEPS = 1_000
SEED = 0
RECIPES: dict[str, Recipe] = {
    recipe.name(D_MODEL): recipe for sweep in SWEEPS for recipe in sweep.recipes(STEPS, SEED)
}
"""The lab's candidates by name."""


def write_study(folder: Path, model: Path, corpus: Path, concepts: Path) -> None:
    """Write a study without candidates: model, corpus and concepts are absolute paths."""
    configuration = Configuration(
        model=ModelSettings(name=str(model), device="cpu"),
        candidates=CandidateSettings(),
        concepts=ConceptSettings(files=[str(concepts)]),
        corpus=CorpusSettings(sources=[CorpusSource(path=str(corpus))]),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIGURATION_FILE).write_text(configuration.to_toml(), encoding="utf-8")


def train_in_study(study: Path, options: list[str]) -> None:
    """Run `safesail train-saes`, as a user does, on a study.

    Raises:
        CalledProcessError: the command failed; it has said why.
    """
    command = [sys.executable, "-c", "from safesail.cli import main; main()", "train-saes"]
    subprocess.run([*command, "--study", str(study), *options], check=True)


def publish(trained: Path, folder: Path) -> None:
    """Copy a trained SAE with its weights in float16, which halves it, under the lab's name.

    `cfg.json` still says float32, and SAELens loads the weights as such.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(trained / WEIGHTS_FILE)
    save_file({name: value.half() for name, value in weights.items()}, folder / WEIGHTS_FILE)
    shutil.copyfile(trained / CONFIGURATION, folder / CONFIGURATION)
    settings = json.loads((folder / CONFIGURATION).read_text("utf-8"))
    settings["metadata"]["model_name"] = MODEL_NAME
    settings["metadata"]["safesail_settings"]["model.name"] = MODEL_NAME
    (folder / CONFIGURATION).write_text(json.dumps(settings), "utf-8")


def load_autoencoder(folder: Path) -> SAE[Any]:
    """A saved autoencoder, float32 on the CPU."""
    from sae_lens import SAE

    loaded: SAE[Any] = SAE.load_from_disk(str(folder), device="cpu", dtype="float32")
    return loaded


def untrained_autoencoder(recipe: Recipe, d_model: int) -> Any:
    """A candidate's first weights, in SAELens' training form."""
    about = {"model_name": MODEL_NAME, "prepend_bos": True, "context_size": CONTEXT}
    return untrained_sae(recipe, d_model, about)
