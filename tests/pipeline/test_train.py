"""`train_saes` on a study: one pass, no leak, nothing trained twice, nothing replaced unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from study_folder import change_setting

from safesail.errors import (
    CandidateError,
    ConfigurationError,
    InputError,
    ModelError,
    StorageError,
    StudyConflictError,
)
from safesail.language_model import LanguageModel
from safesail.pipeline import Sweep, rank, train_saes
from safesail.pipeline import _spool as spooling
from safesail.pipeline._workspace import Workspace, no_progress
from safesail.study import Study

Copy = Callable[[Path], Path]
SWEEP = Sweep(layers=(1, 2), sparsities=(4, 8), width=64, steps=40, batch=128)
NAMES = [f"layer{layer}-resid-topk{k}-w64" for layer in (1, 2) for k in (4, 8)]


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def swept(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study without SAEs of its user's, swept."""
    folder = tmp_path_factory.mktemp("swept") / "study"
    shutil.copytree(fresh, folder)
    shutil.rmtree(folder / "saes")
    change_setting(folder, 'saes = ["saes/*"]', "saes = []")
    train_saes(Study.open(folder), SWEEP)
    return folder


def test_a_sweep_is_a_folder_and_a_row_each_and_leaves_nothing_else(swept: Path) -> None:
    assert sorted(path.name for path in (swept / "saes").iterdir()) == sorted(NAMES)
    assert not (swept / "training").exists()
    table = pd.read_parquet(swept / "training.parquet").set_index("sae")
    assert set(table.index) == set(NAMES)
    assert table.loc[NAMES, "sparsity"].tolist() == [4, 8, 4, 8]
    assert table.loc[NAMES, "l0"].tolist() == pytest.approx([4, 8, 4, 8])
    assert table.loc[NAMES, "layer"].tolist() == [1, 1, 2, 2]
    assert (table["fvu"] < 1).all()
    assert (table[["steps", "batch", "width"]] == [40, 128, 64]).all(axis=None)


def test_what_a_user_put_into_saes_by_hand_is_no_candidate_unasked(swept: Path, copy: Copy) -> None:
    folder = copy(swept)
    shutil.copytree(folder / "saes" / NAMES[0], folder / "saes" / "by-hand")
    path = folder / "saes" / "by-hand" / "cfg.json"
    configuration = json.loads(path.read_text())
    del configuration["metadata"]["safesail_settings"]
    path.write_text(json.dumps(configuration))
    workspace = Workspace(Study.open(folder), False, no_progress)
    assert sorted(candidate.name for candidate in workspace.candidates) == sorted(NAMES)
    change_setting(folder, "saes = []", 'saes = ["saes/by-hand", "saes/*"]')
    workspace = Workspace(Study.open(folder), False, no_progress)
    assert [candidate.name for candidate in workspace.candidates] == ["by-hand", *sorted(NAMES)]


def test_they_are_ranked_with_those_that_the_study_names(fresh: Path, copy: Copy) -> None:
    folder = copy(fresh)
    train_saes(
        Study.open(folder), Sweep(layers=(1,), sparsities=(8,), width=64, steps=40, batch=64)
    )
    assert "layer1-resid-topk8-w64" in rank(Study.open(folder)).order()


def test_a_study_without_saes_says_what_to_do(swept: Path, copy: Copy) -> None:
    folder = copy(swept)
    shutil.rmtree(folder / "saes")
    with pytest.raises(CandidateError, match="has no SAEs: train some with `safesail train-saes`"):
        rank(Study.open(folder))


