"""Finding candidates, and the directory of published SAEs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from safesail.builtin import builtin_path
from safesail.errors import CandidateError
from safesail.sparse_autoencoder import directory, find_candidates


def make(*folders: Path) -> None:
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        hook = f"blocks.{number}.hook_resid_post"
        (folder / "cfg.json").write_text(json.dumps({"metadata": {"hook_name": hook}}))


def names(specifications: list[str], folder: Path) -> list[str]:
    return [candidate.name for candidate in find_candidates(specifications, folder)]


def refusal(specification: str, folder: Path) -> str:
    with pytest.raises(CandidateError) as caught:
        find_candidates([specification], folder)
    message = str(caught.value)
    assert "\n" not in message
    assert specification in message
    return message


def test_folders_relative_and_absolute(tmp_path: Path) -> None:
    make(tmp_path / "one", tmp_path / "deep" / "two")
    found = find_candidates(["./one", str(tmp_path / "deep" / "two")], tmp_path)
    assert [candidate.source for candidate in found] == [
        str(tmp_path / "one"),
        str(tmp_path / "deep" / "two"),
    ]
    assert [(candidate.name, candidate.layer) for candidate in found] == [("one", 0), ("two", 1)]
    assert all(c.folder and c.release is None and c.sae_id is None for c in found)


def test_patterns_match_folders_with_a_configuration(tmp_path: Path) -> None:
    make(tmp_path / "saes" / "b", tmp_path / "saes" / "a", tmp_path / "other" / "c")
    (tmp_path / "saes" / "notes").mkdir()
    assert names(["saes/*"], tmp_path) == ["a", "b"]
    assert names([f"{tmp_path}/saes/*/"], Path("/")) == ["a", "b"]
    assert names(["*/[ac]"], tmp_path) == ["c", "a"]
    assert names(["**"], tmp_path) == ["c", "a", "b"]


def test_an_sae_named_twice_is_one_candidate(tmp_path: Path) -> None:
    make(tmp_path / "a", tmp_path / "b")
    assert names(["b", "*", "./a", str(tmp_path / "a")], tmp_path) == ["b", "a"]


def test_names_are_unique_and_fit_for_files(tmp_path: Path) -> None:
    folders = ["x/sae", "y/sae", "y/SAE 2", "z/deep/sae", "w/deep/sae", "q/a b", "q/a-b"]
    make(*(tmp_path / folder for folder in folders))
    found = names(folders, tmp_path)
    assert found[:5] == ["sae", "y-sae", "SAE-2", "deep-sae", "w-deep-sae"]
    assert found[5:] == ["a-b", "q-a-b"]
    # What is there keeps its name when more is listed after it.
    assert names(folders[:3], tmp_path) == found[:3]


def test_folders_whose_names_say_nothing(tmp_path: Path) -> None:
    make(tmp_path / "§" / "§" / "§", tmp_path / "$" / "$" / "§")
    found = names(["§/§/§", "$/$/§"], tmp_path)
    assert len(set(found)) == 2
    assert all(name and all(c.isalnum() or c in "._-" for c in name) for name in found)


def test_a_released_sae() -> None:
    (found,) = find_candidates(["gpt2-small-res-jb:blocks.8.hook_resid_pre"], Path())
    assert found.name == "gpt2-small-res-jb-blocks.8.hook_resid_pre"
    assert found.source == "gpt2-small-res-jb:blocks.8.hook_resid_pre"
    assert (found.release, found.sae_id) == ("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    assert (found.folder, found.layer) == (None, 8)


def test_patterns_match_ids_of_a_release() -> None:
    found = find_candidates(["gemma-scope-2b-pt-res:layer_12/width_16k/*"], Path())
    assert len(found) == 5
    assert {candidate.layer for candidate in found} == {12}
    assert found[0].name.startswith("gemma-scope-2b-pt-res-layer_12-width_16k-average_l0_")


def test_a_repository_on_the_hub_need_not_be_in_the_directory() -> None:
    (found,) = find_candidates(["someone/my-saes:layer3/k32"], Path())
    assert (found.release, found.sae_id) == ("someone/my-saes", "layer3/k32")
    assert found.name == "someone-my-saes-layer3-k32"


def test_nothing_found_is_said(tmp_path: Path) -> None:
    assert "there is no folder" in refusal("./missing", tmp_path)
    assert "no folder or file with an SAE matches it" in refusal("missing/*", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no folder or file with an SAE matches it" in refusal("empty/*", tmp_path)
    assert "no folder or file with an SAE matches it" in refusal("builtin:nothing", tmp_path)


def test_close_names_are_suggested(tmp_path: Path) -> None:
    assert "gemma-scope-2b-pt-res," in refusal("gemma-scope-2b-pt-re:layer_1", tmp_path)
    message = refusal("gpt2-small-res-jb:blocks.8.hook_resid_pr", tmp_path)
    assert "blocks.8.hook_resid_pre" in message
    assert "nothing in the release" in refusal("gpt2-small-res-jb:nothing*", tmp_path)
    assert "nothing in the release" in refusal("gpt2-small-res-jb:", tmp_path)


def test_the_labs_saes() -> None:
    if not list(builtin_path("lab", "saes").glob("*/cfg.json")):
        pytest.skip("the lab's SAEs are not in this checkout")
    found = find_candidates(["builtin:lab"], Path("/"))
    assert {c.folder for c in found} == {
        path.parent for path in builtin_path("lab", "saes").glob("*/cfg.json")
    }


def test_the_directory_is_saelens_own() -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    theirs = get_pretrained_saes_directory()
    ours = directory()
    assert {(entry.release, entry.sae_id) for entry in ours} == {
        (release, sae_id) for release, lookup in theirs.items() for sae_id in lookup.saes_map
    }
    for entry in ours[::97]:
        lookup = theirs[entry.release]
        assert (entry.repository, entry.model) == (lookup.repo_id, lookup.model)
        assert (entry.path, entry.loader) == (
            lookup.saes_map[entry.sae_id],
            lookup.conversion_func or "sae_lens",
        )
        # Where the directory states no L0, the path of a canonical SAE does.
        in_path = re.search(r"average_l0_(\d+)", entry.path)
        stated = lookup.expected_l0[entry.sae_id] or (float(in_path[1]) if in_path else 0.0)
        assert (entry.l0 or 0.0) == stated
        assert entry.neuronpedia_id == lookup.neuronpedia_id[entry.sae_id]


def test_the_directory_of_one_model() -> None:
    gemma = directory("google/gemma-2-2b")
    assert gemma == directory("Gemma-2-2B")
    assert {entry.model for entry in gemma} == {"gemma-2-2b"}
    assert {entry.model for entry in directory("gpt2")} == {"gpt2-small"}
    assert directory("no-such-model") == []


@pytest.mark.parametrize(
    ("release", "sae_id", "hook_point"),
    [
        # What SAELens' loaders derive from the same names, read in their source.
        ("gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82", "blocks.12.hook_resid_post"),
        ("gemma-scope-2b-pt-mlp-canonical", "layer_3/width_16k/canonical", "blocks.3.hook_mlp_out"),
        ("gemma-scope-9b-pt-att-canonical", "layer_9/width_16k/canonical", "blocks.9.attn.hook_z"),
        ("gemma-scope-2-4b-it-att", "layer_9_width_65k_l0_small", "blocks.9.attn.hook_z"),
        ("gpt2-small-res-jb-feature-splitting", "blocks.8.hook_resid_pre_98304",
         "blocks.8.hook_resid_pre"),
        ("gpt2-small-hook-z-kk", "blocks.6.hook_z", "blocks.6.attn.hook_z"),
        ("llama_scope_lxm_8x", "l31m_8x", "blocks.31.hook_mlp_out"),
        ("llama_scope_lxa_8x", "l4a_8x", "blocks.4.hook_attn_out"),
        ("llama_scope_r1_distill", "l3r_800m_slimpajama", "blocks.3.hook_resid_post"),
        ("qwen-scope-3-8b-base-w64k-l50", "layer35", "blocks.35.hook_resid_post"),
        ("qwen2.5-7b-instruct-andyrdt", "resid_post_layer_27_trainer_1",
         "blocks.27.hook_resid_post"),
        ("sae_bench_pythia70m_sweep_gated_ctx128_0730", "blocks.4.hook_resid_post__trainer_7",
         "blocks.4.hook_resid_post"),
        ("gemma-scope-2b-pt-transcoders", "layer_25/width_16k/average_l0_41", None),
        ("gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_111", None),
    ],
)  # fmt: skip
def test_hook_points_that_names_tell(release: str, sae_id: str, hook_point: str | None) -> None:
    (entry,) = (e for e in directory() if (e.release, e.sae_id) == (release, sae_id))
    assert entry.hook_point == hook_point
    if hook_point is not None:
        assert entry.layer == int(hook_point.split(".")[1])


@pytest.mark.parametrize(
    ("release", "sae_id", "layer", "width", "l0"),
    [
        ("gemma-scope-2b-pt-res", "layer_12/width_65k/average_l0_72", 12, 65_536, 72),
        ("gemma-scope-2b-pt-res-canonical", "layer_12/width_262k/canonical", 12, 262_144, 121),
        ("gemma-scope-2b-pt-res", "layer_5/width_1m/average_l0_114", 5, 1_048_576, 114),
        ("gpt2-small-res-jb-feature-splitting", "blocks.8.hook_resid_pre_12288", 8, 12_288, 43),
        ("gpt2-small-attn-out-v5-32k", "blocks.6.hook_attn_out", 6, 32_768, None),
        ("llama_scope_lxa_32x", "l16a_32x", 16, 131_072, 50),
        ("qwen-scope-3.5-27b-w80k-l50", "layer32", 32, 81_920, 50),
        ("sae_bench_gemma-2-2b_topk_width-2pow12_date-1109",
         "blocks.19.hook_resid_post__trainer_3", 19, 4_096, None),
        ("gpt2-small-res-jb", "blocks.8.hook_resid_pre", 8, None, 71),
    ],
)  # fmt: skip
def test_sizes_that_names_tell(
    release: str, sae_id: str, layer: int, width: int | None, l0: float | None
) -> None:
    """Widths and L0 as the releases' own documents state them."""
    (found,) = find_candidates([f"{release}:{sae_id}"], Path())
    assert (found.layer, found.width) == (layer, width)
    if l0 is None or release != "gpt2-small-res-jb":
        assert found.l0 == l0


def test_only_transcoders_and_embeddings_have_no_hook_point() -> None:
    unknown = [entry for entry in directory() if entry.hook_point is None]
    assert all(
        "transcoder" in entry.release or "-clt-" in entry.release or "embedding" in entry.sae_id
        for entry in unknown
    )


def test_the_directory_needs_neither_torch_nor_saelens() -> None:
    code = (
        "import sys; from safesail.sparse_autoencoder import directory; directory();"
        "print('torch' in sys.modules, 'sae_lens' in sys.modules)"
    )
    answer = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert answer.strip() == "False False"
