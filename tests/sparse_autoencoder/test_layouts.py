"""Every layout that SAELens can load is read with its makers' numbers, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Endpoint, hub, run_with_hub
from published import D_IN, WIDTH, Published, inputs, publish_all

from safesail.errors import CandidateError
from safesail.sparse_autoencoder import (
    SparseAutoencoder,
    convert,
    directory,
    find_candidates,
)
from safesail.sparse_autoencoder._formats import LAYOUTS, SAFE_SAIL

REFUSED = {"temporal", "mntss_clt_layer_transcoder"}
READ = """
import json, sys
from pathlib import Path
from published import inputs
from safesail.errors import SafesailError
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
for name in json.loads({names!r}):
    try:
        (candidate,) = find_candidates([name], Path())
        sae = SparseAutoencoder.load(candidate, device="cpu")
        z = sae.encode(inputs())
        print(json.dumps([sae.hook_point, sae.output_hook_point, z.tolist(),
                          sae.decode(z).tolist()]))
    except SafesailError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def published(root: Path) -> list[Published]:
    return publish_all(root)


def read_from_hub(endpoint: Endpoint, cache: Path, names: list[str]) -> list:
    """What a process that knows no other hub says of each name."""
    answer = run_with_hub(endpoint, cache, READ.format(names=json.dumps(names)))
    return [json.loads(line) for line in answer.splitlines()]


def check(case: Published, hook_points: list[str], z: torch.Tensor, rebuilt: torch.Tensor) -> None:
    x = inputs()
    expected = case.expected(x)
    assert 0.02 < (expected != 0).float().mean() < 0.7
    torch.testing.assert_close(z, expected, atol=2e-5, rtol=1e-5)
    assert hook_points == [case.hook_point, case.output_hook_point or case.hook_point]
    if case.rebuilt is not None:
        torch.testing.assert_close(rebuilt, case.rebuilt(x), atol=5e-5, rtol=1e-5)


def test_every_loader_of_saelens_is_decided_on(published: list[Published]) -> None:
    """A loader that SAELens adds fails here until it is read, with a test, or refused."""
    from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS

    assert set(LAYOUTS) - {SAFE_SAIL} == set(NAMED_PRETRAINED_SAE_LOADERS)
    assert {name for name, layout in LAYOUTS.items() if layout.refused} == REFUSED
    tested = {case.layout for case in published}
    assert tested == set(LAYOUTS) - REFUSED - {SAFE_SAIL}
    used = {entry.loader for entry in directory()}
    assert used <= {case.layout for case in published if case.candidate} | REFUSED


def test_every_layout_from_the_hub(root: Path, published: list[Published], tmp_path: Path) -> None:
    cases = {case.candidate: case for case in published if case.candidate}
    with hub(root) as endpoint:
        answers = read_from_hub(endpoint, tmp_path / "cache", list(cases))
    assert len(answers) == len(cases)
    for case, answer in zip(cases.values(), answers, strict=True):
        assert not isinstance(answer, str), answer
        reads, rebuilds, z, rebuilt = answer
        check(case, [reads, rebuilds], torch.tensor(z), torch.tensor(rebuilt))


def test_every_layout_as_a_local_copy(root: Path, published: list[Published]) -> None:
    for case in published:
        (candidate,) = find_candidates([case.place], root)
        sae = SparseAutoencoder.load(candidate, device="cpu")
        assert (sae.width, sae.d_in, sae.d_out) == (WIDTH, D_IN, D_IN)
        z = sae.encode(inputs())
        check(case, [sae.hook_point, sae.output_hook_point], z, sae.decode(z))
        assert candidate.layer == sae.layer
        assert candidate.fingerprint() == sae.fingerprint


def test_every_layout_converts_to_a_folder_of_saelens(
    root: Path, published: list[Published], tmp_path: Path
) -> None:
    from sae_lens import SAE

    for number, case in enumerate(published):
        folder = convert(root / case.place, tmp_path / str(number))
        with torch.no_grad():
            written = SAE.load_from_disk(folder, device="cpu")
            written.turn_off_forward_pass_hook_z_reshaping()
            z = written.encode(inputs())
        check(case, _hook_points(written.cfg.metadata, case), z, written(inputs()).detach())
        (candidate,) = find_candidates([str(folder)], folder)
        again = SparseAutoencoder.load(candidate, device="cpu")
        hook_points = [again.hook_point, again.output_hook_point]
        check(case, hook_points, again.encode(inputs()), again.decode(again.encode(inputs())))