def test_the_figures_are_those_of_documents_set_aside(
    swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recomputed from the model, one document at a time."""
    from sae_lens import SAE

    study = Study.open(swept)
    model = LanguageModel.load(str(swept / "model"), device="cpu")
    rows: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    seen = 0
    for document in Workspace(study, False, no_progress).documents:
        if seen >= 4000:  # corpus.max_tokens of the study
            break
        (piece,) = model.tokenize(document.text, document=document.id, prepend_bos=True)
        seen += len(piece.token_ids)
        (batch,) = model.batches([piece], prepend_bos=True)
        hidden = model.activations(batch, ["blocks.2.hook_resid_post"])["blocks.2.hook_resid_post"]
        rows[spooling._is_heldout(document.id)].append(hidden[batch.content_mask])
    table = pd.read_parquet(swept / "training.parquet").set_index("sae")
    row = table.loc[NAMES[3]]
    training, heldout = torch.cat(rows[False]), torch.cat(rows[True])
    assert (row["tokens"], row["heldout_tokens"]) == (len(training), len(heldout))
    assert 0.01 < len(heldout) / seen < 0.15
    sae: Any = SAE.load_from_disk(swept / "saes" / NAMES[3], device="cpu")
    with torch.inference_mode():
        codes = sae.encode(heldout)
        error = (heldout - sae.decode(codes)).square().sum()
    assert row["fvu"] == pytest.approx(float(error / (heldout - heldout.mean(0)).square().sum()))
    assert row["dead_share"] == pytest.approx(float((codes <= 0).all(0).float().mean()))


def test_the_texts_that_judge_saes_do_not_train_them(fresh: Path, copy: Copy) -> None:
    folder = copy(fresh)
    change_setting(folder, "max_tokens = 4000", "max_tokens = 4000\nconcept_texts = true")
    workspace = Workspace(Study.open(folder), False, no_progress)
    assert any(document.id.startswith("concept-pair:") for document in workspace.corpus)
    assert not any(document.id.startswith("concept-pair:") for document in workspace.documents)


def test_finished_saes_are_not_trained_again(swept: Path, copy: Copy) -> None:
    folder = copy(swept)
    before = files(folder / "saes")
    again = train_saes(
        Study.open(folder), SWEEP, watch=lambda now: pytest.fail(f"trains {now.sae}")
    )
    assert again.trained == []
    assert [row["sae"] for row in again.rows] == NAMES
    assert files(folder / "saes") == before
    more = train_saes(
        Study.open(folder), Sweep(**{**vars(SWEEP), "layers": (2,), "sparsities": (8, 16)})
    )
    assert more.trained == ["layer2-resid-topk16-w64"]
    kept = files(folder / "saes")
    assert {path: kept[path] for path in before} == before
    assert len(pd.read_parquet(folder / "training.parquet")) == 5


def test_another_recipe_asks_first(swept: Path, copy: Copy) -> None:
    folder = copy(swept)
    before = files(folder / "saes")
    changed = Sweep(**{**vars(SWEEP), "layers": (2,), "sparsities": (4,), "steps": 50})
    with pytest.raises(StudyConflictError, match=r"layer2-resid-topk4-w64 .*steps was 40, is 50"):
        train_saes(Study.open(folder), changed)
    assert files(folder / "saes") == before
    done = train_saes(Study.open(folder), changed, overwrite=True)
    assert done.trained == ["layer2-resid-topk4-w64"]
    assert done.rows[0]["steps"] == 50
    (folder / "saes" / "layer2-resid-topk32-w64").mkdir()
    foreign = Sweep(**{**vars(changed), "sparsities": (32,)})
    with pytest.raises(StudyConflictError, match="was not made by `safesail train-saes`"):
        train_saes(Study.open(folder), foreign)


def test_another_corpus_asks_first(swept: Path, copy: Copy) -> None:
    folder = copy(swept)
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"text": "one more document"}\n')
    with pytest.raises(StudyConflictError, match="corpus was "):
        train_saes(Study.open(folder), SWEEP)


def test_an_unfinished_sae_of_another_recipe_asks_first(swept: Path, copy: Copy) -> None:
    folder = copy(swept)

    def stop(now: Any) -> None:
        raise KeyboardInterrupt

    other = {**vars(SWEEP), "layers": (0,), "sparsities": (4,)}
    with pytest.raises(KeyboardInterrupt):
        train_saes(Study.open(folder), Sweep(**other), watch=stop)
    assert list((folder / "training" / "activations").rglob("*.float32"))
    longer = Sweep(**{**other, "steps": 60})
    with pytest.raises(StudyConflictError, match="steps was 40, is 60"):
        train_saes(Study.open(folder), longer)
    # A sweep beside it does not disturb it; at its end, no activations are left.
    train_saes(Study.open(folder), Sweep(**{**other, "sparsities": (8,)}))
    assert [path.name for path in (folder / "training").iterdir()] == ["layer0-resid-topk4-w64"]
    assert train_saes(Study.open(folder), longer, overwrite=True).rows[0]["steps"] == 60
    assert not (folder / "training").exists()


def test_a_spool_that_is_whole_is_used_again(
    swept: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(swept)
    sweep = Sweep(**{**vars(SWEEP), "layers": (0,)})

    def stop(now: Any) -> None:
        if now.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_saes(Study.open(folder), sweep, watch=stop)
    with monkeypatch.context() as patch:
        patch.setattr(spooling, "_write", lambda *_: pytest.fail("reads the model again"))
        done = train_saes(Study.open(folder), sweep)
    assert done.trained == ["layer0-resid-topk8-w64"]


def test_both_saes_of_a_hook_point_read_the_same_batches(
    fresh: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safesail.sparse_autoencoder import Activations

    given: list[list[torch.Tensor]] = []
    whole = Activations.batches

    def watched(self: Activations, *place: int) -> Any:
        given.append([])
        for batch in whole(self, *place):
            given[-1].append(batch.clone())
            yield batch

    monkeypatch.setattr(Activations, "batches", watched)
    sweep = Sweep(layers=(1,), sparsities=(4, 8), width=64, steps=10, batch=64)
    train_saes(Study.open(copy(fresh)), sweep)
    first, second = given
    assert len(first) == 10
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layers": (3,)}, ModelError, "no layer 3: its layers are 0 to 2"),
        ({"sites": ("output",)}, ConfigurationError, "unknown site 'output'"),
        ({"sparsities": (65,)}, ConfigurationError, "sparsity 65 of topk is above the width 64"),
        ({"architectures": ("topk", "gated")}, ConfigurationError, "by two commands"),
        ({"width": 0}, ConfigurationError, "width must be above 0"),
        ({"batch": 5000}, InputError, "do not fill a batch of 5000"),
        ({"tokens": 50}, InputError, "the corpus is too small"),
    ],
)
def test_what_cannot_be_swept_is_one_line(
    fresh: Path, copy: Copy, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    folder = copy(fresh)
    before = set(files(folder / "saes"))
    with pytest.raises(error, match=message):
        train_saes(Study.open(folder), Sweep(**{**vars(SWEEP), **change}))
    assert set(files(folder / "saes")) == before


def test_room_is_looked_at_before_the_model_reads(
    fresh: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(fresh)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr(spooling, "_write", lambda *_: pytest.fail("reads"))
    lines: list[str] = []
    # 4,000 tokens x 2 hook points x 32 numbers x 4 bytes are 1.02 MB; a checkpoint takes 0.1.
    with pytest.raises(StorageError, match=r"take up to 1 MB of disk, .* has 1 MB free: use fewer"):
        train_saes(Study.open(folder), SWEEP, announce=lines.append)
    (line,) = lines
    assert line.startswith("4 SAEs to train; activations of 4,000 tokens at 2 hook points")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_200_000))
    with pytest.raises(pytest.fail.Exception, match="reads"):
        train_saes(Study.open(folder), SWEEP)


def test_without_layers_and_sparsities_the_usual_ones_are_trained(fresh: Path, copy: Copy) -> None:
    done = train_saes(Study.open(copy(fresh)), Sweep(steps=5, batch=64))
    assert [row["sae"] for row in done.rows] == [f"layer1-resid-topk{k}" for k in (16, 32, 64)]
    assert {row["width"] for row in done.rows} == {256}
