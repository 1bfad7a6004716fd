"""`safesail release`: what is in the folder, and that nothing but it is needed to load it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub import hub, run_with_hub
from study_folder import change_setting

from safesail.concepts import load_concepts
from safesail.errors import CandidateError, InputError
from safesail.pipeline import load_release, load_results, write_release
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import Study

Run = Callable[..., tuple[int, str, str]]
Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def released(explained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of the study; not to be changed."""
    folder = tmp_path_factory.mktemp("release") / "out"
    write_release(Study.open(explained), folder, licence="mit")
    return folder


@pytest.fixture
def own(released: Path, tmp_path: Path) -> Path:
    """A release of the test's own."""
    folder = tmp_path / "own"
    shutil.copytree(released, folder)
    return folder


def test_it_holds_saes_tables_concepts_and_card(explained: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    code, _, err = run("release", out, "--study", explained, "--license", "mit")
    assert code == 0
    assert err.startswith(f"written: {out} (")
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        *("manifest.json", "README.md", "safesail.toml", "concepts/concepts.jsonl"),
        *("saes/upper/cfg.json", "saes/upper/sae_weights.safetensors", "rankings.parquet"),
        *("features/upper.parquet", "explanations/upper.parquet"),
        "contexts/upper/part-00000.parquet",
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert manifest["saes"] == {"upper": "saes/upper"}
    assert set(manifest["versions"]) > {"safesail", "torch", "sae-lens"}
    digests = subprocess.run(
        ["sha256sum", *manifest["files"]], cwd=out, capture_output=True, text=True, check=True
    )
    for line in digests.stdout.splitlines():
        digest, name = line.split(maxsplit=1)
        assert manifest["files"][name] == {"sha256": digest, "bytes": (out / name).stat().st_size}


LOADING = """
import sys
from safesail.pipeline import load_release
release = load_release(sys.argv[1])
sae = release.load_sae(release.saes[0])
import torch
acts = sae.encode(torch.ones(2, sae.d_in))
rows = {name: release.table(name).num_rows for name in
        ("rankings", "features", "contexts", "explanations")}
print(release.saes, rows, round(float(acts.sum()), 4))
"""


def test_a_fresh_process_elsewhere_loads_it(
    explained: Path, released: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(released, moved)
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING, str(moved)],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    study = Study.open(explained)
    rows = {
        "rankings": load_results(study, "rankings").num_rows,
        **{
            name: load_results(study, name, "upper").num_rows  # type: ignore[arg-type]
            for name in ("features", "contexts", "explanations")
        },
    }
    (candidate,) = find_candidates(["saes/upper"], explained)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    total = round(float(sae.encode(torch.ones(2, sae.d_in)).sum()), 4)
    assert done.stdout.splitlines()[-1] == f"['upper'] {rows} {total}"


def test_it_is_a_study(released: Path, explained: Path, run: Run) -> None:
    rows = load_results(Study.open(explained), "explanations").to_pylist()
    feature = next(r for r in rows if r["status"] == "scored")
    code, out, err = run("show", feature["feature"], "--study", released)
    assert code == 0, err
    assert feature["explanation"] in out
    study = Study.open(released)
    concepts = load_concepts(study.configuration.concepts.files, released)
    assert set(concepts.names) >= {"fraud", "violence/threat"}
    assert load_release(released).table("explanations").to_pylist() == rows


def test_nothing_of_this_machine_or_its_keys_is_in_it(
    explained: Path, copy: Copy, tmp_path: Path
) -> None:
    folder = copy(explained)
    change_setting(folder, 'name = "model"', f'name = "{folder}/model"')
    change_setting(folder, '"concepts.jsonl"', f'"{folder}/concepts.jsonl"')
    change_setting(folder, '"corpus.jsonl"', f'"{folder}/corpus.jsonl"')
    change_setting(folder, '"saes/*"', f'"{folder}/saes/*"')
    cfg = folder / "saes/upper/cfg.json"
    content = json.loads(cfg.read_text())
    content["metadata"]["model_name"] = f"{folder}/model"
    cfg.write_text(json.dumps(content))
    with (folder / "safesail.toml").open("a") as file:
        file.write('\n[judge]\nmodel = "m"\nurl = "https://me:s3cret@host:8/v1?key=s3cret"\n')
        file.write(f'prices = "{folder}/prices.toml"\n')
    write_release(Study.open(folder), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path
        assert b"s3cret" not in path.read_bytes(), path
    settings = Study.open(tmp_path / "out").configuration
    assert (settings.model.name, settings.corpus.sources[0].path) == ("model", "corpus.jsonl")
    assert settings.judge.url == "https://host:8/v1"
    assert not (tmp_path / "out/judge.sqlite").exists()
    assert load_release(tmp_path / "out").load_sae("upper").model_name == "model"


def as_sae(folder: Path, specification: str, name: str) -> Path:
    """Call the study's explained SAE by another name, and point its settings there."""
    change_setting(folder, '"saes/*"', f'"{specification}"')
    for path in ("features/upper.parquet", "explanations/upper.parquet", "contexts/upper"):
        (folder / path).rename(folder / path.replace("upper", name))
    return folder


def test_other_layouts_become_saelens(explained: Path, copy: Copy, tmp_path: Path) -> None:
    folder = as_sae(copy(explained), "ckpt_layer2.pt", "ckpt_layer2")
    generator = torch.Generator().manual_seed(3)
    bias = torch.zeros(1, 32)
    tensors = {
        "pre_encoder_bias._bias_reference": bias,
        "encoder.weight": torch.randn(1, 300, 32, generator=generator),
        "encoder.bias": torch.randn(1, 300, generator=generator),
        "decoder.weight": torch.randn(1, 32, 300, generator=generator),
        "post_decoder_bias._bias_reference": bias,
    }
    torch.save(tensors, folder / "ckpt_layer2.pt")
    write_release(Study.open(folder), tmp_path / "out")
    (candidate,) = find_candidates(["ckpt_layer2.pt"], folder)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    found = load_release(tmp_path / "out").load_sae("ckpt_layer2")
    acts = torch.randn(5, 32, generator=generator)
    assert (tmp_path / "out/saes/ckpt_layer2/sae_weights.safetensors").is_file()
    torch.testing.assert_close(found.encode(acts), sae.encode(acts))


def test_published_saes_are_named(explained: Path, copy: Copy, tmp_path: Path) -> None:
    published = "gpt2-small-res-jb:blocks.2.hook_resid_pre"
    name = "gpt2-small-res-jb-blocks.2.hook_resid_pre"
    folder = as_sae(copy(explained), published, name)
    write_release(Study.open(folder), tmp_path / "out")
    assert not (tmp_path / "out/saes").exists()
    release = load_release(tmp_path / "out")
    assert release.manifest["saes"] == {name: published}
    assert release.study.configuration.candidates.saes == [published]
    with pytest.raises(CandidateError, match="cannot be fetched"):
        release.load_sae(name)
    with pytest.raises(CandidateError, match="cannot be fetched"):
        write_release(Study.open(folder), tmp_path / "more", with_weights=True)
    assert not (tmp_path / "more").exists()


def test_published_saes_are_copied_when_asked(explained: Path, copy: Copy, tmp_path: Path) -> None:
    folder = as_sae(copy(explained), "me/saes:upper", "me-saes-upper")
    shutil.copytree(explained / "saes/upper", tmp_path / "hub/me/saes/upper")
    arguments = ["safesail", "release", str(tmp_path / "out"), "--study", str(folder)]
    arguments += ["--with-weights", "--yes"]
    code = f"import sys; sys.argv = {arguments}; from safesail.cli import main; main()"
    with hub(tmp_path / "hub") as endpoint:
        run_with_hub(endpoint, tmp_path / "cache", code)
    release = load_release(tmp_path / "out")
    assert release.manifest["saes"] == {"me-saes-upper": "saes/me-saes-upper"}
    found = release.load_sae("me-saes-upper")
    (candidate,) = find_candidates(["saes/upper"], explained)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    acts = torch.ones(1, sae.d_in)
    torch.testing.assert_close(found.encode(acts), sae.encode(acts))


def test_only_a_release_is_replaced_and_only_when_asked(
    explained: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    assert run("release", out, "--study", explained)[0] == 0
    (out / "features/stray.parquet").write_text("")
    code, _, err = run("release", out, "--study", explained)
    assert code == 1
    assert "holds a release: add --overwrite to replace it" in err
    assert (out / "features/stray.parquet").exists()
    assert run("release", out, "--study", explained, "--overwrite")[0] == 0
    assert not (out / "features/stray.parquet").exists()
    assert list(tmp_path.iterdir()) == [out]


def test_a_study_or_other_things_are_never_replaced(
    explained: Path, copy: Copy, tmp_path: Path, run: Run
) -> None:
    folder = copy(explained)
    for target in (folder, folder.parent, folder / "features"):
        code, _, err = run("release", target, "--study", folder, "--overwrite")
        assert code == 1, target
        assert "give another folder" in err or "it is not replaced" in err
    assert (folder / "explanations/upper.parquet").exists()


def test_what_is_missing_is_named(explained: Path, copy: Copy, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    folder = copy(explained)
    code, _, err = run("release", out, "--study", folder, "--sae", "first")
    assert (code, err.count("\n")) == (1, 1)
    assert "no explanations of SAE 'first'" in err
    assert "there are some of upper" in err
    (folder / "saes/upper").rename(folder / "upper")
    code, _, err = run("release", out, "--study", folder)
    assert (code, err.count("\n")) == (1, 1)
    assert "SAE upper has explanations, but is not there any more" in err
    (folder / "upper").rename(folder / "saes/upper")
    for path, wrong in (
        ("contexts/upper/part-00000.parquet", "run `safesail collect` again"),
        ("features/upper.parquet", "run `safesail rank-saes` again"),
        ("concepts.jsonl", "concepts.jsonl"),
        ("explanations/upper.parquet", "run `safesail explain` first"),
    ):
        (folder / path).rename(folder / "away")
        code, _, err = run("release", out, "--study", folder)
        assert (code, err.count("\n")) == (1, 1)
        assert wrong in err
        assert not out.exists()
        (folder / "away").rename(folder / path)


def test_a_changed_release_is_refused(own: Path) -> None:
    weights = own / "saes/upper/sae_weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=f"{weights} is not the file that was released"):
        load_release(own)
    weights.unlink()
    with pytest.raises(InputError, match=f"{weights} is missing from the release"):
        load_release(own)


def test_what_was_added_to_a_release_is_refused(own: Path) -> None:
    (own / ".gitattributes").write_text("")  # as the hub adds
    load_release(own)
    (own / "explanations/more.parquet").write_text("")
    with pytest.raises(InputError, match=r"more\.parquet was not part of the release"):
        load_release(own)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\\..\\b"])
def test_a_manifest_names_nothing_outside(own: Path, name: str) -> None:
    path = own / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 0}
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="lies outside the release"):
        load_release(own)


def test_what_is_no_release_is_said(own: Path, tmp_path: Path) -> None:
    for content, wrong in (
        ("{", "is damaged"),
        ("[]", "is not of a safesail release"),
        ('{"kind": "safesail release, version 9"}', "is not of a safesail release"),
    ):
        (own / "manifest.json").write_text(content)
        with pytest.raises(InputError, match=wrong):
            load_release(own)
    with pytest.raises(InputError, match="it is no release of safesail"):
        load_release(tmp_path)