def _hook_points(metadata: Any, case: Published) -> list[str]:
    """As SAELens names them: of Gemma Scope 2's transcoders what safesail says more exactly."""
    reads = metadata.hook_name.replace("hook_mlp_in", "mlp.hook_in")
    return [reads, metadata.hook_name_out or reads]


def test_patterns_find_every_layout(root: Path, published: list[Published]) -> None:
    folders = {case.place for case in published if (root / case.place).is_dir()}
    found = find_candidates(["**"], root)
    assert {candidate.source for candidate in found} == {str(root / place) for place in folders}
    (sae,) = find_candidates(["Qwen/*/*"], root)
    assert sae.source.endswith("layer14.sae.pt")
    assert sae.name == "layer14.sae"


def test_what_cannot_be_ranked_is_refused_before_anything_is_fetched(
    root: Path, published: list[Published], tmp_path: Path
) -> None:
    names = [
        "temporal-sae-gemma-2-2b:blocks.12.hook_resid_post",
        "mntss-gemma-2-2b-2.5m-clt-as-per-layer:layer_13",
    ]
    with hub(root) as endpoint:
        temporal, cross_layer = read_from_hub(endpoint, tmp_path / "cache", names)
        assert endpoint.requests == []
    assert temporal.startswith(f"SAE {names[0]} is a temporal SAE: its features depend on the")
    assert cross_layer.startswith(f"SAE {names[1]} is a layer of a cross-layer transcoder")


def refusal(path: Path) -> str:
    (candidate,) = find_candidates([path.name], path.parent)
    with pytest.raises(CandidateError) as caught:
        SparseAutoencoder.load(candidate, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"conf.yaml": "", "latest_ckpt.safetensors": ""}, "is a temporal SAE"),
        ({"weights.bin": "", "readme.md": ""}, "it holds readme.md, weights.bin; an SAE's"),
        ({}, "it holds nothing; an SAE's folder has"),
        ({"params.npz": "x"}, "keep it in folders named as published (gemma-scope-(2b|9b"),
        ({"ae.pt": "x"}, "cannot be loaded: "),
        ({"ae.pt": "x", "config.json": '{"trainer": {"dict_class": "AutoEncoderNew"}}'},
         "is a AutoEncoderNew of dictionary_learning; SAELens reads AutoEncoder, "),
        ({"ae.pt": "x", "config.json": json.dumps({"trainer": {
            "dict_class": "AutoEncoder", "submodule_name": "mlp_out_layer_3", "layer": 3}})},
         "reads 'mlp_out_layer_3'"),
        ({"sae.safetensors": "x", "cfg.json": '{"transcode": true}'}, "sparsify's `transcode`"),
        ({"sae.safetensors": "x", "cfg.json": '{"activation": "groupmax"}'}, "'groupmax'"),
    ],
)  # fmt: skip
def test_local_copies_that_are_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    folder = tmp_path / "some-sae"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    message = refusal(folder)
    assert str(folder) in message
    assert said in message


def test_files_that_are_no_sae(tmp_path: Path) -> None:
    file = tmp_path / "notes.pt"
    file.write_bytes(b"")
    assert "is not an SAE in a layout that is known by its name" in refusal(file)


def test_cross_layer_transcoders_of_gemma_scope_2(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-scope-2-1b-pt" / "clt" / "layer_3_width_16k"
    folder.mkdir(parents=True)
    (folder / "params.safetensors").write_bytes(b"")
    assert "is a layer of a cross-layer transcoder" in refusal(folder)


def test_no_pickle_is_run(tmp_path: Path) -> None:
    """A torch file that would run code on loading is refused, and nothing of it runs."""
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    for name in ("ckpt_layer3.pt", "layer3.sae.pt"):
        folder = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps({"W_enc": Bomb()}))
        refusal(folder / name)
    assert not (tmp_path / "exploded").exists()


def test_the_page_names_every_layout() -> None:
    page = (Path(__file__).parents[2] / "docs" / "saes.md").read_text(encoding="utf-8")
    assert [name for name in LAYOUTS if f"`{name}`" not in page] == []
