"""Candidates observed together, or one by one from disk: the same numbers, one model pass."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from safesail.concepts import ConceptSet, ContrastPair
from safesail.corpus import Corpus, Document
from safesail.errors import StorageError
from safesail.language_model import LanguageModel
from safesail.ranking._design import PairDesign
from safesail.ranking._groups import Refused, observe_candidates
from safesail.ranking._observe import Observation
from safesail.ranking._rank import score_candidates
from safesail.sparse_autoencoder import Candidate, find_candidates
from safesail.study import RankingSettings

WORDS = ["the", "cat", "sat", "mat,", "small", "boat", "sailed", "she", "letter", "1234", "[ok]"]
READ = "blocks.1.mlp.hook_in"


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [
        f"{n} " + " ".join(generator.choice(WORDS, generator.integers(2, 30))) for n in range(count)
    ]


CORPUS = texts(300, 0)
DESIGN = PairDesign.of(
    ConceptSet(ContrastPair("a", a, b) for a, b in zip(texts(9, 1), texts(9, 2), strict=True)), 0
)


@pytest.fixture
def candidates(tmp_path: Path) -> list[Candidate]:
    """Two hook points, two architectures, a transcoder, another BOS rule, and one of no layer."""
    folder = tmp_path / "saes"
    hook_points = ("blocks.0.hook_resid_post", "blocks.2.hook_mlp_out")
    models.random_sae(folder / "a", "jumprelu", hook_point=hook_points[0])
    models.random_sae(folder / "b", "topk", hook_point=hook_points[1], seed=1)
    models.random_sae(folder / "c", "standard", hook_point=hook_points[0], seed=2, width=50)
    models.random_sae(folder / "d", "gated", metadata={"prepend_bos": False})
    models.random_sae(folder / "e", "topk", hook_point="blocks.7.hook_resid_post")
    output = {"hook_name_out": "blocks.1.hook_mlp_out"}
    models.random_sae(
        folder / "f",
        "transcoder",
        hook_point=READ,
        metadata=output,
        d_out=32,
        apply_b_dec_to_input=False,
    )
    return find_candidates([f"{folder}/*"], tmp_path)


def observe(model: LanguageModel, candidates: list[Candidate]) -> dict[str, Observation | Refused]:
    found = observe_candidates(
        model,
        candidates,
        DESIGN,
        Corpus([], Path(), [Document(str(n), text) for n, text in enumerate(CORPUS)]),
        RankingSettings(sample_tokens=5_000),
        progress=lambda items, label: items,
    )
    return {f.candidate.name if isinstance(f, Refused) else f.sae.name: f for f in found}


@pytest.fixture
def forward_passes(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many batches went through the model since it was last asked."""
    seen: list[int] = []
    run = llama._run
    monkeypatch.setattr(llama, "_run", lambda ids, *rest: seen.append(len(ids)) or run(ids, *rest))

    def count() -> int:
        # Passes over five tokens only learn the size of a hook point.
        passes = len([rows for rows in seen if rows > 1])
        seen.clear()
        return passes

    return count


