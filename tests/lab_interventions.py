"""The lab's model, one of its SAEs, and neutral prompts of its world."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safesail.diagnosis import alive_features
from safesail.lab import lab_folder
from safesail.lab.assets import read_heldout
from safesail.lab.lexicon import load_lexicon
from safesail.language_model import LanguageModel, TokenizedText
from safesail.pipeline import load_results
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import Study

SAE = "layer2-resid-topk16"


@dataclass(frozen=True)
class Lab:
    """What a test of interventions needs; `called` holds features by concept."""

    model: LanguageModel
    sae: SparseAutoencoder
    sink_threshold: float
    q999: dict[int, float]
    called: dict[str, list[int]]
    alive: list[int]

    def texts(self, tokens: int) -> list[TokenizedText]:
        """Held-out text."""
        return held_out(self.model, tokens)

    def triggers(self, concept: str) -> list[str]:
        """The concept's planted verbs."""
        table = json.loads((lab_folder() / "vocabulary.json").read_text(encoding="utf-8"))
        found: list[str] = table[concept]["triggers"]
        return found

    def neutral_prompts(self, count: int) -> list[str]:
        """A neutral clause, a word that leads on, and a subject: a verb comes next."""
        lexicon = load_lexicon()
        people = [person for person in lexicon.people if person.startswith("the ")]
        prompts: list[str] = []
        for document in read_heldout(lab_folder() / "heldout.parquet"):
            clause = document.clauses[0]
            begin = document.text[: clause.end]
            if clause.kind == "neutral" and begin.endswith("."):
                number = len(prompts)
                link = lexicon.links_same[number % len(lexicon.links_same)].capitalize()
                prompts.append(f"{begin} {link}, {people[number % len(people)]}")
            if len(prompts) == count:
                break
        return prompts


def held_out(model: LanguageModel, tokens: int) -> list[TokenizedText]:
    """Held-out documents of so many tokens together."""
    texts: list[TokenizedText] = []
    for document in read_heldout(lab_folder() / "heldout.parquet"):
        texts += model.tokenize(document.text, document=document.name, prepend_bos=True)
        if sum(len(text.token_ids) for text in texts) >= tokens:
            break
    return texts


def open_lab(folder: Path) -> Lab:
    """The lab, with the features that a study of it called."""
    study = Study.open(folder)
    model = LanguageModel.load(str(lab_folder() / "model"), device="cpu")
    (candidate,) = find_candidates([str(lab_folder() / "saes" / SAE)], folder)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    sae.check_fits(model)
    ranked = load_results(study, "rankings").to_pylist()
    threshold = next(row["sink_threshold"] for row in ranked if row["sae"] == SAE)
    called: dict[str, list[int]] = {}
    q999 = {}
    for row in load_results(study, "features", SAE).to_pylist():
        q999[row["feature"]] = row["q999"]
        if row["called"]:
            mine = called.setdefault(row["concept"].partition("/")[0], [])
            if row["feature"] not in mine:
                mine.append(row["feature"])
    alive = alive_features(
        model, sae, held_out(model, 6_000), sink_threshold=threshold, tokens=5_000
    )
    return Lab(model, sae, threshold, q999, called, alive)