def test_from_disk_one_by_one_gives_the_same_numbers(
    llama: LanguageModel,
    candidates: list[Candidate],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forward_passes: Callable[[], int],
) -> None:
    together = observe(llama, candidates)
    passes = forward_passes()
    monkeypatch.setattr("safesail.ranking._groups.memory_limit", lambda device: 1.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    one_by_one = observe(llama, candidates)
    assert forward_passes() == passes
    assert not list((tmp_path / "temporary").iterdir())
    assert one_by_one.keys() == together.keys() == set("abcdef")
    for name in "abcdf":
        mine, theirs = one_by_one[name], together[name]
        assert isinstance(mine, Observation)
        assert isinstance(theirs, Observation)
        assert mine.pooled.any()
        np.testing.assert_allclose(mine.pooled, theirs.pooled, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mine.q999(), theirs.q999(), rtol=1e-5)
        for one, other in ((mine.sample, theirs.sample), (mine.pairs, theirs.pairs)):
            assert one.tokens == other.tokens > 100
            assert one.fired.tolist() == other.fired.tolist()
            assert one.fvu == pytest.approx(other.fvu, rel=1e-6)
        assert mine.wiring == theirs.wiring
    for found in (one_by_one["e"], together["e"]):
        assert isinstance(found, Refused)
        assert "'blocks.7.hook_resid_post' is above model" in found.reason


def test_candidates_of_one_rule_share_one_pass(
    llama: LanguageModel, candidates: list[Candidate], forward_passes: Callable[[], int]
) -> None:
    observe(llama, candidates[:1])
    alone = forward_passes()
    observe(llama, candidates[:3])
    assert forward_passes() == alone
    observe(llama, candidates[:4])  # the fourth wants no BOS
    assert forward_passes() == 2 * alone


def test_numbers_do_not_depend_on_company(
    llama: LanguageModel, candidates: list[Candidate]
) -> None:
    company = observe(llama, candidates)
    for candidate in candidates:
        (alone,) = observe(llama, [candidate]).values()
        other = company[candidate.name]
        if isinstance(alone, Observation) and isinstance(other, Observation):
            np.testing.assert_allclose(alone.pooled, other.pooled, rtol=1e-5, atol=1e-6)
            assert alone.sample.fvu == pytest.approx(other.sample.fvu, rel=1e-6)


def test_a_transcoder_is_measured_by_what_it_rebuilds(
    llama: LanguageModel, candidates: list[Candidate]
) -> None:
    found = observe(llama, candidates[-1:])["f"]
    assert isinstance(found, Observation)
    read, rebuilt = [], []
    for text in DESIGN.texts:
        pieces = llama.tokenize(text, document="", prepend_bos=True)
        (batch,) = llama.batches(pieces, prepend_bos=True)
        values = llama.activations(batch, [found.sae.hook_point, "blocks.1.hook_mlp_out"])
        read.append(values[found.sae.hook_point][batch.content_mask])
        rebuilt.append(values["blocks.1.hook_mlp_out"][batch.content_mask])
    x, y = torch.cat(read).double(), torch.cat(rebuilt).double()
    weights = {k: v.double() for k, v in found.sae._sae.state_dict().items()}
    z = (x @ weights["W_enc"] + weights["b_enc"]).relu()
    error = (y - (z @ weights["W_dec"] + weights["b_dec"])).square().sum()
    fvu = error / (y - y.mean(0)).square().sum()
    assert found.pairs.fvu == pytest.approx(float(fvu), rel=1e-4)
    assert not torch.allclose(x, y, atol=0.1)


def test_a_full_disk_is_said_before_anything_is_written(
    llama: LanguageModel, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safesail.ranking._groups.memory_limit", lambda device: 1.0)
    usage = SimpleNamespace(free=300_000)
    monkeypatch.setattr("safesail.ranking._activations.shutil.disk_usage", lambda path: usage)
    made: list[str] = []
    monkeypatch.setattr(
        "safesail.ranking._activations.tempfile.TemporaryDirectory", lambda **_: made.append("")
    )
    with pytest.raises(StorageError, match=r"0\.0 GB are free: set TMPDIR to a larger disk, or"):
        observe(llama, candidates)
    assert not made


def test_an_sae_whose_activations_overflow_is_refused_and_the_others_are_scored(
    llama: LanguageModel, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        models.random_sae(tmp_path / "saes" / name, "standard", seed=seed)
    file = tmp_path / "saes" / "b" / "sae_weights.safetensors"
    weights = load_file(file)
    save_file({**weights, "W_enc": weights["W_enc"].sign() * 3e38}, file)
    found = score_candidates(
        llama,
        find_candidates([str(tmp_path / "saes" / "*")], tmp_path),
        DESIGN.concepts,
        Corpus([], Path(), [Document(str(n), text) for n, text in enumerate(CORPUS)]),
        RankingSettings(sample_tokens=1_000),
    )
    health = {one.rows[0]["sae"]: one.rows[0]["health"] for one in found}
    assert health["b"] == "refused: activations on the pairs' texts are NaN or infinite"
    assert not health["a"].startswith("refused")
